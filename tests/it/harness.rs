//! A fleet of its own for each test: a directory, ports that nobody has, the true binary in a clean environment.
//!
//! The one place that waits and the one that looks for what is left. Everything a test starts belongs to a `Fleet`, an
//! `Attached` or a `Stranger`, which end it when they go; a process of the fleet that outlives `down` fails the test.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The server of the tests.
pub const PUPPET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/puppet.py");

/// An ordinary user.
const NOBODY: u32 = 65_534;

/// No command of these tests takes longer; whoever waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What stands before the instances of most tests: puppets, and intervals that let a test be short.
pub const DEFAULTS: &str = "\
name: it
defaults:
  command: [python3, -IS, $puppet]
  healthcheck: {path: /health/, interval: 200ms, start_interval: 20ms, timeout: 500ms, retries: 2}
  stop_grace_period: 500ms
  restart_policy: {delay: 100ms, max_delay: 400ms}
";

/// Waits until `is_so`, and says whether it came to be. What has an event of its own is better waited for by that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place of the tests that reads the clock and sleeps")]
pub fn wait_until(deadline: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How long `act` took, and what came of it.
#[expect(clippy::disallowed_methods, reason = "a test of how long something takes reads the clock")]
pub fn timed<T>(act: impl FnOnce() -> T) -> (Duration, T) {
    let before = Instant::now();
    let result = act();
    (before.elapsed(), result)
}

/// A port that nobody listens on, and that no other test of this run was given.
#[must_use]
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Beneath the ephemeral ports; where it begins depends on the pid, for test binaries that run side by side.
        let offset = u16::try_from(std::process::id() % 40).unwrap() * 300;
        let number = 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("0.0.0.0", number)).is_ok() {
            return number;
        }
    }
}

/// What a command left: its exit code and what it wrote.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128 + signal if one ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Holds it to an exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self
    }

    /// Holds standard error to words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.err.contains(word),
                "standard error lacks {word:?}\n--- out\n{}\n--- err\n{}",
                self.out,
                self.err
            );
        }
        self
    }

    /// Holds standard output to words.
    #[track_caller]
    pub fn shows(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.out.contains(word),
                "standard output lacks {word:?}\n--- out\n{}\n--- err\n{}",
                self.out,
                self.err
            );
        }
        self
    }
}

/// A directory with a fleet.
#[derive(Debug)]
pub struct Fleet {
    directory: PathBuf,
    ports: [OnceLock<u16>; 10],
    environment: Vec<(String, String)>,
}

impl Fleet {
    /// `DEFAULTS`, then `instances` (YAML, under the key `instances`; see `Fleet::raw` for what is replaced in it).
    pub fn new(instances: &str) -> Self {
        let mut text = format!("{DEFAULTS}instances:\n");
        for line in instances.lines() {
            // A line that begins at the margin is an instance; one that begins with `top:` is a key of the whole file.
            match line.strip_prefix("top:") {
                Some(line) => writeln!(text, "{line}").unwrap(),
                None => writeln!(text, "  {line}").unwrap(),
            }
        }
        Self::raw(&text)
    }

    /// A fleet with this file. In it `$0` to `$9` become ports and `$puppet` the path of the puppet.
    pub fn raw(yaml: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // A short path: a socket's is at most 107 bytes.
        let directory = PathBuf::from(format!("/tmp/lw-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        for folder in ["fleet", "state", "home"] {
            fs::create_dir_all(directory.join(folder)).unwrap();
        }
        let mut fleet = Self { directory, ports: Default::default(), environment: Vec::new() };
        fleet.set("XDG_STATE_HOME", fleet.directory.join("state").to_str().unwrap());
        fleet.set("HOME", fleet.directory.join("home").to_str().unwrap());
        fleet.set("PATH", "/usr/local/bin:/usr/bin:/bin");
        fleet.set("LANG", "C.UTF-8");
        fleet.write(yaml);
        fleet
    }

    /// Replaces what stands for ports and the puppet.
    pub fn fill(&self, yaml: &str) -> String {
        let mut text = yaml.replace("$puppet", PUPPET);
        for number in 0..self.ports.len() {
            let word = format!("${number}");
            if text.contains(&word) {
                text = text.replace(&word, &self.port(number).to_string());
            }
        }
        text
    }

    /// Writes the file anew.
    pub fn write(&self, yaml: &str) {
        fs::write(self.file(), self.fill(yaml)).unwrap();
    }

    /// The file's text.
    pub fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.folder().join("instances.yaml")
    }

