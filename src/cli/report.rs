//! How a command ends: the exit codes, and what stands on standard error.

use std::io::IsTerminal;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use super::out::eprintln;
use super::paint;
use crate::config::Problems;
use crate::control::ClientError;
use crate::plan;
use crate::view::snapshot::TroubleStatus;

/// Done; all wanted instances are well.
pub const DONE: u8 = 0;
/// Failed; not all are well.
pub const FAILED: u8 = 1;
/// The command line, the file or a name is wrong.
pub const USAGE: u8 = 2;
/// No supervisor, or everything is stopped (LSB).
pub const NOT_RUNNING: u8 = 3;
/// A person interrupted.
pub const INTERRUPTED: u8 = 130;

/// What a shell reports of a program that SIGTERM ended.
pub const TERMINATED: u8 = 128 + 15;

/// What they mean, for `--help` and the manual.
pub const EXIT_CODES: [(&str, &str); 5] = [
    ("0", "done; all that are wanted are well"),
    ("1", "failed, or not all are well"),
    ("2", "the command line, the file or a name is wrong"),
    ("3", "nothing runs"),
    ("128 + N", "ended by signal N: 130 after Ctrl-C"),
];

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The file is wrong.
    Problems(Box<Problems>),
    /// Something else is; with an exit code, and a hint where there is one.
    Other {
        /// The exit code.
        code: u8,
        /// What happened.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl Failure {
    /// With exit code 1.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Other { code: FAILED, what: what.into(), hint: None }
    }

    /// With exit code 2.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Other { code: USAGE, what: what.into(), hint: Some(hint.into()) }
    }

    /// With exit code 3.
    pub fn not_running(what: impl Into<String>) -> Self {
        Self::Other { code: NOT_RUNNING, what: what.into(), hint: None }
    }

    /// The same failure, with something to do about it where it had nothing.
    #[must_use]
    pub fn or_hint(self, hint: &str) -> Self {
        match self {
            Self::Other { code, what, hint: None } => Self::Other { code, what, hint: Some(hint.to_owned()) },
            other => other,
        }
    }

    /// The same for a place where it is shown, not reported.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Problems(problems) => problems.to_string(),
            Self::Other { what, hint: None, .. } => what.clone(),
            Self::Other { what, hint: Some(hint), .. } => format!("{what}\n  hint: {hint}"),
        }
    }

    /// Says it, and gives the exit code.
    #[must_use]
    pub fn report(self) -> ExitCode {
        match self {
            Self::Problems(problems) => {
                let count = problems.len();
                let stderr = std::io::stderr();
                if stderr.is_terminal() || paint::is_coloured(&stderr) {
                    eprintln!("{}\n", problems.render(true));
                } else {
                    eprintln!("{problems}");
                }
                let noun = if count == 1 { "problem" } else { "problems" };
                eprintln!("laneway: {count} {noun}; nothing was started or changed");
                ExitCode::from(USAGE)
            }
            Self::Other { code, what, hint } => {
                say(&what, hint.as_deref());
                ExitCode::from(code)
            }
        }
    }
}

/// One message for people: what, and what to do.
pub fn say(what: &str, hint: Option<&str>) {
    let bold = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    eprintln!("{bold}laneway{bold:#}: {what}");
    if let Some(hint) = hint {
        eprintln!("  hint: {hint}");
    }
}

/// Says whom a request failed for.
pub fn troubles(troubles: &[TroubleStatus]) {
    for trouble in troubles {
        say(&format!("{}: {}", trouble.name, trouble.what), trouble.hint.as_deref());
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Problems(Box::new(problems))
    }
}

impl From<plan::Unknown> for Failure {
    fn from(unknown: plan::Unknown) -> Self {
        Self::usage(unknown.to_string(), unknown.hint)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let what = error.to_string();
        match error {
            ClientError::NoSupervisor { .. } => Self::not_running(what),
            ClientError::Refused(404 | 400 | 422, problem) => Self::Other { code: USAGE, what, hint: problem.hint },
            ClientError::Refused(_, problem) => Self::Other { code: FAILED, what, hint: problem.hint },
            ClientError::Silent | ClientError::Broken(_) | ClientError::Strange(_) => Self::failed(what),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
