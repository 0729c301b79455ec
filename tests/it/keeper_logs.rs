//! The keeper alone, at full load: it is killed and another one goes on, disks are full, read-only, frozen or gone, people
//! move and remove logs. No line is lost, doubled or out of order that is not counted, and no server waits.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use laneway::keeper::journal::Trouble;
use laneway::keeper::protocol::{Kept, Order, news};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, names_in, signal, timed, wait_until};
use crate::rig::{Rig, check, content, line};

/// How often the keeper is killed; more by this variable.
const KILLS: u64 = 60;
const KILLS_VARIABLE: &str = "LANEWAY_TEST_KILLS";
/// A server waits no longer than this, and a busy machine adds to it.
const LONGEST_WAIT: Duration = Duration::from_millis(400);

/// A server that writes numbered lines as fast as they are taken.
struct Writer {
    written: Arc<AtomicU64>,
    shall_end: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Writer {
    /// `batch` lines of `length` bytes at a time.
    fn start(mut pipe: File, length: usize, batch: u64) -> Self {
        let (written, shall_end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&written), Arc::clone(&shall_end));
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !end.load(Ordering::Relaxed) {
                let first = count.load(Ordering::Relaxed);
                let text = (first..first + batch).map(|number| line(number, length)).collect::<Vec<_>>().concat();
                let (took, result) = timed(|| pipe.write_all(text.as_bytes()));
                result.unwrap();
                longest = longest.max(took);
                count.fetch_add(batch, Ordering::Relaxed);
            }
            longest
        });
        Self { written, shall_end, thread }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until so many more lines were written.
    #[track_caller]
    fn wait_for(&self, more: u64) {
        let end = self.written() + more;
        assert!(wait_until(PATIENCE, || self.written() >= end), "stuck at line {} of {end}", self.written());
    }

    /// Ends, and says how many lines there are and how long the longest write took.
    fn end(self) -> (u64, Duration) {
        self.shall_end.store(true, Ordering::Relaxed);
        let longest = self.thread.join().unwrap();
        (self.written.load(Ordering::Relaxed), longest)
    }
}

/// A file system of its own, for root.
struct Mount {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl Mount {
    /// `None`, said aloud, where it cannot be mounted.
    fn tmpfs(name: &str, options: &str) -> Option<Self> {
        let at = std::env::temp_dir().join(format!("laneway-mount-{name}-{}", std::process::id()));
        fs::create_dir_all(&at).unwrap();
        let mount = Self { at, image: None };
        let made = run("mount", &["-t", "tmpfs", "-o", options, "laneway-test", mount.at.to_str().unwrap()]);
        if made { Some(mount) } else { skipped("mount a tmpfs") }
    }

    fn ext4(name: &str) -> Option<Self> {
        let at = std::env::temp_dir().join(format!("laneway-mount-{name}-{}", std::process::id()));
        let image = at.with_extension("img");
        fs::create_dir_all(&at).unwrap();
        File::create(&image).unwrap().set_len(64 * 1024 * 1024).unwrap();
        let mount = Self { at, image: Some(image.clone()) };
        let made = run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()])
            && run("mount", &["-o", "loop", image.to_str().unwrap(), mount.at.to_str().unwrap()]);
        if made { Some(mount) } else { skipped("mount an ext4 over a loop device") }
    }

    fn remount(&self, options: &str) -> bool {
        run("mount", &["-o", &format!("remount,{options}"), self.at.to_str().unwrap()])
    }

    fn freeze(&self, is_frozen: bool) -> bool {
        run("fsfreeze", &[if is_frozen { "-f" } else { "-u" }, self.at.to_str().unwrap()])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.image.is_some() {
            self.freeze(false);
        }
        // Whoever still has it open keeps it until then.
        run("umount", &["-l", self.at.to_str().unwrap()]);
        let _ = fs::remove_dir(&self.at);
        if let Some(image) = &self.image {
            let _ = fs::remove_file(image);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn skipped<T>(what: &str) -> Option<T> {
    eprintln!("SKIPPED: this test has to {what}, which this machine or user does not let it");
    None
}

fn numbers_from(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |limit| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    }
}

#[test]
fn a_keeper_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let kills = std::env::var(KILLS_VARIABLE).map_or(KILLS, |text| text.parse().unwrap());
    let seed = u64::from(std::process::id());
    let mut random = numbers_from(seed);
    let mut rig = Rig::new();
    let folder = rig.folder().to_owned();
    let lengths = [120, 30];
    for (slot, max_size) in [(0, 200_000), (1, 30_000)] {
        rig.log(slot, &folder, &format!("log{slot}"), max_size, 1_000_000);
    }
    let writers: Vec<_> =
        [0, 1].map(|slot| Writer::start(rig.pipe(slot), lengths[slot as usize], 1 + 20 * u64::from(slot))).into();
    for _ in 0..kills {
        writers[0].wait_for(random(1500));
        rig.kill();
    }
    writers[0].wait_for(1);
    for (writer, (slot, length)) in writers.into_iter().zip(lengths.into_iter().enumerate()) {
        let (count, _) = writer.end();
        let name = format!("log{slot}");
        let all = || content(&folder, &name);
        let _ = wait_until(PATIENCE, || all().len() as u64 >= count * length as u64);
        let lines = check(&all(), length);
        assert_eq!((lines.count, lines.missing, &lines.wrong), (count, 0, &vec![]), "seed {seed}, {lines:?}");
        assert!(names_in(&folder).iter().filter(|file| file.starts_with(&name)).count() > 5);
    }
}

