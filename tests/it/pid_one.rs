//! `laneway up` as the first process of a container: a namespace of pids, made with `unshare`, stands for one.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::harness::{Attached, Fleet, PATIENCE, signal, wait_until};

/// `up` in a namespace of its own; `None`, said aloud, where this test may not make one.
fn contained(fleet: &Fleet) -> Option<Attached> {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root makes a namespace of pids here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_laneway"), "up"]);
    let up = fleet.spawn_command(fleet.clean(command));
    up.wait_for("SIGTERM stops all");
    Some(up)
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// The first process, by its number outside.
fn first(up: &Attached) -> u32 {
    children(up.id())[0]
}

/// Runs a script in the container, as `docker exec` does: its orphans are the first process's.
fn inside(fleet: &Fleet, up: &Attached, script: &str) {
    let mut command = Command::new("nsenter");
    command.args(["-t", &first(up).to_string(), "-p", "-m", "sh", "-c", script]);
    fleet.run_command(fleet.clean(command)).expect(0);
}

#[test]
fn sigterm_stops_all_in_order_and_ends_the_container_well() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1, depends_on: [a]}");
    let Some(up) = contained(&fleet) else { return };
    let events = fleet.events();
    signal(first(&up), Signal::SIGTERM);
    let ends: Vec<_> = events
        .filter(|(kind, instance)| kind == "instance" && instance["phase"] == "stopped")
        .map(|(_, instance)| instance["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ends, ["b", "a"]);
    let output = up.wait().expect(0);
    assert!(output.err.contains("it is down"), "{output:?}");
    assert!(!fleet.own_log().contains("SIGKILL"), "{}", fleet.own_log());
    assert_eq!(fleet.processes(), []);
}

#[test]
fn strangers_are_reaped() {
    let fleet = Fleet::new("a: {port: $0}");
    let Some(up) = contained(&fleet) else { return };
    let own = children(first(&up));
    assert_eq!(own.len(), 1, "the keeper is its only child");
    let gate = fleet.folder().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Each waits until somebody opens the gate for writing; the shell between it and the first process is gone by then.
    let gate = gate.display().to_string();
    inside(&fleet, &up, &format!("for i in $(seq 30); do (read line <{gate} &) >/dev/null 2>&1; done"));
    assert!(wait_until(PATIENCE, || children(first(&up)).len() == 31), "{:?}", children(first(&up)));
    let is_over = || {
        // Its end is the end of all who have opened it; who comes later waits for the next.
        let _ = fs::File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&gate);
        children(first(&up)) == own
    };
    assert!(wait_until(PATIENCE, is_over), "{:?}", children(first(&up)));
    signal(first(&up), Signal::SIGTERM);
    up.wait().expect(0);
}

#[test]
fn a_death_of_the_supervisor_or_of_both_does_not_end_the_container() {
    let fleet = Fleet::new("a: {port: $0}");
    let Some(up) = contained(&fleet) else { return };
    let (server, (supervisor, _)) = (fleet.pid("a"), fleet.pair());
    inside(&fleet, &up, &format!("kill -9 {supervisor}"));
    up.wait_for("the supervisor was replaced; the servers went on");
    fleet.wait_for_health("a", "healthy");
    let (supervisor, keeper) = fleet.pair();
    inside(&fleet, &up, &format!("kill -STOP {keeper}; kill -9 {supervisor}; kill -9 {keeper}"));
    up.wait_for("starting them anew");
    fleet.wait_for_health("a", "healthy");
    assert_ne!(fleet.pair().1, keeper);
    assert_eq!(fleet.pid("a"), server);
    fleet.ask("a", "/say?alive%0A");
    up.wait_for("alive");
    signal(first(&up), Signal::SIGTERM);
    up.wait().expect(0);
    assert_eq!(fleet.processes(), []);
}
