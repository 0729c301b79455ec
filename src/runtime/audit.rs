//! The audit: who wished what, when, through which door, and how it ended. Append-only JSON lines, each of which holds
//! the hash of the one before.
//!
//! `{state_dir}/audit.jsonl` is written by the supervisor (`auditor`) and by verbs that act without one; a lock orders
//! them. It knows no verb, and no secret is ever given to it. A wish is one line when it is asked and one when it ended:
//! whoever dies over it leaves the first.
//!
//! A line's `hash` is the SHA-256 of the line up to it, closed with a brace; `prev` is the hash of the line before. So a
//! line that was changed, taken out, put in or moved shows. What no chain shows is that its end was cut off, or that all
//! of it was made anew by somebody who may write the file: for that a head has to be kept elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::clock::{pause, wall_clock};
use crate::model::in_utc;

/// How long others may write, in all.
const PATIENCE: Duration = Duration::from_secs(2);
/// From one try to get the lock to the next.
const RETRY: Duration = Duration::from_millis(2);
/// A file that is this large, in bytes, gets a number, and the next one goes on with its chain.
const FULL: u64 = 10 * 1024 * 1024;
/// So many files with numbers are kept: some 300 000 wishes.
const KEPT: usize = 9;
/// What the first line of all follows.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// What stands between a line and its hash.
const BEFORE_HASH: &str = ",\"hash\":\"";

/// Through which door a wish came. A client of the socket says it of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// A verb of `laneway`.
    Cli,
    /// Ctrl-C at an attached `laneway up`.
    Terminal,
    /// A signal to `laneway up`, to the supervisor or to the keeper.
    Signal,
    /// Anything else that speaks to the socket.
    Api,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cli => "cli",
            Self::Terminal => "terminal",
            Self::Signal => "signal",
            Self::Api => "api",
        })
    }
}

impl Door {
    /// What a client calls it; none if it is no such word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Cli, Self::Terminal, Self::Signal].into_iter().find(|door| door.to_string() == word)
    }
}

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The process.
    pub pid: Option<u32>,
}

impl Peer {
    /// This process.
    #[must_use]
    pub fn me() -> Self {
        Self { uid: nix::unistd::getuid().as_raw(), pid: Some(std::process::id()) }
    }
}

/// A wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Through which door.
    pub door: Door,
    /// Whose it is; a signal does not say.
    pub peer: Option<Peer>,
    /// The verb, in the words of the command line: `stop`, `cache clear`.
    pub verb: String,
    /// Whom it is about; `*` = everybody.
    pub instances: Vec<String>,
    /// What else there is to know: a signal's name, a kind of cache. Never a value of the environment.
    pub detail: Option<String>,
}

impl Act {
    /// A verb of this very process, about `instances`.
    #[must_use]
    pub fn of_command(verb: &str, instances: Vec<String>) -> Self {
        Self { door: Door::Cli, peer: Some(Peer::me()), verb: verb.to_owned(), instances, detail: None }
    }

    /// The same with something more to know.
    #[must_use]
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// How a wish ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// `done`, `failed`, `refused` ...
    pub outcome: &'static str,
    /// What else there is to say.
    pub detail: Option<String>,
}

impl Ending {
    /// As it was wished.
    #[must_use]
    pub fn done() -> Self {
        Self { outcome: "done", detail: None }
    }

    /// Otherwise, and why.
    #[must_use]
    pub fn failed(why: impl Into<String>) -> Self {
        Self { outcome: "failed", detail: Some(why.into()) }
    }
}

/// One line, as it stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts the lines, from 1.
    pub seq: u64,
    /// When, in UTC.
    pub at: String,
    /// Whose wish it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// What that user is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Which process asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Through which door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<Door>,
    /// The verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// Whom it is about; `*` = everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<String>>,
    /// The line of the wish whose end this line says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// So many bytes before this line are the rest of one whose writer died.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub torn: u64,
    /// The hash of the line before.
    pub prev: String,
    /// The hash of this line.
    #[serde(default, skip_serializing)]
    pub hash: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    fn of_act(act: &Act) -> Self {
        let user = act.peer.and_then(|peer| User::from_uid(Uid::from_raw(peer.uid)).ok().flatten());
        Self {
            uid: act.peer.map(|peer| peer.uid),
            user: user.map(|user| user.name),
            pid: act.peer.and_then(|peer| peer.pid),
            door: Some(act.door),
            verb: Some(act.verb.clone()),
            instances: Some(act.instances.clone()),
            detail: act.detail.clone(),
            ..Self::default()
        }
    }

    fn of_ending(of: u64, ending: &Ending) -> Self {
        Self {
            of: Some(of),
            outcome: Some(ending.outcome.to_owned()),
            detail: ending.detail.clone(),
            ..Self::default()
        }
    }
}

