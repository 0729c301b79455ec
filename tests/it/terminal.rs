//! The attached `up`: what a terminal, a signal or a death does to it never reaches the servers, unless it is asked to.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Fleet, PATIENCE, is_alive, signal, wait_until};

fn fleet() -> Fleet {
    Fleet::new("a: {port: $0}\nb: {port: $1}")
}

/// Session and terminal of a process.
fn session(pid: u32) -> (String, String) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[3].to_owned(), fields[4].to_owned())
}

#[test]
fn ctrl_z_stops_the_client_and_nobody_else() {
    let fleet = fleet();
    let laneway = env!("CARGO_BIN_EXE_laneway");
    // A shell with job control: Ctrl-Z means something only to a job of one.
    let script = format!("{laneway} up; echo \"client: $?\"; read line; fg; echo \"end: $?\"");
    let mut shell = Command::new("bash");
    shell.args(["--norc", "-m", "-c", &script]);
    let shell = Fleet::spawn_command_on_terminal(fleet.clean(shell));
    shell.wait_for("Ctrl-C stops all");
    let pids = [fleet.pid("a"), fleet.pid("b")];
    shell.type_in(b"\x1a");
    shell.wait_for("client: 148");
    let (supervisor, keeper) = fleet.pair();
    for pid in [pids[0], pids[1], supervisor, keeper] {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(!stat.contains(") T "), "{stat}");
    }
    fleet.ask("a", "/say?while+it+is+stopped%0A");
    assert!(!shell.screen().contains("while it is stopped"));
    shell.type_in(b"\n");
    shell.wait_for("while it is stopped");
    assert_eq!([fleet.pid("a"), fleet.pid("b")], pids);
    shell.type_in(b"\x03");
    shell.wait_for("end: 130");
    shell.wait().expect(0);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn nobody_but_the_client_has_the_terminal() {
    let fleet = fleet();
    let up = fleet.spawn_on_terminal(&["up"]);
    up.wait_for("Ctrl-C stops all");
    let (supervisor, keeper) = fleet.pair();
    let (of_client, terminal) = session(up.id());
    assert_ne!(terminal, "0");
    for pid in [supervisor, keeper, fleet.pid("a"), fleet.pid("b")] {
        let (of_process, terminal) = session(pid);
        assert_ne!(of_process, of_client, "{pid}");
        assert_eq!(terminal, "0", "{pid} has a terminal");
    }
}

#[test]
fn a_terminal_closed_over_a_shell_ends_no_server() {
    let fleet = fleet();
    let mut shell = Command::new("bash");
    shell.args(["--norc", "-m", "-c", concat!(env!("CARGO_BIN_EXE_laneway"), " up; exit $?")]);
    let mut shell = Fleet::spawn_command_on_terminal(fleet.clean(shell));
    shell.wait_for("Ctrl-C stops all");
    let pids = [fleet.pid("a"), fleet.pid("b")];
    shell.close_terminal();
    assert!(wait_until(PATIENCE, || shell.has_ended()));
    assert!(wait_until(PATIENCE, || !fleet.processes().iter().any(|process| process.command.contains("laneway up"))));
    assert_eq!([fleet.pid("a"), fleet.pid("b")], pids);
    fleet.run(&["status"]).expect(0);
}

#[test]
fn sighup_ends_the_client_alone() {
    let fleet = fleet();
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    let pid = fleet.pid("a");
    up.signal(Signal::SIGHUP);
    up.wait().expect(129);
    assert_eq!(fleet.pid("a"), pid);
}

#[test]
fn sigterm_of_the_attached_up_stops_all_in_order_and_is_no_failure() {
    let fleet = fleet();
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    up.signal(Signal::SIGTERM);
    up.wait().expect(0).says(&["stopping all", "it is down"]);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn sigterm_only_leaves_a_fleet_that_ran_before() {
    let fleet = fleet();
    fleet.up();
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C leaves");
    up.signal(Signal::SIGTERM);
    up.wait().expect(143).says(&["goes on", "laneway down"]);
    fleet.run(&["status"]).expect(0);
}

#[test]
fn the_attached_up_goes_on_with_the_next_supervisor() {
    let fleet = fleet();
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    let pid = fleet.pid("a");
    for deaths in 1..=2 {
        let (supervisor, _) = fleet.pair();
        signal(supervisor, Signal::SIGKILL);
        let said = || up.err().matches("the supervisor was replaced; the servers went on").count();
        assert!(wait_until(PATIENCE, || said() == deaths), "{}", up.err());
        fleet.wait_for_health("a", "healthy");
        fleet.ask("a", &format!("/say?after+death+{deaths}%0A"));
        up.wait_for(&format!("after death {deaths}"));
        assert_eq!((said(), fleet.pid("a")), (deaths, pid), "{}", up.err());
    }
    up.signal(Signal::SIGINT);
    up.wait().expect(130);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_start_that_loses_its_supervisor_is_asked_of_the_next() {
    let fleet = Fleet::new("a: {port: $0, environment: {PUPPET: slow=1500}}");
    let up = fleet.spawn(&["up"]);
    fleet.wait_for_phase("a", "starting");
    signal(fleet.pair().0, Signal::SIGKILL);
    up.wait_for("Ctrl-C stops all");
    assert!(up.out().contains("healthy"), "{}", up.out());
}

#[test]
fn a_fleet_without_a_supervisor_is_said_once_and_waited_for() {
    let fleet = fleet();
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    let (supervisor, keeper) = fleet.pair();
    signal(keeper, Signal::SIGSTOP);
    signal(supervisor, Signal::SIGKILL);
    up.wait_for("the supervisor does not answer for 2 s; still trying");
    signal(keeper, Signal::SIGCONT);
    up.wait_for("the supervisor was replaced");
    assert_eq!(up.err().matches("still trying").count(), 1, "{}", up.err());
    fleet.wait_for_health("a", "healthy");
}

#[test]
fn a_fleet_that_lost_both_is_not_called_down() {
    let fleet = fleet();
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    let pid = fleet.pid("a");
    let (supervisor, keeper) = fleet.pair();
    signal(keeper, Signal::SIGSTOP);
    signal(supervisor, Signal::SIGKILL);
    signal(keeper, Signal::SIGKILL);
    let output = up.wait().expect(1).says(&["ended unasked", "hint: laneway up"]);
    assert!(!output.err.contains("is down"), "{output:?}");
    assert!(is_alive(pid));
    fleet.up();
    assert_eq!(fleet.pid("a"), pid);
}

#[test]
fn a_supervisor_that_dies_over_the_down_is_followed_by_one_that_finishes_it() {
    let fleet = Fleet::new("a: {port: $0, stop_grace_period: 2s, environment: {PUPPET: ignore-term}}");
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    up.signal(Signal::SIGTERM);
    fleet.wait_for_phase("a", "stopping");
    signal(fleet.pair().0, Signal::SIGKILL);
    up.wait().expect(0);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_down_of_somebody_else_ends_it_well() {
    let fleet = fleet();
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    fleet.run(&["down"]).expect(0);
    let output = up.wait().expect(0).says(&["the fleet is down"]);
    assert!(!output.err.contains("replaced"), "{output:?}");
}
