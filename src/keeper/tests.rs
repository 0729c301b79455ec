//! The way of the bytes through spool, backlog and log, with kills between any two steps of it: nothing is lost, doubled or
//! out of order, and what is dropped is counted to the byte.
//!
//! The steps are those of `writer`, `logs` and `log`, over a pipe, a spool and files that are plain data; what is kept and
//! dropped is decided by the real `Record`.

use std::cell::RefCell;

use proptest::prelude::any;
use proptest::{collection, proptest};

use super::backlog::LIMIT;
use super::journal::{Note, Place, Record};

/// A size of a log's file after which it rotates.
const MAX_SIZE: u64 = 150;
/// Where the spool is rewound.
const REWIND: usize = 120;

/// The keeper was killed.
struct Killed;

/// Decisions of fate, one by one; calm when they are used up.
struct Fate(Vec<u16>);

impl Fate {
    fn next(&mut self) -> u16 {
        self.0.pop().unwrap_or(u16::MAX)
    }

    /// True once in so many cases.
    fn hits(&mut self, out_of: u16) -> bool {
        let next = self.next();
        next != u16::MAX && next.is_multiple_of(out_of)
    }

    fn is_used_up(&self) -> bool {
        self.0.is_empty()
    }
}

/// What outlives a keeper.
struct World {
    fate: Fate,
    /// Everything that was said, and how much of it left the pipe.
    said: Vec<u8>,
    taken: usize,
    spool: Vec<u8>,
    position: usize,
    note: Note,
    record: Record,
    region: RefCell<Vec<u8>>,
    /// The files of the log; the number of the last one is how many there are.
    files: Vec<Vec<u8>>,
    lines: u32,
    kills: u32,
}

/// What a keeper has in its own memory.
struct Keeper {
    position: usize,
    limit: u64,
}

impl World {
    fn new(fate: Vec<u16>) -> Self {
        Self {
            fate: Fate(fate),
            said: Vec::new(),
            taken: 0,
            spool: vec![0; 2 * REWIND],
            position: 0,
            note: Note::Done,
            record: Record::default(),
            region: RefCell::new(Vec::new()),
            files: vec![Vec::new()],
            lines: 0,
            kills: 0,
        }
    }

    /// A point at which the keeper may be killed.
    fn step(&mut self) -> Result<(), Killed> {
        if self.fate.hits(9) {
            self.kills += 1;
            return Err(Killed);
        }
        Ok(())
    }

    fn set_note(&mut self, note: Note) -> Result<(), Killed> {
        self.step()?;
        self.note = note;
        self.step()
    }

    fn set_record(&mut self, record: Record) -> Result<(), Killed> {
        self.step()?;
        self.record = record;
        self.step()
    }

    fn say(&mut self) {
        self.lines += 1;
        let line = format!("{:05} {}\n", self.lines, "x".repeat(usize::from(self.fate.next() % 40)));
        self.said.extend(line.into_bytes());
    }

    fn place(&self) -> Place {
        let length = self.files.last().map_or(0, |file| file.len() as u64);
        Place { seq: self.files.len() as u64, length }
    }

    fn ends_a_line(&self) -> bool {
        self.files.last().is_none_or(|file| file.last().is_none_or(|byte| *byte == b'\n'))
    }

    fn grown_since(&self, place: Place) -> u64 {
        let file = usize::try_from(place.seq).ok().and_then(|seq| self.files.get(seq.checked_sub(1)?));
        file.map_or(0, |file| (file.len() as u64).saturating_sub(place.length))
    }

    fn put(region: &RefCell<Vec<u8>>, offset: u64, bytes: &[u8]) -> bool {
        let at = usize::try_from(offset).unwrap();
        let mut region = region.borrow_mut();
        let length = region.len().max(at + bytes.len());
        region.resize(length, 0);
        region[at..at + bytes.len()].copy_from_slice(bytes);
        true
    }

