//! What the keeper reads: the pipe of each run, the FIFO of each access log, and what the supervisor itself says.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The pipe of the run with this generation.
    Run(u64),
    /// A FIFO, of which a log has one.
    Fifo,
    /// What the supervisor says.
    Output,
}

/// Output on its way into a log.
#[derive(Debug)]
pub(super) struct Stream {
    source: OwnedFd,
    pub log: u32,
    pub kind: Kind,
    /// Its number in the order in which they came.
    age: u64,
    /// When it came there was an older one of the same log, whose bytes stand first.
    has_older: bool,
}

/// All of them, each at a place that it keeps.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: Vec<Option<Stream>>,
    count: u64,
}

/// The event of the stream at place 0; that of place N is N more.
pub(super) const FIRST: u64 = 16;

impl Streams {
    /// Adds a stream; a FIFO and the supervisor's output in place of an earlier one.
    pub fn add(&mut self, epoll: &Epoll, source: OwnedFd, log: u32, kind: Kind) {
        if kind == Kind::Fifo || kind == Kind::Output {
            let is_replaced = |stream: &Stream| stream.kind == kind && stream.log == log;
            while let Some(old) = self.places.iter().position(|place| place.as_ref().is_some_and(is_replaced)) {
                self.close(epoll, old);
            }
        }
        let has_older = self.places.iter().flatten().any(|other| other.log == log);
        self.count = self.count.saturating_add(1);
        let stream = Stream { source, log, kind, age: self.count, has_older };
        let free = self.places.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.places.push(None);
            self.places.len().saturating_sub(1)
        });
        let event = EpollEvent::new(EpollFlags::EPOLLIN, FIRST.saturating_add(index as u64));
        if epoll.add(&stream.source, event).is_ok()
            && let Some(place) = self.places.get_mut(index)
        {
            *place = Some(stream);
        }
    }

    /// Reads it no more. Returns the log that it belonged to.
    pub fn close(&mut self, epoll: &Epoll, index: usize) -> Option<u32> {
        let stream = self.places.get_mut(index)?.take()?;
        // Before the close: a duplicate in another process would keep a closed descriptor firing.
        let _ = epoll.delete(&stream.source);
        Some(stream.log)
    }

    pub fn get(&self, index: usize) -> Option<&Stream> {
        self.places.get(index)?.as_ref()
    }

    /// The place of the stream whose bytes stand before those of this one.
    pub fn older(&mut self, index: usize) -> Option<usize> {
        let stream = self.get(index).filter(|stream| stream.has_older)?;
        let (log, age) = (stream.log, stream.age);
        let older = (0..).zip(&self.places).filter_map(|(index, place)| Some((index, place.as_ref()?)));
        let oldest = older.filter(|(_, other)| other.log == log && other.age < age).min_by_key(|(_, other)| other.age);
        let oldest = oldest.map(|(index, _)| index);
        if let (None, Some(Some(stream))) = (oldest, self.places.get_mut(index)) {
            stream.has_older = false;
        }
        oldest
    }

    /// The place of what the supervisor says.
    pub fn output(&self) -> Option<usize> {
        self.places.iter().position(|place| place.as_ref().is_some_and(|stream| stream.kind == Kind::Output))
    }

    /// One more than the last place.
    pub fn end(&self) -> usize {
        self.places.len()
    }

    /// All that are read, in the order in which they came.
    pub fn all(&self) -> Vec<&Stream> {
        let mut all: Vec<_> = self.places.iter().flatten().collect();
        all.sort_by_key(|stream| stream.age);
        all
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}
