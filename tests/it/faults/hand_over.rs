//! Kill anything: the supervisor, the keeper, both, at any moment and again and again, while servers answer, write and
//! are started and stopped.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::Way;
use super::control::{CONTROL, Control};
use super::v1::V1;
use crate::harness::{Fleet, PATIENCE, Process, get, is_alive, number, signal, timed, wait_until};

/// A witness, a server that writes a lot, and one that is stopped.
fn fleet(way: Way) -> Fleet {
    let lines = "loud: {port: $0, logging: {max_size: 64k, max_files: 1000}}\nquiet: {port: $1}\n";
    let fleet = way.fleet(&format!("{CONTROL}{lines}"));
    fleet.up();
    fleet
}

/// Kills with SIGKILL, and waits until the pair is whole again. How long control was away.
pub fn kill_supervisor(fleet: &Fleet) -> Duration {
    let (supervisor, keeper) = fleet.pair();
    signal(supervisor, Signal::SIGKILL);
    let (took, ()) = timed(|| await_pair(fleet, |pair| pair.0 != supervisor && pair.1 == keeper));
    took
}

pub fn kill_keeper(fleet: &Fleet) -> Duration {
    let (supervisor, keeper) = fleet.pair();
    signal(keeper, Signal::SIGKILL);
    let (took, ()) = timed(|| await_pair(fleet, |pair| pair.0 == supervisor && pair.1 != keeper));
    took
}

/// Kills keeper and supervisor.
pub fn kill_both(fleet: &Fleet) {
    let (supervisor, keeper) = fleet.pair();
    // Neither must get to start the other.
    signal(keeper, Signal::SIGSTOP);
    signal(supervisor, Signal::SIGKILL);
    signal(keeper, Signal::SIGKILL);
    assert!(wait_until(PATIENCE, || !is_alive(supervisor) && !is_alive(keeper)));
}

#[track_caller]
fn await_pair(fleet: &Fleet, is_so: impl Fn((u32, u32)) -> bool) {
    let is_whole = || {
        let pair = fleet.pair();
        pair.0 != 0 && is_so(pair) && is_alive(pair.0) && is_alive(pair.1)
    };
    assert!(wait_until(PATIENCE, is_whole), "control did not come back: {}", fleet.own_log());
}

/// What must not move: generation, restarts, failures, pid of every instance.
pub fn counters(fleet: &Fleet) -> Vec<Value> {
    let status = fleet.ask_status();
    let list = status["instances"].as_array().cloned().unwrap_or_default();
    let facts = |i: &Value| -> Value {
        ["name", "phase", "pid", "generation", "restarts", "failures"].iter().map(|key| i[*key].clone()).collect()
    };
    list.iter().map(facts).collect()
}

fn puppets(fleet: &Fleet, name: &str) -> Vec<Process> {
    fleet.processes_of(name).into_iter().filter(|process| process.command.contains("puppet")).collect()
}

/// The numbered lines of `loud`: none lost, doubled or out of order.
#[track_caller]
fn assert_lines(fleet: &Fleet, count: usize) {
    let is_there = || fleet.log("loud").lines().filter(|line| line.starts_with("line ")).count() >= count;
    // What is missing after that is said below.
    let _ = wait_until(PATIENCE, is_there);
    let log = fleet.log("loud");
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with("line ")).collect();
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {:07} of loud", index + 1), "after {index} good lines");
    }
    assert_eq!(lines.len(), count, "lines are missing at the end");
}

#[test]
fn a_killed_supervisor_is_noticed_by_no_server() {
    Way::each(|way| {
        let fleet = fleet(way);
        fleet.run(&["stop", "quiet"]).expect(0);
        let before = counters(&fleet);
        let control = Control::watch(&fleet);
        for _ in 0..5 {
            kill_supervisor(&fleet);
            let _ = get(fleet.port(0), "/print?2000");
            assert_eq!(counters(&fleet), before);
        }
        assert_lines(&fleet, 10_000);
        fleet.wait_for("loud", |loud| loud["health"] == "healthy");
        control.finish();
        fleet.run(&["down"]).expect(0);
        assert_eq!(fleet.processes(), []);
    });
}

