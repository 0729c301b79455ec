//! All logs: who has which at hand, what is known of each, and which way its bytes go now. Memory only: nothing here
//! touches a file system.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use rustix::fs::{AtFlags, StatxFlags, statx};

use super::backlog::{LIMIT, LIMIT_OF_ALL};
use super::journal::{Journal, Note, Record, Trouble};
use super::log::LogFile;
use super::protocol::SPOOLS;
use super::spool::Spool;

/// How often a log's place is looked at, and a log in trouble tried again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the next bytes of a log go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Into its file.
    File,
    /// Into its file, after a look at it.
    Look,
    /// Into its backlog.
    Backlog,
}

/// Every log, by its number in the journal.
#[derive(Debug, Default)]
pub(super) struct Logs {
    slots: Vec<Slot>,
    /// Which log each thread is away with, and whether it hangs.
    away: [Option<Away>; SPOOLS as usize],
    /// Bytes in all backlogs.
    backlog: u64,
    /// Some log may have something to be done without new bytes.
    pub is_uneasy: bool,
    /// The supervisor wants to hear of something.
    pub has_news: bool,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    log: u32,
    hangs: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// At hand, unless some thread is away with it or nobody has declared it.
    file: Option<LogFile>,
    is_away: bool,
    /// What was declared since.
    newer: Option<LogFile>,
    /// As it stands in the journal.
    record: Record,
    /// The number of its file system.
    device: Option<u64>,
    /// In time since boot.
    looked_at: Option<Duration>,
    retry_at: Duration,
}

impl Logs {
    /// This is the log from now on.
    pub fn declare(&mut self, log: u32, file: LogFile) {
        let Some(slot) = self.slot(log) else { return };
        slot.device = device_of(file.directory());
        match &slot.file {
            None if !slot.is_away => slot.file = Some(file),
            _ => slot.newer = Some(file),
        }
        // Whoever declares it anew may have mended it.
        slot.retry_at = Duration::ZERO;
        slot.looked_at = None;
        self.is_uneasy = true;
    }

    /// Takes over what a dead keeper left: the records, and what stands in the spools.
    pub fn recover(&mut self, journal: &Journal, spools: &[Spool]) {
        for (log, slot) in (0..).zip(&mut self.slots) {
            slot.record = journal.record(log);
            self.backlog = self.backlog.saturating_add(slot.record.backlog());
        }
        for (number, spool) in spools.iter().enumerate() {
            let end = spool.position();
            let note = journal.note(number);
            match note {
                // The file has grown by what is in it already. To ask it may hang, so that comes later, and until then
                // all of it is backlog. Done once: nothing is put first twice before the backlog is empty.
                Note::File { log, from, place } if from < end => {
                    let record = self.record(log);
                    if !record.has_first() {
                        let put = |offset, bytes: &[u8]| journal.put(log, offset, bytes);
                        self.set_record(journal, log, record.put_first(spool.bytes(from, end), place, put));
                    }
                }
                // One store of the record has taken all of it, or nothing.
                Note::Backlog { log, from, end: old_end, dropped } if from < end => {
                    let record = self.record(log);
                    if (record.end, record.dropped) == (old_end, dropped) {
                        let limit = self.limit(log);
                        let put = |offset, bytes: &[u8]| journal.put(log, offset, bytes);
                        self.set_record(journal, log, record.absorb(spool.bytes(from, end), limit, put));
                    }
                }
                Note::Done | Note::File { .. } | Note::Backlog { .. } => {}
            }
            journal.set_note(number, Note::Done);
            spool.rewind();
        }
        for (log, _) in (0..).zip(&self.slots).filter(|(_, slot)| slot.record.backlog() == 0) {
            journal.clear(log);
        }
        self.is_uneasy = true;
    }

    /// Where bytes go that come now.
    pub fn way(&self, log: u32, now: Duration) -> Way {
        let Some(slot) = self.slots.get(log as usize) else { return Way::Backlog };
        let Some(file) = &slot.file else { return Way::Backlog };
        if !slot.record.is_clear() || now < slot.retry_at || self.is_blocked(slot.device) {
            return Way::Backlog;
        }
        let is_fresh = slot.looked_at.is_some_and(|at| now.saturating_sub(at) < LOOK_EVERY);
        if slot.newer.is_none() && is_fresh && file.place().is_some() { Way::File } else { Way::Look }
    }

