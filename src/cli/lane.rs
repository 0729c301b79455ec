//! Verbs that use a lane from outside: env, exec.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use super::args::{Env, EnvFormat, Exec};
use super::audit::Audited;
use super::ctl::to_json;
use super::out::println;
use super::place::Fleet;
use super::report::{DONE, Failure, USAGE};
use super::secrets::{HIDDEN, shown};
use crate::plan::spec::{DatabaseSetup, Spec};
use crate::plan::{self, Plan};
use crate::runtime::audit::{Act, Ending};
use crate::runtime::errand::{self, Hindered};
use crate::runtime::{lane, look};
use crate::services::postgres::with_password;
use crate::services::redis::with_login;

/// `laneway env`.
///
/// # Errors
/// Exit code 2 for an unknown name.
pub fn env(fleet: &Fleet, arguments: &Env) -> Result<ExitCode, Failure> {
    let plan = fleet.running_plan_or_plan()?;
    let spec = single(&plan, &arguments.name)?;
    let mut variables = spec.variables();
    if arguments.reveal {
        let act = Act::of_command("env", vec![spec.name.to_string()]).with("--reveal");
        Audited::begin(&plan.state_dir, &act).end(&Ending::done());
        if spec.facts.secret_in_environment {
            let secret = lane::secret(spec).map_err(|error| Failure::failed(error.to_string()))?;
            variables.insert("SECRET_KEY".to_owned(), secret);
        }
        if let Some(url) = lane::database_url(spec).map_err(|error| Failure::failed(error.to_string()))? {
            variables.insert("DATABASE_URL".to_owned(), url);
        }
        for (name, url) in lane::cache_urls(spec).map_err(|error| Failure::failed(error.to_string()))? {
            variables.insert(name.to_owned(), url);
        }
    } else {
        if spec.facts.secret_in_environment {
            variables.insert("SECRET_KEY".to_owned(), HIDDEN.to_owned());
        }
        if let Some(user) = &spec.facts.cache.user {
            // A server gets them with a password, which is hidden as any other.
            for name in ["CACHE_URL", "CHANNELS_URL"] {
                if let Some(url) = variables.get_mut(name) {
                    *url = with_login(url, &user.name, "***");
                }
            }
        }
        if let (Some(DatabaseSetup::Create { .. }), Some(url)) =
            (&spec.database_setup, variables.get_mut("DATABASE_URL"))
        {
            // A server gets one with a password, which is hidden as any other.
            *url = with_password(url, "***");
        }
        for (name, value) in &mut variables {
            *value = shown(name, value);
        }
    }
    match arguments.format {
        EnvFormat::Json => println!("{}", to_json(&variables)?),
        EnvFormat::Shell => {
            for (name, value) in variables {
                println!("export {name}={}", shell_quoted(&value));
            }
        }
        EnvFormat::Dotenv => {
            for (name, value) in variables {
                println!("{name}={}", dotenv_quoted(&value));
            }
        }
    }
    Ok(ExitCode::from(DONE))
}

fn shell_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn dotenv_quoted(value: &str) -> String {
    let mut quoted = String::from('"');
    for c in value.chars() {
        match c {
            '"' | '\\' | '$' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `laneway exec`: becomes the command, with the terminal, in the lane.
///
/// # Errors
/// Exit code 2 for an unknown name or a missing program.
pub fn exec(fleet: &Fleet, arguments: &Exec) -> Result<ExitCode, Failure> {
    let plan = fleet.running_plan_or_plan()?;
    let spec = single(&plan, &arguments.name)?;
    let mut command = errand::in_lane(&plan, spec, &arguments.command, &[]).map_err(|hindered| match hindered {
        Hindered::Lane(_) => Failure::failed(hindered.to_string()),
        Hindered::Program(what) => Failure::Other { code: USAGE, what, hint: None },
    })?;
    // The lane decides over the app, the terminal over how it looks.
    for name in ["TERM", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES"] {
        let is_of_lane = command.get_envs().any(|(known, _)| known == name);
        if let Some(value) = std::env::var_os(name).filter(|_| !is_of_lane) {
            command.env(name, value);
        }
    }
    // Its arguments may hold a secret. Once it is this process, nobody of laneway sees its end.
    let program = command.get_program().display().to_string();
    let act = Act::of_command("exec", vec![spec.name.to_string()]).with(program);
    Audited::begin(&plan.state_dir, &act).end(&Ending { outcome: "started", detail: None });
    let error = command.exec();
    let name = arguments.command.first().map_or("", String::as_str);
    Err(Failure::failed(format!("`{name}`: {}", look::words(&error))))
}

fn single<'a>(plan: &'a Plan, name: &String) -> Result<&'a Spec, Failure> {
    match plan::select(plan, std::slice::from_ref(name))?.as_slice() {
        [id] => Ok(plan.spec(*id)),
        _ => Err(Failure::usage(format!("`{name}` means several instances"), "name one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_reads_back_as_it_was() {
        assert_eq!(shell_quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(dotenv_quoted("a \"b\" $c \\ \n"), r#""a \"b\" \$c \\ \n""#);
    }
}
