//! The spool of one thread: bytes that have left a pipe and are not yet in a log.
//!
//! `splice` takes bytes out of the pipe and moves the spool's file position in one system call, and the position belongs
//! to the open file, which the supervisor holds too. So a kill cannot come between "taken" and "known to be taken":
//! what stands before the position was taken, and what the journal's note says of it is done or is to be done.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{SpliceFFlags, splice};
use nix::unistd::{Whence, lseek};

use super::memory::{self, Memory};

/// Most that is taken from a pipe at once, in bytes.
pub(super) const CHUNK: usize = 64 * 1024;
/// The position may be anywhere below `CHUNK` when another chunk comes.
const SIZE: usize = 2 * CHUNK;

/// A spool.
#[derive(Debug)]
pub(super) struct Spool {
    memory: Memory,
}

/// An empty spool.
///
/// # Errors
/// When there is no memory or no descriptor.
pub fn create() -> io::Result<OwnedFd> {
    memory::create(c"laneway-spool", SIZE)
}

impl Spool {
    /// Over a spool, be it fresh or left by a dead keeper.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        Ok(Self { memory: Memory::map(file, SIZE)? })
    }

    /// Up to where bytes stand in it.
    pub fn position(&self) -> usize {
        let position = lseek(&self.memory, 0, Whence::SeekCur).unwrap_or(0);
        usize::try_from(position).unwrap_or(0).min(SIZE)
    }

    /// Forgets what stands in it.
    pub fn rewind(&self) {
        let _ = lseek(&self.memory, 0, Whence::SeekSet);
    }

    /// Takes what there is in a pipe, at most one chunk, without waiting; 0 at its end.
    pub fn fill(&self, pipe: BorrowedFd<'_>) -> nix::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        splice(pipe, None, &self.memory, None, CHUNK, flags)
    }

    /// What stands between two positions.
    pub fn bytes(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: a spool is filled by the one thread that it belongs to, and not while that thread reads it.
        unsafe { self.memory.bytes(from, to) }
    }
}

impl AsFd for Spool {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}
