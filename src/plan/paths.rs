//! What a path really names: symlinks resolved as far as it exists, and the file's identity where it does.
//!
//! The one file of `plan` that looks at the disk, beside the `env_file`s that `build` asks `config` for.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the disk says of the directories that were asked for: thousands of lanes lie in the same few.
#[derive(Default)]
pub struct Disk {
    known: HashMap<PathBuf, Directory>,
}

/// A directory's canonical path, and whether it is there: else nothing in it is either.
#[derive(Clone)]
struct Directory {
    path: PathBuf,
    exists: bool,
}

impl Disk {
    /// `path` with the symlinks of its longest existing part resolved. `path` is absolute.
    pub fn canonical(&mut self, path: &Path) -> PathBuf {
        self.look(path).path
    }

    /// One look at the disk at most, since the directory above is known with its own links resolved.
    fn look(&mut self, path: &Path) -> Directory {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Directory { path: path.to_path_buf(), exists: true };
        };
        let parent = self.directory(parent);
        let path = parent.path.join(name);
        if !parent.exists {
            return Directory { path, exists: false };
        }
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => match fs::canonicalize(&path) {
                Ok(path) => Directory { path, exists: true },
                Err(_) => Directory { path, exists: false },
            },
            found => Directory { path, exists: found.is_ok() },
        }
    }

    fn directory(&mut self, path: &Path) -> Directory {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let directory = self.look(path);
        self.known.insert(path.to_path_buf(), directory.clone());
        directory
    }
}

/// Device and number of an existing file: hard links share them.
pub fn inode(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Whatever the disk has, it is what the system makes of the longest part that is there.
    #[test]
    fn links_are_followed_as_far_as_there_is_something() {
        let root = std::env::temp_dir().join(format!("laneway-paths-{}", std::process::id()));
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::write(root.join("real/file"), "").unwrap();
        let links =
            [("link", "real"), ("chain", "link/deep"), ("gone", "nowhere"), ("loop", "loop"), ("to_file", "real/file")];
        for (name, target) in links {
            symlink(target, root.join(name)).unwrap();
        }
        let mut disk = Disk::default();
        for path in [
            "real/deep",
            "real/new/a/b",
            "real/file",
            "real/file/below",
            "link",
            "link/file",
            "link/new/a",
            "chain",
            "chain/a",
            "gone",
            "gone/a",
            "loop",
            "loop/a",
            "to_file",
            "to_file/a",
            "new",
            "new/link",
        ] {
            let path = root.join(path);
            let found = path.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
            let expected = found.map(|(above, real)| real.join(path.strip_prefix(above).unwrap()));
            // Nothing below adds a slash to its end.
            let expected = expected.map(|path| path.components().collect::<PathBuf>());
            assert_eq!(Some(disk.canonical(&path)), expected, "{}", path.display());
        }
        assert_eq!(disk.canonical(Path::new("/")), Path::new("/"));
        fs::remove_dir_all(&root).unwrap();
    }
}
