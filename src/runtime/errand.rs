//! A command that somebody runs in a lane beside its server: with the lane's environment, in its directory, and under the
//! rules that its server lives under.
//!
//! Called by `cli` and `upkeep`, which decide what becomes of its input and output and wait for it. The server's own
//! processes are born by `spawn`.

use std::fmt;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::lane::{self, LaneError};
use super::{landlock, look};
use crate::machine::Obstacle;
use crate::plan::spec::{Plan, Spec};

/// Why there is no such command.
#[derive(Debug)]
pub enum Hindered {
    /// The lane cannot be prepared, or this kernel cannot hold the command to its rules.
    Lane(LaneError),
    /// There is no such program or working directory; in words.
    Program(String),
}

impl fmt::Display for Hindered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane(error) => write!(f, "the lane cannot be prepared: {error}"),
            Self::Program(what) => f.write_str(what),
        }
    }
}

impl From<LaneError> for Hindered {
    fn from(error: LaneError) -> Self {
        Self::Lane(error)
    }
}

/// The command `words` in the lane of `spec`, not started yet. It may write into the directories `also_write` too, which
/// exist.
///
/// # Errors
/// When the lane, its rules or the program cannot be had.
pub fn in_lane(plan: &Plan, spec: &Spec, words: &[String], also_write: &[PathBuf]) -> Result<Command, Hindered> {
    let environment = lane::prepare(spec, lane::at_once)?;
    let path = spec.environment.get("PATH").map(String::as_str);
    let program = look::program(words, &spec.working_dir, path).map_err(|obstacle| {
        Hindered::Program(match obstacle {
            Obstacle::Program { path, error } => format!("`{}` cannot be run: {error}", path.display()),
            Obstacle::Directory { path, error } => format!("working_dir `{}`: {error}", path.display()),
            other => format!("{other:?}"),
        })
    })?;
    let mut command = Command::new(program);
    if let [name, rest @ ..] = words {
        command.arg0(name).args(rest);
    }
    command.current_dir(&spec.working_dir).env_clear().envs(environment);
    if let Some(rules) = landlock::rules(plan, spec, also_write)? {
        let enter = move || landlock::enter(rules.as_raw_fd()).map_err(Into::into);
        // SAFETY: it makes two system calls, and takes neither memory nor a lock.
        unsafe { command.pre_exec(enter) };
    }
    Ok(command)
}