/// What a line is.
fn read_line(line: &[u8]) -> Line {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let Ok(entry) = serde_json::from_slice::<Entry>(line) else { return Line::Torn };
    let hashed = line.strip_suffix(b"\"}").and_then(|line| {
        let (rest, hash) = line.split_at_checked(line.len().checked_sub(NOTHING.len())?)?;
        Some((rest.strip_suffix(BEFORE_HASH.as_bytes())?, hash))
    });
    match hashed {
        Some((rest, hash)) if hash_of(rest).as_bytes() == hash => Line::Whole(Box::new(entry)),
        _ => Line::Changed(entry.seq),
    }
}

enum Line {
    Whole(Box<Entry>),
    /// It is an entry, and not what its hash says.
    Changed(u64),
    /// It is none.
    Torn,
}

/// Of a line up to its hash, with the brace that it lacks.
fn hash_of(line: &[u8]) -> String {
    let digest = Sha256::new().chain_update(line).chain_update(b"}").finalize();
    digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// The audit of one fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    path: PathBuf,
    full: u64,
}

/// A wish that was written down, and whose end was not yet.
#[derive(Debug)]
pub struct Begun {
    log: AuditLog,
    seq: u64,
}

impl Begun {
    /// Writes down how it ended.
    ///
    /// # Errors
    /// The system's. The act is done all the same.
    pub fn end(&self, ending: &Ending) -> io::Result<()> {
        self.log.append(Entry::of_ending(self.seq, ending)).map(drop)
    }
}

/// Where the chain of a file ends.
struct Tail {
    seq: u64,
    hash: String,
    /// Bytes after it.
    torn: u64,
    /// The file's last byte ends a line.
    is_ended: bool,
}

impl AuditLog {
    /// Of the fleet with this state directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("audit.jsonl"), full: FULL }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down that something is wished. Blocks.
    ///
    /// # Errors
    /// The system's; others that hold the lock for two seconds. It is no reason not to act.
    pub fn begin(&self, act: &Act) -> io::Result<Begun> {
        Ok(Begun { log: self.clone(), seq: self.append(Entry::of_act(act))? })
    }

