//! What the supervisor knows of every run, where its death does not reach: in memory that both processes hold, and soon
//! after in `.run/records`, for the case that both die.
//!
//! The records of a step are written before the orders that follow from it are carried out, and count all at once: each
//! has two halves that take turns, and carries the number of its step. When all of a step is written, its number goes
//! into the head, and only halves up to that number count. So whoever comes after a kill finds a step done or not begun.
//! Knows the layout; the driver decides what is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use super::link::KeeperLink;
use super::processes::Identity;
use crate::keeper::memory;
use crate::machine::{Instance, Memory};
use crate::model::{InstanceId, InstanceName, Run};
use crate::plan::Plan;

/// The first bytes, with the version of the layout.
const MAGIC: &[u8; 16] = b"laneway records2";
/// Bytes of the name of the boot that this was written in, after the magic.
const BOOT_ID: usize = 36;
/// Bytes of the head: magic, boot, and the number of the last step that is whole. It lies within one page, so that it is
/// written whole or not at all.
const HEAD: usize = MAGIC.len() + BOOT_ID + 8;
/// Where the record of the fleet stands.
const FLEET: Place = Place { start: 4096, half: 64 * 1024 };
/// Where the records of the instances begin, and the distance from one to the next, in bytes.
const INSTANCES: (u64, u64) = (FLEET.start + 2 * FLEET.half as u64, 4096);
/// Where the halves of an instance's record begin, and the size of each, in bytes. Before them the birth is noted.
const HALVES: (u64, usize) = (64, 2016);
/// Bytes before the text of a half: number, length, checksum.
const HALF_HEAD: usize = 16;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Bytes into the file.
    start: u64,
    /// The size of each half, in bytes.
    half: usize,
}

impl Place {
    fn of(id: InstanceId) -> Self {
        Self { start: instance_at(id) + HALVES.0, half: HALVES.1 }
    }

    fn offset(self, half: u64) -> u64 {
        self.start + half * self.half as u64
    }

    fn takes(self, text: &[u8]) -> bool {
        text.len() <= self.half - HALF_HEAD
    }
}

/// What one step changes.
type Changes = BTreeMap<Place, Vec<u8>>;

/// What is known of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name: the plan may have changed meanwhile.
    pub name: InstanceName,
    /// Its state.
    pub instance: Instance,
    /// The first process of its run, while there is one.
    pub process: Option<Identity>,
    /// The inode of the pipe that its run writes into.
    pub output: Option<u64>,
}

impl Record {
    /// Of the instance at this place, and of its run as the keeper reads it and as it lives.
    #[must_use]
    pub fn of(
        plan: &Plan,
        id: InstanceId,
        instance: &Instance,
        keeper: &KeeperLink,
        process: impl FnOnce(Run) -> Option<Identity>,
    ) -> Self {
        let run = instance.state.run();
        Self {
            name: plan.spec(id).name.clone(),
            instance: instance.clone(),
            process: run.and_then(process),
            output: run.and_then(|run| keeper.output_of(run)),
        }
    }
}

/// Everything that was recorded.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Of the fleet.
    pub memory: Memory,
    /// Of the instances, by their position in the plan.
    pub instances: Vec<Option<Record>>,
    /// It was written since the machine was booted: its processes and points in time mean something.
    pub is_of_this_boot: bool,
}

/// Where a child notes its number as its first act.
#[derive(Clone, Copy, Debug)]
pub struct BirthPlace {
    /// The memory; open as long as this process lives.
    pub descriptor: RawFd,
    /// Bytes into it.
    pub offset: i64,
}

/// The records of one fleet.
#[derive(Debug)]
pub struct Records {
    memory: Book,
    mirror: Option<Mirror>,
}

impl Records {
    /// New ones, with nothing in them. What stands on the disk stays there until it is replaced: this supervisor may die
    /// before the next one can find anything else.
    ///
    /// # Errors
    /// When the system has no memory or no thread to give.
    pub fn new(disk: Option<File>) -> io::Result<Self> {
        let memory = File::from(memory::create(c"laneway-records", 0)?);
        Ok(Self { memory: Book::open(memory)?, mirror: disk.map(Mirror::start).transpose()? })
    }

