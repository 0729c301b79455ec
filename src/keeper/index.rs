//! The index of a log: when which byte came, as records of (time, seq, offset). Logs are merged in the order of time by
//! it. An index that cannot be written costs order, not lines.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::BorrowedFd;

use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::log::open_plain;
use super::names::Name;

/// Bytes of one index record: three little-endian numbers of 8 bytes.
pub const INDEX_RECORD: usize = 24;
/// No two records are closer than this, in microseconds: what comes in between has the time of the first.
const GRAIN: u64 = 10_000;
/// Records that are read at once when old ones are removed.
const BATCH: usize = 128;

/// From `offset` of the file that is or will be number `seq` on, the bytes came at `micros` or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRecord {
    /// Microseconds since 1970.
    pub micros: u64,
    /// Number of the file.
    pub seq: u64,
    /// Bytes into it.
    pub offset: u64,
}

impl IndexRecord {
    /// As it stands in the file.
    #[must_use]
    pub fn to_bytes(self) -> [u8; INDEX_RECORD] {
        let mut bytes = [0; INDEX_RECORD];
        for (place, number) in bytes.chunks_exact_mut(8).zip([self.micros, self.seq, self.offset]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// As read from the file.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; INDEX_RECORD]) -> Self {
        let mut numbers = bytes.chunks_exact(8).map(|chunk| chunk.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || numbers.next().unwrap_or_default();
        Self { micros: next(), seq: next(), offset: next() }
    }
}

/// The index of one log, open for writing.
#[derive(Debug)]
pub(super) struct Index {
    file: Option<File>,
    last: Option<(u64, u64)>,
}

impl Index {
    /// Opens or makes it.
    pub fn open(directory: BorrowedFd<'_>, name: &Name) -> Self {
        let index = Self { file: open_plain(directory, name.index().as_str()).ok(), last: None };
        index.cut_to_whole_records();
        index
    }

    /// Notes that a byte comes now, unless one has just been noted.
    pub fn note(&mut self, record: IndexRecord) {
        let is_close = |(seq, last)| seq == record.seq && record.micros.saturating_sub(last) < GRAIN;
        if self.last.is_some_and(is_close) {
            return;
        }
        self.last = Some((record.seq, record.micros));
        if self.file.as_mut().is_some_and(|file| file.write_all(&record.to_bytes()).is_err()) {
            self.cut_to_whole_records();
        }
    }

    /// A write may end in the middle, when the disk is full or the writer is killed.
    fn cut_to_whole_records(&self) {
        let Some(file) = &self.file else { return };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let rest = length.checked_rem(INDEX_RECORD as u64).unwrap_or(0);
        if rest > 0 {
            let _ = file.set_len(length.saturating_sub(rest));
        }
    }

    /// Removes what it says of files older than `oldest`. Not removed is not wrong, only longer.
    pub fn forget(&mut self, directory: BorrowedFd<'_>, name: &Name, oldest: u64) -> io::Result<()> {
        let mut old = open_plain(directory, name.index().as_str())?;
        old.rewind()?;
        let new_name = name.new_index();
        let _ = unlinkat(directory, new_name.as_str(), UnlinkatFlags::NoRemoveDir);
        let mut new = open_plain(directory, new_name.as_str())?;
        let mut buffer = [0; BATCH * INDEX_RECORD];
        loop {
            let length = old.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            // Records are in order: from the first that is kept on, all are.
            let (records, _) = buffer.get(..length).unwrap_or_default().as_chunks();
            let is_old = |bytes: &&[u8; INDEX_RECORD]| IndexRecord::from_bytes(bytes).seq < oldest;
            let skipped = records.iter().take_while(is_old).count();
            new.write_all(records.get(skipped..).unwrap_or_default().as_flattened())?;
        }
        renameat(directory, new_name.as_str(), directory, name.index().as_str())?;
        self.file = Some(new);
        Ok(())
    }
}
