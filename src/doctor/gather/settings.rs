//! The settings that a Django project really has, asked of Django itself in each lane, as its server has it: one Python for
//! all lanes that share interpreter and folder. The script says what leaves it; secrets do so as fingerprints.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::doctor::evidence::{Asked, Process, Settings};
use crate::plan::spec::{Framework, Spec};
use crate::runtime::ask;
use crate::runtime::look;

const SCRIPT: &str = include_str!("ask_settings.py");
/// Settings that take longer do more than to be settings.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one interpreter is asked for: which it is, where it stands, where it looks for modules, and what of its
/// environment it minds before a lane's takes its place.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Interpreter {
    python: PathBuf,
    directory: PathBuf,
    path: Vec<PathBuf>,
    environment: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Line {
    name: Option<String>,
    settings: Option<Settings>,
    error: Option<String>,
}

/// The settings of each instance.
pub fn ask(specs: &[&Spec], processes: &[Vec<Process>]) -> Vec<Asked<Settings>> {
    let mut groups: HashMap<Interpreter, Vec<(usize, serde_json::Value)>> = HashMap::new();
    let mut answers: Vec<Asked<Settings>> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let running = processes.get(index).map(Vec::as_slice).unwrap_or_default();
        match question(spec, running) {
            Ok((interpreter, lane)) => {
                groups.entry(interpreter).or_default().push((index, lane));
                answers.push(Asked::Failed("Python did not answer for it".to_owned()));
            }
            Err(why) => answers.push(Asked::Not(why)),
        }
    }
    for (interpreter, lanes) in groups {
        let (indices, lanes): (Vec<usize>, Vec<serde_json::Value>) = lanes.into_iter().unzip();
        let said = run(&interpreter, &lanes);
        for index in indices {
            let name = specs.get(index).map(|spec| spec.name.as_str());
            if let Some(place) = answers.get_mut(index) {
                match &said {
                    Ok(said) => {
                        let line = said.iter().find(|line| line.name.as_deref() == name || line.name.is_none());
                        match line {
                            Some(Line { settings: Some(settings), .. }) => *place = Asked::Got(settings.clone()),
                            Some(Line { error: Some(error), .. }) => {
                                *place = Asked::Failed(format!("its settings cannot be loaded: {error}"));
                            }
                            _ => {}
                        }
                    }
                    Err(why) => *place = Asked::Failed(why.clone()),
                }
            }
        }
    }
    answers
}

/// Whom to ask for an instance, and what; or why not.
fn question(spec: &Spec, running: &[Process]) -> Result<(Interpreter, serde_json::Value), String> {
    if spec.facts.framework != Framework::Django {
        return Err("it is not said to be a Django project (framework: django)".to_owned());
    }
    // Settings may make what they miss, and a doctor makes nothing.
    if !spec.facts.secret_file.exists() || !spec.facts.tmp.exists() {
        return Err("its lane is not made yet".to_owned());
    }
    let words: Vec<&str> = spec.command.iter().flat_map(|word| word.split_whitespace()).collect();
    let environment = environment(spec, running);
    let python = python(&words, &spec.working_dir, environment.get("PATH").map(String::as_str))
        .ok_or_else(|| "no Python is found in its command or beside it".to_owned())?;
    let manage = words.iter().find(|word| word.ends_with("manage.py"));
    let folder = manage.map(|manage| spec.working_dir.join(manage)).and_then(|path| Some(path.parent()?.to_owned()));
    let directory = folder.unwrap_or_else(|| spec.working_dir.clone());
    let minded = |name: &str| ["PATH", "HOME", "LANG", "VIRTUAL_ENV"].contains(&name) || name.starts_with("PYTHON");
    let interpreter = Interpreter {
        python,
        path: vec![directory],
        directory: spec.working_dir.clone(),
        environment: environment.iter().filter(|(name, _)| minded(name)).map(|(n, v)| (n.clone(), v.clone())).collect(),
    };
    let lane = json!({"name": spec.name.as_str(), "environment": environment, "settings": module(&words)});
    Ok((interpreter, lane))
}

/// What the server has in its environment: that of the process that listens, else of the first, else what it would get.
fn environment(spec: &Spec, running: &[Process]) -> BTreeMap<String, String> {
    let serving = running.iter().rev().find(|process| !process.sockets.is_empty());
    let real = serving.or(running.first()).and_then(|process| process.environment.clone());
    real.unwrap_or_else(|| {
        let mut planned = spec.variables();
        if spec.facts.secret_in_environment
            && let Ok(secret) = std::fs::read_to_string(&spec.facts.secret_file)
        {
            planned.insert("SECRET_KEY".to_owned(), secret.trim().to_owned());
        }
        planned
    })
}

/// The interpreter that the command names, or the one beside the program that it names.
fn python(words: &[&str], directory: &Path, search: Option<&str>) -> Option<PathBuf> {
    let programs = words.iter().filter_map(|word| look::program(&[(*word).to_owned()], directory, search).ok());
    let mut beside = None;
    for program in programs {
        let is_python = program.file_name()?.to_str()?.starts_with("python");
        if is_python {
            return Some(program);
        }
        let neighbour = program.with_file_name("python");
        if beside.is_none() && neighbour.exists() {
            beside = Some(neighbour);
        }
    }
    beside
}

/// The settings module, if the command names one.
fn module<'a>(words: &[&'a str]) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == "--settings");
    let next = at.and_then(|at| words.get(at + 1).copied());
    next.or_else(|| words.iter().find_map(|word| word.strip_prefix("--settings=")))
}

fn run(interpreter: &Interpreter, lanes: &[serde_json::Value]) -> Result<Vec<Line>, String> {
    let mut command = Command::new(&interpreter.python);
    command.args(["-c", SCRIPT]).current_dir(&interpreter.directory).env_clear();
    command.envs(interpreter.environment.iter().map(|(name, value)| (name, value)));
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
    let question = json!({"salt": u128::from_ne_bytes(salt).to_string(), "path": interpreter.path, "lanes": lanes});
    let question = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    let said = ask::ask(command, question, PATIENCE).map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => format!("its settings took longer than {} s to load", PATIENCE.as_secs()),
        _ => format!("{}: {}", interpreter.python.display(), look::words(&error)),
    })?;
    Ok(said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_one_that_the_command_names() {
        assert_eq!(module(&["manage.py", "runserver", "--settings=a.b"]), Some("a.b"));
        assert_eq!(module(&["manage.py", "--settings", "a.b", "runserver"]), Some("a.b"));
        assert_eq!(module(&["manage.py", "runserver"]), None);
    }
}
