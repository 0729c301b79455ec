//! `laneway status --watch`: the status as it changes, until a person has seen enough.
//!
//! On a terminal a picture that is drawn anew: at once when something changes, and each second, because everything has an
//! age. It is on the alternate screen, as a picture may be higher than the terminal and a terminal may be resized; what it
//! showed last stays behind when it leaves. Elsewhere a line for each change. Both go on when the supervisor is replaced,
//! and when nothing runs they wait for what comes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use anstyle::Style;
use nix::sys::signal::{SigSet, Signal, raise};
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::args::Status;
use super::attached::summary;
use super::ctl::{self, AtRest, note, progress_line};
use super::out::{eprintln, println};
use super::place::Fleet;
use super::report::{Failure, INTERRUPTED, TERMINATED};
use super::{paint, signals};
use crate::control::{Change, Client};
use crate::model::{Health, InstanceName, Mono, Phase};
use crate::plan;
use crate::runtime::clock::{Clock, pause};
use crate::runtime::home::Home;
use crate::view::snapshot::{FleetStatus, InstanceStatus};

/// How old a picture may get.
const SECOND: Duration = Duration::from_secs(1);
/// Changes that come together are one picture.
const TOGETHER: Duration = Duration::from_millis(40);
/// A picture that is older than this is called so, in seconds.
const LATE: u64 = 3;
/// From one try to reach the next supervisor to the one after.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// From one look for a fleet that does not run to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `laneway status --watch`.
///
/// # Errors
/// Exit code 2 for an unknown name or a broken file while nothing runs.
pub fn run(fleet: &Fleet, arguments: &Status) -> Result<ExitCode, Failure> {
    // A word that means nobody is said now, not waited for.
    let plan = fleet.running_plan_or_plan()?;
    plan::select(&plan, &arguments.names)?;
    let knows_motion = std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
    if !arguments.json && io::stdout().is_terminal() && knows_motion {
        show(fleet, &arguments.names)
    } else {
        Lines { fleet, arguments, known: BTreeMap::new(), rests: false }.run()
    }
}

/// What a line is about: who has the same is not said again when a supervisor says everything from the beginning.
type Seen = (Phase, Health, u64, Option<u32>);

/// A line for each change.
struct Lines<'a> {
    fleet: &'a Fleet,
    arguments: &'a Status,
    known: BTreeMap<InstanceName, Seen>,
    /// Nothing runs, and that has been said.
    rests: bool,
}

impl Lines<'_> {
    fn run(mut self) -> ! {
        loop {
            let Some(home) = self.fleet.running() else {
                self.at_rest();
                pause(LOOK_AGAIN);
                continue;
            };
            let client = Client::new(home);
            if let Ok(events) = client.events() {
                self.rests = false;
                for change in events {
                    match change {
                        Change::Status(status) => self.all(status),
                        Change::Instance(instance) => self.one(&instance),
                        // What was missed is in the whole.
                        Change::Missed => {
                            if let Ok(status) = client.status() {
                                self.all(status);
                            }
                        }
                    }
                }
            }
            pause(TRY_AGAIN);
        }
    }

    fn all(&mut self, status: FleetStatus) {
        for instance in status.instances {
            if self.known.get(&instance.name) != Some(&seen(&instance)) {
                self.one(&instance);
            }
        }
    }

    fn one(&mut self, instance: &InstanceStatus) {
        self.known.insert(instance.name.clone(), seen(instance));
        if !self.is_wanted(&instance.name) {
            return;
        }
        if self.arguments.json {
            if let Ok(json) = serde_json::to_string(instance) {
                println!("{json}");
            }
        } else {
            let width = self.known.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
            println!("{}", progress_line(instance, width));
        }
    }

    fn is_wanted(&self, name: &InstanceName) -> bool {
        let names = &self.arguments.names;
        let means = |home: Home| ctl::names_of(&home, names).is_ok_and(|names| names.contains(name));
        names.is_empty() || self.fleet.running().is_some_and(means)
    }

    /// Keeper and supervisor are gone, or were never there.
    fn at_rest(&mut self) {
        if std::mem::replace(&mut self.rests, true) {
            return;
        }
        let known = std::mem::take(&mut self.known);
        let is_said = |name: &InstanceName| known.get(name).is_some_and(|(phase, ..)| *phase == Phase::Stopped);
        match AtRest::new(self.fleet, &self.arguments.names) {
            Ok(rest) if self.arguments.json => {
                for (_, instance) in rest.json().into_iter().filter(|(name, _)| !is_said(name)) {
                    println!("{instance}");
                }
            }
            Ok(rest) => eprintln!("{}", rest.why().in_words()),
            // A file that is being written: the next look may be better.
            Err(_) => self.rests = false,
        }
    }
}

fn seen(instance: &InstanceStatus) -> Seen {
    (instance.phase, instance.health, instance.generation, instance.pid)
}

/// What happens while the picture is shown.
enum News {
    Signal(Signal),
    /// How everything is.
    Looked(Picture),
}