    /// Those of an earlier supervisor, in memory that it left.
    ///
    /// # Errors
    /// When memory is full, or the system has no thread to give.
    pub fn inherit(memory: OwnedFd, disk: Option<File>) -> io::Result<Self> {
        Ok(Self { memory: Book::open(File::from(memory))?, mirror: disk.map(Mirror::start).transpose()? })
    }

    /// For the keeper to keep.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory.file.as_fd()
    }

    /// What stands in them.
    #[must_use]
    pub fn read(&self) -> Recorded {
        read(&self.memory.file)
    }

    /// Replaces everything that one step changed: whoever reads finds all of it or nothing.
    pub fn save(&mut self, instances: &[(InstanceId, Record)], memory: Option<&Memory>) {
        let mut changes: Changes =
            instances.iter().map(|(id, record)| (Place::of(*id), text_of(*id, record))).collect();
        changes.extend(memory.map(|memory| (FLEET, text_of_fleet(memory))));
        changes.retain(|place, text| {
            let fits = !text.is_empty() && place.takes(text);
            if !fits {
                warn!("a record of {} bytes does not fit; the one before it stays", text.len());
            }
            fits
        });
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.memory.write(&changes) {
            warn!("the records cannot be written: {error}");
        }
        if let Some(mirror) = &self.mirror {
            mirror.write(changes);
        }
    }

    /// Announces that a process of `run` is about to be made, and says where it shall note its number.
    ///
    /// # Errors
    /// When memory is full: then nothing may be made.
    pub fn expect(&self, run: Run) -> io::Result<BirthPlace> {
        let offset = instance_at(run.instance);
        let mut note = [0; 12];
        note[..8].copy_from_slice(&run.generation.to_le_bytes());
        self.memory.file.write_all_at(&note, offset)?;
        let offset = i64::try_from(offset + 8).unwrap_or(i64::MAX);
        Ok(BirthPlace { descriptor: self.memory.file.as_raw_fd(), offset })
    }

    /// The first process of `run`, by its own word.
    #[must_use]
    pub fn born(&self, run: Run) -> Option<u32> {
        let mut note = [0; 12];
        self.memory.file.read_exact_at(&mut note, instance_at(run.instance)).ok()?;
        let (generation, pid) = note.split_first_chunk::<8>()?;
        let pid = u32::from_le_bytes(pid.try_into().ok()?);
        (u64::from_le_bytes(*generation) == run.generation && pid != 0).then_some(pid)
    }

    /// Resolves once everything that was written so far is on the disk.
    pub fn flushed(&self) -> impl Future<Output = ()> + Send + use<> {
        let waits = self.mirror.as_ref().map(Mirror::flushed);
        async move {
            if let Some((mut written, wanted)) = waits {
                let _ = written.wait_for(|written| *written >= wanted).await;
            }
        }
    }
}

/// What stands in a file of records; nothing if it is none.
#[must_use]
pub fn read(file: &File) -> Recorded {
    let Some(head) = Head::read(file) else { return Recorded::default() };
    Recorded {
        memory: newest(file, FLEET, &head).unwrap_or_default(),
        instances: places(file).skip(1).map(|place| newest(file, place, &head)).collect(),
        is_of_this_boot: head.is_of_this_boot,
    }
}

/// What stands there of the fleet alone.
#[must_use]
pub fn read_memory(file: &File) -> Memory {
    Head::read(file).and_then(|head| newest(file, FLEET, &head)).unwrap_or_default()
}

/// The instances whose processes live, by the word of a file of records, with their first processes.
#[must_use]
pub fn living(file: &File) -> Vec<(InstanceName, u32)> {
    let recorded = read(file);
    let records = recorded.instances.into_iter().flatten().filter(|_| recorded.is_of_this_boot);
    let living = records.filter_map(|record| {
        let process = record.process.filter(|process| process.lives())?;
        Some((record.name, process.pid))
    });
    living.collect()
}

