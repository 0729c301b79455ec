//! One cgroup (v2) per run, where the kernel lets us: the surest way to know and to end every process of a run.
//!
//! Only membership is used, no controllers, so a hybrid hierarchy or a delegated subtree is enough. `cgroup.kill` came
//! with Linux 5.14; before it, the cgroup is frozen, so that nobody forks away, and its members are killed one by one.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::kernel::old_kernel;
use super::processes::pidfd_of;

/// How often, and how many milliseconds each time, the end of killed processes is waited for.
const LOOKS: u32 = 30;
const LOOK_AGAIN: u8 = 100;

/// How often the members are killed one by one. The first round misses only who was being forked when it began.
const ROUNDS: u32 = 5;

/// Where the runs' cgroups are made.
#[derive(Clone, Debug)]
pub struct Cgroups {
    base: PathBuf,
}

/// The cgroup of one run.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Makes a place beneath the cgroup that this process lives in. `None` where v2 is not mounted or not ours to write.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let base = own_directory(&mounts, &own)?.join(name);
        match fs::create_dir(&base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
            _ => {}
        }
        let found = Self { base };
        // Writable is what counts, and only a try tells.
        let trial = found.make("trial").ok()?;
        let procs = fs::OpenOptions::new().write(true).open(trial.path.join("cgroup.procs"));
        let works = procs.is_ok();
        trial.remove();
        works.then_some(found)
    }

    /// A new, empty cgroup.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(&self, run: &str) -> io::Result<Cgroup> {
        let path = self.base.join(run);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Cgroup { path }),
        }
    }

    /// The cgroup of a run of an earlier supervisor, if there is one.
    #[must_use]
    pub fn existing(&self, run: &str) -> Option<Cgroup> {
        let path = self.base.join(run);
        path.is_dir().then_some(Cgroup { path })
    }

    /// Kills and clears whatever earlier supervisors left here of the runs that `is_left` names. Returns how many it cleared.
    #[must_use]
    pub fn clear(&self, is_left: impl Fn(&str) -> bool) -> usize {
        let Ok(entries) = fs::read_dir(&self.base) else { return 0 };
        let left = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let left = left.filter(|entry| entry.file_name().to_str().is_none_or(&is_left));
        left.map(|entry| Cgroup { path: entry.path() })
            .filter(|cgroup| {
                let lived = cgroup.is_populated();
                cgroup.kill();
                cgroup.wait_until_empty();
                cgroup.remove();
                lived
            })
            .count()
    }

    /// The processes that are here, each after the label of its run.
    #[must_use]
    pub fn labelled(&self) -> Vec<(String, u32)> {
        let named = |path: PathBuf| Some((path.file_name()?.to_str()?.to_owned(), Cgroup { path }));
        let runs = directories(&self.base).into_iter().filter_map(named);
        runs.flat_map(|(label, cgroup)| cgroup.processes().into_iter().map(move |pid| (label.clone(), pid))).collect()
    }

    /// Removes the place itself, if it is empty.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.base);
    }
}

impl Cgroup {
    /// Its directory, for a process to be born into it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn directory(&self) -> io::Result<OwnedFd> {
        Ok(fs::File::open(&self.path)?.into())
    }

    /// Whether a living process is in it. Zombies do not count. What cannot be looked at is not said to be empty.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(events) => events.contains("populated 1"),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Whether the kernel killed a process in it for want of memory; known where the memory controller is on.
    #[must_use]
    pub fn wanted_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok());
        kills.is_some_and(|kills| kills > 0)
    }

    /// Its processes, those of cgroups beneath it too.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        collect(&self.path, &mut found);
        found
    }

    /// Kills every process in it, also those being forked.
    pub fn kill(&self) {
        if old_kernel() || self.write("cgroup.kill", b"1").is_err() {
            self.kill_one_by_one();
        }
    }

    /// It stays frozen: nothing in it is meant to run again, and SIGKILL needs no thaw.
    fn kill_one_by_one(&self) {
        let _ = self.write("cgroup.freeze", b"1");
        for _ in 0..ROUNDS {
            let pinned: Vec<_> =
                self.processes().into_iter().filter_map(|pid| Some((pid, pidfd_of(pid).ok()?))).collect();
            // Whoever is listed after it was pinned is the process that was pinned, not one that has its number now.
            let listed = self.processes();
            if listed.is_empty() {
                return;
            }
            for (_, pidfd) in pinned.iter().filter(|(pid, _)| listed.contains(pid)) {
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
            }
        }
    }

    fn write(&self, file: &str, text: &[u8]) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(self.path.join(file))?.write_all(text)
    }

    /// The kernel wakes whoever polls `cgroup.events` when that changes.
    fn wait_until_empty(&self) {
        let Ok(mut events) = fs::File::open(self.path.join("cgroup.events")) else { return };
        for _ in 0..LOOKS {
            let mut text = String::new();
            if events.rewind().and_then(|()| events.read_to_string(&mut text)).is_err() || text.contains("populated 0")
            {
                return;
            }
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], PollTimeout::from(LOOK_AGAIN));
        }
    }

    /// Removes it and what servers made beneath it; does nothing while a process lives there.
    pub fn remove(&self) {
        remove_beneath(&self.path);
    }
}

fn collect(path: &Path, found: &mut Vec<u32>) {
    if let Ok(list) = fs::read_to_string(path.join("cgroup.procs")) {
        found.extend(list.lines().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    for beneath in directories(path) {
        collect(&beneath, found);
    }
}

fn remove_beneath(path: &Path) {
    for beneath in directories(path) {
        remove_beneath(&beneath);
    }
    let _ = fs::remove_dir(path);
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

/// The directory of the v2 cgroup that a process with this `/proc/self/cgroup` lives in.
fn own_directory(mountinfo: &str, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    for line in mountinfo.lines() {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() == Some("cgroup2") {
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let inside = Path::new(path).strip_prefix(root).ok()?;
            return Some(Path::new(point).join(inside));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_directory_is_found_in_unified_and_hybrid_hierarchies() {
        let hybrid = "25 24 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n30 25 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/x\n0::/user.slice/a\n";
        assert_eq!(own_directory(hybrid, own), Some(PathBuf::from("/sys/fs/cgroup/unified/user.slice/a")));
        let delegated = "30 25 0:26 /pod/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(own_directory(delegated, "0::/pod/1/a"), Some(PathBuf::from("/sys/fs/cgroup/a")));
        assert_eq!(own_directory("25 24 0:22 / /sys rw - sysfs sysfs rw\n", own), None);
    }
}
