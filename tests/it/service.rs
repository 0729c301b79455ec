//! A fleet as a service: under a true systemd of its own, and before a service manager that is only a socket.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::harness::{Fleet, Output, PATIENCE, get, is_alive, signal, wait_until};

const SYSTEMD: &str = "/lib/systemd/systemd";
const UNIT: &str = "laneway-it.service";

/// A `systemd --user` of its own, with a view of the machine in which systemd has booted and sees a hierarchy of cgroups
/// that is its alone. Everything that it starts ends with it.
struct Manager {
    process: Child,
    cgroup: PathBuf,
    folder: PathBuf,
}

/// What the manager starts in: mounts that nobody else sees.
const PREPARE: &str = r#"
echo $$ > "$1/cgroup.procs"
exec unshare --mount --cgroup sh -ec '
    mount --make-rprivate /
    umount --recursive /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 none /sys/fs/cgroup
    mkdir -p /run/systemd
    mount -t tmpfs none /run/systemd
    mkdir /run/systemd/system
    exec "$0" --user --unit=basic.target' "$2"
"#;

impl Manager {
    /// `None`, said aloud, where this machine has no systemd, or does not let us.
    fn start(fleet: &mut Fleet) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = root.into_iter().find(|root| Path::new(root).join("cgroup.procs").exists());
        let (true, true, Some(root)) = (geteuid().is_root(), Path::new(SYSTEMD).exists(), root) else {
            eprintln!("SKIPPED: a systemd of its own needs root, {SYSTEMD} and cgroup v2");
            return None;
        };
        let name = format!("lws-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Not in the fleet's folder: what is found there after the end was the fleet's.
        let folder = PathBuf::from(format!("/tmp/{name}"));
        let cgroup = Path::new(root).join(&name);
        fs::create_dir(&cgroup).unwrap();
        for beneath in ["run", "config/systemd/user"] {
            fs::create_dir_all(folder.join(beneath)).unwrap();
        }
        let (run, config) = (folder.join("run"), folder.join("config"));
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-ec", PREPARE, "sh", cgroup.to_str().unwrap(), SYSTEMD]).current_dir("/").env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", &folder).env("SYSTEMD_LOG_TARGET", "console");
        command.env("XDG_RUNTIME_DIR", &run).env("XDG_CONFIG_HOME", &config);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let manager = Self { process: command.spawn().unwrap(), cgroup, folder };
        fleet.set("XDG_RUNTIME_DIR", run.to_str().unwrap());
        fleet.set("XDG_CONFIG_HOME", config.to_str().unwrap());
        let answers = wait_until(PATIENCE, || systemctl(fleet, &["show-environment"]).code == 0);
        assert!(answers, "systemd --user: {}", fs::read_to_string(manager.folder.join("log")).unwrap());
        Some(manager)
    }

    fn unit(&self) -> PathBuf {
        self.folder.join("config/systemd/user").join(UNIT)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- systemd\n{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
        }
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.process.wait();
        let _ = wait_until(PATIENCE, || remove_beneath(&self.cgroup));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes a cgroup and all beneath it; whether it is gone.
fn remove_beneath(cgroup: &Path) -> bool {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_beneath(&entry.path());
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

fn systemctl(fleet: &Fleet, words: &[&str]) -> Output {
    let mut command = Command::new("systemctl");
    command.arg("--user").args(words);
    fleet.run_command(fleet.clean(command))
}

/// One property of the unit.
fn property(fleet: &Fleet, name: &str) -> String {
    systemctl(fleet, &["show", "--value", "-p", name, UNIT]).out.trim().to_owned()
}

#[track_caller]
fn wait_for_property(fleet: &Fleet, name: &str, is_so: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    let met = wait_until(PATIENCE, || {
        last = property(fleet, name);
        is_so(&last)
    });
    let status = || systemctl(fleet, &["status", UNIT]).out;
    assert!(met, "{name} is {last:?}\n{}", status());
    last
}

fn main_pid(fleet: &Fleet) -> u32 {
    property(fleet, "MainPID").parse().unwrap()
}

/// Asks a server fifty times a second, until it is dropped.
struct Requests {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u32, u32)>>,
}

impl Requests {
    fn of(port: u16) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let (mut good, mut bad) = (0, 0);
            while !wait_until(Duration::from_millis(20), || end.load(Ordering::Acquire)) {
                let is_good = get(port, "/health/").is_some_and(|(status, _)| status == 200);
                *if is_good { &mut good } else { &mut bad } += 1;
            }
            (good, bad)
        });
        Self { is_over, thread: Some(thread) }
    }

    /// How many were answered well, and how many were not.
    fn end(mut self) -> (u32, u32) {
        self.is_over.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn two() -> Fleet {
    Fleet::new("a: {port: $0}\nb: {port: $1, depends_on: [a]}")
}

#[test]
fn a_service_lives_through_the_deaths_of_its_main_process() {
    let mut fleet = two();
    let Some(_manager) = Manager::start(&mut fleet) else { return };
    fleet.run(&["install-service", "--user"]).expect(0).says(&["systemctl --user start", "loginctl enable-linger"]);
    assert_eq!(property(&fleet, "UnitFileState"), "enabled");
    systemctl(&fleet, &["start", UNIT]).expect(0);
    // It is started once the fleet is well, and says so.
    fleet.run(&["status"]).expect(0);
    assert_eq!(property(&fleet, "ActiveState"), "active");
    wait_for_property(&fleet, "StatusText", |text| text == "2 of 2 as they shall be");
    let pids = [fleet.pid("a"), fleet.pid("b")];
    let pair = fleet.pair();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", pids[0])).unwrap();
    assert!(cgroup.contains(&format!("{UNIT}/laneway-")), "the servers live in the unit's cgroup: {cgroup}");

    let requests = Requests::of(fleet.port(0));
    for deaths in 1..=3 {
        let main = main_pid(&fleet);
        signal(main, Signal::SIGKILL);
        wait_for_property(&fleet, "NRestarts", |count| count == deaths.to_string());
        wait_for_property(&fleet, "ActiveState", |state| state == "active");
        assert_ne!(main_pid(&fleet), main);
    }
    let (good, bad) = requests.end();
    assert!(good > 50 && bad == 0, "{good} good answers, {bad} others");
    // An unchanged file changes nothing.
    systemctl(&fleet, &["reload", UNIT]).expect(0);
    assert_eq!(property(&fleet, "ActiveState"), "active");
    assert_eq!(([fleet.pid("a"), fleet.pid("b")], fleet.pair()), (pids, pair));

    // What a person stopped stays so when the main process is replaced.
    fleet.run(&["stop", "b"]).expect(0);
    signal(main_pid(&fleet), Signal::SIGKILL);
    wait_for_property(&fleet, "NRestarts", |count| count == "4");
    wait_for_property(&fleet, "StatusText", |text| text == "1 of 1 as they shall be");
    assert_eq!(fleet.instance("b")["phase"], "stopped");

    systemctl(&fleet, &["stop", UNIT]).expect(0);
    assert_eq!(property(&fleet, "Result"), "success");
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_service_whose_keeper_and_supervisor_died_comes_back_and_a_down_is_a_down() {
    let mut fleet = two();
    let Some(_manager) = Manager::start(&mut fleet) else { return };
    fleet.run(&["install-service", "--user", "--now"]).expect(0);
    let pids = [fleet.pid("a"), fleet.pid("b")];
    let (supervisor, keeper) = fleet.pair();
    let requests = Requests::of(fleet.port(0));
    signal(keeper, Signal::SIGSTOP);
    signal(supervisor, Signal::SIGKILL);
    signal(keeper, Signal::SIGKILL);
    wait_for_property(&fleet, "NRestarts", |count| count == "1");
    wait_for_property(&fleet, "ActiveState", |state| state == "active");
    fleet.run(&["status"]).expect(0);
    assert_ne!(fleet.pair().1, keeper);
    let (good, bad) = requests.end();
    assert!(good > 20 && bad == 0, "{good} good answers, {bad} others");
    assert_eq!([fleet.pid("a"), fleet.pid("b")], pids);

    fleet.run(&["down"]).expect(0);
    wait_for_property(&fleet, "ActiveState", |state| state == "inactive");
    assert_eq!(fleet.processes(), []);
    // SIGTERM of the main process is a down too.
    systemctl(&fleet, &["start", UNIT]).expect(0);
    signal(main_pid(&fleet), Signal::SIGTERM);
    wait_for_property(&fleet, "ActiveState", |state| state == "inactive");
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_supervisor_that_hangs_is_noticed_by_the_watchdog() {
    let mut fleet = two();
    let Some(manager) = Manager::start(&mut fleet) else { return };
    fleet.run(&["install-service", "--user"]).expect(0);
    let overlay = manager.unit().with_extension("service.d");
    fs::create_dir(&overlay).unwrap();
    fs::write(overlay.join("fast.conf"), "[Service]\nWatchdogSec=2s\n").unwrap();
    systemctl(&fleet, &["daemon-reload"]).expect(0);
    systemctl(&fleet, &["start", UNIT]).expect(0);
    let (main, server) = (main_pid(&fleet), fleet.pid("a"));
    let (supervisor, _) = fleet.pair();
    signal(supervisor, Signal::SIGSTOP);
    wait_for_property(&fleet, "MainPID", |pid| pid != main.to_string());
    assert!(is_alive(server));
    signal(supervisor, Signal::SIGCONT);
    wait_for_property(&fleet, "ActiveState", |state| state == "active");
}

#[test]
fn a_unit_that_is_somebody_elses_is_neither_written_nor_removed() {
    let mut fleet = two();
    let Some(manager) = Manager::start(&mut fleet) else { return };
    let unit = manager.unit();
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    for verb in ["install-service", "uninstall-service"] {
        fleet.run(&[verb, "--user"]).expect(1).says(&["not laneway's", "nothing was changed", "--name"]);
    }
    assert_eq!(fs::read_to_string(&unit).unwrap(), "[Service]\nExecStart=/bin/true\n");
    fs::remove_file(&unit).unwrap();

    // Twice is as once.
    fleet.run(&["install-service", "--user"]).expect(0);
    let text = fs::read_to_string(&unit).unwrap();
    fleet.run(&["install-service", "--user"]).expect(0);
    assert_eq!(fs::read_to_string(&unit).unwrap(), text);

    // Another checkout of the same project.
    let mut other = two();
    for name in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
        let folder = manager.folder.join(if name == "XDG_RUNTIME_DIR" { "run" } else { "config" });
        other.set(name, folder.to_str().unwrap());
    }
    other.run(&["install-service", "--user"]).expect(1).says(&[fleet.folder().to_str().unwrap(), "--name"]);
    other.run(&["uninstall-service", "--user"]).expect(1);
    other.run(&["install-service", "--user", "--name", "other"]).expect(0);
    assert!(unit.with_file_name("other.service").exists());
    assert_eq!(fs::read_to_string(&unit).unwrap(), text);

    fleet.run(&["uninstall-service", "--user"]).expect(0);
    assert!(!unit.exists() && !unit.with_extension("env").exists());
    assert!(unit.with_file_name("other.service").exists());
    fleet.run(&["uninstall-service", "--user"]).expect(3).says(&["there is no service"]);
}

/// A name that holds what units, shells and patterns give a meaning.
const HOSTILE: &str = "a b%h$HOME;[x]*\"q'é";

#[test]
fn folders_and_values_with_signs_of_systemd_arrive_as_they_are() {
    let mut fleet = Fleet::new("");
    let Some(manager) = Manager::start(&mut fleet) else { return };
    let folder = fleet.folder().join(HOSTILE);
    fs::create_dir(&folder).unwrap();
    let file = folder.join("instances.yaml");
    let yaml = "name: it\ndefaults:\n  command: [python3, -IS, $puppet]\n  healthcheck: {path: /health/}\n\
                instances:\n  a: {port: $0, environment: {SAID: \"${WORD}\", SET: none}}\n";
    fs::write(&file, fleet.fill(yaml)).unwrap();
    let word = "two words\\ \"$PATH\" `id` %h 'x'\nline";
    fleet.set("WORD", word);
    // In a value laneway has a `$` of its own, and YAML a quote.
    let set = format!("instances.a.environment.SET='{}'", HOSTILE.replace('\'', "''").replace('$', "$$"));
    let place = ["-f", file.to_str().unwrap(), "--set", &set];
    let install = [&place[..], &["install-service", "--user", "--now"]].concat();
    fleet.run(&install).expect(0);
    let status = fleet.run(&[&place[..], &["status", "--json"]].concat()).expect(0);
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    let environment = fs::read(format!("/proc/{}/environ", status["instances"][0]["pid"])).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let has = |variable: &str| environment.split('\0').any(|entry| entry == variable);
    assert!(has(&format!("SAID={word}")) && has(&format!("SET={HOSTILE}")), "{environment:?}");
    let unit = fs::read_to_string(manager.unit()).unwrap();
    assert!(!unit.contains("two words"), "everybody reads the unit: {unit}");
    let mode = fs::metadata(manager.unit().with_extension("env")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    fleet.run(&[&place[..], &["uninstall-service", "--user"]].concat()).expect(0);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn the_units_are_what_systemd_accepts() {
    let mut fleet = Fleet::new("a: {port: $0}\nb: {port: $1, depends_on: [a]}\nc: {port: $2}");
    let folder = fleet.folder().join(HOSTILE);
    fs::create_dir(&folder).unwrap();
    fs::copy(fleet.file(), folder.join("instances.yaml")).unwrap();
    fleet.set("XDG_RUNTIME_DIR", fleet.folder().to_str().unwrap());
    let has_verify = Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_ok();
    for (kind, flags) in [("--system", &["--run-as", "daemon"][..]), ("--user", &["--user"][..])] {
        let mut command = fleet.command(&["install-service", "--dry-run"]);
        command.args(flags).current_dir(&folder);
        let output = fleet.run_command(command).expect(0).shows(&[
            "Type=notify\n",
            "Restart=always\n",
            "KillMode=process\n",
            "Delegate=yes\n",
            "OOMPolicy=continue\n",
            "WatchdogSec=",
            // Two in a row: a grace of half a second and the clearing of each, and the end of laneway.
            "TimeoutStopSec=22s\n",
        ]);
        let is_of_machine = kind == "--system";
        assert_eq!(output.out.contains("\nUser=daemon\n"), is_of_machine, "{}", output.out);
        assert_eq!(output.out.contains("postgresql.service"), is_of_machine, "{}", output.out);
        if !has_verify {
            eprintln!("SKIPPED: no systemd-analyze here");
            continue;
        }
        let unit = fleet.folder().join(UNIT);
        fs::write(&unit, &output.out).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", kind, "--recursive-errors=no"]).arg(unit);
        let verdict = fleet.run_command(fleet.clean(verify)).expect(0);
        assert_eq!(verdict.err, "", "{}", output.out);
    }
}

#[test]
fn a_service_of_the_machine_never_runs_as_root_by_itself() {
    let mut fleet = two();
    if !geteuid().is_root() {
        eprintln!("SKIPPED: the fleet's file belongs to root only where root runs the tests");
        return;
    }
    fleet.run(&["install-service", "--dry-run"]).expect(2).says(&["whose servers", "--run-as root"]);
    fleet.run(&["install-service", "--dry-run", "--run-as", "root"]).expect(0).shows(&["User=root"]);
    fleet.run(&["install-service", "--dry-run", "--run-as", "nobodys"]).expect(2).says(&["no such user"]);
    fleet.run(&["install-service", "--dry-run", "--user", "--name", "a/b"]).expect(2).says(&["no name for a unit"]);
    fleet.set("SUDO_USER", "daemon");
    fleet.run(&["install-service", "--dry-run"]).expect(0).shows(&["User=daemon"]);
}

#[test]
fn a_service_manager_hears_how_the_fleet_is() {
    let mut fleet = Fleet::new("a: {port: $0, environment: {PUPPET: slow=500}}");
    let path = fleet.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).expect("a word in time");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    fleet.set("NOTIFY_SOCKET", path.to_str().unwrap());
    fleet.set("WATCHDOG_USEC", "200000");
    let up = fleet.spawn(&["up"]);
    let mut before = Vec::new();
    let ready = loop {
        let word = hear();
        if word.starts_with("READY=1") {
            break word;
        }
        before.push(word);
    };
    assert_eq!(ready, "READY=1\nSTATUS=1 of 1 as they shall be");
    assert!(before.iter().any(|word| word == "STATUS=0 of 1 as they shall be; a is starting"), "{before:?}");
    assert!(!before.iter().any(|word| word.contains("WATCHDOG")), "{before:?}");
    let (supervisor, _) = fleet.pair();
    for _ in 0..3 {
        while hear() != "WATCHDOG=1" {}
    }
    // A supervisor that hangs earns no word.
    signal(supervisor, Signal::SIGSTOP);
    // Longer than a question to it takes to fail.
    socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    let mut bytes = [0; 4096];
    let silent = wait_until(PATIENCE, || socket.recv(&mut bytes).is_err());
    assert!(silent, "the watchdog is fed by the client alone");
    signal(supervisor, Signal::SIGCONT);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while hear() != "WATCHDOG=1" {}
    up.signal(Signal::SIGTERM);
    while hear() != "STOPPING=1" {}
    up.wait().expect(0);
    // In a shell that a service started, the variables are there too, and mean nothing.
    fleet.set("SYSTEMD_EXEC_PID", "1");
    fleet.spawn(&["up"]).wait_for("Ctrl-C stops all");
}