/// The picture.
fn show(fleet: &Fleet, names: &[String]) -> Result<ExitCode, Failure> {
    let (sender, news) = mpsc::channel();
    let heard = sender.clone();
    // Before there is another thread: each inherits what is blocked.
    signals::listen_to(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGTSTP, Signal::SIGWINCH], move |signal| {
        let _ = heard.send(News::Signal(signal));
    })?;
    look(fleet.clone(), names.to_vec(), sender);
    let clock = Clock::start();
    let mut screen = Screen { is_entered: false, picture: Picture::default(), taken: clock.now(), clock };
    let end = screen.run(&news);
    screen.leave();
    // What was seen last, where the command was called.
    println!("{}", screen.picture);
    Ok(ExitCode::from(end))
}

/// Asks how everything is: each second, and when something changed. In threads of its own, for a supervisor that does not
/// answer is no reason why Ctrl-C would not be heard.
fn look(fleet: Fleet, names: Vec<String>, news: Sender<News>) {
    let (poke, pokes) = mpsc::channel();
    let of_events = fleet.clone();
    std::thread::spawn(move || {
        loop {
            match of_events.running() {
                Some(home) => {
                    for _ in Client::new(home).events().into_iter().flatten() {
                        let _ = poke.send(());
                    }
                    let _ = poke.send(());
                    pause(TRY_AGAIN);
                }
                None => pause(LOOK_AGAIN),
            }
        }
    });
    std::thread::spawn(move || {
        loop {
            let _ = Picture::take(&fleet, &names).map(|picture| news.send(News::Looked(picture)));
            if pokes.recv_timeout(SECOND).is_ok() {
                pause(TOGETHER);
                while pokes.try_recv().is_ok() {}
            }
        }
    });
}

/// How everything is, as `status` shows it.
#[derive(Debug, Default)]
struct Picture {
    head: String,
    /// Lines that are cut where the terminal ends: columns stay columns.
    table: String,
    /// Lines that go on in the next row.
    notes: String,
}

impl Picture {
    /// `None` while nobody answers.
    fn take(fleet: &Fleet, names: &[String]) -> Option<Self> {
        let told = |notes: &Failure| Self { notes: notes.in_words(), ..Self::default() };
        let Some(home) = fleet.running() else {
            return Some(match AtRest::new(fleet, names) {
                Ok(rest) => Self { table: rest.table().unwrap_or_default(), ..told(&rest.why()) },
                Err(failure) => told(&failure),
            });
        };
        let status = match ctl::only(Client::new(home.clone()).status().ok()?, &home, names) {
            Ok(status) => status,
            Err(failure) => return Some(told(&failure)),
        };
        let ending = if status.ending { "; laneway is on its way down" } else { "" };
        Some(Self {
            head: format!("{}: {}{ending}", status.project, summary(status.instances.iter())),
            table: paint::table(&status.instances),
            notes: status.instances.iter().filter_map(note).collect::<Vec<_>>().join("\n"),
        })
    }

    /// Head, table and notes as they fit, with an empty row between them.
    fn rows(&self, width: usize) -> Vec<String> {
        let head: Vec<_> = self.head.lines().flat_map(|line| fold(line, width)).collect();
        let table: Vec<_> = self.table.lines().map(|line| cut(line, width)).collect();
        let notes: Vec<_> = self.notes.lines().flat_map(|line| fold(line, width)).collect();
        let parts: Vec<_> = [head, table, notes].into_iter().filter(|rows| !rows.is_empty()).collect();
        parts.join(&String::new())
    }
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&str> =
            [&*self.head, &*self.table, &*self.notes].into_iter().filter(|text| !text.is_empty()).collect();
        f.write_str(&parts.join("\n\n"))
    }
}

/// The terminal, and what it shows.
struct Screen {
    is_entered: bool,
    picture: Picture,
    clock: Clock,
    /// When the picture was taken.
    taken: Mono,
}