/// What stands before all records.
struct Head {
    is_of_this_boot: bool,
    /// The last step that is whole.
    step: u64,
}

impl Head {
    fn read(file: &File) -> Option<Self> {
        let mut bytes = [0; HEAD];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let (boot, step) = bytes.strip_prefix(MAGIC)?.split_last_chunk::<8>()?;
        Some(Self { is_of_this_boot: *boot == boot_id(), step: u64::from_le_bytes(*step) })
    }

    fn bytes(step: u64) -> Vec<u8> {
        [MAGIC.as_slice(), &boot_id(), &step.to_le_bytes()].concat()
    }

    /// Whether what was written in this step counts. When a machine goes down, its disk may have any of the last writes
    /// and lack any: then every record is as good as another.
    fn counts(&self, step: u64) -> bool {
        step <= self.step || !self.is_of_this_boot
    }
}

/// A file of records, and what is to be known to write in it.
#[derive(Debug)]
struct Book {
    file: File,
    /// The last step that is whole.
    step: u64,
    /// Which half of each record counts.
    halves: BTreeMap<Place, u64>,
}

impl Book {
    /// Wipes out what a dead supervisor did not finish: the number of the next step would make it count.
    fn open(file: File) -> io::Result<Self> {
        let mut book = Self { file, step: 0, halves: BTreeMap::new() };
        let Some(head) = Head::read(&book.file) else {
            book.file.set_len(0)?;
            return Ok(book);
        };
        book.step = head.step;
        for place in places(&book.file) {
            let mut newest = 0;
            for half in [0, 1] {
                let Some((step, _)) = read_half(&book.file, place, half) else { continue };
                if !head.counts(step) {
                    book.file.write_all_at(&[0; HALF_HEAD], place.offset(half))?;
                } else if step > newest {
                    newest = step;
                    book.halves.insert(place, half);
                    book.step = book.step.max(step);
                }
            }
        }
        Ok(book)
    }

    fn write(&mut self, changes: &Changes) -> io::Result<()> {
        for (offset, bytes) in self.writes(changes) {
            self.file.write_all_at(&bytes, offset)?;
        }
        self.step += 1;
        for place in changes.keys() {
            self.halves.insert(*place, self.other_half(*place));
        }
        Ok(())
    }

    /// What is to be written where, and in this order.
    fn writes(&self, changes: &Changes) -> Vec<(u64, Vec<u8>)> {
        let step = self.step + 1;
        let halves = changes.iter().map(|(place, text)| {
            let length = u32::try_from(text.len()).unwrap_or(0);
            let (number, length, sum) = (step.to_le_bytes(), length.to_le_bytes(), checksum(step, text).to_le_bytes());
            (place.offset(self.other_half(*place)), [&number, length.as_slice(), &sum, text].concat())
        });
        halves.chain(std::iter::once((0, Head::bytes(step)))).collect()
    }

    /// The half of a record that does not count.
    fn other_half(&self, place: Place) -> u64 {
        self.halves.get(&place).map_or(0, |half| 1 - half)
    }
}

fn text_of(id: InstanceId, record: &Record) -> Vec<u8> {
    let text = serde_json::to_vec(record).unwrap_or_default();
    if Place::of(id).takes(&text) {
        return text;
    }
    // Long texts explain; without them it is still the same state.
    serde_json::to_vec(&Record { instance: record.instance.abridged(), ..record.clone() }).unwrap_or_default()
}

fn text_of_fleet(memory: &Memory) -> Vec<u8> {
    let text = serde_json::to_vec(memory).unwrap_or_default();
    if FLEET.takes(&text) { text } else { serde_json::to_vec(&memory.abridged()).unwrap_or_default() }
}

