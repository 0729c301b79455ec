//! What a path really names: symlinks resolved as far as it exists, and the file's identity where it does.
//!
//! The one file of `plan` that looks at the disk, beside the `env_file`s that `build` asks `config` for.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Canonical paths of the directories that were looked up: thousands of lanes lie in the same few.
#[derive(Default)]
pub struct Disk {
    known: HashMap<PathBuf, PathBuf>,
}

impl Disk {
    /// `path` with the symlinks of its longest existing part resolved. `path` is absolute.
    pub fn canonical(&mut self, path: &Path) -> PathBuf {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let canonical = fs::canonicalize(path).unwrap_or_else(|_| match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.canonical(parent).join(name),
            _ => path.to_path_buf(),
        });
        self.known.insert(path.to_path_buf(), canonical.clone());
        canonical
    }
}

/// Device and number of an existing file: hard links share them.
pub fn inode(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}
