//! What is in the way of a start is named, looked at again without a crash loop, and once it is mended the start follows.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Fleet, Stranger, number};

/// The start of `a` with these keys fails at once with these words, and `why` gives this hint.
#[track_caller]
fn refused(keys: &str, words: &[&str], hint: &str) -> Fleet {
    let fleet = Fleet::new(&format!("a: {{port: $0, {keys}}}"));
    let write = |name: &str, text: &str, mode: u32| {
        let path = fleet.folder().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("plain", "#!/bin/sh\n", 0o644);
    write("lost", "#!/no/such/interpreter\n", 0o755);
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(words).says(&[hint]);
    assert_eq!(fleet.instance("a")["phase"], "waiting");
    fleet.run(&["why", "a"]).expect(0).shows(words).shows(&[hint, "looks again each second"]);
    assert_eq!(fleet.processes_of("a"), []);
    fleet
}

#[test]
fn a_taken_port_names_its_owner_and_the_start_follows_by_itself() {
    let fleet = Fleet::new("a: {port: $0, pre_start: [[touch, ran]]}");
    let stranger = Stranger::listening("127.0.0.1", fleet.port(0), "");
    let pid = format!("pid {}", stranger.id());
    let taken = format!("port {} is taken by {pid}", fleet.port(0));
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&["a: waiting: ", &taken, "puppet.py"]);
    fleet.run(&["why", "a"]).expect(0).shows(&[&taken, "laneway exec a --", "starts by itself"]);
    // It has looked again by now, and made no process of any kind.
    fleet.wait_for("a", |a| a["since_seconds"].as_f64() > Some(1.2));
    assert!(!fleet.folder().join("ran").exists(), "pre_start ran for a server that cannot start");
    let a = fleet.instance("a");
    assert_eq!((&a["phase"], number(&a["restarts"]), number(&a["failures"])), (&"waiting".into(), 0, 0));
    drop(stranger);
    fleet.wait_for_health("a", "healthy");
    assert!(fleet.folder().join("ran").exists());
}

#[test]
fn a_wildcard_listener_takes_the_port_too() {
    let fleet = Fleet::new("a: {port: $0}");
    let stranger = Stranger::listening("0.0.0.0", fleet.port(0), "");
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&[&format!("pid {}", stranger.id()), "0.0.0.0"]);
}

#[test]
fn another_address_does_not_take_the_port() {
    let fleet = Fleet::new("a: {port: $0}");
    let _stranger = Stranger::listening("127.0.0.2", fleet.port(0), "");
    fleet.up();
}

#[test]
fn a_missing_program_is_named_and_started_once_it_is_there() {
    let fleet = refused("command: [./server]", &["fleet/server", "no such file"], "mend `command`");
    fs::write(fleet.folder().join("server"), format!("#!/bin/sh\nexec python3 -IS {}\n", crate::harness::PUPPET))
        .unwrap();
    fs::set_permissions(fleet.folder().join("server"), fs::Permissions::from_mode(0o755)).unwrap();
    fleet.wait_for_health("a", "healthy");
}

#[test]
fn a_program_that_is_not_in_path_is_named() {
    refused("command: [no-such-program-here]", &["no-such-program-here", "not found in PATH"], "mend `command`");
}

#[test]
fn a_program_without_the_right_to_run_is_named() {
    refused("command: [./plain]", &["fleet/plain", "permission denied"], "mend `command`");
}

#[test]
fn a_bad_interpreter_is_named() {
    refused("command: [./lost]", &["fleet/lost", "interpreter in its first line"], "mend `command`");
}

#[test]
fn a_missing_working_directory_is_named() {
    refused("working_dir: nowhere", &["fleet/nowhere", "no such file"], "mend `working_dir`");
}

#[test]
fn a_working_directory_that_is_a_file_is_named() {
    refused("working_dir: plain", &["fleet/plain", "not a directory"], "mend `working_dir`");
}

#[test]
fn a_file_in_the_way_of_a_lane_directory_is_named() {
    let fleet = Fleet::new("a: {port: $0}");
    fs::create_dir_all(fleet.state("a")).unwrap();
    fs::write(fleet.state("a/tmp"), "").unwrap();
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&[".laneway/a/tmp"]);
    fleet.run(&["why", "a"]).expect(0).shows(&["the lane cannot be prepared", ".laneway/a/tmp", "owner and the mode"]);
    fs::remove_file(fleet.state("a/tmp")).unwrap();
    fleet.wait_for_health("a", "healthy");
}

