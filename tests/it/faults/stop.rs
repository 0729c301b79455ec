//! Stop means gone: when it returns, the whole tree has ended and the port is free. With cgroups, and by the sweep that
//! takes their place where there are none. What cannot be ended is named, and holds nobody else up.

use std::fs;
use std::net::TcpListener;

use nix::sys::signal::Signal;

use super::Way;
use super::control::{CONTROL, Control};
use super::v1::V1;
use crate::harness::{Fleet, PATIENCE, get, is_alive, listens, number, signal, timed, wait_until};

/// What a server may do to outlive its stop: what stands in PUPPET, and what it is asked for.
const FAMILIES: [(&str, &[&str]); 8] = [
    ("", &["/daemon?plain"]),
    ("", &["/daemon?port"]),
    ("", &["/daemon?bare"]),
    ("", &["/daemon?uid"]),
    ("", &["/daemon?stopped"]),
    ("ignore-term", &["/daemon?plain", "/daemon?port", "/daemon?plain", "/daemon?stopped", "/daemon?bare"]),
    ("uid=65534", &["/daemon?plain", "/daemon?bare"]),
    ("ignore-term uid=65534", &["/freeze"]),
];

fn fleet(way: Way, instances: &str) -> Fleet {
    let fleet = way.fleet(instances);
    fleet.up();
    fleet
}

/// After `stop` returned.
#[track_caller]
fn gone(fleet: &Fleet, pids: &[u32]) {
    assert!(!listens(fleet.port(0)), "the port is not free");
    assert!(TcpListener::bind(("127.0.0.1", fleet.port(0))).is_ok(), "the port cannot be bound");
    assert_eq!(fleet.processes_of("a"), []);
    for pid in pids {
        assert!(!is_alive(*pid), "{pid} lives");
    }
}

fn daemon(fleet: &Fleet, kind: &str) -> u32 {
    fleet.ask("a", &format!("/daemon?{kind}")).trim().parse().unwrap()
}

#[test]
fn this_machine_has_every_way() {
    let own_cgroup = |fleet: &Fleet| fs::read_to_string(format!("/proc/{}/cgroup", fleet.pid("a"))).unwrap();
    for way in [Way::Cgroups, Way::OldKernel] {
        let own = own_cgroup(&fleet(way, "a: {port: $0}"));
        if !own.lines().any(|line| line.starts_with("0::") && line.contains("laneway-")) {
            eprintln!("SKIPPED: no writable cgroup v2 here; the tests of this module see the sweep each time");
        }
    }
    let own = own_cgroup(&fleet(Way::Sweep, "a: {port: $0}"));
    assert!(!own.contains("laneway-"), "{own}");
}

#[test]
fn no_family_outlives_its_server() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    Way::each(|way| {
        for (words, asked) in FAMILIES {
            all_go(way, words, asked);
        }
        // By number, who forks faster than processes can be looked at is caught only when he tires.
        all_go(way, "", if way == Way::Sweep { &["/bomb?300:1000"] } else { &["/bomb?60:30"] });
    });
}

fn all_go(way: Way, words: &str, asked: &[&str]) {
    let fleet = fleet(way, &format!("a: {{port: $0, environment: {{PUPPET: {words}}}}}\n{CONTROL}"));
    let control = Control::watch(&fleet);
    let answers: Vec<_> = asked.iter().filter_map(|path| get(fleet.port(0), path)).collect();
    let mut pids: Vec<u32> = answers.iter().filter_map(|(_, pid)| pid.trim().parse().ok()).collect();
    pids.push(fleet.pid("a"));
    let (took, output) = timed(|| fleet.run(&["stop", "a"]));
    eprintln!("{words} {asked:?}: {took:?}");
    output.expect(0).shows(&["a     stopped"]);
    gone(&fleet, &pids);
    control.finish();
}

#[test]
fn a_server_that_minds_sigterm_is_not_killed() {
    Way::each(|way| {
        let fleet = fleet(way, "a: {port: $0, stop_grace_period: 60s}");
        let (took, output) = timed(|| fleet.run(&["stop", "a"]));
        output.expect(0);
        assert!(took.as_secs() < 10, "{took:?}");
        assert!(!fleet.own_log().contains("SIGKILL"), "{}", fleet.own_log());
        gone(&fleet, &[]);
    });
}

#[test]
fn a_server_that_ignores_sigterm_is_killed_after_its_grace() {
    Way::each(|way| {
        let fleet = fleet(way, "a: {port: $0, environment: {PUPPET: ignore-term}}");
        let pid = fleet.pid("a");
        let (took, output) = timed(|| fleet.run(&["stop", "a"]));
        output.expect(0);
        assert!(took.as_millis() >= 450 && took.as_secs() < 5, "{took:?}");
        gone(&fleet, &[pid]);
    });
}

#[test]
fn a_stopped_server_is_woken_to_end() {
    Way::each(|way| {
        let fleet = fleet(way, "a: {port: $0, stop_grace_period: 60s, healthcheck: {interval: 30s}}");
        let pid = fleet.pid("a");
        signal(pid, Signal::SIGSTOP);
        let (took, output) = timed(|| fleet.run(&["stop", "a"]));
        output.expect(0);
        assert!(took.as_secs() < 10, "it had its grace of 60s: {took:?}");
        gone(&fleet, &[pid]);
    });
}

