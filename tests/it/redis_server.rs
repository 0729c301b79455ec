//! A real Redis of a test's own: on a free port, in a directory of its own, ended when it goes.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use laneway::services::redis::{Connection, Server};
use nix::sys::signal::{Signal, kill};

use crate::harness::{PATIENCE, pid, port, wait_until};

/// For one answer of it in a test.
const ANSWER: Duration = Duration::from_secs(5);

/// A server.
pub struct Redis {
    child: Child,
    port: u16,
    directory: PathBuf,
    options: Vec<String>,
}

impl Redis {
    /// A plain one.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One with these options, such as `["--maxmemory", "2mb"]`. Returns once it answers.
    pub fn with(options: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(format!("/tmp/lw-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        let port = port();
        let child = spawn(port, &directory, &options);
        let redis = Self { child, port, directory, options };
        redis.wait_for_answer();
        redis
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, database 0.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// A URL for its Unix socket.
    pub fn socket_url(&self) -> String {
        format!("unix://{}", self.directory.join("redis.sock").display())
    }

    /// A connection to it.
    pub fn open(&self) -> Connection {
        Server::parse(&self.url()).unwrap().open(ANSWER).unwrap()
    }

    /// What `redis-cli` prints for these words.
    #[track_caller]
    pub fn cli(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Every key, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.cli(&["--scan"]).lines().map(str::to_owned).collect();
        keys.sort();
        keys
    }

    /// Puts `count` keys under `start`, named by number.
    pub fn fill(&self, start: &str, count: usize) {
        let pairs: Vec<_> =
            (0..count).map(|number| (format!("{start}{number}").into_bytes(), vec![b'x'; 100])).collect();
        let mut connection = self.open();
        for part in pairs.chunks(10_000) {
            connection.set_all(part, Duration::from_hours(1)).unwrap();
        }
    }

    /// Ends it, as a crash does; its port is free afterwards.
    pub fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub fn come_back(&mut self) {
        self.child = spawn(self.port, &self.directory, &self.options);
        self.wait_for_answer();
    }

    /// Stops it without ending it: it takes connections and answers nobody.
    pub fn hang(&self) {
        kill(pid(self.child.id()), Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        kill(pid(self.child.id()), Signal::SIGCONT).unwrap();
    }

    fn wait_for_answer(&self) {
        let answers = wait_until(PATIENCE, || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        assert!(answers, "redis does not answer at {}\n{log}", self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn spawn(port: u16, directory: &Path, options: &[String]) -> Child {
    let log = fs::File::create(directory.join("log")).unwrap();
    let mut command = program();
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--dir", directory.to_str().unwrap(), "--unixsocket", "redis.sock"]).args(options);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// The server. Debian's redis-tools, which starts nothing by itself, has it under another name: one program, many names.
fn program() -> Command {
    let found = |name: &str| {
        ["/usr/bin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.exists())
    };
    let program = found("redis-server").or_else(|| found("redis-check-rdb"));
    let mut command =
        Command::new(program.expect("Redis is missing; scripts/test installs it (apt-get install redis-tools)"));
    command.arg0("redis-server");
    command
}