    fn append(&self, mut entry: Entry) -> io::Result<u64> {
        let mut file = self.locked()?;
        let mut tail = tail_of(&mut file)?;
        // The end of its line was not written; it is now.
        tail.torn += u64::from(tail.torn > 0 && !tail.is_ended);
        if tail.seq == 0
            && let Some((_, before)) = self.rotated()?.pop_last()
        {
            let before = tail_of(&mut File::open(before)?)?;
            tail = Tail { seq: before.seq, hash: before.hash, torn: tail.torn + before.torn, ..tail };
        }
        entry.seq = tail.seq + 1;
        entry.at = in_utc(wall_clock());
        entry.prev = tail.hash;
        entry.torn = tail.torn;
        let text = serde_json::to_string(&entry)?;
        let open = text.strip_suffix('}').unwrap_or(&text);
        let newline = if tail.is_ended { "" } else { "\n" };
        let line = format!("{newline}{open}{BEFORE_HASH}{}\"}}\n", hash_of(open.as_bytes()));
        let length = file.metadata()?.len();
        // One call: who dies in it leaves a line without its end, which the next one accounts for.
        match file.write(line.as_bytes()) {
            Ok(written) if written == line.len() => Ok(entry.seq),
            partly => {
                let _ = file.set_len(length);
                Err(partly.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into()))
            }
        }
    }

    /// The file, which nobody else writes as long as it is held.
    fn locked(&self) -> io::Result<File> {
        let mut waited = Duration::ZERO;
        loop {
            let flags = O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true).mode(0o600).custom_flags(flags);
            let file = match options.open(&self.path) {
                // Before the first `up`.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(self.folder())?;
                    options.open(&self.path)?
                }
                opened => opened?,
            };
            let found = file.metadata()?;
            if !found.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            let owner = fs::metadata(self.folder())?;
            if found.uid() != owner.uid() && nix::unistd::geteuid().is_root() {
                // Made by root, it is still the fleet's.
                fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            match file.try_lock() {
                Ok(()) => {
                    let is_it = fs::symlink_metadata(&self.path)
                        .is_ok_and(|now| (now.dev(), now.ino()) == (found.dev(), found.ino()));
                    if is_it && found.len() < self.full {
                        return Ok(file);
                    }
                    if is_it {
                        self.rotate()?;
                    }
                }
                Err(TryLockError::WouldBlock) if waited < PATIENCE => {
                    pause(RETRY);
                    waited += RETRY;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::other(format!("somebody has held its lock for {} s", PATIENCE.as_secs())));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Gives the file a number. Its lock is held.
    fn rotate(&self) -> io::Result<()> {
        let mut rotated = self.rotated()?;
        let number = rotated.last_key_value().map_or(1, |(number, _)| number + 1);
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        fs::rename(&self.path, name)?;
        while rotated.len() >= KEPT
            && let Some((_, oldest)) = rotated.pop_first()
        {
            fs::remove_file(oldest)?;
        }
        Ok(())
    }

    /// The files with numbers.
    fn rotated(&self) -> io::Result<BTreeMap<u64, PathBuf>> {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.folder())? {
            let path = entry?.path();
            let number = path.file_name().and_then(|file| file.to_str()?.strip_prefix(name)?.strip_prefix('.'));
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                found.insert(number, path);
            }
        }
        Ok(found)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Every file as it is at one moment, the oldest first.
    fn files(&self) -> io::Result<Vec<Written>> {
        let current = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK).open(&self.path);
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let mut waited = Duration::ZERO;
        while let Ok(current) = &current
            && let Err(TryLockError::WouldBlock) = current.try_lock_shared()
            && waited < PATIENCE
        {
            pause(RETRY);
            waited += RETRY;
        }
        let mut paths = match self.rotated() {
            Err(error) if missing(&error) => return Ok(Vec::new()),
            rotated => rotated?,
        };
        paths.insert(u64::MAX, self.path.clone());
        // The current one ends the list; a file that has none before it, or number 1, is the beginning.
        let mut is_first = paths.first_key_value().is_some_and(|(number, _)| [1, u64::MAX].contains(number));
        let written = paths.into_values().map(|path| {
            let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK).open(&path)?;
            Ok(Written { length: file.metadata()?.len(), path, file, is_first: std::mem::take(&mut is_first) })
        });
        written.filter(|written| !written.as_ref().is_err_and(missing)).collect()
    }

    /// Every line that is one, the oldest first. Whether they follow each other is another question.
    ///
    /// # Errors
    /// The system's.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for written in self.files()? {
            written.each_line(|_, _, line| {
                entries.extend(serde_json::from_slice::<Entry>(line));
                true
            })?;
        }
        Ok(entries)
    }

    /// Follows the chain from its first line to its last. `head` is a hash that was kept elsewhere.
    ///
    /// # Errors
    /// The system's.
    pub fn verify(&self, head: Option<&str>) -> io::Result<Verdict> {
        let mut chain = Chain { has_head: head.is_none(), ..Chain::default() };
        for written in self.files()? {
            chain.is_complete |= written.is_first;
            written.each_line(|path, number, line| chain.take(path, number, line, head))?;
            if chain.fault.is_some() {
                break;
            }
        }
        Ok(chain.verdict())
    }
}

/// A file, and how much of it was written when it was looked at.
struct Written {
    path: PathBuf,
    file: File,
    length: u64,
    /// Nothing was rotated away before it.
    is_first: bool,
}

impl Written {
    /// Calls `take` with every line and its number until that says `false`.
    fn each_line(self, mut take: impl FnMut(&Path, u64, &[u8]) -> bool) -> io::Result<()> {
        let mut reader = BufReader::new(self.file).take(self.length);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 || !take(&self.path, number, &line) {
                break;
            }
        }
        Ok(())
    }
}

