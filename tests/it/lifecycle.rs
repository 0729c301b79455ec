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
    for verb in ["start", "restart"] {
        fleet.run(&[verb, "a"]).expect(3).says(&["nothing runs", "hint: laneway up"]);
    }
    for verb in ["stop", "why"] {
        assert!(!fleet.run(&[verb, "a"]).expect(3).says(&["nothing runs"]).err.contains("laneway up"));
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

/// Where there is no cgroup to write, everything must go the same way.
fn both_ways(instances: &str, test: impl Fn(&Fleet)) {
    for without_cgroups in [false, true] {
        let mut fleet = Fleet::new(instances);
        if without_cgroups {
            fleet.set("LANEWAY_TEST_NO_CGROUPS", "1");
        }
        test(&fleet);
    }
}

/// Kills keeper and supervisor.
fn kill_pair(fleet: &Fleet) {
    let (supervisor, keeper) = fleet.pair();
    // The keeper must not get to start a new supervisor.
    signal(keeper, Signal::SIGSTOP);
    signal(supervisor, Signal::SIGKILL);
    signal(keeper, Signal::SIGKILL);
    assert!(wait_until(PATIENCE, || !is_alive(supervisor) && !is_alive(keeper)));
}

/// Kills the supervisor, and waits until another one answers.
fn kill_supervisor(fleet: &Fleet) {
    let (supervisor, keeper) = fleet.pair();
    signal(supervisor, Signal::SIGKILL);
    let is_new = || {
        let (new, same_keeper) = fleet.pair();
        new != 0 && new != supervisor && same_keeper == keeper
    };
    assert!(wait_until(PATIENCE, is_new), "no new supervisor: {}", fleet.own_log());
}

#[test]
fn a_dead_pair_with_a_reused_pid_or_garbage_in_its_files_is_no_obstacle() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    kill_pair(&fleet);
    for (name, text) in [("plan.json", "{"), ("goals.json", "[[["), ("fleet", "short"), ("lock", "1\n")] {
        std::fs::write(fleet.state(".run").join(name), text).unwrap();
    }
    // The old id is lost, and with it the way to find the old servers by marker: say who they are.
    let output = fleet.run(&["up", "-d", "--wait", "--wait-timeout", "5"]);
    assert!(output.code == 0 || output.err.contains("is taken by pid"), "{output:?}");
    for process in fleet.processes().iter().filter(|process| process.command.contains("puppet")) {
        signal(process.pid, Signal::SIGKILL);
    }
    fleet.wait_for_health("a", "healthy");
}

#[test]
fn a_supervisor_killed_amid_a_start_goes_on_with_it() {
    both_ways("a: {port: $0, pre_start: [[sh, -c, 'sleep 987 & wait'], [sh, -c, 'echo second']]}", |fleet| {
        let up = fleet.spawn(&["up", "-d", "--wait"]);
        let sleeping =
            || fleet.processes_of("a").into_iter().filter(|p| p.command.starts_with("sleep")).collect::<Vec<_>>();
        assert!(wait_until(PATIENCE, || sleeping().len() == 1));
        let old = sleeping();
        kill_supervisor(fleet);
        assert_eq!(sleeping(), old, "the command goes on");
        signal(old[0].pid, Signal::SIGKILL);
        // The client asked the next supervisor for the same.
        up.wait().expect(0);
        assert!(fleet.log("a").contains("second"));
        assert_eq!(fleet.instance("a")["restarts"], 0);
    });
}

#[test]
fn a_killed_supervisor_keeps_the_values_that_it_was_started_with() {
    let mut fleet = Fleet::new("a: {port: $0, environment: {FROM: \"${GREETING:?which}\"}}");
    fleet.set("GREETING", "hello");
    fleet.run(&["up", "-d", "--wait", "--set", "defaults.environment.MORE=set"]).expect(0);
    fleet.set("GREETING", "other");
    kill_supervisor(&fleet);
    fleet.wait_for_health("a", "healthy");
    let environment = fleet.ask_self("a")["environment"].clone();
    assert_eq!((&environment["FROM"], &environment["MORE"]), (&"hello".into(), &"set".into()));
    // env, exec and config speak of what runs.
    fleet.run(&["env", "a"]).expect(0).shows(&["FROM='hello'", "MORE='set'"]);
    fleet.run(&["exec", "a", "--", "sh", "-c", "echo $FROM $MORE"]).expect(0).shows(&["hello set"]);
    fleet.run(&["config"]).expect(0).shows(&["FROM: hello"]);
}