    /// A file system that lets one thread hang would let others hang too. The last thread goes to no file at all.
    fn is_blocked(&self, device: Option<u64>) -> bool {
        let hanging = self.away.iter().flatten().filter(|away| away.hangs);
        let is_same = |away: &Away| {
            let other = self.slots.get(away.log as usize).and_then(|slot| slot.device);
            device.is_none() || other.is_none() || other == device
        };
        let mut count = 0_usize;
        let mut is_hit = false;
        for away in hanging {
            count = count.saturating_add(1);
            is_hit |= is_same(away);
        }
        is_hit || count >= usize::from(SPOOLS).saturating_sub(1)
    }

    /// Whether some thread hangs.
    pub fn is_any_hanging(&self) -> bool {
        self.away.iter().flatten().any(|away| away.hangs)
    }

    /// Gives a log to a thread that goes to its files.
    pub fn take(&mut self, log: u32, thread: usize) -> Option<LogFile> {
        let slot = self.slots.get_mut(log as usize)?;
        let file = slot.file.take()?;
        slot.is_away = true;
        if let Some(place) = self.away.get_mut(thread) {
            *place = Some(Away { log, hangs: false });
        }
        Some(file)
    }

    /// What was declared meanwhile, for the thread that has the log.
    pub fn take_newer(&mut self, log: u32) -> Option<LogFile> {
        self.slots.get_mut(log as usize)?.newer.take()
    }

    /// The thread is back with it.
    pub fn give_back(&mut self, journal: &Journal, log: u32, thread: usize, file: LogFile) {
        let newest = file.place().map(|place| place.seq.saturating_sub(1));
        if let Some(place) = self.away.get_mut(thread) {
            *place = None;
        }
        let Some(slot) = self.slot(log) else { return };
        slot.file = Some(file);
        slot.is_away = false;
        let record = slot.record;
        if let Some(newest_rotated) = newest.filter(|newest| *newest != record.newest_rotated) {
            self.set_record(journal, log, Record { newest_rotated, ..record });
            self.has_news = true;
        }
    }

    /// The thread that was away does not come back, for now.
    pub fn hang(&mut self, journal: &Journal, thread: usize, micros: u64) {
        let Some(Some(away)) = self.away.get_mut(thread) else { return };
        away.hangs = true;
        let log = away.log;
        self.set_trouble(journal, log, Some(Trouble::Stuck), micros);
    }

    /// Where the log stands was looked at.
    pub fn looked(&mut self, log: u32, now: Duration) {
        if let Some(slot) = self.slot(log) {
            slot.looked_at = Some(now);
        }
    }

    /// The log cannot be written; it is tried again later.
    pub fn fail(&mut self, journal: &Journal, log: u32, errno: Errno, now: Duration, micros: u64) {
        if let Some(slot) = self.slot(log) {
            slot.retry_at = now.saturating_add(LOOK_EVERY);
            slot.looked_at = None;
        }
        self.is_uneasy = true;
        self.set_trouble(journal, log, Some(Trouble::Error(errno as i32)), micros);
    }

    /// From now on the log has this trouble, or none.
    pub fn set_trouble(&mut self, journal: &Journal, log: u32, trouble: Option<Trouble>, micros: u64) {
        let record = self.record(log);
        if record.trouble != trouble {
            let since = if trouble.is_some() { micros } else { 0 };
            self.set_record(journal, log, Record { trouble, since, ..record });
            self.has_news = true;
        }
    }