    /// The folder of the file.
    pub fn folder(&self) -> PathBuf {
        self.directory.join("fleet")
    }

    /// A path in the state directory.
    pub fn state(&self, path: &str) -> PathBuf {
        self.folder().join(".laneway").join(path)
    }

    /// The port that stands for `$number`.
    pub fn port(&self, number: usize) -> u16 {
        *self.ports[number].get_or_init(port)
    }

    /// Sets a variable of laneway's environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The same user as `other`: one registry.
    pub fn beside(&mut self, other: &Self) {
        self.set("XDG_STATE_HOME", other.directory.join("state").to_str().unwrap());
    }

    /// The true binary, in the fleet's folder, with the fleet's environment and nothing else.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
        command.args(arguments);
        self.clean(command)
    }

    /// Any program, in the fleet's folder, with the fleet's environment and nothing else.
    pub fn clean(&self, mut command: Command) -> Command {
        command.current_dir(self.folder()).env_clear().envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null());
        // A shell lets what it starts in the background ignore Ctrl-C, and so these tests, and all that they start.
        // SAFETY: two system calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                for signal in [Signal::SIGINT, Signal::SIGQUIT] {
                    nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl)?;
                }
                Ok(())
            });
        }
        command
    }

    /// Runs `laneway` to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.spawn(arguments).wait()
    }

    /// Runs a prepared command to its end.
    #[track_caller]
    pub fn run_command(&self, command: Command) -> Output {
        self.spawn_command(command).wait()
    }

    /// Runs `laneway` as an ordinary user, who gets the fleet's directory. Only root can.
    #[track_caller]
    pub fn run_as_nobody(&self, arguments: &[&str]) -> Output {
        // The binary may lie where an ordinary user cannot go.
        let copy = self.directory.join("laneway");
        if !copy.exists() {
            // By another process: a fork of another test would hold the copy open for writing while it is run.
            assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_laneway")).arg(&copy).status().unwrap().success());
        }
        give_to(NOBODY, &self.directory);
        let mut command = Command::new(copy);
        command.args(arguments).uid(NOBODY).gid(NOBODY);
        self.run_command(self.clean(command))
    }

    /// Starts `laneway` and leaves it running.
    pub fn spawn(&self, arguments: &[&str]) -> Attached {
        self.spawn_command(self.command(arguments))
    }

    /// Starts a prepared command. Its output goes to files: no pipe that a daemon could keep open.
    pub fn spawn_command(&self, mut command: Command) -> Attached {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|kind| self.directory.join(format!("{number}.{kind}")));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Attached { child: command.spawn().unwrap(), out, err, screen: None }
    }

    /// Starts `laneway` on a terminal of its own, as its controlling one.
    pub fn spawn_on_terminal(&self, arguments: &[&str]) -> Attached {
        Self::spawn_command_on_terminal(self.command(arguments))
    }

    /// Starts a prepared command on a terminal of its own, as its controlling one.
    pub fn spawn_command_on_terminal(mut command: Command) -> Attached {
        // Closed on exec, unlike what openpty gives: another test's processes would keep the terminal open.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let slave = File::options().read(true).write(true).custom_flags(nix::libc::O_NOCTTY).open(name).unwrap();
        command.env("TERM", "xterm-256color");
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        // SAFETY: two system calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(command);
        let screen = Screen::read(OwnedFd::from(master));
        let nowhere = PathBuf::from("/dev/null");
        Attached { child, out: nowhere.clone(), err: nowhere, screen: Some(screen) }
    }

    /// `up -d --wait`, which must succeed.
    #[track_caller]
    pub fn up(&self) -> Output {
        self.run(&["up", "-d", "--wait", "--wait-timeout", "15"]).expect(0)
    }

    /// `status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// One instance of the status.
    #[track_caller]
    pub fn instance(&self, name: &str) -> Value {
        let status = self.status();
        let instances = status["instances"].as_array().unwrap();
        instances
            .iter()
            .find(|instance| instance["name"] == name)
            .unwrap_or_else(|| panic!("no {name}: {status}"))
            .clone()
    }

    /// Waits until an instance is as `is_so` says, fed by the events of the API.
    #[track_caller]
    pub fn wait_for(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let met = wait_until(PATIENCE, || {
            last = self.ask_status()["instances"]
                .as_array()
                .and_then(|all| all.iter().find(|instance| instance["name"] == name).cloned())
                .unwrap_or_default();
            is_so(&last)
        });
        assert!(met, "{name} never came to be so; it is {last:#}\n{}", self.own_log());
        last
    }

    /// Waits for a phase.
    #[track_caller]
    pub fn wait_for_phase(&self, name: &str, phase: &str) -> Value {
        self.wait_for(name, |instance| instance["phase"] == phase)
    }

    /// Waits until it is healthy.
    #[track_caller]
    pub fn wait_for_health(&self, name: &str, health: &str) -> Value {
        self.wait_for(name, |instance| instance["health"] == health)
    }

    /// The status by the API; `Null` while nobody answers.
    pub fn ask_status(&self) -> Value {
        self.try_api("GET", "/v1/status", "").and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    /// One request to the API: the status and the body.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.try_api(method, path, body).expect("the supervisor answers")
    }

    /// The same with a JSON answer.
    #[track_caller]
    pub fn api_json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.api(method, path, body);
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    fn try_api(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = self.connect()?;
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}").ok()?;
        read_answer(stream)
    }

    /// A connection to the supervisor.
    pub fn connect(&self) -> Option<UnixStream> {
        let stream = UnixStream::connect(self.state(".run/control.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(stream)
    }

    /// The changes of the fleet as the API tells them, the status first.
    pub fn events(&self) -> Events {
        let mut stream = self.connect().unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.0\r\n\r\n").unwrap();
        Events { lines: BufReader::new(stream) }
    }

    /// The pids of supervisor and keeper.
    pub fn pair(&self) -> (u32, u32) {
        let status = self.ask_status();
        (number(&status["supervisor_pid"]), number(&status["keeper_pid"]))
    }

    /// The first process of an instance.
    #[track_caller]
    pub fn pid(&self, name: &str) -> u32 {
        number(&self.instance(name)["pid"])
    }

    /// Asks the puppet of an instance for something.
    #[track_caller]
    pub fn ask(&self, name: &str, path: &str) -> String {
        let port = self.instance(name)["port"].as_u64().and_then(|port| port.try_into().ok()).unwrap();
        let (status, body) = get(port, path).unwrap_or_else(|| panic!("{name} does not answer at {port}"));
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// What `/self` of a puppet says.
    #[track_caller]
    pub fn ask_self(&self, name: &str) -> Value {
        serde_json::from_str(&self.ask(name, "/self")).unwrap()
    }

    /// What stands in an instance's log, rotated files first.
    pub fn log(&self, name: &str) -> String {
        let folder = self.state(&format!("{name}/log"));
        let prefix = format!("{name}.log.");
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut rotated: Vec<u64> =
            entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()).collect();
        rotated.sort_unstable();
        let names = rotated.iter().map(|seq| format!("{prefix}{seq}")).chain([format!("{name}.log")]);
        names
            .map(|name| String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap_or_default()).into_owned())
            .collect()
    }

    /// What laneway itself says.
    pub fn own_log(&self) -> String {
        fs::read_to_string(self.state(".run/laneway.log")).unwrap_or_default()
    }

    /// Every living process that has to do with this fleet: by marker, environment or working directory.
    pub fn processes(&self) -> Vec<Process> {
        let id = fs::read_to_string(self.state(".run/fleet")).unwrap_or_default();
        let mut marks = vec![format!("{}/", self.directory.display())];
        if !id.is_empty() {
            marks.push(format!("LANEWAY_RUN={id}:"));
        }
        let is_ours = |process: &Process| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment);
            let place = fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap_or_default();
            marks.iter().any(|mark| environment.contains(mark)) || place.starts_with(&self.directory)
        };
        living().into_iter().filter(is_ours).collect()
    }

    /// The processes of one instance.
    pub fn processes_of(&self, name: &str) -> Vec<Process> {
        let id = fs::read_to_string(self.state(".run/fleet")).unwrap_or_default();
        let mark = format!("LANEWAY_RUN={id}:{name}-");
        let is_ours = |process: &Process| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&mark)
        };
        living().into_iter().filter(is_ours).collect()
    }
}

