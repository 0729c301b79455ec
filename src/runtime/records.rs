//! What the supervisor knows of every run, where its death does not reach: in memory that both processes hold, and soon
//! after in `.run/records`, for the case that both die.
//!
//! A record is written before the orders that follow from it are carried out, and replaced whole: two halves take turns,
//! and the one with the higher number and the right checksum counts. Knows the layout; the driver decides what is written.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use super::processes::Process;
use crate::machine::{Instance, Memory};
use crate::model::{InstanceId, InstanceName, Run};

/// The first bytes, with the version of the layout.
const MAGIC: &[u8; 16] = b"laneway records1";
/// Where the boot that this was written in is named, after the magic; in bytes.
const BOOT_ID: usize = 36;
/// Where the record of the fleet begins, and the size of each of its halves, in bytes.
const FLEET: (u64, usize) = (4096, 64 * 1024);
/// Where the records of the instances begin, and the distance from one to the next, in bytes.
const INSTANCES: (u64, u64) = (FLEET.0 + 2 * FLEET.1 as u64, 4096);
/// Where the halves of an instance's record begin, and the size of each, in bytes. Before them the birth is noted.
const HALVES: (u64, usize) = (64, 2016);
/// Bytes before the text of a half: number, length, checksum.
const HEAD: usize = 16;

/// One process of this boot, whatever its number means later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

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
    memory: File,
    mirror: Option<Mirror>,
    /// How often each was written: the fleet first, then the instances.
    numbers: BTreeMap<u64, u64>,
}

impl Records {
    /// New ones, with nothing in them. What stands on the disk stays there until it is replaced: this supervisor may die
    /// before the next one can find anything else.
    ///
    /// # Errors
    /// When the system has no memory to give.
    pub fn new(disk: Option<File>) -> io::Result<Self> {
        let memory = File::from(memfd_create(CString::default().as_c_str(), MFdFlags::MFD_CLOEXEC)?);
        let mut header = [0; MAGIC.len() + BOOT_ID];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..].copy_from_slice(&boot_id());
        memory.write_all_at(&header, 0)?;
        let mut numbers = BTreeMap::new();
        if let Some(disk) = &disk {
            let mut before = [0; MAGIC.len() + BOOT_ID];
            if disk.read_exact_at(&mut before, 0).is_ok() && before == header {
                numbers = newest_numbers(disk);
            } else {
                let emptied = disk.set_len(0).and_then(|()| disk.write_all_at(&header, 0));
                emptied.unwrap_or_else(|error| warn!("the records cannot be written: {error}"));
            }
        }
        Ok(Self { memory, mirror: disk.map(Mirror::start).transpose()?, numbers })
    }

    /// Those of an earlier supervisor, in memory that it left.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn inherit(memory: OwnedFd, disk: Option<File>) -> io::Result<Self> {
        let memory = File::from(memory);
        let numbers = newest_numbers(&memory);
        Ok(Self { memory, mirror: disk.map(Mirror::start).transpose()?, numbers })
    }

    /// For the keeper to keep.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// What stands in them.
    #[must_use]
    pub fn read(&self) -> Recorded {
        read(&self.memory)
    }

    /// Replaces the record of an instance.
    pub fn write(&mut self, id: InstanceId, record: &Record) {
        let mut text = serde_json::to_vec(record).unwrap_or_default();
        if text.len() > HALVES.1 - HEAD {
            // Long texts explain; without them it is still the same state.
            let brief = Record { instance: record.instance.abridged(), ..record.clone() };
            text = serde_json::to_vec(&brief).unwrap_or_default();
        }
        self.replace(place_of(id) + HALVES.0, HALVES.1, &text);
    }

    /// Replaces the record of the fleet.
    pub fn write_memory(&mut self, memory: &Memory) {
        let mut text = serde_json::to_vec(memory).unwrap_or_default();
        if text.len() > FLEET.1 - HEAD {
            text = serde_json::to_vec(&memory.abridged()).unwrap_or_default();
        }
        self.replace(FLEET.0, FLEET.1, &text);
    }

    fn replace(&mut self, place: u64, half: usize, text: &[u8]) {
        if text.is_empty() || text.len() > half - HEAD {
            warn!("a record of {} bytes does not fit; the one before it stays", text.len());
            return;
        }
        let number = self.numbers.entry(place).or_default();
        *number += 1;
        let mut bytes = Vec::with_capacity(HEAD + text.len());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&checksum(*number, text).to_le_bytes());
        bytes.extend_from_slice(text);
        let offset = place + (*number % 2) * half as u64;
        if let Err(error) = self.memory.write_all_at(&bytes, offset) {
            warn!("a record cannot be written: {error}");
        }
        if let Some(mirror) = &self.mirror {
            mirror.write(offset, bytes);
        }
    }

    /// Announces that a process of `run` is about to be made, and says where it shall note its number.
    ///
    /// # Errors
    /// When memory is full: then nothing may be made.
    pub fn expect(&self, run: Run) -> io::Result<BirthPlace> {
        let offset = place_of(run.instance);
        let mut note = [0; 12];
        note[..8].copy_from_slice(&run.generation.to_le_bytes());
        self.memory.write_all_at(&note, offset)?;
        let offset = i64::try_from(offset + 8).unwrap_or(i64::MAX);
        Ok(BirthPlace { descriptor: self.memory.as_raw_fd(), offset })
    }

    /// The first process of `run`, by its own word.
    #[must_use]
    pub fn born(&self, run: Run) -> Option<u32> {
        let mut note = [0; 12];
        self.memory.read_exact_at(&mut note, place_of(run.instance)).ok()?;
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
    let mut header = [0; MAGIC.len() + BOOT_ID];
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(MAGIC) {
        return Recorded::default();
    }
    let is_of_this_boot = header.ends_with(&boot_id());
    let mut places = places(file).into_iter();
    let memory = places.next().and_then(|(place, half)| newest(file, place, half)).unwrap_or_default();
    let instances = places.map(|(place, half)| newest(file, place, half)).collect();
    Recorded { memory, instances, is_of_this_boot }
}