#[test]
fn a_crash_after_the_stable_window_starts_again_at_once() {
    let fleet = Fleet::new("a: {port: $0, restart_policy: {delay: 30s, max_delay: 60s, window: 300ms}}");
    fleet.up();
    let old = fleet.pid("a");
    // Stable means healthy for the window; the checks go on meanwhile.
    fleet.wait_for("a", |a| a["uptime_seconds"].as_f64() > Some(0.8));
    let _ = get(fleet.port(0), "/crash?3");
    let a = fleet.wait_for("a", |a| number(&a["pid"]) != old && a["health"] == "healthy");
    assert_eq!((number(&a["restarts"]), number(&a["failures"])), (1, 0), "a delay of 30s was not waited for");
    fleet.run(&["why", "a"]).expect(0).shows(&["exit code 3", "1 since it was asked to start"]);
}

#[test]
fn a_crash_before_that_backs_off_and_start_clears_the_count() {
    let fleet = Fleet::new("a: {port: $0, restart_policy: {delay: 30s, max_delay: 60s, window: 60s}}");
    fleet.up();
    let _ = get(fleet.port(0), "/crash?3");
    let a = fleet.wait_for_phase("a", "backoff");
    assert_eq!(number(&a["failures"]), 1);
    fleet.run(&["why", "a"]).expect(0).shows(&["exit code 3", "starts again in"]);
    fleet.run(&["status"]).expect(1).says(&["a: the server ended: exit code 3", "hint: laneway logs a"]);
    fleet.run(&["start", "--wait", "a"]).expect(0);
    let a = fleet.instance("a");
    assert_eq!((number(&a["restarts"]), number(&a["failures"])), (0, 0));
}

#[test]
fn restart_no_stays_down_and_on_failure_n_gives_up() {
    let fleet = Fleet::new(concat!(
        "never: {port: $0, restart: \"no\", environment: {PUPPET: crash=100:4}}\n",
        "twice: {port: $1, restart: \"on-failure:2\", environment: {PUPPET: crash=1:5}, restart_policy: {delay: 10ms, max_delay: 20ms}}\n",
        "job: {command: [\"true\"], healthcheck: {disable: true}}",
    ));
    fleet.run(&["up", "-d"]);
    fleet.wait_for_phase("never", "failed");
    let twice = fleet.wait_for_phase("twice", "failed");
    assert_eq!(number(&twice["restarts"]), 2);
    fleet.wait_for_phase("job", "completed");
    fleet.run(&["why", "never"]).expect(0).shows(&["exit code 4", "restart: no"]);
    fleet.run(&["why", "twice"]).expect(0).shows(&["exit code 5", "gave up after 2"]);
    fleet.run(&["why", "job"]).expect(0).shows(&["ended by itself with exit code 0"]);
    fleet.run(&["status", "job"]).expect(0);
    fleet.run(&["status"]).expect(1);
}

#[test]
fn exit_0_before_the_first_good_answer_is_a_failure() {
    let fleet = Fleet::new("a: {port: $0, restart: \"no\", environment: {PUPPET: exit0}}");
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&["a: failed: ", "before its first good answer"]);
    fleet.run(&["why", "a"]).expect(0).shows(&["before its first good answer", "when their port is taken"]);
}

#[test]
fn dependents_start_after_and_stop_before_what_they_need() {
    let fleet = Fleet::new(concat!(
        "first: {port: $0, environment: {PUPPET: slow=300}}\n",
        "second: {port: $1, depends_on: {first: {condition: service_healthy}}}",
    ));
    fleet.run(&["up", "-d", "--wait", "second"]).expect(0);
    let status = fleet.status();
    let [first, second] = [0, 1].map(|number| status["instances"][number]["uptime_seconds"].as_f64().unwrap());
    assert!(first > second + 0.25, "{first} {second}");
    let events = fleet.events();
    let stop = fleet.spawn(&["stop", "*"]);
    let stopped = events
        .filter(|(_, change)| change["phase"] == "stopped")
        .map(|(_, change)| change["name"].as_str().unwrap().to_owned());
    assert_eq!(stopped.take(2).collect::<Vec<_>>(), ["second", "first"]);
    stop.wait().expect(0);
}

#[test]
fn a_dependent_of_what_cannot_start_waits_and_says_so() {
    let fleet = Fleet::new(concat!(
        "first: {port: $0, command: [/nowhere/x]}\n",
        "second: {port: $1, depends_on: {first: {condition: service_healthy}}}",
    ));
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&["second", "waits for first to be healthy"]);
    fleet.run(&["why", "second"]).expect(0).shows(&["waits for first to be healthy", "laneway why first"]);
}