impl Screen {
    /// Until a signal ends it; the exit code.
    fn run(&mut self, news: &Receiver<News>) -> u8 {
        loop {
            match news.recv_timeout(SECOND + TOGETHER) {
                Ok(News::Looked(picture)) => {
                    self.picture = picture;
                    self.taken = self.clock.now();
                }
                Ok(News::Signal(Signal::SIGTSTP)) => {
                    self.leave();
                    stop_here();
                }
                Ok(News::Signal(Signal::SIGTERM)) => return TERMINATED,
                Ok(News::Signal(Signal::SIGINT)) | Err(RecvTimeoutError::Disconnected) => return INTERRUPTED,
                // Another size, or nothing but time.
                Ok(News::Signal(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
            if self.draw().is_err() {
                // The terminal is gone.
                return INTERRUPTED;
            }
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        // In the background it would write over what a person does.
        if tcgetpgrp(&out).is_ok_and(|group| group != getpgrp()) {
            return Ok(());
        }
        let (width, height) = size();
        let mut frame = String::new();
        if !std::mem::replace(&mut self.is_entered, true) {
            frame.push_str(ENTER);
        }
        frame.push_str(HOME);
        let rows = self.rows(width, height, self.clock.now().since(self.taken));
        for (number, row) in rows.iter().enumerate() {
            if number > 0 {
                frame.push_str("\r\n");
            }
            frame.push_str(CLEAR_LINE);
            frame.push_str(row);
        }
        frame.push_str(CLEAR_BELOW);
        out.write_all(frame.as_bytes())?;
        out.flush()
    }

    /// The picture as it fits: as many lines as there are, none wider than the terminal.
    fn rows(&self, width: usize, height: usize, age: Duration) -> Vec<String> {
        let dim = Style::new().dimmed();
        let foot = match age.as_secs() {
            ..LATE => "Ctrl-C leaves".to_owned(),
            seconds => format!("no answer for {seconds} s, this is how it was; Ctrl-C leaves"),
        };
        let mut rows = self.picture.rows(width);
        let room = height.saturating_sub(2).max(1);
        if rows.len() > room {
            let hidden = rows.len() + 1 - room;
            rows.truncate(room - 1);
            rows.push(cut(&format!("... {hidden} more lines; name instances to see fewer"), width));
        }
        rows.push(String::new());
        rows.push(cut(&format!("{dim}{foot}{dim:#}"), width));
        rows.truncate(height.max(1));
        if paint::is_coloured(&io::stdout()) {
            return rows;
        }
        rows.iter().map(|row| anstream::adapter::strip_str(row).to_string()).collect()
    }

    /// Gives the terminal back as it was.
    fn leave(&mut self) {
        if std::mem::replace(&mut self.is_entered, false) {
            let mut out = io::stdout().lock();
            let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// Stops all threads until `fg`, as the signal would have done: a shell says which one it was.
fn stop_here() {
    let signal = SigSet::from(Signal::SIGTSTP);
    let _ = signal.thread_unblock().and_then(|()| raise(Signal::SIGTSTP)).and_then(|()| signal.thread_block());
}

/// To the alternate screen, without the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[2K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Columns and lines.
fn size() -> (usize, usize) {
    let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// The beginning of a line, at most `width` columns of it. Its colours count for nothing, and all of them stay.
fn cut(line: &str, width: usize) -> String {
    let (mut row, mut columns, mut is_colour) = (String::new(), 0, false);
    for letter in line.chars() {
        is_colour |= letter == '\x1b';
        let wide = if is_colour { 0 } else { letter.width().unwrap_or(0) };
        columns += wide;
        if is_colour || columns <= width {
            row.push(letter);
        }
        is_colour &= letter != 'm';
    }
    row
}

/// A line as rows of at most `width` columns, broken after spaces where there are some. It has no colours: what would be
/// none of the text is left out, as it comes from servers too.
fn fold(line: &str, width: usize) -> Vec<String> {
    let (mut rows, mut row, mut columns, mut space) = (Vec::new(), String::new(), 0, None);
    for letter in line.chars() {
        let Some(wide) = letter.width() else { continue };
        if columns + wide > width && !row.is_empty() {
            let rest = space.take().map(|at| row.split_off(at)).unwrap_or_default();
            columns = rest.width();
            rows.push(std::mem::replace(&mut row, rest));
        }
        row.push(letter);
        columns += wide;
        if letter == ' ' {
            space = Some(row.len());
        }
    }
    rows.push(row);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_never_wider_than_the_terminal() {
        assert_eq!(fold("waits for a port", 9), ["waits ", "for a ", "port"]);
        assert_eq!(fold("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(fold("", 3), [""]);
        assert_eq!(fold("a\u{1b}[2Jb\u{7}", 80), ["a[2Jb"], "nothing moves the cursor");
        assert_eq!(fold("\u{4e2d}\u{4e2d}", 3), ["\u{4e2d}", "\u{4e2d}"], "wide letters take two columns");
        assert_eq!(cut("\u{1b}[32mchat_api\u{1b}[0m  running", 10), "\u{1b}[32mchat_api\u{1b}[0m  ");
        assert_eq!(cut("\u{1b}[32mchat_api\u{1b}[0m", 4), "\u{1b}[32mchat\u{1b}[0m");
    }

    #[test]
    fn a_picture_that_is_too_high_says_what_is_missing() {
        let table: Vec<_> = (0..100).map(|number| format!("web{number}")).collect();
        let picture = Picture { table: table.join("\n"), ..Picture::default() };
        let clock = Clock::start();
        let screen = Screen { is_entered: true, picture, taken: clock.now(), clock };
        let rows = screen.rows(40, 10, Duration::from_secs(4));
        assert_eq!(rows.len(), 10);
        assert!(rows[7].starts_with("... 93 more lines"), "{rows:?}");
        assert!(rows[9].contains("no answer for 4 s"), "{rows:?}");
        for (width, height) in [(1, 1), (1, 100), (200, 2), (3, 3)] {
            assert!(screen.rows(width, height, Duration::ZERO).len() <= height, "{width} {height}");
        }
    }
}
