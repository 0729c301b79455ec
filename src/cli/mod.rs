//! The command line: one command at a time, a client like any other. Argument parsing lives here only.

mod apply;
mod args;
mod attached;
mod audit;
mod cache;
mod completions;
mod ctl;
mod db;
mod help;
mod kill;
mod lane;
mod logs;
mod man;
mod notify;
mod out;
mod paint;
mod place;
mod report;
mod schema;
mod secrets;
mod service;
mod settings;
mod signals;
mod up;
mod upgrade;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use args::{Arguments, PresetUp, Verb};
use place::Fleet;
use report::Failure;

use crate::config::{self, RESERVED_VERBS};
use crate::runtime::compress;
use crate::{daemon, keeper};

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = match read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    paint::decide(arguments.look.color);
    match arguments.verb {
        Verb::Keeper { table } | Verb::Supervisor { table } | Verb::Prove { table }
            if !keeper::table::is_there(table) =>
        {
            Failure::usage("this one is not started by hand", "laneway up starts it").report()
        }
        Verb::Compress { log, last } => match compress::all(&log, last) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => Failure::failed(format!("{}: {error}", log.display())).report(),
        },
        Verb::Complete { shell, position, words } => {
            completions::answer(shell, position, words);
            ExitCode::SUCCESS
        }
        Verb::MakeDatabase => db::make_by_supervisor(),
        Verb::Keeper { table } => code(keeper::run(table)),
        Verb::Prove { table } => code(daemon::prove(table)),
        Verb::Supervisor { table } => code(daemon::run_supervisor(table)),
        _ => dispatch(arguments).unwrap_or_else(Failure::report),
    }
}

fn read(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let words: Vec<_> = words.into_iter().collect();
    let parsed = help::command(None).try_get_matches_from(&words);
    let parsed = match parsed {
        // Whoever asks for help sees the presets of the file, which nobody else has to wait for.
        Err(error) if is_help(&error) => {
            paint::decide_by(words.iter().cloned());
            let settings = help::settings_of(words.iter().cloned()).and_then(|(_, settings)| settings);
            help::command(settings.as_ref()).try_get_matches_from(&words)
        }
        parsed => parsed,
    };
    parsed.and_then(|matches| Arguments::from_arg_matches(&matches))
}

fn is_help(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand)
}

/// Help is no failure; the rest is exit code 2.
fn refuse(error: &clap::Error) -> ExitCode {
    paint::decide_by(std::env::args_os());
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(report::USAGE))
}

fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(report::FAILED))
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { place, values, look: _, verb } = arguments;
    let fleet = Fleet::new(&place, &values)?;
    match verb {
        Verb::Up(arguments) => up::run(&fleet, &arguments),
        Verb::Down(arguments) => ctl::down(&fleet, &arguments),
        Verb::Start(arguments) => ctl::start(&fleet, "/v1/start", &arguments),
        Verb::Restart(arguments) => ctl::start(&fleet, "/v1/restart", &arguments),
        Verb::Apply(arguments) => apply::run(&fleet, &arguments),
        Verb::Stop(arguments) => ctl::stop(&fleet, &arguments),
        Verb::Kill(arguments) => kill::run(&fleet, &arguments),
        Verb::Status(arguments) if arguments.watch => watch::run(&fleet, &arguments),
        Verb::Status(arguments) => ctl::status(&fleet, &arguments),
        Verb::Why(arguments) => ctl::why(&fleet, &arguments),
        Verb::Logs(arguments) => logs::run(&fleet, &arguments),
        Verb::Env(arguments) => lane::env(&fleet, &arguments),
        Verb::Exec(arguments) => lane::exec(&fleet, &arguments),
        Verb::Db(arguments) => db::run(&fleet, &arguments),
        Verb::Config(arguments) => settings::config(&fleet, &arguments),
        Verb::Check(arguments) => settings::check(&fleet, &arguments),
        Verb::Audit(arguments) => audit::run(&fleet, &arguments),
        Verb::Schema => schema::run(),
        Verb::Cache(arguments) => cache::run(&fleet, &arguments),
        Verb::InstallService(arguments) => service::install(&fleet, &arguments),
        Verb::UninstallService(arguments) => service::uninstall(&fleet, &arguments),
        Verb::Other(words) => other(&place, &values, &words),
        Verb::Upgrade(arguments) => upgrade::run(&fleet, &arguments),
        Verb::Completions(arguments) => {
            completions::print(arguments.shell);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Man(arguments) => man::run(&arguments),
        Verb::Keeper { .. }
        | Verb::Supervisor { .. }
        | Verb::Prove { .. }
        | Verb::Compress { .. }
        | Verb::MakeDatabase
        | Verb::Complete { .. } => Ok(ExitCode::from(report::USAGE)),
    }
}

