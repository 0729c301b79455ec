//! What the keeper knows of every log and of the bytes on their way into it, in memory that outlives it: a memfd that
//! both processes hold. The supervisor reads the health of a log from it; the next keeper goes on with the rest.
//!
//! Everything in it is a cell: a version and two copies of a value. A value is written beside the valid one, and one
//! store of the version makes it the valid one. So whatever moment a kill comes at, each cell holds one whole value.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::uio::{pread, pwrite};

use super::memory::{self, Memory};
use super::protocol::SPOOLS;

/// The first word of a journal of this layout.
const MAGIC: u64 = u64::from_le_bytes(*b"journal1");
/// Numbers of a value.
const WORDS: usize = 10;
/// Words of a cell: the version, and two values.
const CELL: usize = 1 + 2 * WORDS;
/// Words before the first cell.
const HEAD: usize = 8;
/// How many logs it has room for: two of each instance, and laneway's own.
pub(super) const LOGS: u32 = 8192;
/// Bytes that are mapped: head, notes and records.
const MAPPED: usize = (HEAD + (SPOOLS as usize + LOGS as usize) * CELL) * size_of::<u64>();

/// The backlog of each log has so many bytes of the file to itself; what is not used takes no memory.
const REGION: u64 = 2 * 1024 * 1024;

type Value = [u64; WORDS];

/// A place in a log: so many bytes into the file that is or will be number `seq`. No file has the number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub seq: u64,
    pub length: u64,
}

/// Why a log is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A call to its file system does not return.
    Stuck,
    /// The system refuses with this error number.
    Error(i32),
}

/// What is known of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The backlog stands between these two, in bytes of the log's region.
    pub start: u64,
    pub end: u64,
    /// Up to here the backlog consists of whole lines.
    pub whole: u64,
    /// Bytes dropped ever, and how many of them a marker in the log speaks of.
    pub dropped: u64,
    pub marked: u64,
    /// The last byte that was dropped is in the middle of a line.
    pub is_amid_line: bool,
    /// If its `seq` is not 0: the beginning of the backlog may stand in the log already, from this place on.
    pub unsure: Place,
    pub trouble: Option<Trouble>,
    /// Since when, in microseconds since 1970.
    pub since: u64,
    /// The number of the newest rotated file.
    pub newest_rotated: u64,
}

/// What the bytes in a spool are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Note {
    /// Nothing: they are where they belong.
    #[default]
    Done,
    /// From `from` on they are being appended to the log, which was at `place`.
    File { log: u32, from: usize, place: Place },
    /// From `from` on they are being put into the log's backlog, whose record had this end and this count.
    Backlog { log: u32, from: usize, end: u64, dropped: u64 },
}

/// How one log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogHealth {
    /// Why it is not written, if it is not.
    pub trouble: Option<Trouble>,
    /// Since when, in microseconds since 1970.
    pub since_micros: u64,
    /// Bytes dropped that no marker in the log speaks of yet.
    pub dropped: u64,
    /// Bytes dropped since the fleet came up.
    pub dropped_ever: u64,
    /// Bytes that wait to be written.
    pub buffered: u64,
    /// Number of the newest rotated file; this one and older ones are not touched again, except to remove them.
    pub newest_rotated: u64,
}

/// An empty journal.
///
/// # Errors
/// When there is no memory or no descriptor.
pub fn create() -> io::Result<OwnedFd> {
    memory::create(c"laneway-journal", MAPPED)
}

/// How the log of `slot` is (see `Order::Log`), read from the journal; `None` if there is no such slot.
#[must_use]
pub fn read(journal: BorrowedFd<'_>, slot: u32) -> Option<LogHealth> {
    read_cell(journal, log_of_slot(slot)?)
}

/// How laneway's own log is.
#[must_use]
pub fn read_own(journal: BorrowedFd<'_>) -> Option<LogHealth> {
    read_cell(journal, OWN)
}

/// Laneway's own log; the log of slot 0 is the one after it.
pub(super) const OWN: u32 = 0;

/// The number that a log has in the journal.
pub(super) fn log_of_slot(slot: u32) -> Option<u32> {
    slot.checked_add(1).filter(|log| *log < LOGS)
}