/// The places of all records in a file: the fleet's first.
fn places(file: &File) -> impl Iterator<Item = Place> + use<> {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let count = length.saturating_sub(INSTANCES.0).div_ceil(INSTANCES.1);
    let instances = (0..).map(InstanceId).map(Place::of).zip(0..count).map(|(place, _)| place);
    std::iter::once(FLEET).chain(instances)
}

/// Where what is known of an instance begins.
fn instance_at(id: InstanceId) -> u64 {
    INSTANCES.0 + u64::from(id.0) * INSTANCES.1
}

/// The younger of the two halves that counts and is understood.
fn newest<T: DeserializeOwned>(file: &File, place: Place, head: &Head) -> Option<T> {
    let mut halves: Vec<_> = [0, 1].into_iter().filter_map(|half| read_half(file, place, half)).collect();
    halves.retain(|(step, _)| head.counts(*step));
    halves.sort_unstable_by(|a, b| b.cmp(a));
    halves.iter().find_map(|(_, text)| serde_json::from_slice(text).ok())
}

/// The number of its step and its text, if it is whole.
fn read_half(file: &File, place: Place, half: u64) -> Option<(u64, Vec<u8>)> {
    let mut head = [0; HALF_HEAD];
    let offset = place.offset(half);
    file.read_exact_at(&mut head, offset).ok()?;
    let (step, rest) = head.split_first_chunk::<8>()?;
    let (length, sum) = rest.split_first_chunk::<4>()?;
    let step = u64::from_le_bytes(*step);
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let mut text = vec![0; length.min(place.half)];
    file.read_exact_at(&mut text, offset + HALF_HEAD as u64).ok()?;
    (step > 0 && place.takes(&text) && sum == checksum(step, &text).to_le_bytes()).then_some((step, text))
}

/// The lower half of FNV-1a, 64 bits, over number and text.
fn checksum(number: u64, text: &[u8]) -> u32 {
    let sum = fnv(fnv(FNV_BASIS, &number.to_le_bytes()), text);
    u32::try_from(sum & 0xffff_ffff).unwrap_or(0)
}