/// What other tools call it, and what it is called here.
const ELSEWHERE: [(&str, &str); 17] = [
    ("reload", "laneway apply (after a change of the file), or laneway restart NAME"),
    ("tail", "laneway logs -f NAME"),
    ("ls", "laneway status"),
    ("list", "laneway status"),
    ("monit", "laneway status --watch, laneway why NAME"),
    ("top", "laneway status --watch"),
    ("watch", "laneway status --watch"),
    ("signal", "laneway kill -s SIGNAL NAME"),
    ("completion", "laneway completions bash|zsh|fish"),
    ("enable", "laneway start NAME"),
    ("disable", "laneway stop NAME"),
    ("delete", "laneway stop NAME"),
    ("rm", "laneway stop NAME"),
    ("run", "laneway exec NAME -- COMMAND"),
    ("validate", "laneway check"),
    ("shutdown", "laneway down"),
    ("log", "laneway logs NAME"),
];

/// A preset, or a word that is none.
fn other(place: &args::Place, values: &args::Values, words: &[String]) -> Result<ExitCode, Failure> {
    let Some((word, rest)) = words.split_first() else {
        return Err(Failure::usage("no verb", "laneway --help"));
    };
    if let Some((_, here)) = ELSEWHERE.iter().find(|(theirs, _)| theirs == word) {
        return Err(Failure::usage(format!("there is no verb `{word}`"), format!("here it is: {here}")));
    }
    let flags = match preset_flags(word, rest) {
        Ok(flags) => flags,
        Err(error) => return Ok(refuse(&error)),
    };
    paint::decide(flags.look.color);
    let mut all = values.clone();
    all.profile = flags.values.profile.clone().or(all.profile);
    all.set.extend(flags.values.set.clone());
    let fleet = Fleet::new(place, &all)?;
    let (settings, problems) = config::read(fleet.source());
    let Some(settings) = settings else { return Err(problems.into()) };
    match settings.presets.get(word) {
        Some(preset) => {
            let names = preset.instances.iter().map(ToString::to_string).collect();
            up::preset(fleet, names, preset.profile.clone(), &flags)
        }
        None if !problems.is_empty() => Err(problems.into()),
        None => {
            let presets: Vec<&str> = settings.presets.keys().map(String::as_str).collect();
            let known = presets.iter().copied().chain(RESERVED_VERBS.into_iter().filter(|verb| is_verb(verb)));
            let hint = match config::nearest_name(word, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if presets.is_empty() => "laneway --help lists the verbs; the file has no presets".to_owned(),
                None => format!("laneway --help lists the verbs; presets are {}", presets.join(", ")),
            };
            Err(Failure::usage(format!("there is no verb or preset `{word}`"), hint))
        }
    }
}

fn preset_flags(word: &str, rest: &[String]) -> Result<PresetUp, clap::Error> {
    let words = std::iter::once(word.to_owned()).chain(rest.iter().cloned());
    PresetUp::from_arg_matches(&help::preset(word).try_get_matches_from(words)?)
}

fn is_verb(word: &str) -> bool {
    help::command(None).get_subcommands().any(|verb| verb.get_name() == word && !verb.is_hide_set())
}