fn read_cell(journal: BorrowedFd<'_>, log: u32) -> Option<LogHealth> {
    let at = record_cell(log)?.checked_mul(size_of::<u64>())?;
    let mut last = None;
    // The keeper may write meanwhile: what is read twice alike was valid.
    for _ in 0..100 {
        let mut bytes = [0; CELL * size_of::<u64>()];
        let length = pread(journal, &mut bytes, i64::try_from(at).ok()?).ok()?;
        if length != bytes.len() {
            return None;
        }
        if last == Some(bytes) {
            break;
        }
        last = Some(bytes);
    }
    let bytes = last?;
    let mut words = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
    let version = words.next()?;
    let mut value = [0; WORDS];
    let skipped = if version.is_multiple_of(2) { 0 } else { WORDS };
    for (place, word) in value.iter_mut().zip(words.skip(skipped)) {
        *place = word;
    }
    let record = Record::from_value(value);
    Some(LogHealth {
        trouble: record.trouble,
        since_micros: record.since,
        dropped: record.dropped.saturating_sub(record.marked),
        dropped_ever: record.dropped,
        buffered: record.end.saturating_sub(record.start),
        newest_rotated: record.newest_rotated,
    })
}

/// The journal, open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    memory: Memory,
}

impl Journal {
    /// Over a journal, be it fresh or left by a dead keeper.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let journal = Self { memory: Memory::map(file, MAPPED)? };
        let [magic, ..] = journal.memory.words() else { return Err(io::Error::other("no journal")) };
        match magic.load(Ordering::Acquire) {
            0 => magic.store(MAGIC, Ordering::Release),
            MAGIC => {}
            _ => return Err(io::Error::other("a journal of another version")),
        }
        Ok(journal)
    }

    /// What is known of a log.
    pub fn record(&self, log: u32) -> Record {
        record_cell(log).and_then(|at| self.load(at)).map_or_else(Record::default, Record::from_value)
    }

    /// From now on this is known of a log.
    pub fn set_record(&self, log: u32, record: &Record) {
        if let Some(at) = record_cell(log) {
            self.store(at, record.to_value());
        }
    }

    /// What the bytes in this spool are for.
    pub fn note(&self, spool: usize) -> Note {
        note_cell(spool).and_then(|at| self.load(at)).map_or(Note::Done, Note::from_value)
    }

    /// From now on this is what they are for.
    pub fn set_note(&self, spool: usize, note: Note) {
        if let Some(at) = note_cell(spool) {
            self.store(at, note.to_value());
        }
    }

    /// Puts bytes into the region of a log. Returns whether there was memory for them.
    pub fn put(&self, log: u32, offset: u64, mut bytes: &[u8]) -> bool {
        let mut at = region(log).saturating_add(offset);
        while !bytes.is_empty() {
            let Ok(written @ 1..) = pwrite(&self.memory, bytes, i64::try_from(at).unwrap_or(i64::MAX)) else {
                return false;
            };
            at = at.saturating_add(written as u64);
            bytes = bytes.get(written..).unwrap_or_default();
        }
        true
    }

    /// Reads bytes from the region of a log, and returns what it read.
    pub fn get<'a>(&self, log: u32, offset: u64, buffer: &'a mut [u8]) -> &'a [u8] {
        let at = region(log).saturating_add(offset);
        let length = pread(&self.memory, buffer, i64::try_from(at).unwrap_or(i64::MAX)).unwrap_or(0);
        buffer.get(..length).unwrap_or_default()
    }

    /// Gives the memory of a log's region back.
    pub fn clear(&self, log: u32) {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (at, length) = (i64::try_from(region(log)), i64::try_from(REGION));
        if let (Ok(at), Ok(length)) = (at, length) {
            let _ = fallocate(&self.memory, flags, at, length);
        }
    }

    fn cell(&self, at: usize) -> Option<(&AtomicU64, &[AtomicU64], &[AtomicU64])> {
        let cell = self.memory.words().get(at..)?.get(..CELL)?;
        let (version, values) = cell.split_first()?;
        let (even, odd) = values.split_at_checked(WORDS)?;
        Some((version, even, odd))
    }

    fn load(&self, at: usize) -> Option<Value> {
        let (version, even, odd) = self.cell(at)?;
        let valid = if version.load(Ordering::Acquire).is_multiple_of(2) { even } else { odd };
        let mut value = [0; WORDS];
        for (number, word) in value.iter_mut().zip(valid) {
            *number = word.load(Ordering::Relaxed);
        }
        Some(value)
    }

    fn store(&self, at: usize, value: Value) {
        let Some((version, even, odd)) = self.cell(at) else { return };
        let next = version.load(Ordering::Relaxed).wrapping_add(1);
        let other = if next.is_multiple_of(2) { even } else { odd };
        for (number, word) in value.iter().zip(other) {
            word.store(*number, Ordering::Relaxed);
        }
        version.store(next, Ordering::Release);
        // The system calls that follow rely on what was just said.
        fence(Ordering::SeqCst);
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn note_cell(spool: usize) -> Option<usize> {
    (spool < usize::from(SPOOLS)).then(|| HEAD.saturating_add(spool.saturating_mul(CELL)))
}

fn record_cell(log: u32) -> Option<usize> {
    let cells = usize::from(SPOOLS).saturating_add(log as usize);
    (log < LOGS).then(|| HEAD.saturating_add(cells.saturating_mul(CELL)))
}

fn region(log: u32) -> u64 {
    u64::from(log).saturating_mul(REGION).saturating_add(REGION)
}

impl Record {
    fn to_value(self) -> Value {
        let trouble = match self.trouble {
            None => 0,
            Some(Trouble::Stuck) => 1,
            Some(Trouble::Error(number)) => 2 | u64::from(number.cast_unsigned()) << 32,
        };
        let state = trouble | u64::from(self.is_amid_line) << 8;
        let Place { seq, length } = self.unsure;
        let Self { start, end, whole, dropped, marked, since, newest_rotated, .. } = self;
        [start, end, whole, dropped, marked, state, seq, length, since, newest_rotated]
    }

    fn from_value(value: Value) -> Self {
        let [start, end, whole, dropped, marked, state, seq, length, since, newest_rotated] = value;
        let trouble = match state & 0xff {
            1 => Some(Trouble::Stuck),
            2 => Some(Trouble::Error(u32::try_from(state >> 32).unwrap_or(0).cast_signed())),
            _ => None,
        };
        let is_amid_line = state >> 8 & 1 == 1;
        let unsure = Place { seq, length };
        Self { start, end, whole, dropped, marked, is_amid_line, unsure, trouble, since, newest_rotated }
    }
}

impl Note {
    fn to_value(self) -> Value {
        match self {
            Self::Done => [0; WORDS],
            Self::File { log, from, place } => [1, u64::from(log), from as u64, place.seq, place.length, 0, 0, 0, 0, 0],
            Self::Backlog { log, from, end, dropped } => [2, u64::from(log), from as u64, end, dropped, 0, 0, 0, 0, 0],
        }
    }

    fn from_value(value: Value) -> Self {
        let [kind, log, from, first, second, ..] = value;
        let (Ok(log), Ok(from)) = (u32::try_from(log), usize::try_from(from)) else { return Self::Done };
        match kind {
            1 => Self::File { log, from, place: Place { seq: first, length: second } },
            2 => Self::Backlog { log, from, end: first, dropped: second },
            _ => Self::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_by_the_next_and_by_the_supervisor() {
        let file = create().unwrap();
        let journal = Journal::open(file.try_clone().unwrap()).unwrap();
        let record = Record {
            start: 10,
            end: 30,
            whole: 20,
            dropped: 7,
            marked: 3,
            is_amid_line: true,
            unsure: Place { seq: 4, length: 5 },
            trouble: Some(Trouble::Error(28)),
            since: 99,
            newest_rotated: 3,
        };
        let log = log_of_slot(5).unwrap();
        let notes = [
            Note::File { log, from: 6, place: Place { seq: 1, length: 2 } },
            Note::Backlog { log, from: 1, end: 2, dropped: 3 },
        ];
        for (note, trouble) in notes.into_iter().zip([Trouble::Stuck, Trouble::Error(28)]) {
            journal.set_note(3, note);
            journal.set_record(log, &Record { trouble: Some(trouble), ..record });
            let next = Journal::open(file.try_clone().unwrap()).unwrap();
            assert_eq!((next.note(3), next.note(2)), (note, Note::Done));
            assert_eq!(next.record(log), Record { trouble: Some(trouble), ..record });
        }
        let health = read(file.as_fd(), 5).unwrap();
        let expected = LogHealth {
            trouble: Some(Trouble::Error(28)),
            since_micros: 99,
            dropped: 4,
            dropped_ever: 7,
            buffered: 20,
            newest_rotated: 3,
        };
        assert_eq!(health, expected);
        assert_eq!(read(file.as_fd(), 6), Some(LogHealth::default()));
        assert_eq!(read(file.as_fd(), LOGS), None);
    }

    #[test]
    fn each_log_has_a_region_of_its_own() {
        let journal = Journal::open(create().unwrap()).unwrap();
        for log in [OWN, 1, 2, LOGS - 1] {
            assert!(journal.put(log, REGION - 4, &log.to_le_bytes()) && journal.put(log, 0, &log.to_le_bytes()));
        }
        let get = |log, offset| u32::from_le_bytes(journal.get(log, offset, &mut [0; 4]).try_into().unwrap());
        for log in [OWN, 1, 2, LOGS - 1] {
            assert_eq!((get(log, 0), get(log, REGION - 4)), (log, log));
        }
        journal.clear(1);
        assert_eq!((get(OWN, REGION - 4), get(1, 0), get(1, REGION - 4), get(2, 0)), (0, 0, 0, 2));
        assert_eq!(journal.record(LOGS - 1), Record::default());
    }
}