/// The instances whose processes live, by the word of a file of records, with their first processes.
#[must_use]
pub fn living(file: &File) -> Vec<(InstanceName, u32)> {
    let recorded = read(file);
    let records = recorded.instances.into_iter().flatten().filter(|_| recorded.is_of_this_boot);
    let living = records.filter_map(|record| {
        let Identity { pid, start_time } = record.process?;
        let lives = Process::read(pid).is_some_and(|process| process.start_time == start_time && process.is_alive());
        lives.then_some((record.name, pid))
    });
    living.collect()
}

/// Where the halves of every record begin, and how large they are: the fleet's first.
fn places(file: &File) -> Vec<(u64, usize)> {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let count = length.saturating_sub(INSTANCES.0).div_ceil(INSTANCES.1);
    let instances = (0..count).map(|index| (INSTANCES.0 + index * INSTANCES.1 + HALVES.0, HALVES.1));
    std::iter::once(FLEET).chain(instances).collect()
}

fn place_of(id: InstanceId) -> u64 {
    INSTANCES.0 + u64::from(id.0) * INSTANCES.1
}

/// How often each record was written, by its place.
fn newest_numbers(file: &File) -> BTreeMap<u64, u64> {
    let newest = |(place, half)| {
        let numbers = [0, 1].into_iter().filter_map(|which| read_half(file, place, half, which));
        (place, numbers.map(|(number, _)| number).max().unwrap_or(0))
    };
    places(file).into_iter().map(newest).collect()
}

/// The younger of the two halves that is whole and understood.
fn newest<T: DeserializeOwned>(file: &File, place: u64, half: usize) -> Option<T> {
    let mut halves: Vec<_> = [0, 1].into_iter().filter_map(|which| read_half(file, place, half, which)).collect();
    halves.sort_unstable_by(|a, b| b.cmp(a));
    halves.iter().find_map(|(_, text)| serde_json::from_slice(text).ok())
}