#[test]
fn a_preset_is_a_verb_with_the_flags_of_up() {
    let fleet = Fleet::new(concat!(
        "a: {port: $0}\nb: {port: $1}\n",
        "top:presets: {start-a: [a], dev: {instances: [a], profile: fast}}\n",
        "top:profiles: {fast: {defaults: {environment: {MODE: fast}}}}",
    ));
    fleet.run(&["start-a", "-d", "--wait"]).expect(0).shows(&["a     running  healthy"]);
    assert_eq!(fleet.instance("b")["phase"], "stopped");
    fleet.run(&["dev", "-d"]).expect(1).says(&["another plan"]);
    fleet.run(&["down"]).expect(0);
    fleet.run(&["dev", "-d", "--wait"]).expect(0);
    assert_eq!(fleet.ask_self("a")["environment"]["MODE"], "fast");
    assert_eq!(fleet.status()["profile"], "fast");
    fleet.run(&["start-a", "--no-such-flag"]).expect(2).says(&["--no-such-flag"]);
}

#[test]
fn wait_is_over_when_the_time_is_up() {
    let fleet = Fleet::new("a: {port: $0, environment: {PUPPET: never-listen}}");
    fleet
        .run(&["up", "-d", "--wait", "--wait-timeout", "300ms"])
        .expect(1)
        .says(&["a: the time is up while it is starting"]);
}

#[test]
fn ctrl_c_of_the_attached_up_stops_all() {
    let fleet = Fleet::new("a: {port: $0}");
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    fleet.ask("a", "/say?hello%0A");
    up.wait_for("a | hello");
    up.signal(Signal::SIGINT);
    let output = up.wait().expect(130);
    assert!(output.err.contains("stopping all"), "{output:?}");
    assert_eq!(fleet.processes(), []);
}

#[test]
fn ctrl_c_typed_on_a_terminal_stops_all() {
    let fleet = Fleet::new("a: {port: $0}");
    let up = fleet.spawn_on_terminal(&["up"]);
    up.wait_for("Ctrl-C stops all");
    up.type_in(b"\x03");
    up.wait().expect(130);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_second_ctrl_c_kills_at_once() {
    let fleet = Fleet::new("a: {port: $0, stop_grace_period: 60s, environment: {PUPPET: ignore-term}}");
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C stops all");
    up.signal(Signal::SIGINT);
    fleet.wait_for_phase("a", "stopping");
    up.signal(Signal::SIGINT);
    up.wait().expect(130);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn ctrl_c_only_leaves_a_fleet_that_ran_before() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C leaves");
    up.signal(Signal::SIGINT);
    up.wait().expect(130).says(&["goes on", "laneway down"]);
    fleet.run(&["status"]).expect(0);
}

#[test]
fn a_closed_terminal_ends_the_client_and_the_fleet_goes_on() {
    let fleet = Fleet::new("a: {port: $0}");
    let up = fleet.spawn_on_terminal(&["up"]);
    up.wait_for("Ctrl-C stops all");
    let pid = fleet.pid("a");
    up.close_terminal();
    let output = up.wait();
    assert_ne!(output.code, 0);
    assert_eq!(fleet.pid("a"), pid);
    fleet.run(&["status"]).expect(0);
    let up = fleet.spawn(&["up"]);
    up.wait_for("Ctrl-C leaves");
}

#[test]
fn sigterm_to_the_keeper_or_the_supervisor_is_a_down() {
    for which in [0, 1] {
        let fleet = Fleet::new("a: {port: $0}");
        fleet.up();
        let (supervisor, keeper) = fleet.pair();
        signal([supervisor, keeper][which], Signal::SIGTERM);
        assert!(wait_until(PATIENCE, || !is_alive(supervisor) && !is_alive(keeper)));
        assert_eq!(fleet.processes(), []);
    }
}

#[test]
fn a_fleet_without_ports_runs_workers() {
    let fleet = Fleet::new("worker: {healthcheck: {disable: true}}");
    fleet.up().shows(&["worker  running  -"]);
    fleet.run(&["status"]).expect(0);
    fleet.run(&["why", "worker"]).expect(0).shows(&["it has no health check"]);
}

#[test]
fn the_fleet_is_found_from_a_folder_beneath_and_by_f_and_c() {
    let fleet = Fleet::new("a: {port: $0}");
    let beneath = fleet.folder().join("some/where");
    std::fs::create_dir_all(&beneath).unwrap();
    fleet.up();
    let mut command = fleet.command(&["status"]);
    command.current_dir(&beneath);
    fleet.run_command(command).expect(0);
    for arguments in [["-C", fleet.folder().to_str().unwrap()], ["-f", fleet.file().to_str().unwrap()]] {
        let mut command = fleet.command(&[arguments[0], arguments[1], "status"]);
        command.current_dir("/");
        fleet.run_command(command).expect(0);
    }
    fleet.run(&["-C", "/no/such/folder", "status"]).expect(2);
}
