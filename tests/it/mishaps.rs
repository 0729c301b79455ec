//! What people do to a running fleet, and what they start it from: nothing hangs, nothing is killed that is not ours.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Fleet, PATIENCE, is_alive, signal, timed, wait_until};

#[test]
fn a_removed_log_hangs_nobody_and_the_next_file_is_written() {
    let fleet = Fleet::new("a: {port: $0, logging: {max_size: 64k}}\nb: {port: $1}");
    fleet.up();
    fs::remove_file(fleet.state("a/log/a.log")).unwrap();
    fleet.ask("a", "/print?20000");
    assert!(wait_until(PATIENCE, || fleet.log("a").contains("line 0020000 of a")), "what comes later is kept");
    fleet.ask("b", "/say?still+here%0A");
    assert!(wait_until(PATIENCE, || fleet.log("b").contains("still here")), "a neighbour is written too");
    let (took, down) = timed(|| fleet.run(&["down"]));
    down.expect(0);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_lane_that_was_deleted_while_stopped_begins_anew() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    fleet.run(&["stop", "a"]).expect(0);
    fs::remove_dir_all(fleet.state("a")).unwrap();
    fleet.run(&["start", "a", "--wait"]).expect(0);
    fleet.ask("a", "/say?anew%0A");
    fleet.ask("a", "/access?GET+anew");
    assert!(wait_until(PATIENCE, || fleet.log("a").contains("anew")));
    let access = fleet.state("a/log/a.access.log");
    assert!(wait_until(PATIENCE, || fs::read_to_string(&access).is_ok_and(|text| text.contains("GET anew"))));
}

#[test]
fn a_copied_checkout_leaves_the_servers_of_the_original_alone() {
    let original = Fleet::new("a: {port: $0}");
    original.up();
    let pid = original.pid("a");
    let copy = Fleet::new("b: {port: $0}");
    fs::create_dir_all(copy.state(".run")).unwrap();
    fs::copy(original.state(".run/fleet"), copy.state(".run/fleet")).unwrap();
    copy.up();
    assert_ne!(
        fs::read_to_string(original.state(".run/fleet")).unwrap(),
        fs::read_to_string(copy.state(".run/fleet")).unwrap()
    );
    assert!(is_alive(pid));
    assert_eq!(original.instance("a")["restarts"], 0);
}

#[test]
fn a_variable_that_is_no_text_is_no_reason_not_to_start() {
    let fleet = Fleet::new("a: {port: $0}");
    let mut command = fleet.command(&["up", "-d", "--wait"]);
    command.env("ODD", OsStr::from_bytes(b"\xff\xfe"));
    fleet.run_command(command).expect(0);
}

#[test]
fn a_supervisor_that_cannot_get_ready_says_so_and_leaves_no_keeper() {
    let fleet = Fleet::new("a: {port: $0}");
    let socket = fleet.state(".run/control.sock");
    fs::create_dir_all(&socket).unwrap();
    fleet.run(&["up", "-d"]).expect(1).says(&["the control socket"]);
    assert!(wait_until(PATIENCE, || fleet.processes().is_empty()), "{:?}", fleet.processes());
    fs::remove_dir(&socket).unwrap();
    fleet.up();
}

#[test]
fn sigterm_to_both_processes_leaves_the_servers_their_grace() {
    let fleet =
        Fleet::new("a: {port: $0, stop_grace_period: 10s, command: [python3, -IS, slow.py], healthcheck: {path: ~}}");
    let server = "import os, signal, socket, time\n\
                  def end(*_):\n    time.sleep(0.7); print('saved', flush=True); os._exit(0)\n\
                  signal.signal(signal.SIGTERM, end)\n\
                  s = socket.create_server((os.environ['HOST'], int(os.environ['PORT'])))\n\
                  while True: s.accept()[0].close()\n";
    fs::write(fleet.folder().join("slow.py"), server).unwrap();
    fleet.up();
    let (supervisor, keeper) = fleet.pair();
    signal(keeper, Signal::SIGTERM);
    signal(supervisor, Signal::SIGTERM);
    assert!(wait_until(PATIENCE, || !is_alive(keeper)));
    assert!(fleet.log("a").contains("saved"), "{}", fleet.log("a"));
}

#[test]
fn a_deleted_run_directory_does_not_start_everything_twice() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    let ((supervisor, keeper), server) = (fleet.pair(), fleet.pid("a"));
    fs::remove_dir_all(fleet.state(".run")).unwrap();
    fleet.run(&["up", "-d"]).expect(1).says(&[&format!("pid {supervisor}"), "kill -TERM"]);
    signal(supervisor, Signal::SIGTERM);
    assert!(wait_until(PATIENCE, || !is_alive(keeper) && !is_alive(server)));
    fleet.up();
}

#[test]
fn ctrl_c_at_any_moment_of_a_start_leaves_nothing() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1, pre_start: [[sleep, \"0.2\"]]}");
    for delay in [0, 3, 8, 15, 40, 150] {
        let up = fleet.spawn(&["up"]);
        let (_, ()) = timed(|| assert!(!wait_until(Duration::from_millis(delay), || false)));
        up.signal(Signal::SIGINT);
        let output = up.wait();
        // Before the program itself runs, the signal is the system's.
        assert!(output.code == 130, "{delay} ms: {} {}", output.code, output.err);
        assert!(wait_until(PATIENCE, || fleet.processes().is_empty()), "{delay} ms: {:?}", fleet.processes());
    }
}

#[test]
fn a_check_that_prints_much_is_read() {
    let fleet = Fleet::new(
        "a: {port: $0, healthcheck: {path: ~, test: [head, -c, \"300000\", /dev/zero], interval: 200ms, start_interval: 20ms}}",
    );
    fleet.up();
}
