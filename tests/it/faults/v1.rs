//! Cgroups of version 1, beside those that laneway makes: they freeze, starve of memory or forbid forks, as a machine does.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{PATIENCE, wait_until};

/// A cgroup of its own; what is in it goes back to the root when it goes.
#[derive(Debug)]
pub struct V1(PathBuf);

impl V1 {
    /// With this process in it. Says so and gives `None` where that cannot be.
    pub fn of(controller: &str, pid: u32) -> Option<Self> {
        let place = Path::new("/sys/fs/cgroup").join(controller).join(format!("laneway-test-{pid}"));
        if fs::create_dir(&place).is_err() {
            eprintln!("SKIPPED: no writable controller {controller} of cgroup v1 here");
            return None;
        }
        let made = Self(place);
        made.set("cgroup.procs", &pid.to_string());
        Some(made)
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    /// Reads one of its files.
    pub fn get(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for V1 {
    fn drop(&mut self) {
        let is_removed = || {
            for pid in self.get("cgroup.procs").lines() {
                // It may have ended.
                let _ = fs::write(self.0.with_file_name("cgroup.procs"), pid);
            }
            fs::remove_dir(&self.0).is_ok()
        };
        assert!(wait_until(PATIENCE, is_removed) || std::thread::panicking());
    }
}