#[test]
fn a_keeper_becomes_another_program_in_its_place_and_loses_nothing() {
    let rig = Rig::new();
    let folder = rig.folder().to_owned();
    rig.log(0, &folder, "a", 50_000, 1_000_000);
    let writer = Writer::start(rig.pipe(0), 100, 5);
    let keeper = rig.id();
    writer.wait_for(1000);
    rig.order(&Order::Keep(Kept::Binary), Some(File::open("/dev/null").unwrap().into()));
    rig.order(&Order::Become, None);
    assert!(wait_until(PATIENCE, || rig.own_log().contains("the old one goes on")), "{}", rig.own_log());
    let command_line = || fs::read_to_string(format!("/proc/{keeper}/cmdline")).unwrap();
    for _ in 0..5 {
        let before = command_line();
        let started_as = |text: &str| text.split('\0').next().map(str::to_owned);
        rig.order(&Order::Keep(Kept::Binary), Some(File::open(env!("CARGO_BIN_EXE_laneway")).unwrap().into()));
        rig.order(&Order::Become, None);
        assert!(wait_until(PATIENCE, || started_as(&command_line()).as_deref() == Some("laneway")), "{before}");
        writer.wait_for(2000);
    }
    let (count, _) = writer.end();
    assert!(wait_until(PATIENCE, || content(&folder, "a").len() as u64 >= count * 100));
    let lines = check(&content(&folder, "a"), 100);
    assert_eq!((lines.count, &lines.wrong), (count, &vec![]));
    assert_eq!(keeper, rig.id());
    assert_eq!(rig.own_log().lines().count(), 1, "{}", rig.own_log());
}

#[test]
fn a_keeper_that_is_killed_while_the_disk_is_full_still_counts_every_byte() {
    let mut rig = Rig::new();
    let Some(disk) = Mount::tmpfs("killed", "size=256k") else { return };
    rig.log(0, &disk.at, "a", 100_000_000, 3);
    let writer = Writer::start(rig.pipe(0), 100, 7);
    let mut random = numbers_from(u64::from(std::process::id()));
    for round in 1..=6 {
        for _ in 0..5 {
            writer.wait_for(random(3000));
            rig.kill();
        }
        assert!(disk.remount(&format!("size={}k", 256 + round * 2000)));
    }
    let (count, _) = writer.end();
    assert!(disk.remount("size=500m"));
    let is_over = || check(&content(&disk.at, "a"), 100).last + 1 == count;
    let settled = wait_until(PATIENCE, || {
        rig.health(0).buffered == 0 && rig.health(0).dropped == 0 && {
            // The end may have been dropped, and then nothing comes after the marker.
            is_over() || content(&disk.at, "a").ends_with(b"dropped]\n")
        }
    });
    let lines = check(&content(&disk.at, "a"), 100);
    assert!(settled, "{:?} {lines:?} of {count}", rig.health(0));
    assert_eq!(lines.wrong, Vec::<String>::new());
    assert_eq!(lines.marked, rig.health(0).dropped_ever);
    assert_eq!(content(&disk.at, "a").len() as u64 - marker_bytes(&content(&disk.at, "a")) + lines.marked, count * 100);
}

fn marker_bytes(content: &[u8]) -> u64 {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| line.starts_with(b"[laneway")).map(|line| line.len() as u64).sum()
}

#[test]
fn who_has_nothing_to_do_sleeps() {
    let rig = Rig::new();
    let folder = rig.folder().to_owned();
    rig.log(0, &folder, "a", 1_000_000, 3);
    rig.pipe(0).write_all(b"the last for long\n").unwrap();
    assert!(wait_until(PATIENCE, || content(&folder, "a") == b"the last for long\n"));
    let wake_ups = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", rig.id())).unwrap().flatten();
        let all = tasks.map(|task| fs::read_to_string(task.path().join("status")).unwrap());
        let counts = all.map(|text| {
            text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:\t")?.parse::<u64>().ok())
        });
        counts.map(Option::unwrap).sum::<u64>()
    };
    let is_asleep = || {
        let before = wake_ups();
        !wait_until(Duration::from_millis(1500), || wake_ups() != before)
    };
    assert!(wait_until(PATIENCE, is_asleep), "{} wake-ups", wake_ups());
}

