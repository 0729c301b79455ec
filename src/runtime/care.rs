//! Looks after logs where the keeper may not: says what is wrong with their disk, makes a directory again that somebody
//! removed, and lets rotated files be compressed.
//!
//! The keeper's journal is the truth; its news only say when to look. Called by the driver.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc::{PRIO_PROCESS, setpriority};
use tracing::warn;

use super::driver::Tools;
use super::lane;
use super::link::{KeeperLink, Log, path_of, slot};
use super::processes::{ended, pidfd_of};
use crate::keeper::journal::{self, LogHealth, Trouble};
use crate::model::InstanceId;
use crate::plan::Plan;
use crate::plan::spec::Spec;
use crate::view::snapshot::LogTrouble;

/// What was found.
#[derive(Debug, Default)]
pub struct Care {
    /// The logs that something was wrong with.
    troubled: BTreeMap<(InstanceId, Log), LogHealth>,
    /// The newest rotated file that was handed to a compressor.
    compressed: BTreeMap<(InstanceId, Log), u64>,
}

/// What is to be done about it.
#[derive(Debug, Default)]
pub struct Chores {
    /// Instances whose log directory is gone.
    pub to_make: Vec<InstanceId>,
    /// Logs with rotated files to compress, up to this number.
    pub to_compress: Vec<(InstanceId, Log, u64)>,
    /// Instances that people are to be told of: their trouble began or ended.
    pub changed: Vec<InstanceId>,
}

impl Care {
    /// Looks at every log of `plan` in the keeper's `journal`.
    pub fn look(&mut self, plan: &Plan, journal: &OwnedFd) -> Chores {
        let mut chores = Chores::default();
        for id in plan.ids() {
            for log in Log::ALL {
                let Some(health) = journal::read(journal.as_fd(), slot(id, log)) else { continue };
                let key = (id, log);
                let before = self.troubled.get(&key).and_then(|before| before.trouble);
                if before != health.trouble {
                    chores.changed.push(id);
                }
                if health.trouble == Some(Trouble::Error(Errno::ENOENT as i32)) {
                    chores.to_make.push(id);
                }
                let done = self.compressed.entry(key).or_default();
                if plan.spec(id).logging.compress && health.newest_rotated > *done {
                    *done = health.newest_rotated;
                    chores.to_compress.push((id, log, health.newest_rotated));
                }
                if health.trouble.is_some() || health.dropped_ever > 0 {
                    self.troubled.insert(key, health);
                } else {
                    self.troubled.remove(&key);
                }
            }
        }
        chores.to_make.dedup();
        chores.changed.dedup();
        chores
    }

    /// What people should know of the logs of an instance, with the figures of now.
    #[must_use]
    pub fn trouble(&self, id: InstanceId, spec: &Spec, journal: &OwnedFd, now: u64) -> Vec<LogTrouble> {
        let mine = self.troubled.range((id, Log::Output)..=(id, Log::Access));
        let told = mine.filter_map(|((_, log), _)| {
            let health = journal::read(journal.as_fd(), slot(id, *log))?;
            let path = path_of(spec, *log);
            Some(LogTrouble {
                what: match health.trouble {
                    Some(Trouble::Stuck) => Some("its file system hangs".to_owned()),
                    Some(Trouble::Error(number)) => Some(Errno::from_raw(number).desc().to_lowercase()),
                    None => None,
                },
                for_seconds: seconds(now.saturating_sub(health.since_micros)),
                waiting_bytes: health.buffered,
                dropped_bytes: health.dropped_ever,
                file_system: file_system(&path),
                log: path,
            })
        });
        told.collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The file system that holds `path`, without touching it: it may hang.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        path.starts_with(point).then(|| (point.as_os_str().len(), point, kind.split(' ').next().unwrap_or("?")))
    });
    // The last of those that cover it best is the one on top.
    let best = found.max_by_key(|(length, ..)| *length);
    best.map(|(_, point, kind)| format!("{kind} at {}", point.display())).unwrap_or_default()
}

/// Makes the lane of `id` again and tells the keeper where its logs belong now. Blocks.
pub fn make_again(plan: &Plan, id: InstanceId, keeper: &KeeperLink) {
    let spec = plan.spec(id);
    let made = lane::prepare(spec, lane::at_once).map_err(|error| error.to_string());
    let declared = made.and_then(|_| keeper.declare(id, spec).map_err(|error| error.to_string()));
    if let Err(error) = declared {
        warn!("the logs of {} cannot be made again: {error}", spec.name);
    }
}

/// Compresses the rotated files of a log up to number `last`, in a process that stands back behind every other, and waits
/// for its end. What is younger still belongs to the keeper.
pub async fn compress(plan: Arc<Plan>, id: InstanceId, log: Log, last: u64, tools: Arc<Tools>) {
    let spec = plan.spec(id);
    let path = path_of(spec, log);
    let mut command = Command::new("/proc/self/exe");
    command.arg0("laneway").arg("compress").arg(path).arg(last.to_string()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: a plain system call.
    unsafe {
        command.pre_exec(|| {
            setpriority(PRIO_PROCESS, 0, 19);
            Ok(())
        });
    }
    match tools.spawner.spawn_own(&mut command) {
        Ok(child) => {
            if let Ok(pidfd) = pidfd_of(child.id()) {
                let _ = ended(pidfd).await;
            }
            // From now on it is a stranger, and reaped as one.
            tools.spawner.forget(child.id());
            tools.spawner.reap_strangers();
        }
        Err(error) => warn!("the logs of {} cannot be compressed: {error}", spec.name),
    }
}

/// Whether compressing may begin: never two at a time, the rest waits in line.
#[derive(Debug, Default)]
pub struct Line {
    waiting: BTreeMap<(InstanceId, Log), u64>,
    is_busy: bool,
}

impl Line {
    /// These want to be next; who begins now, if anybody.
    pub fn join(&mut self, who: Vec<(InstanceId, Log, u64)>) -> Option<(InstanceId, Log, u64)> {
        self.waiting.extend(who.into_iter().map(|(id, log, last)| ((id, log), last)));
        self.next()
    }

    /// The last one is done; who begins now, if anybody.
    pub fn done(&mut self) -> Option<(InstanceId, Log, u64)> {
        self.is_busy = false;
        self.next()
    }

    fn next(&mut self) -> Option<(InstanceId, Log, u64)> {
        if self.is_busy {
            return None;
        }
        let ((id, log), last) = self.waiting.pop_first()?;
        self.is_busy = true;
        Some((id, log, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressors_stand_in_line() {
        let log = |number, last| (InstanceId(number), Log::Output, last);
        let mut line = Line::default();
        assert_eq!(line.join(vec![log(3, 1), log(1, 1)]), Some(log(1, 1)));
        assert_eq!(line.join(vec![log(1, 2), log(2, 1), log(1, 3)]), None, "one at a time");
        assert_eq!(line.done(), Some(log(1, 3)), "what came meanwhile is not forgotten");
        assert_eq!(line.done(), Some(log(2, 1)));
        assert_eq!(line.done(), Some(log(3, 1)));
        assert_eq!(line.done(), None);
        assert_eq!(line.join(vec![log(9, 1)]), Some(log(9, 1)));
    }

    #[test]
    fn a_file_system_has_a_name() {
        assert!(file_system(Path::new("/proc/self")).starts_with("proc at /proc"));
    }
}