impl Drop for Fleet {
    /// Ends the fleet, and fails the test if something of it outlives that.
    fn drop(&mut self) {
        let mut left = self.processes();
        if !left.is_empty() {
            self.run(&["-f", self.file().to_str().unwrap(), "down", "--now"]);
            let _ = wait_until(Duration::from_secs(3), || {
                left = self.processes();
                left.is_empty()
            });
        }
        for process in &left {
            let _ = kill(pid(process.pid), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- laneway.log\n{}", self.own_log());
        }
        let _ = fs::remove_dir_all(&self.directory);
        if !left.is_empty() {
            let words = format!("these outlived the fleet: {left:#?}");
            if std::thread::panicking() {
                eprintln!("{words}");
            } else {
                panic!("{words}");
            }
        }
    }
}

/// Gives a path and everything beneath it to a user.
fn give_to(user: u32, path: &Path) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            give_to(user, &entry.path());
        }
    }
}

/// A living process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// All living processes, without those that only wait to be reaped.
pub fn living() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_alive(*pid))
        .map(|pid| {
            let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            Process { pid, command: String::from_utf8_lossy(&raw).replace('\0', " ") }
        })
        .collect()
}

/// Whether a process lives; one that only waits to be reaped does not.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rfind(')').and_then(|at| stat.get(at + 2..)).and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// A pid as the system's calls want it.
pub fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// Sends a signal.
#[track_caller]
pub fn signal(number: u32, signal: Signal) {
    kill(pid(number), signal).unwrap();
}

