//! The way of the bytes: from a pipe over a spool into the log, or into its backlog while the log cannot be written.
//!
//! Only `away` lets go of the lock, around everything that touches a file system. A thread that comes back from there may
//! lead no more: then it brings back what it has, and leaves the rest to the one that leads.

use std::os::fd::AsFd;
use std::sync::atomic::AtomicI32;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use nix::sys::eventfd::EventFd;
use nix::sys::signalfd::SignalFd;

use super::backlog::format_into;
use super::clock::{Stamp, since_boot, wall_clock};
use super::journal::{Journal, Note, OWN, Place};
use super::log::{LogFile, Unwritten, errno_of};
use super::logs::Way;
use super::protocol::SPOOLS;
use super::relay::{Relay, lock};
use super::run::Keeper;
use super::spool::{CHUNK, Spool};

/// What all threads share.
pub(super) struct Shared {
    pub keeper: Mutex<Keeper>,
    pub epoll: Epoll,
    pub signals: SignalFd,
    pub relay: Relay,
    pub journal: Journal,
    /// One for each thread.
    pub spools: Vec<Spool>,
    /// Its number for the system, once it runs.
    pub threads: [AtomicI32; SPOOLS as usize],
    /// Wakes the leader when another thread comes back.
    pub kick: EventFd,
}

/// The right to look at the state and to change it.
pub(super) type Guard<'a> = MutexGuard<'a, Keeper>;

/// What belongs to one thread.
pub(super) struct Desk {
    pub thread: usize,
    /// A copy of what goes from a backlog into its log.
    pub scratch: Box<[u8]>,
    /// Up to where its spool is filled.
    position: usize,
}

/// What became of one look at a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// There may be more.
    More,
    /// There is nothing now.
    Empty,
    /// There will never be anything again.
    End,
}

impl Desk {
    pub fn new(thread: usize) -> Self {
        Self { thread, scratch: vec![0; CHUNK].into_boxed_slice(), position: 0 }
    }

    /// Where the next chunk begins in its spool.
    fn begin(&mut self, spool: &Spool) -> usize {
        if self.position >= CHUNK {
            spool.rewind();
            self.position = 0;
        }
        self.position
    }
}