/// The last whole line of a file: only as much is read as that needs.
fn tail_of(file: &mut File) -> io::Result<Tail> {
    let length = file.metadata()?.len();
    let mut window = 64 * 1024;
    loop {
        let start = length.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut text = Vec::new();
        Read::by_ref(file).take(length - start).read_to_end(&mut text)?;
        let is_ended = text.last().is_none_or(|byte| *byte == b'\n');
        let mut torn = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n').rev() {
            match read_line(line) {
                Line::Whole(entry) => {
                    return Ok(Tail { seq: entry.seq, hash: entry.hash, torn, is_ended });
                }
                // Not to be taken for the rest of a writer that died.
                Line::Changed(_) => {}
                Line::Torn => torn += line.len() as u64,
            }
        }
        if start == 0 {
            return Ok(Tail { seq: 0, hash: NOTHING.to_owned(), torn, is_ended });
        }
        window *= 8;
    }
}

/// What following the chain showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Lines that follow each other, from the first on.
    pub whole: u64,
    /// The number of the first of them; more than 1 when older ones were rotated away.
    pub first: u64,
    /// The number of the last of them.
    pub last: u64,
    /// Its hash: kept elsewhere, it shows later that nothing up to here was taken away.
    pub head: Option<String>,
    /// The first line that is not as it was written.
    pub fault: Option<Fault>,
    /// The last line has no end, of so many bytes: its writer died, or somebody cut it.
    pub torn: u64,
    /// Writers that died earlier left so many lines without an end; who came after said so.
    pub mended: u64,
    /// The head that was kept elsewhere is in the chain.
    pub has_head: bool,
}

/// A line that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// In which file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// A file, and the number of a line in it.
type PathLine = (PathBuf, u64);

#[derive(Default)]
struct Chain {
    verdict: Verdict,
    fault: Option<Fault>,
    has_head: bool,
    /// It begins with the first line of all.
    is_complete: bool,
    torn: u64,
    /// The first line that is none, until somebody accounts for it.
    torn_at: Option<PathLine>,
}

impl Chain {
    /// Whether it goes on after this line.
    fn take(&mut self, path: &Path, number: u64, line: &[u8], head: Option<&str>) -> bool {
        let here = (path.to_owned(), number);
        let fault = match read_line(line) {
            Line::Whole(entry) => self.follow(*entry, here, head).err(),
            Line::Changed(seq) => Some((here, format!("entry {seq} is not what its hash says: it was changed"))),
            Line::Torn => {
                self.torn += line.len() as u64;
                self.torn_at.get_or_insert(here);
                None
            }
        };
        self.fault = fault.map(|((file, line), what)| Fault { file, line, what });
        self.fault.is_none()
    }

    /// An entry that is as it was written: does it belong here?
    fn follow(&mut self, entry: Entry, here: PathLine, head: Option<&str>) -> Result<(), (PathLine, String)> {
        let (expected, seq) = (self.verdict.last + 1, entry.seq);
        let follows = match &self.verdict.head {
            Some(head) => *head == entry.prev && seq == expected,
            None => {
                if seq == 1 {
                    entry.prev == NOTHING
                } else {
                    !self.is_complete
                }
            }
        };
        if !follows {
            let what = if seq == expected {
                format!("entry {seq} does not follow the line before: what stood there was replaced")
            } else {
                format!("entry {seq} stands where {expected} should: lines were taken out, put in or moved")
            };
            return Err((here, what));
        }
        if self.torn != entry.torn {
            let at = self.torn_at.take().unwrap_or(here);
            return Err((at, format!("what stands before entry {seq} is not what was there when that was written")));
        }
        self.verdict.mended += u64::from(std::mem::take(&mut self.torn) > 0);
        self.torn_at = None;
        if self.verdict.whole == 0 {
            self.verdict.first = seq;
        }
        self.verdict.whole += 1;
        self.verdict.last = seq;
        self.has_head |= head == Some(entry.hash.as_str());
        self.verdict.head = Some(entry.hash);
        Ok(())
    }

    fn verdict(self) -> Verdict {
        Verdict { fault: self.fault, torn: self.torn, has_head: self.has_head, ..self.verdict }
    }
}

#[cfg(test)]
mod tests;