fn read_half(file: &File, place: u64, half: usize, which: u64) -> Option<(u64, Vec<u8>)> {
    let mut head = [0; HEAD];
    let offset = place + which * half as u64;
    file.read_exact_at(&mut head, offset).ok()?;
    let (number, rest) = head.split_first_chunk::<8>()?;
    let (length, sum) = rest.split_first_chunk::<4>()?;
    let number = u64::from_le_bytes(*number);
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= half - HEAD)?;
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, offset + HEAD as u64).ok()?;
    (number > 0 && sum == checksum(number, &text).to_le_bytes()).then_some((number, text))
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
    let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.get(..BOOT_ID).and_then(|text| text.try_into().ok()).unwrap_or([0; BOOT_ID])
}

/// Writes the records to a disk, from a thread of its own: a disk that hangs holds nobody up.
#[derive(Debug)]
struct Mirror {
    waiting: Arc<(Mutex<Waiting>, Condvar)>,
    written: watch::Receiver<u64>,
}

/// What is not on the disk yet, by its place: a newer one replaces an older one.
#[derive(Debug, Default)]
struct Waiting {
    writes: BTreeMap<u64, Vec<u8>>,
    asked: u64,
}

impl Mirror {
    fn start(disk: File) -> io::Result<Self> {
        let waiting = Arc::new((Mutex::new(Waiting::default()), Condvar::new()));
        let (done, written) = watch::channel(0);
        let queue = Arc::clone(&waiting);
        std::thread::Builder::new().name("records".to_owned()).stack_size(128 * 1024).spawn(move || {
            let (waiting, news) = &*queue;
            let mut is_broken = false;
            loop {
                let (writes, asked) = {
                    let lock = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    let idle = |waiting: &mut Waiting| waiting.writes.is_empty();
                    let mut lock = news.wait_while(lock, idle).unwrap_or_else(PoisonError::into_inner);
                    (std::mem::take(&mut lock.writes), lock.asked)
                };
                for (offset, bytes) in writes {
                    match disk.write_all_at(&bytes, offset) {
                        Ok(()) => is_broken = false,
                        Err(error) if !is_broken => {
                            is_broken = true;
                            warn!("the records cannot be written to the disk: {error}");
                        }
                        Err(_) => {}
                    }
                }
                if done.send(asked).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { waiting, written })
    }

    fn write(&self, offset: u64, bytes: Vec<u8>) {
        let (waiting, news) = &*self.waiting;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.writes.insert(offset, bytes);
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

    fn disk() -> File {
        File::from(memfd_create(CString::default().as_c_str(), MFdFlags::MFD_CLOEXEC).unwrap())
    }

    fn record(generation: u64) -> Record {
        let mut instance = Instance::at_rest(true);
        instance.generation = generation;
        Record { name: InstanceName::parse("a").unwrap(), instance, process: None, output: None }
    }

    async fn written(records: &mut Records, generation: u64) {
        records.write(InstanceId(0), &record(generation));
        records.flushed().await;
    }

    #[tokio::test]
    async fn a_pair_that_dies_young_takes_no_earlier_records_with_it() {
        let disk = disk();
        let mut first = Records::new(Some(disk.try_clone().unwrap())).unwrap();
        for generation in 1..=3 {
            written(&mut first, generation).await;
        }
        let of_disk = || read(&disk).instances.into_iter().next().flatten();
        assert_eq!(of_disk(), Some(record(3)));
        let mut second = Records::new(Some(disk.try_clone().unwrap())).unwrap();
        assert_eq!(of_disk(), Some(record(3)), "until there is something newer");
        written(&mut second, 1).await;
        assert_eq!(of_disk(), Some(record(1)), "the newer one counts, whatever stands beside it");
    }
}