#[test]
fn a_file_in_the_way_of_the_access_log_is_named() {
    let fleet = Fleet::new("a: {port: $0}");
    fs::create_dir_all(fleet.state("a/log")).unwrap();
    fs::write(fleet.state("a/log/access.log"), "precious").unwrap();
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&["access.log", "in the way of a FIFO"]);
    assert_eq!(fs::read_to_string(fleet.state("a/log/access.log")).unwrap(), "precious");
}

#[test]
fn a_state_directory_that_is_a_file_is_said_by_up_itself() {
    let fleet = Fleet::new("a: {port: $0}");
    fs::write(fleet.folder().join(".laneway"), "").unwrap();
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&[".laneway"]);
}

#[test]
fn a_lane_that_may_not_be_written_is_named() {
    let fleet = Fleet::new("a: {port: $0}");
    fs::create_dir_all(fleet.state("a")).unwrap();
    // Root may write everywhere.
    let run = |arguments: &[&str]| {
        if nix::unistd::geteuid().is_root() { fleet.run_as_nobody(arguments) } else { fleet.run(arguments) }
    };
    fs::set_permissions(fleet.state("a"), fs::Permissions::from_mode(0o500)).unwrap();
    run(&["up", "-d", "--wait"]).expect(1).says(&[
        "the lane cannot be prepared",
        "permission denied",
        "owner and the mode",
    ]);
    fs::set_permissions(fleet.state("a"), fs::Permissions::from_mode(0o700)).unwrap();
    fleet.wait_for_health("a", "healthy");
    run(&["down"]).expect(0);
}

#[test]
fn an_ordinary_user_may_run_a_fleet() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: every other test shows it");
        return;
    }
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}");
    fleet.run_as_nobody(&["up", "-d", "--wait"]).expect(0);
    assert_eq!(fleet.ask_self("a")["environment"]["INSTANCE_NAME"], "a");
    // Root is let in.
    fleet.run(&["status"]).expect(0);
    let daemon: u32 = fleet.ask("a", "/daemon?port").trim().parse().unwrap();
    fleet.run_as_nobody(&["stop", "a"]).expect(0);
    assert!(!crate::harness::is_alive(daemon));
    fleet.run_as_nobody(&["down"]).expect(0);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_failing_pre_start_is_a_failure_with_its_code_and_its_output_in_the_log() {
    let fleet =
        Fleet::new("a: {port: $0, restart: \"no\", pre_start: [[\"true\"], [sh, -c, 'echo no migration; exit 9']]}");
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&["pre_start", "exit code 9", "laneway logs a"]);
    fleet.run(&["logs", "a"]).expect(0).shows(&["a | no migration"]);
    assert_eq!(fleet.instance("a")["phase"], "failed");
}

#[test]
fn a_pre_start_that_takes_too_long_is_ended_with_all_its_children() {
    let fleet = Fleet::new(
        "a: {port: $0, restart: \"no\", pre_start: [[sh, -c, 'sleep 1000 & sleep 1000']], pre_start_timeout: 200ms}",
    );
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&["pre_start", "took longer than 0.2s"]);
    assert_eq!(fleet.processes_of("a"), []);
}

#[test]
fn pre_start_runs_in_the_lane_in_order_and_not_again_after_a_crash() {
    let fleet = Fleet::new(
        "a: {port: $0, pre_start: [[sh, -c, 'echo one $$INSTANCE_NAME >> $$TMPDIR/ran'], [sh, -c, 'echo two >> $$TMPDIR/ran']]}",
    );
    fleet.up();
    let ran = || fs::read_to_string(fleet.state("a/tmp/ran")).unwrap();
    assert_eq!(ran(), "one a\ntwo\n");
    let old = fleet.pid("a");
    let _ = crate::harness::get(fleet.port(0), "/crash?1");
    fleet.wait_for("a", |a| number(&a["pid"]) != old && a["health"] == "healthy");
    assert_eq!(ran(), "one a\ntwo\n", "a crash is no reason to migrate");
    fleet.run(&["restart", "--wait", "a"]).expect(0);
    assert_eq!(ran(), "one a\ntwo\none a\ntwo\n", "a wish is");
}