    /// `LogFile::append`. An error says how much was written.
    fn append(
        &mut self,
        bytes: &[u8],
        mut begins: impl FnMut(&mut Self, Place, usize) -> Result<(), Killed>,
    ) -> Result<Result<(), usize>, Killed> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            let room = usize::try_from(MAX_SIZE.saturating_sub(self.place().length)).unwrap();
            let end = rest[..room.min(rest.len())].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let now = if rest.len() <= room || !self.ends_a_line() && end == 0 { rest } else { &rest[..end] };
            self.step()?;
            if self.fate.hits(17) {
                // The disk is full amid the bytes.
                let some = usize::from(self.fate.next()) % (now.len() + 1);
                self.files.last_mut().unwrap().extend(&now[..some]);
                self.step()?;
                return Ok(Err(written + some));
            }
            self.files.last_mut().unwrap().extend(now);
            written += now.len();
            self.step()?;
            if written < bytes.len() {
                self.files.push(Vec::new());
                self.step()?;
                let place = self.place();
                begins(self, place, written)?;
            }
        }
        Ok(Ok(()))
    }
}

impl Keeper {
    /// `Logs::recover`
    fn start(world: &mut World) -> Result<Self, Killed> {
        let end = world.position;
        let limit = if world.fate.hits(3) { 60 } else { LIMIT };
        let region = world.region.take();
        let cell = RefCell::new(region);
        let put = |offset: u64, bytes: &[u8]| World::put(&cell, offset, bytes);
        let record = world.record;
        let new = match world.note {
            Note::File { from, place, .. } if from < end && !record.has_first() => {
                record.put_first(&world.spool[from..end], place, put)
            }
            Note::Backlog { from, end: old, dropped, .. }
                if from < end && (record.end, record.dropped) == (old, dropped) =>
            {
                record.absorb(&world.spool[from..end], limit, put)
            }
            Note::Done | Note::File { .. } | Note::Backlog { .. } => record,
        };
        world.region = cell;
        world.set_record(new)?;
        world.set_note(Note::Done)?;
        world.position = 0;
        world.step()?;
        Ok(Self { position: 0, limit })
    }

    /// `Shared::pump`
    fn pump(&mut self, world: &mut World) -> Result<(), Killed> {
        if self.position >= REWIND {
            world.position = 0;
            self.position = 0;
            world.step()?;
        }
        let from = self.position;
        let is_file = world.record.is_clear() && !world.fate.hits(5);
        let place = world.place();
        world.set_note(if is_file {
            Note::File { log: 1, from, place }
        } else {
            Note::Backlog { log: 1, from, end: world.record.end, dropped: world.record.dropped }
        })?;
        // The kernel takes bytes out of the pipe and moves the position in one step.
        let waits = world.said.len() - world.taken;
        let length = waits.min(usize::from(world.fate.next()) % REWIND + 1);
        let (taken, to) = (world.taken, from + length);
        let bytes = world.said[taken..taken + length].to_vec();
        world.spool[from..to].copy_from_slice(&bytes);
        world.taken += length;
        world.position = to;
        world.step()?;
        self.position = to;
        if !is_file {
            self.absorb(world, &bytes)?;
            return world.set_note(Note::Done);
        }
        if length == 0 {
            return Ok(());
        }
        let begins =
            |world: &mut World, place, written| world.set_note(Note::File { log: 1, from: from + written, place });
        if let Err(written) = world.append(&bytes, begins)? {
            world.set_note(Note::File { log: 1, from: from + written, place: Place::default() })?;
            let put = |offset, bytes: &[u8]| World::put(&world.region, offset, bytes);
            let record = world.record.put_first(&bytes[written..], Place::default(), put);
            world.set_record(record)?;
        }
        world.set_note(Note::Done)
    }

    /// `Logs::absorb`
    fn absorb(&self, world: &mut World, bytes: &[u8]) -> Result<(), Killed> {
        let put = |offset, bytes: &[u8]| World::put(&world.region, offset, bytes);
        let (mut record, mut rest) = (world.record, bytes);
        if record.is_dropping()
            && record.backlog() == 0
            && let Some((ending, after)) = record.rest_of_line(bytes).and_then(|end| bytes.split_at_checked(end))
        {
            record = record.absorb(ending, self.limit, put).mark(world.ends_a_line(), put);
            rest = after;
        }
        let record = record.absorb(rest, self.limit, put);
        world.set_record(record)
    }