#[test]
fn a_daemon_goes_with_its_crashed_leader_before_the_next_run_starts() {
    Way::each(|way| {
        let fleet = fleet(way, "a: {port: $0}");
        let (left, old) = (daemon(&fleet, "port"), fleet.pid("a"));
        let _ = get(fleet.port(0), "/crash?1");
        fleet.wait_for("a", |a| a["health"] == "healthy" && number(&a["pid"]) != old);
        assert!(!is_alive(left), "the daemon of the run before lives beside the new one");
        assert_eq!(fleet.processes_of("a").len(), 1);
    });
}

#[test]
fn a_daemon_of_a_leader_that_ended_is_cleared_and_the_port_is_free() {
    Way::each(|way| {
        let fleet = fleet(way, "a: {port: $0, restart: \"no\", environment: {PUPPET: daemon=port}}");
        signal(fleet.pid("a"), Signal::SIGTERM);
        fleet.wait_for("a", |a| a["phase"] == "completed" || a["phase"] == "failed");
        gone(&fleet, &[]);
    });
}

#[test]
fn stopping_one_instance_leaves_the_daemons_of_another() {
    Way::each(|way| {
        let fleet = fleet(way, "a: {port: $0}\nb: {port: $1}");
        let (plain, bare) = (fleet.ask("b", "/daemon?plain"), fleet.ask("b", "/daemon?bare"));
        fleet.run(&["stop", "a"]).expect(0);
        for daemon in [plain, bare] {
            assert!(is_alive(daemon.trim().parse().unwrap()), "{way:?}");
        }
    });
}

#[test]
fn down_now_waits_for_no_grace() {
    Way::each(|way| {
        let fleet =
            fleet(way, "a: {port: $0, stop_grace_period: 60s, environment: {PUPPET: ignore-term daemon=plain}}");
        let (took, output) = timed(|| fleet.run(&["down", "--now"]));
        output.expect(0);
        assert!(took.as_secs() < 5, "{took:?}");
        assert!(wait_until(PATIENCE, || fleet.processes().is_empty()), "{:?}", fleet.processes());
        gone(&fleet, &[]);
    });
}

#[test]
fn a_server_that_is_still_starting_can_be_stopped() {
    Way::each(|way| {
        let fleet = way.fleet("a: {port: $0, environment: {PUPPET: never-listen}}");
        fleet.run(&["up", "-d"]).expect(0);
        let pid = fleet.pid("a");
        fleet.run(&["stop", "a"]).expect(0);
        gone(&fleet, &[pid]);
    });
}

/// Stops `a` while one of its processes cannot die, and lets it die then.
fn cannot_die(way: Way, victim: impl Fn(&Fleet) -> u32) {
    let fleet = fleet(way, &format!("a: {{port: $0}}\nb: {{port: $1}}\n{CONTROL}"));
    let control = Control::watch(&fleet);
    let victim = victim(&fleet);
    // Frozen by the freezer of cgroup v1 it minds no SIGKILL, as one that waits for a dead disk.
    let Some(freezer) = V1::of("freezer", victim) else { return };
    freezer.set("freezer.state", "FROZEN");
    assert!(wait_until(PATIENCE, || freezer.get("freezer.state") == "FROZEN"));
    let stop = fleet.spawn(&["stop", "a"]);
    fleet.wait_for_phase("a", "stopping");
    fleet.run(&["restart", "--wait", "b"]).expect(0);
    fleet.run(&["stop", "b"]).expect(0);
    let words = [&format!("pid {victim}"), "uninterruptible sleep"];
    stop.wait().expect(1).says(&words);
    fleet.run(&["why", "a"]).expect(0).shows(&words);
    fleet.run(&["start", "--wait", "b"]).expect(0);
    assert!(is_alive(victim));
    freezer.set("freezer.state", "THAWED");
    fleet.wait_for_phase("a", "stopped");
    gone(&fleet, &[victim]);
    control.finish();
}

#[test]
fn a_server_that_cannot_die_is_named_and_holds_nobody_else_up() {
    cannot_die(Way::Cgroups, |fleet| fleet.pid("a"));
}

#[test]
fn a_daemon_that_cannot_die_is_named_and_holds_nobody_else_up() {
    cannot_die(Way::OldKernel, |fleet| daemon(fleet, "plain"));
    cannot_die(Way::Sweep, |fleet| daemon(fleet, "bare"));
}

#[test]
fn a_daemon_that_shows_no_sign_at_all_goes_with_the_fleet() {
    // Its own session, an empty environment, its output nowhere, and no cgroup: the one that a stop cannot attribute.
    let fleet = fleet(Way::Sweep, "a: {port: $0}");
    let silent = daemon(&fleet, "silent");
    fleet.run(&["down"]).expect(0);
    assert!(!is_alive(silent));
    assert!(fleet.own_log().contains("which hid from its instance's stop"), "{}", fleet.own_log());
}

#[test]
fn a_family_that_outlived_its_supervisor_goes_too() {
    Way::each(|way| {
        let fleet = fleet(way, "a: {port: $0}");
        let mut pids = vec![fleet.pid("a"), daemon(&fleet, "plain"), daemon(&fleet, "bare")];
        let (supervisor, _) = fleet.pair();
        signal(supervisor, Signal::SIGKILL);
        assert!(wait_until(PATIENCE, || ![0, supervisor].contains(&fleet.pair().0)), "{}", fleet.own_log());
        pids.push(daemon(&fleet, "port"));
        fleet.run(&["stop", "a"]).expect(0);
        gone(&fleet, &pids);
    });
}
