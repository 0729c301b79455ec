//! Which files in some directories change: inotify, without the directories below them. Knows no lane; `doctor` asks.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Watches directories.
#[derive(Debug)]
pub struct Changes {
    inotify: Inotify,
    directories: HashMap<WatchDescriptor, PathBuf>,
}

impl Changes {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the user has no watcher left (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self { inotify, directories: HashMap::new() })
    }

    /// Watches a directory too; one that is not there has nothing to tell.
    pub fn watch(&mut self, directory: &Path) {
        let kinds = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ONLYDIR;
        if let Ok(number) = self.inotify.add_watch(directory, kinds) {
            self.directories.insert(number, directory.to_owned());
        }
    }

    /// What changed since it was last asked. Never waits: the kernel notes a change before the call that makes it returns.
    pub fn take(&mut self) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        loop {
            match self.inotify.read_events() {
                Ok(events) => changed.extend(events.into_iter().filter_map(|event| {
                    let directory = self.directories.get(&event.wd)?;
                    Some(directory.join(event.name?))
                })),
                Err(Errno::EINTR) => {}
                Err(_) => return changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_known_at_once_and_told_once() {
        let directory = std::env::temp_dir().join(format!("laneway-changes-{}", std::process::id()));
        fs::create_dir_all(directory.join("below")).unwrap();
        fs::write(directory.join("known"), "x").unwrap();
        let mut changes = Changes::new().unwrap();
        changes.watch(&directory);
        changes.watch(&directory.join("nowhere"));
        assert_eq!(changes.take(), BTreeSet::new());
        fs::write(directory.join("known"), "y").unwrap();
        fs::write(directory.join("below/not watched"), "y").unwrap();
        fs::read(directory.join("known")).unwrap();
        assert_eq!(changes.take(), BTreeSet::from([directory.join("known")]));
        assert_eq!(changes.take(), BTreeSet::new());
        fs::remove_dir_all(&directory).unwrap();
    }
}