    /// `Shared::drain`
    fn drain(&self, world: &mut World) -> Result<(), Killed> {
        if world.record.backlog() == 0 {
            return self.absorb(world, &[]);
        }
        if world.record.unsure.seq > 0 {
            let grown = world.grown_since(world.record.unsure);
            let record = world.record.advance(grown).sure_from(Place::default());
            world.set_record(record)?;
        }
        if world.record.backlog() == 0 {
            return Ok(());
        }
        let place = world.place();
        let (start, end) = (world.record.start, world.record.end);
        let length = usize::try_from(end - start).unwrap().min(REWIND);
        let start = usize::try_from(start).unwrap();
        let bytes = world.region.borrow().get(start..start + length).unwrap_or_default().to_vec();
        world.set_record(world.record.sure_from(place))?;
        let mut told = 0;
        let result = world.append(&bytes, |world, place, written| {
            let record = world.record.advance((written - told) as u64).sure_from(place);
            told = written;
            world.set_record(record)
        })?;
        let written = result.map_or_else(|written| written, |()| bytes.len());
        let record = world.record.advance((written - told) as u64).sure_from(Place::default());
        world.set_record(record)
    }

    /// One turn of the loop. Returns whether there is more to do.
    fn turn(&mut self, world: &mut World) -> Result<bool, Killed> {
        if world.fate.hits(2) && !world.fate.is_used_up() {
            world.say();
        }
        if world.fate.hits(2) || world.said.len() == world.taken {
            self.drain(world)?;
        } else {
            self.pump(world)?;
        }
        let is_quiet = world.record.is_clear() || world.record.backlog() == 0 && world.record.is_amid_line;
        Ok(!world.fate.is_used_up() || world.said.len() > world.taken || !is_quiet)
    }
}

fn live(world: &mut World) {
    loop {
        let Ok(mut keeper) = Keeper::start(world) else { continue };
        loop {
            match keeper.turn(world) {
                Ok(true) => {}
                Ok(false) => return,
                Err(Killed) => break,
            }
        }
    }
}

/// Every line of the files is one that was said, whole or cut where bytes were dropped, in order; markers count the rest.
fn check(world: &World) {
    let text = String::from_utf8(world.files.concat()).unwrap();
    let said = String::from_utf8(world.said.clone()).unwrap();
    let (mut at, mut dropped, mut marked, mut markers) = (0, 0, 0, 0);
    for line in text.split_inclusive('\n') {
        if let Some((count, _)) = line.strip_prefix("[laneway: ").and_then(|rest| rest.split_once(' ')) {
            marked += count.parse::<u64>().unwrap();
            markers += 1;
            continue;
        }
        let found = said[at..].find(line).or_else(|| said[at..].find(line.trim_end_matches('\n')));
        let Some(skipped) = found else { panic!("{line:?} is doubled or out of order in\n{text}\nsaid:\n{said}") };
        dropped += skipped as u64;
        let is_cut = !said[at + skipped..].starts_with(line);
        at += skipped + line.len() - usize::from(is_cut);
    }
    dropped += (said.len() - at) as u64;
    // A marker ends the line before it where the line's own end was dropped: that looks the same.
    let counted = world.record.dropped;
    assert!(
        (dropped..=dropped + markers).contains(&counted),
        "{dropped} dropped, {counted} counted\n{text}\nsaid:\n{said}"
    );
    assert_eq!(marked, world.record.marked, "bytes that the markers speak of\n{text}");
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_kill_of_the_keeper_loses_or_doubles_a_byte(fate in collection::vec(any::<u16>(), 20..1500)) {
        let mut world = World::new(fate);
        live(&mut world);
        check(&world);
    }
}