/// A number of a JSON answer; 0 if there is none.
pub fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| number.try_into().ok()).unwrap_or(0)
}

/// `GET` of a puppet: status and body; `None` if nobody answers.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    read_answer(stream)
}

/// Whether somebody listens.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn read_answer(mut stream: impl Read) -> Option<(u16, String)> {
    let mut bytes = Vec::new();
    // A server that refuses a body may reset the connection after its answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Server-sent events.
#[derive(Debug)]
pub struct Events {
    lines: BufReader<UnixStream>,
}

impl Iterator for Events {
    type Item = (String, Value);

    fn next(&mut self) -> Option<Self::Item> {
        let mut kind = String::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("an event in time") == 0 {
                return None;
            }
            if let Some(word) = line.strip_prefix("event:") {
                word.trim().clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data:") {
                return Some((kind, serde_json::from_str(data.trim()).unwrap()));
            }
        }
    }
}

/// A command that was started and has not ended.
#[derive(Debug)]
pub struct Attached {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    screen: Option<Screen>,
}

impl Attached {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output.
    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it has written to standard error.
    pub fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// What stands on its terminal.
    pub fn screen(&self) -> String {
        self.screen.as_ref().map(Screen::text).unwrap_or_default()
    }

    /// Types into its terminal.
    pub fn type_in(&self, bytes: &[u8]) {
        let master = self.screen.as_ref().unwrap().master.lock().unwrap();
        nix::unistd::write(master.as_ref().unwrap(), bytes).unwrap();
    }

