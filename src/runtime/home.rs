//! The directory `.run` in the state directory: lock, socket, the running plan, the records. One place for their names.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

use super::beneath::Root;
use super::records;
use crate::model::InstanceName;
use crate::plan::spec::Plan;

/// Longest path that a socket address holds, in bytes (`man 7 unix`).
const SOCKET_PATH_MAX: usize = 107;

/// The directory `.run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    directory: PathBuf,
}

impl Home {
    /// Of the fleet with this state directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { directory: state_dir.join(".run") }
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the control socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Where laneway's own log is.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("laneway.log")
    }

    /// Makes the directory, and keeps the state directory out of version control.
    ///
    /// # Errors
    /// When it is a link or another user's; else the system's.
    pub fn prepare(&self) -> io::Result<()> {
        let state_dir = self.directory.parent().unwrap_or(Path::new("/"));
        let run = File::from(Root::new(state_dir).directory(&self.directory)?.try_clone()?);
        let (owner, me) = (run.metadata()?.uid(), geteuid());
        if owner != me.as_raw() && !me.is_root() {
            return Err(io::Error::other(format!("it belongs to user {owner}, who could reach into this fleet")));
        }
        let ignore = state_dir.join(".gitignore");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(ignore) {
            Ok(mut file) => file.write_all(b"*\n"),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of the fleet; `None` if a keeper or a supervisor holds it. It is free when the last descriptor of
    /// this open file is closed, and never needs a person.
    ///
    /// # Errors
    /// When the file cannot be opened or locked at all.
    pub fn lock(&self) -> io::Result<Option<OwnedFd>> {
        let file = self.lasting("lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file.into())),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a keeper or a supervisor lives.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        // Only to read: a disk that is frozen, or full, must not keep anybody from asking.
        let flags = O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.directory.join("lock"));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Whether a supervisor left without clearing up: it was killed, its keeper too if nobody holds the lock.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.directory.join("plan.json").exists()
    }

    /// Names this fleet on this machine, in the markers of its processes; made once. Half of it says which directory it
    /// was made for: a copied checkout is another fleet, and must not take the original's processes for its own.
    ///
    /// # Errors
    /// The system's.
    pub fn fleet_id(&self) -> io::Result<String> {
        let place = fs::metadata(&self.directory)?;
        let place = format!("{:08x}", (place.ino() ^ place.dev().rotate_left(32)) & 0xffff_ffff);
        if let Ok(id) = fs::read_to_string(self.directory.join("fleet"))
            && id.len() == 16
            && id.ends_with(&place)
        {
            return Ok(id);
        }
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let id = format!("{:08x}{place}", u32::from_ne_bytes(random));
        self.replace("fleet", id.as_bytes())?;
        Ok(id)
    }

    /// Writes the plan that runs, for `env`, `exec`, `config` and the next `up`.
    ///
    /// # Errors
    /// The system's.
    pub fn write_plan(&self, plan: &Plan) -> io::Result<()> {
        self.replace("plan.json", &serde_json::to_vec(plan)?)
    }

    /// The plan that runs, if one does.
    #[must_use]
    pub fn running_plan(&self) -> Option<Plan> {
        if self.is_locked() { self.last_plan() } else { None }
    }

    /// The file of records, to read and to write.
    ///
    /// # Errors
    /// The system's.
    pub fn records(&self) -> io::Result<File> {
        self.lasting("records")
    }

    /// A file that stays the same one from its first use on, to read and to write.
    fn lasting(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
            .open(self.directory.join(name))
    }

    /// Where a client names the binary that the supervisor shall become.
    #[must_use]
    pub fn upgrade(&self) -> PathBuf {
        self.directory.join("upgrade")
    }

    /// Names the binary that the supervisor shall become.
    ///
    /// # Errors
    /// The system's.
    pub fn name_upgrade(&self, binary: &Path) -> io::Result<()> {
        self.replace("upgrade", binary.as_os_str().as_encoded_bytes())
    }

    /// Who runs on though keeper and supervisor were killed, and nobody watches; nobody if they were not.
    #[must_use]
    pub fn unwatched(&self) -> Vec<(InstanceName, u32)> {
        if self.is_locked() || !self.is_abandoned() {
            return Vec::new();
        }
        File::open(self.directory.join("records")).map(|file| records::living(&file)).unwrap_or_default()
    }

    /// The plan that an earlier supervisor ran, whether or not one runs.
    #[must_use]
    pub fn last_plan(&self) -> Option<Plan> {
        serde_json::from_slice(&fs::read(self.directory.join("plan.json")).ok()?).ok()
    }

    /// Listens on the control socket, in place of whatever an earlier supervisor left. The lock must be held.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let _ = fs::remove_file(self.socket());
        // No moment in which others could connect; the directory is ours alone anyway.
        let old = umask(Mode::from_bits_truncate(0o177));
        let bound = self.with_short_path(|path| UnixListener::bind(path)).or_else(|error| self.listen_elsewhere(error));
        umask(old);
        bound
    }

    /// Some file systems know no sockets: then it is in the user's runtime directory, with a link to it here.
    fn listen_elsewhere(&self, error: io::Error) -> io::Result<UnixListener> {
        let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) else {
            return Err(error);
        };
        let elsewhere = PathBuf::from(runtime).join(format!("laneway-{}.sock", self.fleet_id()?));
        let _ = fs::remove_file(&elsewhere);
        let listener = UnixListener::bind(&elsewhere)?;
        std::os::unix::fs::symlink(&elsewhere, self.socket())?;
        Ok(listener)
    }

    /// Connects to the supervisor.
    ///
    /// # Errors
    /// The system's: nobody listens, or not yet.
    pub fn connect(&self) -> io::Result<UnixStream> {
        self.with_short_path(|path| UnixStream::connect(path))
    }

    /// Gives a path of the socket that fits into an address, however long the real one is.
    fn with_short_path<T>(&self, use_it: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
        let path = self.socket();
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return use_it(&path);
        }
        let directory = File::open(&self.directory)?;
        use_it(Path::new(&format!("/proc/self/fd/{}/control.sock", directory.as_raw_fd())))
    }

    /// What ends with the supervisor.
    pub fn clear(&self) {
        for name in ["control.sock", "plan.json"] {
            let _ = fs::remove_file(self.directory.join(name));
        }
    }

    /// A reader sees the old content or the new, whatever happens in between.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let beside = self.directory.join(format!("{name}.new"));
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        fs::rename(beside, self.directory.join(name))
    }
}