#[test]
fn whoever_wishes_hears_that_the_supervisor_is_stopped() {
    let fleet = fleet(Way::Cgroups);
    let (supervisor, _) = fleet.pair();
    signal(supervisor, Signal::SIGSTOP);
    let asked = [["stop", "quiet"], ["up", "-d"], ["restart", "loud"]].map(|words| fleet.spawn(&words));
    for output in asked {
        output.wait().expect(1).says(&["does not answer", "is it stopped?"]);
    }
    signal(supervisor, Signal::SIGCONT);
    fleet.run(&["down"]).expect(0);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_killed_keeper_is_noticed_by_no_server() {
    Way::each(|way| {
        let fleet = fleet(way);
        let before = counters(&fleet);
        let control = Control::watch(&fleet);
        for _ in 0..5 {
            let _ = get(fleet.port(0), "/print?2000");
            kill_keeper(&fleet);
            assert_eq!(counters(&fleet), before);
        }
        assert_lines(&fleet, 10_000);
        control.finish();
        fleet.run(&["down"]).expect(0);
        assert_eq!(fleet.processes(), []);
    });
}

#[test]
fn what_waits_in_the_access_log_outlives_a_keeper() {
    let fleet = fleet(Way::Cgroups);
    let (supervisor, keeper) = fleet.pair();
    signal(keeper, Signal::SIGSTOP);
    for number in 0..100 {
        fleet.ask("loud", &format!("/access?GET+/{number}"));
    }
    signal(keeper, Signal::SIGKILL);
    await_pair(&fleet, |pair| pair.0 == supervisor && pair.1 != keeper);
    fleet.ask("loud", "/access?GET+/100");
    let read = || fs::read_to_string(fleet.state("loud/log/loud.access.log")).unwrap_or_default();
    let _ = wait_until(PATIENCE, || read().ends_with("GET /100\n"));
    let expected: Vec<_> = (0..=100).map(|number| format!("GET /{number}")).collect();
    assert_eq!(read().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn one_after_the_other_and_the_other_way_round() {
    Way::each(|way| {
        let fleet = fleet(way);
        let before = counters(&fleet);
        let control = Control::watch(&fleet);
        for round in 0..4 {
            if round % 2 == 0 {
                kill_supervisor(&fleet);
                kill_keeper(&fleet);
            } else {
                kill_keeper(&fleet);
                kill_supervisor(&fleet);
            }
            let _ = get(fleet.port(0), "/print?1000");
        }
        assert_eq!(counters(&fleet), before);
        assert_lines(&fleet, 4000);
        control.finish();
        // Whoever is left can still stop and start.
        fleet.run(&["restart", "loud", "--wait"]).expect(0);
        fleet.run(&["down"]).expect(0);
        assert_eq!(fleet.processes(), []);
    });
}

#[test]
fn the_successor_may_die_before_it_is_ready_again_and_again() {
    let fleet = fleet(Way::Cgroups);
    let before = counters(&fleet);
    let control = Control::watch(&fleet);
    let mut killed = Vec::new();
    while killed.len() < 12 {
        // Found by what it is called, as soon as it exists: it does not answer yet.
        let next =
            || fleet.processes().into_iter().find(|p| p.command.starts_with("laneway supervisor")).map(|p| p.pid);
        assert!(wait_until(PATIENCE, || next().is_some_and(|pid| !killed.contains(&pid))), "{}", fleet.own_log());
        if let Some(pid) = next().filter(|pid| !killed.contains(pid)) {
            signal(pid, Signal::SIGKILL);
            killed.push(pid);
        }
    }
    await_pair(&fleet, |_| true);
    assert_eq!(counters(&fleet), before);
    control.finish();
}

#[test]
fn an_exit_while_nobody_watches_is_known_and_acted_on_once() {
    Way::each(|way| {
        let fleet = fleet(way);
        for code in [3, 7] {
            let (supervisor, _) = fleet.pair();
            let before = number(&fleet.instance("loud")["restarts"]);
            // The kill comes first: the crash happens while there is no supervisor.
            signal(supervisor, Signal::SIGKILL);
            let _ = get(fleet.port(0), &format!("/crash?{code}"));
            let loud = fleet.wait_for("loud", |loud| {
                number(&loud["restarts"]) > before && loud["phase"] == "running" && loud["health"] == "healthy"
            });
            assert_eq!(number(&loud["restarts"]), before + 1, "{loud}");
            fleet.run(&["why", "loud"]).expect(0).shows(&[&format!("exit code {code}")]);
            assert_eq!(puppets(&fleet, "loud").len(), 1);
        }
        // The keeper's zombies are reaped: nothing of the old servers is left.
        assert!(wait_until(PATIENCE, || zombies(fleet.pair().1) == 0), "zombies of the keeper");
    });
}

/// Dead children of a process that nobody has taken note of.
fn zombies(parent: u32) -> usize {
    let output = Command::new("ps").args(["-o", "stat=", "--ppid", &parent.to_string()]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('Z')).count()
}

#[test]
fn commands_under_way_are_finished_by_the_next_supervisor() {
    let fleet = fleet(Way::Cgroups);
    let control = Control::watch(&fleet);
    for (command, phase) in [
        (&["restart", "loud", "quiet", "--wait"][..], "stopping"),
        (&["stop", "quiet"], "stopping"),
        (&["start", "quiet", "--wait"], "starting"),
        (&["restart", "quiet", "--wait"], "starting"),
    ] {
        let generation = number(&fleet.instance("loud")["generation"]);
        let mut events = fleet.events();
        let under_way = fleet.spawn(command);
        let is_meant = |event: &Value| event["name"] == "quiet" && event["phase"] == phase;
        assert!(events.any(|(_, event)| is_meant(&event)), "{command:?}");
        kill_supervisor(&fleet);
        under_way.wait().expect(0);
        let expected = if command.contains(&"loud") { generation + 1 } else { generation };
        assert_eq!(number(&fleet.instance("loud")["generation"]), expected, "{command:?} had its effect once");
    }
    assert_eq!((puppets(&fleet, "loud").len(), puppets(&fleet, "quiet").len()), (1, 1));
    control.finish();
}

#[test]
fn a_down_under_way_is_finished_by_the_next_supervisor() {
    let fleet = Fleet::new("a: {port: $0, stop_grace_period: 1s, environment: {PUPPET: ignore-term}}\nb: {port: $1}");
    fleet.up();
    let down = fleet.spawn(&["down"]);
    fleet.wait_for_phase("a", "stopping");
    let (supervisor, _) = fleet.pair();
    signal(supervisor, Signal::SIGKILL);
    down.wait().expect(0);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn when_both_die_the_next_up_takes_the_survivors_over() {
    Way::each(|way| {
        let fleet = fleet(way);
        let _ = get(fleet.port(0), "/print?500");
        let control = Control::watch(&fleet);
        for round in 1..=3 {
            let pids = ["control", "loud", "quiet"].map(|name| fleet.pid(name));
            kill_both(&fleet);
            // What is written meanwhile waits in the pipe.
            let _ = get(fleet.port(0), "/print?500");
            fleet.run(&["status"]).expect(3).says(&["still running, with nobody watching", "loud (pid"]);
            fleet.up();
            assert_eq!(pids, ["control", "loud", "quiet"].map(|name| fleet.pid(name)), "round {round}");
            assert_lines(&fleet, 500 + 500 * round);
        }
        control.finish();
        fleet.run(&["restart", "loud", "--wait"]).expect(0);
        assert_eq!(puppets(&fleet, "loud").len(), 1);
        fleet.run(&["down"]).expect(0);
        assert_eq!(fleet.processes(), []);
    });
}

#[test]
fn when_both_die_nobody_says_that_nothing_runs_and_down_ends_it_in_order() {
    Way::each(|way| {
        let fleet = fleet(way);
        let quiet = fleet.pid("quiet");
        signal(fleet.pid("loud"), Signal::SIGTERM);
        fleet.wait_for("loud", |loud| loud["restarts"] == 1 && loud["phase"] == "running");
        kill_both(&fleet);
        for verb in [&["why", "quiet"][..], &["stop", "quiet"], &["restart", "loud"]] {
            fleet.run(verb).expect(3).says(&["nobody watching", "hint: laneway up takes them over"]);
        }
        let said = fleet.run(&["status", "--json"]).expect(3).out;
        let status: Value = serde_json::from_str(&said).unwrap();
        let shown = status["instances"].as_array().unwrap().iter().find(|one| one["name"] == "quiet").unwrap().clone();
        assert_eq!(
            (number(&shown["pid"]), &shown["phase"], &shown["watched"]),
            (quiet, &"running".into(), &false.into())
        );
        fleet.run(&["down"]).expect(0);
        assert_eq!(fleet.processes(), []);
        fleet.run(&["status"]).expect(3).says(&["nothing runs"]);
    });
}

#[test]
fn when_both_die_and_a_server_after_them_it_is_started_once() {
    Way::each(|way| {
        let fleet = fleet(way);
        let (loud, quiet) = (fleet.pid("loud"), fleet.pid("quiet"));
        kill_both(&fleet);
        signal(loud, Signal::SIGKILL);
        assert!(wait_until(PATIENCE, || !is_alive(loud)));
        fleet.up();
        assert_eq!(fleet.pid("quiet"), quiet);
        assert_ne!(fleet.pid("loud"), loud);
        assert_eq!((puppets(&fleet, "loud").len(), puppets(&fleet, "quiet").len()), (1, 1));
    });
}

#[test]
fn what_would_not_go_when_both_died_is_waited_for() {
    for way in [Way::Cgroups, Way::Sweep] {
        let fleet = way.fleet(&format!("{CONTROL}a: {{port: $0}}\n"));
        fleet.up();
        let control = Control::watch(&fleet);
        let old = fleet.pid("a");
        // Frozen by the freezer of cgroup v1 it minds no SIGKILL, as one that waits for a dead disk.
        let Some(freezer) = V1::of("freezer", old) else { return };
        freezer.set("freezer.state", "FROZEN");
        assert!(wait_until(PATIENCE, || freezer.get("freezer.state") == "FROZEN"));
        kill_both(&fleet);
        // Another one by now, it cannot be adopted.
        fleet.write(&fleet.text().replace("a: {", "a: {environment: {X: other}, "));
        fleet.run(&["up", "-d"]).expect(1).says(&[&format!("a: still there after the kill: pid {old}")]);
        assert_eq!(puppets(&fleet, "a").len(), 1, "a second copy");
        freezer.set("freezer.state", "THAWED");
        let new = fleet.wait_for("a", |a| a["health"] == "healthy");
        assert_ne!(number(&new["pid"]), old);
        assert_eq!(puppets(&fleet, "a").len(), 1);
        control.finish();
        fleet.run(&["down"]).expect(0);
        assert_eq!(fleet.processes(), []);
    }
}

/// A process that has just this number (`man 2 clone3`, `set_tid`); `None`, aloud, where the kernel does not let us.
fn stranger_with(number: u32) -> Option<nix::unistd::Pid> {
    let wanted = [i32::try_from(number).unwrap()];
    let mut arguments = [0_u64; 11];
    arguments[4] = u64::from(nix::libc::SIGCHLD.unsigned_abs());
    arguments[8] = wanted.as_ptr() as u64;
    arguments[9] = 1;
    let (path, words) = (c"/bin/sleep", [c"sleep".as_ptr(), c"60".as_ptr(), std::ptr::null()]);
    let environment = [std::ptr::null()];
    // SAFETY: as fork: between the clone and the exec the child makes no call but exec.
    let pid = unsafe {
        let pid = nix::libc::syscall(nix::libc::SYS_clone3, arguments.as_mut_ptr(), size_of_val(&arguments));
        if pid == 0 {
            nix::libc::execve(path.as_ptr(), words.as_ptr(), environment.as_ptr());
            nix::libc::_exit(127);
        }
        pid
    };
    if pid < 0 {
        let error = std::io::Error::last_os_error();
        assert_ne!(error.raw_os_error(), Some(nix::libc::EEXIST), "the number is not free");
        eprintln!("skipped: a number cannot be chosen here ({error}); run as root");
        return None;
    }
    Some(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()))
}

#[test]
fn a_stranger_with_the_number_of_a_dead_server_is_left_alone() {
    Way::each(|way| {
        let fleet = fleet(way);
        let loud = fleet.pid("loud");
        kill_both(&fleet);
        signal(loud, Signal::SIGKILL);
        assert!(wait_until(PATIENCE, || !std::path::Path::new(&format!("/proc/{loud}")).exists()));
        let Some(stranger) = stranger_with(loud) else { return };
        fleet.up();
        let new = fleet.pid("loud");
        assert_ne!(new, loud, "a stranger was taken for the server");
        fleet.run(&["restart", "loud", "--wait"]).expect(0);
        fleet.run(&["down"]).expect(0);
        assert!(is_alive(loud), "a stranger was killed");
        nix::sys::signal::kill(stranger, Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(stranger, None).unwrap();
    });
}

#[test]
fn a_dead_server_keeps_its_number_until_its_exit_was_taken_note_of() {
    let fleet = fleet(Way::Cgroups);
    let ((supervisor, keeper), loud) = (fleet.pair(), fleet.pid("loud"));
    // Nobody may take note yet.
    signal(keeper, Signal::SIGSTOP);
    signal(supervisor, Signal::SIGKILL);
    assert!(wait_until(PATIENCE, || !is_alive(supervisor)));
    signal(loud, Signal::SIGKILL);
    assert!(wait_until(PATIENCE, || !is_alive(loud)));
    assert!(std::path::Path::new(&format!("/proc/{loud}")).exists(), "it is a zombie, and its number its own");
    signal(keeper, Signal::SIGCONT);
    let after = fleet.wait_for("loud", |loud| loud["restarts"] == 1 && loud["health"] == "healthy");
    assert_ne!(number(&after["pid"]), loud);
    fleet.run(&["why", "loud"]).expect(0).shows(&["killed by SIGKILL"]);
}