/// Where FNV-1a begins.
pub(super) const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits (Fowler, Noll, Vo), going on from `sum`.
pub(super) fn fnv(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Names this boot of the machine; zeros where the kernel does not say.
fn boot_id() -> [u8; BOOT_ID] {
    static THIS: LazyLock<[u8; BOOT_ID]> = LazyLock::new(|| {
        let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.get(..BOOT_ID).and_then(|text| text.try_into().ok()).unwrap_or([0; BOOT_ID])
    });
    *THIS
}

/// Writes the records to a disk, from a thread of its own: a disk that hangs holds nobody up.
#[derive(Debug)]
struct Mirror {
    waiting: Arc<(Mutex<Waiting>, Condvar)>,
    written: watch::Receiver<u64>,
}

/// What is not on the disk yet. Steps that wait become one.
#[derive(Debug, Default)]
struct Waiting {
    changes: Changes,
    asked: u64,
}

impl Mirror {
    fn start(disk: File) -> io::Result<Self> {
        let waiting = Arc::new((Mutex::new(Waiting::default()), Condvar::new()));
        let (done, written) = watch::channel(0);
        let queue = Arc::clone(&waiting);
        std::thread::Builder::new().name("records".to_owned()).stack_size(128 * 1024).spawn(move || {
            let mut book = match Book::open(disk) {
                Ok(book) => book,
                Err(error) => return warn!("the records cannot be written to the disk: {error}"),
            };
            let (waiting, news) = &*queue;
            let (mut changes, mut is_broken) = (Changes::new(), false);
            loop {
                let asked = {
                    let lock = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    let idle = |waiting: &mut Waiting| waiting.changes.is_empty();
                    let mut lock = news.wait_while(lock, idle).unwrap_or_else(PoisonError::into_inner);
                    // What the disk did not take the last time is still a part of what stands there next.
                    changes.append(&mut lock.changes);
                    lock.asked
                };
                match book.write(&changes) {
                    Ok(()) => {
                        is_broken = false;
                        changes.clear();
                    }
                    Err(error) if !is_broken => {
                        is_broken = true;
                        warn!("the records cannot be written to the disk: {error}");
                    }
                    Err(_) => {}
                }
                if done.send(asked).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { waiting, written })
    }

    fn write(&self, mut changes: Changes) {
        let (waiting, news) = &*self.waiting;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.changes.append(&mut changes);
        waiting.asked += 1;
        news.notify_one();
    }

    fn flushed(&self) -> (watch::Receiver<u64>, u64) {
        let asked = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner).asked;
        (self.written.clone(), asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: InstanceId = InstanceId(0);
    const B: InstanceId = InstanceId(1);

    fn disk() -> File {
        File::from(memory::create(c"laneway-records", 0).unwrap())
    }

    fn record(generation: u64) -> Record {
        let mut instance = Instance::at_rest(true);
        instance.generation = generation;
        Record { name: InstanceName::parse("a").unwrap(), instance, process: None, output: None }
    }

    fn generation(recorded: &Recorded, place: usize) -> u64 {
        recorded.instances[place].as_ref().unwrap().instance.generation
    }

    #[tokio::test]
    async fn a_pair_that_dies_young_takes_no_earlier_records_with_it() {
        let disk = disk();
        let mut first = Records::new(Some(disk.try_clone().unwrap())).unwrap();
        for number in 1..=3 {
            first.save(&[(A, record(number))], None);
            first.flushed().await;
        }
        let mut second = Records::new(Some(disk.try_clone().unwrap())).unwrap();
        assert_eq!(generation(&read(&disk), 0), 3, "until there is something newer");
        second.save(&[(A, record(1))], None);
        second.flushed().await;
        assert_eq!(generation(&read(&disk), 0), 1, "the newer one counts, whatever stands beside it");
    }

    #[test]
    fn a_step_is_recorded_as_a_whole_or_not_at_all_wherever_it_is_cut_short() {
        let changes = |number| Changes::from([A, B].map(|id| (Place::of(id), text_of(id, &record(number)))));
        let both = |file: &File| [0, 1].map(|place| generation(&read(file), place));
        let count = 3;
        for cut in 0..=count {
            let mut book = Book::open(disk()).unwrap();
            book.write(&changes(1)).unwrap();
            book.write(&changes(2)).unwrap();
            let writes = book.writes(&changes(3));
            assert_eq!(writes.len(), count);
            for (offset, bytes) in &writes[..cut] {
                book.file.write_all_at(bytes, *offset).unwrap();
            }
            let found = if cut == count { 3 } else { 2 };
            assert_eq!(both(&book.file), [found; 2], "after {cut} writes");
            // Whoever comes after writes something else; what was cut short is never heard of again.
            let mut next = Book::open(book.file).unwrap();
            next.write(&Changes::from([(Place::of(B), text_of(B, &record(9)))])).unwrap();
            assert_eq!(both(&next.file), [found, 9], "after {cut} writes and one more");
        }
    }

    #[test]
    fn what_a_machine_that_went_down_left_counts_as_far_as_it_is_whole() {
        let mut book = Book::open(disk()).unwrap();
        book.write(&Changes::from([(Place::of(A), text_of(A, &record(1)))])).unwrap();
        let (offset, bytes) = book.writes(&Changes::from([(Place::of(A), text_of(A, &record(2)))])).remove(0);
        book.file.write_all_at(&bytes, offset).unwrap();
        book.file.write_all_at(&[b'x'; BOOT_ID], MAGIC.len() as u64).unwrap();
        let found = read(&book.file);
        assert_eq!((generation(&found, 0), found.is_of_this_boot), (2, false));
        let mut next = Book::open(book.file).unwrap();
        next.write(&Changes::from([(Place::of(A), text_of(A, &record(3)))])).unwrap();
        let found = read(&next.file);
        assert_eq!((generation(&found, 0), found.is_of_this_boot), (3, true));
    }
}