    /// Makes its terminal this large.
    pub fn resize(&self, columns: u16, rows: u16) {
        let master = self.screen.as_ref().unwrap().master.lock().unwrap();
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master.as_ref().unwrap(), size).unwrap();
    }

    /// Closes its terminal, as a window that is closed.
    pub fn close_terminal(&self) {
        self.screen.as_ref().unwrap().close();
    }

    /// Waits until it has written `words`, wherever.
    #[track_caller]
    pub fn wait_for(&self, words: &str) {
        let all = || [self.out(), self.err(), self.screen()].concat();
        assert!(wait_until(PATIENCE, || all().contains(words)), "never said {words:?}: {}", all());
    }

    /// Sends it a signal.
    pub fn signal(&self, sent: Signal) {
        signal(self.id(), sent);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let ended = wait_until(PATIENCE, || self.has_ended());
        let (out, err) = (self.out(), [self.err(), self.screen()].concat());
        assert!(ended, "it never ended\n--- out\n{out}\n--- err\n{err}");
        let status = self.child.wait().unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        // What it wrote last may still be on its way to the screen.
        let is_read = || self.screen.as_ref().is_none_or(|screen| screen.reader.is_finished());
        assert!(wait_until(PATIENCE, is_read), "somebody keeps its terminal open");
        Output { code, out: self.out(), err: [self.err(), self.screen()].concat() }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What stands on a terminal, read by a thread until it is closed.
#[derive(Debug)]
struct Screen {
    text: Arc<Mutex<Vec<u8>>>,
    master: Arc<Mutex<Option<OwnedFd>>>,
    reader: JoinHandle<()>,
}

impl Screen {
    fn read(master: OwnedFd) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let master = Arc::new(Mutex::new(Some(master)));
        let (kept_text, kept_master) = (Arc::clone(&text), Arc::clone(&master));
        let reader = std::thread::spawn(move || {
            loop {
                let Some(descriptor) = master.lock().unwrap().as_ref().map(AsRawFd::as_raw_fd) else { return };
                let mut poll = nix::libc::pollfd { fd: descriptor, events: nix::libc::POLLIN, revents: 0 };
                // SAFETY: a plain system call; the descriptor is closed only under the lock that is taken below.
                if unsafe { nix::libc::poll(&raw mut poll, 1, 20) } <= 0 {
                    continue;
                }
                let guard = master.lock().unwrap();
                let Some(descriptor) = guard.as_ref() else { return };
                let mut bytes = [0; 4096];
                match nix::unistd::read(descriptor, &mut bytes) {
                    Ok(length @ 1..) => text.lock().unwrap().extend_from_slice(&bytes[..length]),
                    // Nobody has the other side open any more.
                    _ => return,
                }
            }
        });
        Self { text: kept_text, master: kept_master, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn close(&self) {
        self.master.lock().unwrap().take();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// A process that is not laneway's.
#[derive(Debug)]
pub struct Stranger(Child);

impl Stranger {
    /// A puppet that listens at `host`:`port`, with these words of `PUPPET`. Returns once it listens.
    pub fn listening(host: &str, port: u16, words: &str) -> Self {
        let mut command = Command::new("python3");
        command.args(["-IS", PUPPET]).env("HOST", host).env("PORT", port.to_string()).env("PUPPET", words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let stranger = Self(command.spawn().unwrap());
        let address = if host == "0.0.0.0" { "127.0.0.1" } else { host };
        assert!(wait_until(PATIENCE, || TcpStream::connect((address, port)).is_ok()), "the stranger never listened");
        stranger
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The names in a directory, sorted.
pub fn names_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
