//! Places beneath a directory that the user chose, reached without following a link: neither a checkout nor anybody who
//! may write there leads laneway elsewhere. Knows no lane and no fleet; `lane` and `home` go this way before they write.
//!
//! One component after the other, which every kernel and every container allows; `openat2` is refused by some.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

/// Neither its bytes nor its names are asked for: it is where others are reached from.
const HELD: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// A directory that the user chose, and those beneath it that were reached so far. Beneath it no link is followed; the
/// directory itself may be reached by links, and so may paths elsewhere: the user named them.
#[derive(Debug)]
pub struct Root<'a> {
    path: &'a Path,
    held: Vec<(PathBuf, Arc<OwnedFd>)>,
}

/// A directory that is held open, and a name in it.
#[derive(Debug)]
pub struct Place {
    /// Keeps `path` meaning the same.
    _folder: Arc<OwnedFd>,
    path: PathBuf,
}

impl Place {
    /// A path that means it, whatever happens to its directory's own path. A link at the name itself is not looked at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl<'a> Root<'a> {
    /// The directory `path`, of which nothing was reached yet.
    #[must_use]
    pub fn new(path: &'a Path) -> Self {
        Self { path, held: Vec::new() }
    }

    /// The directory `path`, which is made, for its user alone, where it is missing.
    ///
    /// # Errors
    /// Names a link on the way; else the system's.
    pub fn directory(&mut self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        if let Some((_, held)) = self.held.iter().find(|(reached, _)| reached == path) {
            return Ok(Arc::clone(held));
        }
        let directory = Arc::new(match path.strip_prefix(self.path) {
            Ok(inside) if inside != Path::new("") => self.step(path)?,
            _ => chosen(path)?,
        });
        self.held.push((path.to_owned(), Arc::clone(&directory)));
        Ok(directory)
    }

    /// From the directory above to `path`.
    fn step(&mut self, path: &Path) -> io::Result<OwnedFd> {
        // `..` has no name; nobody is led out.
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let above = self.directory(above)?;
        let reach = || openat(&above, name, HELD | OFlag::O_NOFOLLOW, Mode::empty());
        let reached = match reach() {
            Err(Errno::ENOENT) => match mkdirat(&above, name, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => reach(),
                Err(error) => return Err(error.into()),
            },
            reached => reached,
        };
        reached.map_err(|error| in_the_way(&above, name, path, error))
    }

    /// The place of `path`, whose directory is made as `directory` makes it.
    ///
    /// # Errors
    /// As `directory`, and when `path` has no name.
    pub fn place(&mut self, path: &Path) -> io::Result<Place> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let folder = self.directory(parent)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Place { _folder: folder, path })
    }
}

/// A directory by the path that the user gave.
fn chosen(path: &Path) -> io::Result<OwnedFd> {
    let reached = match open(path, HELD, Mode::empty()) {
        Err(Errno::ENOENT) => {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            open(path, HELD, Mode::empty())
        }
        reached => reached,
    };
    reached.map_err(Into::into)
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
