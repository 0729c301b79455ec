//! `laneway logs`: what instances print, merged in the order of time, across restarts and rotations.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::Style;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::args::Logs;
use super::out::CLOSED_PIPE;
use super::paint;
use super::place::Fleet;
use super::report::{DONE, Failure};
use crate::plan::{self, Plan};
use crate::runtime::logs::{Line, LogReader};

/// A directory that is not there yet is looked for again after this long, in milliseconds.
const LOOK_AGAIN: u16 = 500;

/// `laneway logs`.
///
/// # Errors
/// Exit code 2 for an unknown name.
pub fn run(fleet: &Fleet, arguments: &Logs) -> Result<ExitCode, Failure> {
    let plan = fleet.running_plan_or_plan()?;
    let mut logs = MergedLogs::new(&plan, &arguments.names, !arguments.no_prefix)?;
    let printed = logs.print_last(arguments.lines).and_then(|()| if arguments.follow { logs.follow() } else { Ok(()) });
    match printed {
        // Who stopped reading needs no word about it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::from(CLOSED_PIPE)),
        printed => printed.map(|()| ExitCode::from(DONE)).map_err(Failure::from),
    }
}

/// The logs of some instances.
#[derive(Debug)]
pub struct MergedLogs {
    sources: Vec<Source>,
    /// Escapes and other control characters of servers never reach a terminal.
    neutralise: bool,
}

#[derive(Debug)]
struct Source {
    reader: LogReader,
    prefix: Option<(String, Style)>,
}

impl MergedLogs {
    /// Of the instances that `names` mean, standing at the end.
    ///
    /// # Errors
    /// Exit code 2 for an unknown name.
    pub fn new(plan: &Plan, names: &[String], with_prefix: bool) -> Result<Self, Failure> {
        let chosen = plan::select(plan, names)?;
        let width = chosen.iter().map(|id| plan.spec(*id).name.as_str().len()).max().unwrap_or(0);
        let sources = chosen.iter().map(|id| {
            let spec = plan.spec(*id);
            let prefix = (format!("{:width$} | ", spec.name), paint::prefix(id.index()));
            Source { reader: LogReader::at_end(&spec.log_file()), prefix: with_prefix.then_some(prefix) }
        });
        Ok(Self { sources: sources.collect(), neutralise: io::stdout().is_terminal() })
    }

    /// Prints the last `count` lines of all together.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print_last(&self, count: usize) -> io::Result<()> {
        let lines = self.sources.iter().map(|source| source.reader.last(count)).collect();
        let merged = merge(lines);
        self.print(&merged[merged.len().saturating_sub(count)..])
    }

    /// Prints what came since the last call.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print_news(&mut self) -> io::Result<()> {
        let lines = self.sources.iter_mut().map(|source| source.reader.news()).collect();
        self.print(&merge(lines))
    }

    /// Prints what comes, for ever.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn follow(&mut self) -> io::Result<()> {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut missing: Vec<PathBuf> =
            self.sources.iter().map(|source| source.reader.directory().to_owned()).collect();
        missing.sort();
        missing.dedup();
        loop {
            missing.retain(|directory| add(&watch, directory).is_err());
            self.print_news()?;
            let patience = if missing.is_empty() { PollTimeout::NONE } else { PollTimeout::from(LOOK_AGAIN) };
            poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], patience)?;
            let _ = watch.read_events();
        }
    }

    fn print(&self, lines: &[(usize, Line)]) -> io::Result<()> {
        // Only the prefix is coloured. A server's bytes go into a file or a pipe as they are.
        let is_coloured = paint::is_coloured(&io::stdout());
        let mut out = io::stdout().lock();
        for (position, line) in lines {
            if let Some(Some((prefix, style))) = self.sources.get(*position).map(|source| &source.prefix) {
                let style = if is_coloured { *style } else { Style::new() };
                write!(out, "{style}{prefix}{style:#}")?;
            }
            if self.neutralise {
                out.write_all(harmless(&line.text).as_bytes())?;
            } else {
                out.write_all(&line.text)?;
            }
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

fn add(watch: &Inotify, directory: &Path) -> nix::Result<()> {
    let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    watch.add_watch(directory, flags).map(drop)
}

/// In the order of time; what has the same time stays in the order of the instances, and each log in its own.
fn merge(logs: Vec<Vec<Line>>) -> Vec<(usize, Line)> {
    let mut merged: Vec<_> = Vec::new();
    for (position, lines) in logs.into_iter().enumerate() {
        // The wall clock may go back; the order of a log does not.
        let mut latest = 0;
        for line in lines {
            latest = latest.max(line.micros);
            merged.push((latest, position, line));
        }
    }
    merged.sort_by_key(|(micros, position, _)| (*micros, *position));
    merged.into_iter().map(|(_, position, line)| (position, line)).collect()
}

/// Control characters as a person would write them: `^[` for escape.
fn harmless(text: &[u8]) -> String {
    let mut harmless = String::new();
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '\t' => harmless.push(c),
            '\0'..='\x1f' => harmless.extend(['^', char::from((c as u8) ^ 0x40)]),
            '\x7f' => harmless.push_str("^?"),
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                harmless.extend(c.escape_unicode());
            }
            _ => harmless.push(c),
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(micros: u64, text: &str) -> Line {
        Line { micros, text: text.as_bytes().to_vec() }
    }

    #[test]
    fn lines_are_merged_by_time_and_each_log_keeps_its_order() {
        let merged =
            merge(vec![vec![line(10, "a1"), line(30, "a2"), line(5, "a3")], vec![line(20, "b1"), line(30, "b2")]]);
        let texts: Vec<_> = merged.iter().map(|(_, line)| String::from_utf8(line.text.clone()).unwrap()).collect();
        assert_eq!(texts, ["a1", "b1", "a2", "a3", "b2"]);
    }

    #[test]
    fn escapes_are_shown_not_sent() {
        assert_eq!(harmless(b"\x1b[31mred\x1b[0m\ttab \x07"), "^[[31mred^[[0m\ttab ^G");
        assert_eq!(harmless("şube \u{9b}x\u{202e}".as_bytes()), "şube \\u{9b}x\\u{202e}");
        assert_eq!(harmless(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }
}