#[test]
fn what_an_old_run_wrote_stands_before_what_a_new_one_writes() {
    let rig = Rig::new();
    let folder = rig.folder().to_owned();
    rig.log(0, &folder, "a", 1_000_000, 3);
    let (mut old, mut new) = (rig.pipe(0), rig.pipe(0));
    old.write_all(b"both are read\n").unwrap();
    assert!(wait_until(PATIENCE, || content(&folder, "a") == b"both are read\n"));
    signal(rig.id(), Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", rig.id());
    assert!(wait_until(PATIENCE, || fs::read_to_string(&stat).unwrap().contains(") T ")));
    new.write_all(b"new\n").unwrap();
    old.write_all(b"old\n").unwrap();
    drop(old);
    signal(rig.id(), Signal::SIGCONT);
    assert!(wait_until(PATIENCE, || content(&folder, "a") == b"both are read\nold\nnew\n"));
}

#[test]
fn a_full_disk_costs_counted_lines_and_no_server_waits() {
    let Some(disk) = Mount::tmpfs("full", "size=512k") else { return };
    let rig = Rig::new();
    rig.log(0, &disk.at, "a", 100_000_000, 3);
    let writer = Writer::start(rig.pipe(0), 100, 7);
    rig.wait_for_health(0, |health| health.dropped > 300_000);
    let health = rig.health(0);
    assert_eq!(health.trouble, Some(Trouble::Error(Errno::ENOSPC as i32)));
    assert!(health.since_micros > 0 && health.buffered > 900_000 && health.buffered <= 1024 * 1024, "{health:?}");
    assert_eq!(rig.news(), Some(news::LOGS));
    assert!(disk.remount("size=100m"));
    rig.wait_for_health(0, |health| health.trouble.is_none() && health.buffered == 0 && health.dropped == 0);
    writer.wait_for(1000);
    let (count, longest) = writer.end();
    assert!(wait_until(PATIENCE, || check(&content(&disk.at, "a"), 100).last + 1 == count));
    let lines = check(&content(&disk.at, "a"), 100);
    assert_eq!((lines.missing, &lines.wrong), (lines.marked, &vec![]));
    assert_eq!(lines.marked, rig.health(0).dropped_ever);
    assert!(lines.marked > 300_000 && longest < LONGEST_WAIT, "{longest:?}");
}

#[test]
fn a_log_that_cannot_be_opened_is_written_once_it_can() {
    let Some(disk) = Mount::tmpfs("read-only", "size=10m,ro") else { return };
    let rig = Rig::new();
    rig.log(0, &disk.at, "a", 1_000_000, 3);
    let mut pipe = rig.pipe(0);
    pipe.write_all(b"first\n").unwrap();
    rig.wait_for_health(0, |health| {
        health.trouble == Some(Trouble::Error(Errno::EROFS as i32)) && health.buffered == 6
    });
    assert!(disk.remount("rw"));
    // Without a word from the server.
    rig.wait_for_health(0, |health| health.trouble.is_none() && health.buffered == 0);
    pipe.write_all(b"second\n").unwrap();
    assert!(wait_until(PATIENCE, || content(&disk.at, "a") == b"first\nsecond\n"));
}

#[test]
fn a_frozen_disk_blocks_no_server_and_no_other_log() {
    let rig = Rig::new();
    // Gone before the keeper, which cannot end as long as it is frozen.
    let Some(disk) = Mount::ext4("frozen") else { return };
    let folder = rig.folder().to_owned();
    rig.log(0, &disk.at, "a", 100_000_000, 3);
    rig.log(1, &disk.at, "b", 100_000_000, 3);
    rig.log(2, &folder, "c", 100_000_000, 3);
    let writers: Vec<_> = (0..3).map(|slot| Writer::start(rig.pipe(slot), 100, 3)).collect();
    for writer in &writers {
        writer.wait_for(10_000);
    }
    assert!(disk.freeze(true));
    rig.wait_for_health(0, |health| health.trouble == Some(Trouble::Stuck) && health.dropped > 300_000);
    rig.wait_for_health(1, |health| health.trouble == Some(Trouble::Stuck) && health.buffered > 900_000);
    assert_eq!(rig.health(2).trouble, None);
    let before = content(&folder, "c").len();
    writers[2].wait_for(10_000);
    assert!(wait_until(PATIENCE, || content(&folder, "c").len() > before + 500_000), "the other disk is written");
    assert!(disk.freeze(false));
    for (slot, writer) in (0..).zip(writers) {
        rig.wait_for_health(slot, |health| health.trouble.is_none() && health.buffered == 0 && health.dropped == 0);
        writer.wait_for(1000);
        let (count, longest) = writer.end();
        let (at, name) = [(&disk.at, "a"), (&disk.at, "b"), (&folder, "c")][slot as usize];
        assert!(wait_until(PATIENCE, || check(&content(at, name), 100).last + 1 == count), "log {name}");
        let lines = check(&content(at, name), 100);
        assert_eq!((lines.missing, &lines.wrong), (lines.marked, &vec![]), "log {name}");
        assert_eq!(lines.marked, rig.health(slot).dropped_ever, "log {name}");
        assert!(longest < LONGEST_WAIT, "log {name}: a write took {longest:?}");
    }
}

#[test]
fn a_log_that_people_move_or_remove_is_made_anew() {
    let rig = Rig::new();
    let folder = rig.folder().to_owned();
    rig.log(0, &folder, "a", 1_000_000, 3);
    let mut pipe = rig.pipe(0);
    let log = folder.join("a.log");
    let mut say_until_there = |text: &str| {
        let mut said = || {
            pipe.write_all(text.as_bytes()).unwrap();
            fs::symlink_metadata(&log).is_ok_and(|found| found.is_file())
                && fs::read_to_string(&log).is_ok_and(|found| found.contains(text))
        };
        assert!(wait_until(Duration::from_secs(3), &mut said), "{text} is not there: {:?}", rig.health(0));
    };
    say_until_there("at first\n");
    fs::remove_file(&log).unwrap();
    say_until_there("after a removal\n");
    fs::rename(&log, folder.join("elsewhere")).unwrap();
    say_until_there("after a move\n");
    assert!(fs::read_to_string(folder.join("elsewhere")).unwrap().starts_with("after a removal\n"));
    File::create(&log).unwrap();
    say_until_there("after a truncation\n");
    let victim = folder.join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink(&victim, &log).unwrap();
    pipe.write_all(b"never there\n").unwrap();
    assert!(wait_until(PATIENCE, || {
        pipe.write_all(b".\n").unwrap();
        rig.health(0).trouble == Some(Trouble::Error(Errno::ELOOP as i32))
    }));
    fs::remove_file(&log).unwrap();
    rig.wait_for_health(0, |health| health.trouble.is_none() && health.buffered == 0);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(fs::read_to_string(&log).unwrap().starts_with("never there\n") || log.exists());
}

#[test]
fn a_directory_that_is_removed_is_trouble_until_it_is_declared_again() {
    let rig = Rig::new();
    let at = rig.folder().join("lane");
    fs::create_dir(&at).unwrap();
    rig.log(0, &at, "a", 1_000_000, 3);
    let mut pipe = rig.pipe(0);
    pipe.write_all(b"first\n").unwrap();
    assert!(wait_until(PATIENCE, || content(&at, "a") == b"first\n"));
    fs::remove_dir_all(&at).unwrap();
    assert!(wait_until(PATIENCE, || {
        pipe.write_all(b"more\n").unwrap();
        rig.health(0).trouble == Some(Trouble::Error(Errno::ENOENT as i32))
    }));
    fs::create_dir(&at).unwrap();
    rig.log(0, &at, "a", 1_000_000, 3);
    rig.wait_for_health(0, |health| health.trouble.is_none() && health.buffered == 0);
    pipe.write_all(b"last\n").unwrap();
    assert!(wait_until(PATIENCE, || content(&at, "a").ends_with(b"more\nlast\n")));
}

#[test]
fn a_hundred_megabytes_without_a_line_end_stay_within_the_cap() {
    let rig = Rig::new();
    let folder = rig.folder().to_owned();
    rig.log(0, &folder, "a", 1_000_000, 3);
    let mut pipe = rig.pipe(0);
    let block = vec![0_u8; 1_000_000];
    for _ in 0..100 {
        pipe.write_all(&block).unwrap();
    }
    // Again and again: the first ones are among what is dropped where the disk is slower.
    let is_through = || {
        pipe.write_all(b"\nend\n").unwrap();
        content(&folder, "a").ends_with(b"end\n")
    };
    assert!(wait_until(PATIENCE, is_through));
    let sizes: Vec<_> = names_in(&folder)
        .iter()
        .filter(|name| name.starts_with("a.log"))
        .map(|name| fs::metadata(folder.join(name)).unwrap().len())
        .collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size <= 1_000_000 + 2 * 64 * 1024), "{sizes:?}");
    // A disk that is slower than this flood for a moment costs counted bytes, and no more than that.
    assert_eq!(rig.health(0).trouble, None);
}