impl Shared {
    /// Does what may hang. While this thread is away another one may become the leader.
    fn away<'a, T>(&'a self, desk: &Desk, keeper: Guard<'a>, work: impl FnOnce() -> T) -> (Guard<'a>, T) {
        self.relay.begin();
        drop(keeper);
        let result = work();
        let keeper = lock(&self.keeper);
        if keeper.leader == desk.thread {
            self.relay.end();
        } else {
            let _ = self.kick.write(1);
        }
        (keeper, result)
    }

    /// Takes one chunk of what is in a stream.
    pub fn pump<'a>(&'a self, desk: &mut Desk, mut keeper: Guard<'a>, stream: usize) -> (Guard<'a>, Flow) {
        let Some(log) = keeper.streams.get(stream).map(|stream| stream.log) else { return (keeper, Flow::Empty) };
        // What is left of a trouble that is over goes first. The pipe waits for the disk then, as ever: nothing is dropped
        // because there is much.
        while keeper.logs.is_due(log, since_boot()) {
            keeper = self.drain(desk, keeper, log);
            if keeper.leader != desk.thread {
                return (keeper, Flow::More);
            }
        }
        let now = since_boot();
        if keeper.logs.way(log, now) == Way::Look {
            keeper = self.look(desk, keeper, log).0;
            if keeper.leader != desk.thread {
                return (keeper, Flow::More);
            }
        }
        let Some(spool) = self.spools.get(desk.thread) else { return (keeper, Flow::Empty) };
        let from = desk.begin(spool);
        let file = match keeper.logs.way(log, now) {
            Way::File => keeper.logs.take(log, desk.thread),
            Way::Look | Way::Backlog => None,
        };
        // What stands in the spool is spoken of before it stands there.
        let note = if let Some(place) = file.as_ref().and_then(LogFile::place) {
            Note::File { log, from, place }
        } else {
            let record = keeper.logs.record(log);
            Note::Backlog { log, from, end: record.end, dropped: record.dropped }
        };
        self.journal.set_note(desk.thread, note);
        let filled = keeper.streams.get(stream).map_or(Err(Errno::EAGAIN), |stream| spool.fill(stream.as_fd()));
        let flow = match filled {
            Ok(0) => Flow::End,
            Ok(length) => {
                desk.position = from.saturating_add(length);
                Flow::More
            }
            Err(Errno::EAGAIN) => Flow::Empty,
            Err(Errno::EINTR) => Flow::More,
            Err(_) => Flow::End,
        };
        let to = desk.position;
        match file {
            Some(file) if to > from => (self.append(desk, keeper, file, log, from), flow),
            Some(file) => {
                keeper.logs.give_back(&self.journal, log, desk.thread, file);
                (keeper, flow)
            }
            None => {
                keeper.logs.absorb(&self.journal, log, spool.bytes(from, to), now, wall_clock());
                self.journal.set_note(desk.thread, Note::Done);
                (keeper, flow)
            }
        }
    }

    /// Appends what stands in the spool from `from` on.
    fn append<'a>(&'a self, desk: &Desk, keeper: Guard<'a>, mut file: LogFile, log: u32, from: usize) -> Guard<'a> {
        let bytes = self.spools.get(desk.thread).map(|spool| spool.bytes(from, desk.position)).unwrap_or_default();
        let micros = wall_clock();
        let note = |place, written| {
            let from = from.saturating_add(written);
            self.journal.set_note(desk.thread, Note::File { log, from, place });
        };
        let (mut keeper, result) = self.away(desk, keeper, || file.append(bytes, micros, note));
        let logs = &mut keeper.logs;
        if let Err(Unwritten { written, errno }) = result {
            // As if this thread had been killed here, except that it knows how much was written.
            note(Place::default(), written);
            let put = |offset, bytes: &[u8]| self.journal.put(log, offset, bytes);
            let rest = bytes.get(written..).unwrap_or_default();
            let record = logs.record(log).put_first(rest, Place::default(), put);
            logs.set_record(&self.journal, log, record);
            logs.fail(&self.journal, log, errno, since_boot(), micros);
        } else if logs.record(log).trouble.is_some() {
            logs.set_trouble(&self.journal, log, None, micros);
        }
        self.journal.set_note(desk.thread, Note::Done);
        logs.give_back(&self.journal, log, desk.thread, file);
        keeper
    }

    /// Looks whether the log still stands where it belongs, and opens it if it does not. Returns whether it does and this
    /// thread still leads.
    fn look<'a>(&'a self, desk: &Desk, mut keeper: Guard<'a>, log: u32) -> (Guard<'a>, bool) {
        let newer = keeper.logs.take_newer(log);
        let Some(mut file) = keeper.logs.take(log, desk.thread) else { return (keeper, false) };
        let (mut keeper, result) = self.away(desk, keeper, || {
            if let Some(newer) = newer {
                file.replace_by(newer);
            }
            file.look()
        });
        keeper.logs.give_back(&self.journal, log, desk.thread, file);
        let is_well = result.is_ok() && keeper.leader == desk.thread;
        match result {
            Ok(()) => keeper.logs.looked(log, since_boot()),
            Err(error) => keeper.logs.fail(&self.journal, log, errno_of(&error), since_boot(), wall_clock()),
        }
        (keeper, is_well)
    }

    /// Writes one chunk of the backlog of a log, or the marker of what was dropped.
    pub fn drain<'a>(&'a self, desk: &mut Desk, keeper: Guard<'a>, log: u32) -> Guard<'a> {
        let (mut keeper, is_well) = self.look(desk, keeper, log);
        if !is_well {
            return keeper;
        }
        let (now, micros) = (since_boot(), wall_clock());
        if keeper.logs.record(log).backlog() == 0 {
            keeper.logs.absorb(&self.journal, log, &[], now, micros);
            if keeper.logs.record(log).backlog() == 0 {
                keeper.logs.set_trouble(&self.journal, log, None, micros);
            }
            return keeper;
        }
        let record = keeper.logs.record(log);
        let Some(mut file) = keeper.logs.take(log, desk.thread) else { return keeper };
        if record.unsure.seq > 0 {
            let place = record.unsure;
            let (guard, grown) = self.away(desk, keeper, || file.grown_since(place));
            keeper = guard;
            let record = keeper.logs.record(log).advance(grown).sure_from(Place::default());
            keeper.logs.set_record(&self.journal, log, record);
        }
        let record = keeper.logs.record(log);
        // All of it may have stood in the log.
        let is_more = keeper.leader == desk.thread && record.backlog() > 0;
        let Some(place) = file.place().filter(|_| is_more) else {
            keeper.logs.give_back(&self.journal, log, desk.thread, file);
            return keeper;
        };
        let length = usize::try_from(record.backlog()).unwrap_or(CHUNK).min(CHUNK);
        let buffer = desk.scratch.get_mut(..length).unwrap_or_default();
        let length = self.journal.get(log, record.start, buffer).len();
        keeper.logs.set_record(&self.journal, log, record.sure_from(place));
        keeper.logs.writes_to(log, record.start.saturating_add(length as u64));
        let bytes = desk.scratch.get(..length).unwrap_or_default();
        let mut told = 0;
        let begins = |place, written: usize| {
            let mut keeper = lock(&self.keeper);
            let record = keeper.logs.record(log).advance(written.saturating_sub(told) as u64).sure_from(place);
            told = written;
            keeper.logs.set_record(&self.journal, log, record);
        };
        let (mut keeper, result) = self.away(desk, keeper, || file.append(bytes, micros, begins));
        let written = result.map_or_else(|error| error.written, |()| length);
        let record = keeper.logs.record(log).advance(written.saturating_sub(told) as u64).sure_from(Place::default());
        keeper.logs.set_record(&self.journal, log, record);
        keeper.logs.give_back(&self.journal, log, desk.thread, file);
        match result {
            Err(error) => keeper.logs.fail(&self.journal, log, error.errno, since_boot(), micros),
            // Memory that cannot be read any more: not to be asked for again and again.
            Ok(()) if length == 0 => keeper.logs.fail(&self.journal, log, Errno::EIO, since_boot(), micros),
            Ok(()) => keeper.logs.set_trouble(&self.journal, log, None, micros),
        }
        keeper
    }

    /// Does what is to be done for logs without new bytes: one chunk of each backlog. Returns when to come back.
    pub fn tend<'a>(&'a self, desk: &mut Desk, mut keeper: Guard<'a>) -> (Guard<'a>, Option<Duration>) {
        if !keeper.logs.is_uneasy {
            return (keeper, None);
        }
        let now = since_boot();
        let mut next = 0;
        while let (Some(log), _) = keeper.logs.next_due(next, now) {
            keeper = self.drain(desk, keeper, log);
            if keeper.leader != desk.thread {
                return (keeper, None);
            }
            next = log.saturating_add(1);
        }
        let (at_once, later) = keeper.logs.next_due(0, now);
        let next = at_once.map(|_| now).or(later);
        keeper.logs.is_uneasy = next.is_some() || keeper.logs.is_any_hanging();
        (keeper, next)
    }

    /// Says something in laneway's own log.
    pub fn say(&self, keeper: &mut Keeper, what: std::fmt::Arguments<'_>) {
        let mut line = [0; 320];
        let now = wall_clock();
        let text = format_into(&mut line, format_args!("{}  WARN laneway keeper: {what}\n", Stamp(now)));
        keeper.logs.absorb(&self.journal, OWN, text, since_boot(), now);
    }
}
