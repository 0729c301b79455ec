//! Places beneath a directory that the user chose, reached without following a link: neither a checkout nor anybody who
//! may write there leads laneway elsewhere. Knows no lane and no fleet; `lane` and `home` go this way before they write.
//!
//! One component after the other, which every kernel and every container allows; `openat2` is refused by some.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

/// A directory that is held open, and a name in it.
#[derive(Debug)]
pub struct Place {
    /// Keeps `path` meaning the same.
    _folder: OwnedFd,
    path: PathBuf,
}

impl Place {
    /// The place of `path`, whose directory is made as `directory` makes it.
    ///
    /// # Errors
    /// As `directory`, and when `path` has no name.
    pub fn of(root: &Path, path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let folder = directory(root, parent)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { _folder: folder, path })
    }

    /// A path that means it, whatever happens to its directory's own path. A link at the name itself is not looked at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory `path`, which is made, for its user alone, where it is missing. Beneath `root` no link is followed.
/// `root` itself may be reached by links, and so may a `path` elsewhere: the user named them.
///
/// # Errors
/// Names a link on the way; else the system's.
pub fn directory(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let inside = path.strip_prefix(root).ok();
    let chosen = if inside.is_some() { root } else { path };
    DirBuilder::new().recursive(true).mode(0o700).create(chosen)?;
    let mut reached = chosen.to_owned();
    let mut directory = open(chosen, flags, Mode::empty())?;
    for component in inside.into_iter().flat_map(Path::components) {
        let Component::Normal(name) = component else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
        reached.push(name);
        match mkdirat(&directory, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        directory = openat(&directory, name, flags | OFlag::O_NOFOLLOW, Mode::empty())
            .map_err(|error| in_the_way(&directory, name, &reached, error))?;
    }
    Ok(directory)
}

fn in_the_way(directory: impl AsFd, name: &OsStr, reached: &Path, error: Errno) -> io::Error {
    match readlinkat(directory, name) {
        Ok(target) => io::Error::other(format!(
            "{} is a symbolic link to {}, and laneway follows none in its state directory; put a directory there",
            reached.display(),
            target.display()
        )),
        Err(_) => error.into(),
    }
}
