//! From `up` to `down`: who runs, who is told, what dies and what comes back.

use nix::sys::signal::Signal;

use crate::harness::{Fleet, PATIENCE, get, is_alive, listens, number, signal, wait_until};

const TWO: &str = "a: {port: $0}\nb: {port: $1}";

#[test]
fn up_waits_for_health_and_down_ends_laneway_too() {
    let fleet = Fleet::new(TWO);
    fleet.run(&["status"]).expect(3).shows(&["a", "stopped"]).says(&["nothing runs from", "laneway up"]);
    fleet.up().shows(&["NAME", "PHASE", "a     running  healthy", "b     running  healthy"]);
    let (supervisor, keeper) = fleet.pair();
    assert!(is_alive(supervisor) && is_alive(keeper));
    fleet.run(&["status"]).expect(0).shows(&["http://127.0.0.1:"]);
    fleet.run(&["down"]).expect(0).says(&["it is down"]);
    assert!(!is_alive(supervisor) && !is_alive(keeper), "down returned before laneway was gone");
    assert!(!listens(fleet.port(0)) && !listens(fleet.port(1)));
    assert_eq!(fleet.processes(), []);
    fleet.run(&["down"]).expect(3).says(&["nothing runs"]);
    for verb in ["start", "stop", "restart", "why"] {
        fleet.run(&[verb, "a"]).expect(3).says(&["nothing runs", "hint: laneway up"]);
    }
}

#[test]
fn the_exit_code_of_status_says_how_the_fleet_is() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1, command: [/nowhere/at/all]}");
    fleet.run(&["up", "-d", "--wait", "a"]).expect(0);
    fleet.run(&["status"]).expect(0);
    fleet.run(&["status", "b"]).expect(3);
    fleet.run(&["start", "b"]).expect(1).says(&["/nowhere/at/all"]);
    fleet.run(&["status"]).expect(1);
    fleet.run(&["status", "a"]).expect(0);
    fleet.run(&["stop", "*"]).expect(0);
    fleet.run(&["status"]).expect(3);
}

#[test]
fn status_as_json_holds_what_the_table_holds() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let status = fleet.status();
    assert_eq!(status["project"], "it");
    assert_eq!(status["file"], fleet.file().to_str().unwrap());
    let a = fleet.instance("a");
    assert_eq!((&a["phase"], &a["health"], &a["goal"]), (&"running".into(), &"healthy".into(), &"up".into()));
    assert_eq!(number(&a["port"]), u32::from(fleet.port(0)));
    assert!(is_alive(number(&a["pid"])));
    assert_eq!(a["url"], format!("http://127.0.0.1:{}/", fleet.port(0)));
    let (_, body) = get(fleet.port(0), "/self").unwrap();
    assert!(body.contains(&format!("\"pid\": {}", a["pid"])), "{body}");
}

#[test]
fn instances_are_named_by_name_glob_and_preset() {
    let fleet =
        Fleet::new("chat_a: {port: $0}\nchat_b: {port: $1}\nother: {port: $2}\ntop:presets: {some: [chat_a, other]}");
    fleet.up();
    let phases = || {
        let status = fleet.status();
        let all = status["instances"].as_array().unwrap().iter();
        all.map(|i| i["phase"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    fleet.run(&["stop", "chat_*"]).expect(0);
    assert_eq!(phases(), "stopped stopped running");
    fleet.run(&["start", "--wait", "some"]).expect(0);
    assert_eq!(phases(), "running stopped running");
    let before = fleet.pid("other");
    fleet.run(&["restart", "--wait", "other"]).expect(0);
    assert_ne!(before, fleet.pid("other"));
    assert!(!is_alive(before));
    fleet.run(&["stop", "chta_a"]).expect(2).says(&["chta_a", "did you mean", "chat_a"]);
    fleet.run(&["stop", "nothing*"]).expect(2);
}

#[test]
fn a_second_up_with_the_same_plan_is_a_client_of_the_first() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let (pair, pid) = (fleet.pair(), fleet.pid("a"));
    fleet.up();
    assert_eq!((pair, pid), (fleet.pair(), fleet.pid("a")));
}

#[test]
fn a_second_up_with_another_plan_names_the_pid_and_the_difference() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let (supervisor, _) = fleet.pair();
    fleet.run(&["up", "-d", "--set", "instances.a.stop_grace_period=7s"]).expect(1).says(&[
        &format!("pid {supervisor}"),
        "another plan",
        "a",
        "stop_grace_period",
        "hint:",
    ]);
    fleet.run(&["status"]).expect(0);
}

#[test]
fn six_ups_at_once_start_one_supervisor() {
    let fleet = Fleet::new(TWO);
    let ups: Vec<_> = (0..6).map(|_| fleet.spawn(&["up", "-d", "--wait"])).collect();
    for up in ups {
        up.wait().expect(0);
    }
    let (supervisor, keeper) = fleet.pair();
    let laneways: Vec<_> = fleet.processes().into_iter().filter(|p| p.command.starts_with("laneway ")).collect();
    assert_eq!(laneways.len(), 2, "{laneways:?}, {supervisor}, {keeper}");
    assert_eq!(fleet.processes_of("a").len(), 1);
}

#[test]
fn a_dead_pair_never_needs_a_person_and_nothing_runs_twice() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let ((supervisor, keeper), old) = (fleet.pair(), [fleet.pid("a"), fleet.pid("b")]);
    // The keeper first: it would start a new supervisor.
    signal(keeper, Signal::SIGSTOP);
    signal(supervisor, Signal::SIGKILL);
    signal(keeper, Signal::SIGKILL);
    assert!(wait_until(PATIENCE, || !is_alive(supervisor) && !is_alive(keeper)));
    assert!(old.iter().all(|pid| is_alive(*pid)), "the servers are what a dead pair leaves");
    fleet.run(&["status"]).expect(3);
    fleet.up();
    assert!(old.iter().all(|pid| !is_alive(*pid)), "the leftovers were ended");
    assert_eq!((fleet.processes_of("a").len(), fleet.processes_of("b").len()), (1, 1));
    assert!(
        fleet.own_log().contains("which an earlier supervisor left")
            || fleet.own_log().contains("earlier supervisor left")
    );
}

#[test]
fn a_killed_supervisor_comes_back_by_itself_and_nothing_runs_twice() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    fleet.run(&["stop", "b"]).expect(0);
    let (supervisor, keeper) = fleet.pair();
    signal(supervisor, Signal::SIGKILL);
    let is_new = || {
        let (new, same_keeper) = fleet.pair();
        new != 0 && new != supervisor && same_keeper == keeper
    };
    assert!(wait_until(PATIENCE, is_new), "no new supervisor: {}", fleet.own_log());
    fleet.wait_for_health("a", "healthy");
    assert_eq!(fleet.instance("b")["phase"], "stopped", "the goals outlive the supervisor");
    assert_eq!((fleet.processes_of("a").len(), fleet.processes_of("b").len()), (1, 0));
}

#[test]
fn a_killed_keeper_takes_everything_down_in_order() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let (supervisor, keeper) = fleet.pair();
    signal(keeper, Signal::SIGKILL);
    assert!(wait_until(PATIENCE, || !is_alive(supervisor)));
    assert_eq!(fleet.processes(), []);
    fleet.up();
}
