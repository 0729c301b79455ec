//! What is cached in the memory of a process, which no other process can empty: it is asked to, as the file says how, or
//! started anew.
//!
//! The restart is `cli`'s, through the supervisor. Where a server has several workers, each has a memory of its own, and
//! only the one that happens to be asked empties it; a restart reaches all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::{Kind, Trouble};
use crate::plan::spec::{CacheBackend, Clear, Plan, Spec};
use crate::runtime::errand;
use crate::runtime::page::{self, Question};

/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tells a command what it shall clear.
const TYPE: &str = "CACHE_CLEAR_TYPE";

/// How the memory of an instance's process is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory<'a> {
    /// Nothing of this kind lies there.
    None,
    /// The app knows how.
    Configured(&'a Clear),
    /// Only a new process has an empty one.
    Restart,
}

impl<'a> Memory<'a> {
    /// That of `spec`'s process. Sessions live in the first of two caches.
    #[must_use]
    pub fn of(spec: &'a Spec, kind: Kind) -> Self {
        let cache = &spec.facts.cache;
        let lies_there = match cache.backend {
            CacheBackend::Locmem => true,
            CacheBackend::RedisLocmem => kind != Kind::Session,
            CacheBackend::Redis | CacheBackend::File | CacheBackend::Database | CacheBackend::Dummy => false,
        };
        match &cache.clear {
            _ if !lies_there => Self::None,
            Some(way) => Self::Configured(way),
            None => Self::Restart,
        }
    }

    /// The way in one word, for programs.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Configured(Clear::Http { .. }) => Some("http"),
            Self::Configured(Clear::Command(_)) => Some("command"),
            Self::Restart => Some("restart"),
        }
    }

    /// The way in words, for the plan of a clearing.
    #[must_use]
    pub fn in_words(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Configured(Clear::Http { .. }) => Some("by asking it at its port"),
            Self::Configured(Clear::Command(_)) => Some("by a command in its lane"),
            Self::Restart => Some("by a restart"),
        }
    }
}

/// Asks the app of `spec` to empty its memory; what was done, in words.
///
/// # Errors
/// When it does not answer well.
pub fn ask(plan: &Plan, spec: &Spec, way: &Clear, kind: Kind) -> Result<String, Trouble> {
    match way {
        Clear::Command(words) => command(plan, spec, words, kind),
        Clear::Http { path, headers } => {
            let port = spec.facts.port.ok_or_else(|| Trouble::new("it has no port to be asked at"))?;
            let address = SocketAddr::new(spec.facts.reachable_host(), port);
            let mut sent = vec![("Content-Type", "application/x-www-form-urlencoded")];
            sent.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let question = Question { method: "POST", path, headers: &sent, body: &format!("type={kind}") };
            let answer = page::ask(address, &question, PATIENCE)
                .map_err(|error| Trouble::new(format!("POST http://{address}{path}: {error}")))?;
            match answer.status {
                status @ 200..=299 => Ok(format!("POST {path} answered {status}")),
                status => {
                    Err(Trouble::new(format!("POST http://{address}{path} answered {status}")).hint(match status {
                        300..=399 => {
                            "a redirect, perhaps to a login: let the path be used without one, from this machine"
                        }
                        401 | 403 => "let the path be used without a login and without a CSRF token, or send `headers`",
                        _ => "the path of `cache.clear` has to answer 200 to a POST",
                    }))
                }
            }
        }
    }
}

fn command(plan: &Plan, spec: &Spec, words: &[String], kind: Kind) -> Result<String, Trouble> {
    run(plan, spec, words, &[(TYPE, &kind.to_string())], &[])?;
    Ok(format!("`{}` in its lane", words.join(" ")))
}

/// Runs a command to its end in the lane of `spec`, with `more` in its environment and directories that it may write beside
/// the lane's; what it printed.
///
/// # Errors
/// When it cannot be run, or fails; with its last words.
pub fn run(
    plan: &Plan,
    spec: &Spec,
    words: &[String],
    more: &[(&str, &str)],
    also_write: &[PathBuf],
) -> Result<String, Trouble> {
    let shown = words.join(" ");
    let mut command =
        errand::in_lane(plan, spec, words, also_write).map_err(|hindered| Trouble::new(hindered.to_string()))?;
    command.envs(more.iter().copied()).stdin(Stdio::null());
    let output = command.output().map_err(|error| Trouble::new(format!("`{shown}`: {error}")))?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned());
    if output.status.success() {
        return Ok(said.concat());
    }
    let last = said.iter().rev().find_map(|text| text.lines().last()).unwrap_or("it said nothing");
    let last: String = last.chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect();
    Err(Trouble::new(format!("`{shown}` failed ({}): {last}", output.status)))
}
