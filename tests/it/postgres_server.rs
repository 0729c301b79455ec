//! A real PostgreSQL of the tests' own: a new cluster on a free port, in a directory of its own, ended when the last test
//! that uses it goes. Passwords are asked for, and every statement is in its log.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::sys::signal::{Signal, kill};

use crate::harness::{PATIENCE, pid, port, wait_until};

/// The server refuses to run as root.
const NOBODY: u32 = 65_534;
/// The password of both administrators.
const PASSWORD: &str = "geheim-der-tests";

/// A server.
pub struct Postgres {
    child: Mutex<Child>,
    port: u16,
    directory: PathBuf,
}

impl Postgres {
    /// The one that tests share; each of them calls its databases otherwise.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let postgres = Arc::new(Self::start());
            *shared = Arc::downgrade(&postgres);
            postgres
        })
    }

    /// One of a test's own. Returns once it answers.
    pub fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(format!("/tmp/lw-pg-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        fs::write(directory.join("password"), PASSWORD).unwrap();
        if nix::unistd::getuid().is_root() {
            chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
            chown(directory.join("password"), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let made = program(&directory, "initdb")
            .args(["--no-sync", "--auth=scram-sha-256", "--username=postgres", "--pwfile=password", "--pgdata=data"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let port = port();
        let child = Mutex::new(spawn(port, &directory));
        let postgres = Self { child, port, directory };
        postgres.wait_for_answer();
        postgres.sql(&format!("CREATE ROLE keeper LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORD}'"));
        postgres
    }

    /// An administrator who may make roles and databases, and nothing else.
    pub fn admin_url(&self) -> String {
        self.url("keeper", PASSWORD, "postgres")
    }

    /// Who may do everything.
    pub fn superuser_url(&self) -> String {
        self.url("postgres", PASSWORD, "postgres")
    }

    /// Anybody's URL.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// What it answers the superuser, a line a row, `|` between columns.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        self.ask(&self.superuser_url(), statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// What it answers whoever the URL names.
    pub fn ask(&self, url: &str, statement: &str) -> Result<String, String> {
        let output = program(&self.directory, "psql")
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", url, "-c", statement])
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// A session that lasts, until its input is closed.
    pub fn session(&self, url: &str) -> Child {
        let mut command = program(&self.directory, "psql");
        command.args(["-X", "-q", url]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// What it wrote down, every statement among it.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Ends it as a crash does.
    pub fn crash(&self) {
        self.end(Signal::SIGQUIT);
    }

    /// Starts it again where it was.
    pub fn come_back(&self) {
        *self.child.lock().unwrap() = spawn(self.port, &self.directory);
        self.wait_for_answer();
    }

    fn end(&self, signal: Signal) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = kill(pid(child.id()), signal);
        let _ = child.wait();
    }

    fn wait_for_answer(&self) {
        let answers = wait_until(PATIENCE, || self.ask(&self.superuser_url(), "SELECT 1").is_ok());
        assert!(answers, "PostgreSQL does not answer at {}\n{}", self.port, self.log());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::SIGINT);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn spawn(port: u16, directory: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let sockets = format!("unix_socket_directories={}", directory.display());
    let port = format!("port={port}");
    let settings = [
        "listen_addresses=127.0.0.1",
        &port,
        &sockets,
        "fsync=off",
        "full_page_writes=off",
        "log_statement=all",
        "max_connections=120",
        "shared_buffers=32MB",
    ];
    let mut command = program(directory, "postgres");
    command.args(["-D", "data"]).args(settings.iter().flat_map(|setting| ["-c", setting]));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// A program of PostgreSQL's, as a user that the server takes, in `directory`.
fn program(directory: &Path, name: &str) -> Command {
    let mut command = Command::new(folder().join(name));
    command.current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    if nix::unistd::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Where its programs are; Debian keeps a folder for each version.
pub fn folder() -> PathBuf {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    versions.sort();
    let missing = "PostgreSQL is missing; scripts/test installs it (apt-get install postgresql)";
    versions.pop().or_else(|| Path::new("/usr/bin/initdb").exists().then(|| "/usr/bin".into())).expect(missing)
}