    /// Takes bytes that came for a log into its backlog.
    pub fn absorb(&mut self, journal: &Journal, log: u32, bytes: &[u8], now: Duration, micros: u64) {
        let put = |offset, bytes: &[u8]| journal.put(log, offset, bytes);
        let limit = self.limit(log);
        let mut record = self.record(log);
        let slot = self.slots.get(log as usize);
        if slot.is_some_and(|slot| slot.is_away) {
            // Some thread may be writing the end of the backlog: it is not to be cut.
            record.whole = record.start;
        }
        let file = slot.filter(|slot| now >= slot.retry_at).and_then(|slot| slot.file.as_ref());
        let is_hit = slot.is_some_and(|slot| self.is_blocked(slot.device));
        let mut rest = bytes;
        if let Some(file) = file.filter(|_| record.is_dropping() && record.backlog() == 0 && !is_hit)
            && let Some((ending, after)) = record.rest_of_line(bytes).and_then(|end| bytes.split_at_checked(end))
        {
            record = record.absorb(ending, limit, put).mark(file.ends_a_line(), put);
            rest = after;
        }
        self.set_record(journal, log, record.absorb(rest, limit, put));
        self.is_uneasy = true;
        if is_hit && record.trouble.is_none() {
            self.set_trouble(journal, log, Some(Trouble::Stuck), micros);
        }
    }

    /// A stream of the log is over, and so is its last line.
    pub fn end_line(&mut self, journal: &Journal, log: u32) {
        let record = self.record(log);
        if record.is_amid_line {
            self.set_record(journal, log, Record { is_amid_line: false, ..record });
        }
    }

    /// Bytes that the backlog of this log may have.
    fn limit(&self, log: u32) -> u64 {
        LIMIT.min(LIMIT_OF_ALL.saturating_sub(self.backlog).saturating_add(self.record(log).backlog()))
    }

    /// Whether something is to be done for a log without new bytes, and can be.
    pub fn is_due(&self, log: u32, now: Duration) -> bool {
        self.slots.get(log as usize).and_then(|slot| self.due_at(slot)).is_some_and(|at| at <= now)
    }

    /// The next log, from this one on, for which something is to be done; and when the next one that failed is due.
    pub fn next_due(&self, from: u32, now: Duration) -> (Option<u32>, Option<Duration>) {
        let mut later: Option<Duration> = None;
        for (log, slot) in (0..).zip(&self.slots).skip(from as usize) {
            match self.due_at(slot) {
                Some(at) if at <= now => return (Some(log), later),
                Some(at) => later = Some(later.map_or(at, |earliest| earliest.min(at))),
                None => {}
            }
        }
        (None, later)
    }

    fn due_at(&self, slot: &Slot) -> Option<Duration> {
        let record = &slot.record;
        let waits_for_line = record.backlog() == 0 && record.is_amid_line && record.trouble.is_none();
        let is_settled = record.is_clear() && record.trouble.is_none() || waits_for_line;
        // People look for the file of a log as soon as it is declared.
        let is_done = is_settled && slot.looked_at.is_some();
        (!is_done && slot.file.is_some() && !self.is_blocked(slot.device)).then_some(slot.retry_at)
    }

    /// What is known of a log.
    pub fn record(&self, log: u32) -> Record {
        self.slots.get(log as usize).map_or_else(Record::default, |slot| slot.record)
    }

    /// From now on this is known of it.
    pub fn set_record(&mut self, journal: &Journal, log: u32, record: Record) {
        let Some(slot) = self.slot(log) else { return };
        let old = std::mem::replace(&mut slot.record, record);
        if old == record {
            return;
        }
        journal.set_record(log, &record);
        self.backlog = self.backlog.saturating_sub(old.backlog()).saturating_add(record.backlog());
        if old.backlog() > 0 && record.backlog() == 0 {
            journal.clear(log);
        }
    }

    /// Every log that is declared.
    pub fn declared(&self) -> impl Iterator<Item = (u32, &LogFile)> {
        (0..).zip(&self.slots).filter_map(|(log, slot)| Some((log, slot.newer.as_ref().or(slot.file.as_ref())?)))
    }

    fn slot(&mut self, log: u32) -> Option<&mut Slot> {
        let index = log as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index.saturating_add(1), Slot::default);
        }
        self.slots.get_mut(index)
    }
}

/// The number of the file system that a directory is on. Without asking a server that may not answer.
fn device_of(directory: BorrowedFd<'_>) -> Option<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = statx(directory, c"", flags, StatxFlags::empty()).ok()?;
    Some(u64::from(status.stx_dev_major) << 32 | u64::from(status.stx_dev_minor))
}
