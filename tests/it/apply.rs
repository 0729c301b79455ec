//! `laneway apply` and SIGHUP: what changed in the file is taken over, and nothing else is touched.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::sys::signal::{Signal, kill};

use crate::faults::control::{CONTROL, Control};
use crate::faults::hand_over::kill_both;
use crate::harness::{Fleet, PATIENCE, get, listens, number, pid, signal, wait_until};

const TWO: &str = "a: {port: $0}\nb: {port: $1}";

/// The file with something else in it.
fn edit(fleet: &Fleet, from: &str, to: &str) {
    let text = fleet.text();
    assert!(text.contains(from), "{text}");
    fleet.write(&text.replace(from, to));
}

/// `status` names these, in this order.
#[track_caller]
fn names(fleet: &Fleet, wanted: &[&str]) {
    let status = fleet.status();
    let names: Vec<_> = status["instances"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!(names, wanted);
}

#[test]
fn who_is_unchanged_answers_through_fifty_reloads() {
    let fleet = Fleet::new(&format!("{CONTROL}b: {{port: $1, environment: {{ROUND: \"0\"}}}}"));
    fleet.up();
    let control = Control::watch(&fleet);
    let before = fleet.instance("control");
    let mut b = fleet.pid("b");
    for round in 1..=50 {
        edit(&fleet, &format!("ROUND: \"{}\"", round - 1), &format!("ROUND: \"{round}\""));
        fleet.run(&["apply"]).expect(0).shows(&["b: changed (environment.ROUND): restarted"]);
        let next = fleet.pid("b");
        assert_ne!(b, next, "round {round}");
        b = next;
    }
    fleet.wait_for_health("b", "healthy");
    assert!(fleet.ask("b", "/self").contains("\"ROUND\": \"50\""));
    let after = fleet.instance("control");
    for what in ["pid", "generation", "restarts", "failures", "health"] {
        assert_eq!(before[what], after[what], "{what}");
    }
    assert!(control.finish().requests > 20);
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_with_its_lines() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let pids = [fleet.pid("a"), fleet.pid("b")];
    edit(&fleet, "a: {port:", "a: {prot:");
    let line = fleet.text().lines().position(|line| line.contains("prot")).unwrap() + 1;
    let place = format!("instances.yaml:{line}:");
    fleet.run(&["apply"]).expect(2).says(&["runs on as it was", &place, "prot", "did you mean"]);
    fleet.run(&["apply", "--dry-run"]).expect(2).says(&[&place]);
    signal(fleet.pair().0, Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || fleet.own_log().matches(&place).count() == 3), "{}", fleet.own_log());
    assert_eq!(pids, [fleet.pid("a"), fleet.pid("b")]);
    fs::remove_file(fleet.file()).unwrap();
    fleet.run(&["-f", fleet.file().to_str().unwrap(), "apply"]).expect(2).says(&["instances.yaml"]);
    assert_eq!(pids, ["a", "b"].map(|name| number(&status_of(&fleet, name)["pid"])));
}

/// An instance as the supervisor shows it, whatever became of the file.
fn status_of(fleet: &Fleet, name: &str) -> serde_json::Value {
    let status = fleet.ask_status();
    status["instances"].as_array().unwrap().iter().find(|i| i["name"] == name).unwrap().clone()
}

#[test]
fn two_instances_swap_their_ports() {
    let fleet = Fleet::new("a: {port: $0, environment: {PUPPET: ignore-term}}\nb: {port: $1}");
    fleet.up();
    let [a, b] = [0, 1].map(|index| fleet.port(index).to_string());
    fleet.write(&fleet.text().replace(&a, "first").replace(&b, &a).replace("first", &b));
    fleet.run(&["apply", "--wait"]).expect(0).shows(&[
        "a: changed (facts.port): restarted",
        "b: changed (facts.port): restarted",
        "a     running  healthy",
    ]);
    let answers = |index: usize| get(fleet.port(index), "/pid").unwrap().1.trim().parse::<u32>().unwrap();
    assert_eq!([answers(1), answers(0)], [fleet.pid("a"), fleet.pid("b")]);
    for name in ["a", "b"] {
        assert_eq!(fleet.instance(name)["restarts"], 0, "no failed try in between");
    }
}

#[test]
fn a_rename_hands_the_port_on() {
    let fleet = Fleet::new("old: {port: $0}\nb: {port: $1}");
    fleet.up();
    let b = fleet.pid("b");
    for (from, to) in [("old", "new"), ("new", "newer"), ("newer", "newest")] {
        edit(&fleet, &format!("  {from}: "), &format!("  {to}: "));
        fleet.run(&["apply", "--wait"]).expect(0).shows(&[&format!("{to}: added"), &format!("{from}: removed")]);
        names(&fleet, &[to, "b"]);
        assert!(fleet.ask(to, "/self").contains(&format!("\"INSTANCE_NAME\": \"{to}\"")));
        fleet.run(&["stop", from]).expect(2).says(&["no instance or preset"]);
        fleet.run(&["why", from]).expect(2);
        fleet.ask(to, &format!("/say?words-of-{to}"));
        let words = format!("words-of-{to}");
        assert!(wait_until(PATIENCE, || fleet.log(to).contains(&words)), "{}", fleet.log(to));
        assert!(!fleet.log(from).contains(&words));
    }
    assert_eq!(fleet.pid("b"), b);
    let plan = fs::read_to_string(fleet.state(".run/plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert!(plan["specs"].as_array().unwrap().len() <= 3, "places are used again");
    fleet.run(&["config"]).expect(0).shows(&["newest:"]);
    assert!(!fleet.run(&["config"]).out.contains("newer:"));
}

#[test]
fn what_is_new_starts_and_what_is_gone_stops_and_a_persons_stop_holds() {
    let fleet = Fleet::new("gone: {port: $0, environment: {PUPPET: ignore-term}}\nb: {port: $1}\nheld: {port: $2}");
    fleet.up();
    let b = fleet.pid("b");
    fleet.run(&["stop", "held"]).expect(0);
    let text = fleet.text();
    let gone = text.lines().find(|line| line.contains("gone:")).unwrap();
    let text = text.replace(gone, &fleet.fill("  new: {port: $3}"));
    fleet.write(&text.replace("held: {", "held: {environment: {X: \"1\"}, "));
    let plan = "new: added: would start\nheld: changed (environment.X): stays stopped\ngone: removed: would stop\n";
    assert_eq!(fleet.run(&["apply", "--dry-run"]).expect(0).out, plan);
    names(&fleet, &["gone", "b", "held"]);
    let apply = fleet.spawn(&["apply", "--wait"]);
    // As long as something of it is left it can be asked about.
    fleet.wait_for_phase("gone", "stopping");
    fleet.run(&["why", "gone"]).expect(0).shows(&["gone: stopping"]);
    let stop = fleet.spawn(&["stop", "gone"]);
    apply.wait().expect(0).shows(&["new: added\n", "held: changed (environment.X): stays stopped", "gone: removed\n"]);
    stop.wait().expect(0);
    names(&fleet, &["new", "b", "held"]);
    assert!(!listens(fleet.port(0)) && listens(fleet.port(3)) && !listens(fleet.port(2)));
    assert_eq!(fleet.pid("b"), b);
    assert_eq!(fleet.run(&["apply"]).expect(0).out, "nothing changed\n");
    fleet.run(&["env", "new"]).expect(0).shows(&["INSTANCE_NAME='new'"]);
    fleet.run(&["logs", "new"]).expect(0);
}

#[test]
fn what_needs_no_restart_gets_none() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let pids = [fleet.pid("a"), fleet.pid("b")];
    edit(&fleet, "  b: {", "  b: {depends_on: [a], stop_grace_period: 1s, logging: {max_size: 8k}, ");
    edit(&fleet, "retries: 2", "retries: 3");
    fleet.run(&["apply", "--wait"]).expect(0).shows(&[
        "a: changed (healthcheck.retries): without a restart",
        "b: changed (depends_on, healthcheck.retries, logging, stop_grace_period): without a restart",
    ]);
    assert_eq!(pids, [fleet.pid("a"), fleet.pid("b")]);
    fleet.ask("b", "/print?2000");
    assert!(wait_until(PATIENCE, || fleet.state("b/log/b.log.1").exists()), "the new limit of the log counts");
    fleet.run(&["stop", "a"]).expect(0).says(&["b goes on without a"]);
    // Said once more, by a client that asks for what runs already.
    fleet.up();
}

#[test]
fn a_new_dependency_is_waited_for() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    let text = fleet
        .text()
        .replace("  a: {", "  a: {environment: {X: \"1\"}, depends_on: {b: {condition: service_healthy}}, ");
    fleet.write(&format!("{text}  b: {{port: $1, environment: {{PUPPET: slow=500}}}}\n"));
    let mut events = fleet.events();
    fleet.run(&["apply", "--wait"]).expect(0);
    let of_a = |(kind, change): &(String, serde_json::Value)| kind == "instance" && change["name"] == "a";
    let phases: Vec<_> = events.by_ref().filter(of_a).map(|(_, change)| change).take(3).collect();
    assert_eq!([&phases[0]["phase"], &phases[1]["phase"], &phases[2]["phase"]], ["stopping", "waiting", "starting"]);
    assert_eq!(phases[1]["reason"], "waits for b to be healthy, which is starting");
    assert_eq!(fleet.instance("b")["health"], "healthy");
}

#[test]
fn what_cannot_be_taken_over_is_refused() {
    let fleet = Fleet::new(TWO);
    let mut other = Fleet::raw("name: other\ninstances: {x: {port: $0, command: [python3, -IS, $puppet]}}\n");
    other.beside(&fleet);
    fleet.run(&["apply"]).expect(3).says(&["nothing runs", "laneway up"]);
    fleet.run(&["apply", "--dry-run"]).expect(3);
    fleet.up();
    other.up();
    let good = fleet.text();
    for (line, words) in [
        ("name: elsewhere", ["`name` differs", "laneway down, then up"]),
        ("state_dir: elsewhere\nname: it", ["`state_dir` differs", "laneway down, then up"]),
        ("namespace: x\nname: it", ["`namespace` differs", "laneway down, then up"]),
    ] {
        fleet.write(&good.replace("name: it", line));
        fleet.run(&["-f", fleet.file().to_str().unwrap(), "apply"]).expect(1).says(&words);
    }
    fleet.write(&good.replace(&fleet.port(1).to_string(), &other.port(0).to_string()));
    fleet.run(&["apply"]).expect(1).says(&["instances.b.port", "belongs to `x` of"]);
    fleet.write(&good);
    for words in [["apply", "--profile", "x"], ["apply", "--set", "name=x"]] {
        fleet.run(&words).expect(2).says(&["apply keeps"]);
    }
    edit(&fleet, "  b: {", "  b: {environment: {X: \"1\"}, ");
    fleet.run(&["up", "-d"]).expect(1).says(&["b differs in environment.X", "laneway apply"]);
    assert_eq!(fleet.run(&["apply"]).expect(0).out.lines().next(), Some("b: changed (environment.X): restarted"));
    fleet.run(&["up", "-d"]).expect(0);
    fleet.run(&["reload"]).expect(2).says(&["laneway apply"]);
}

#[test]
fn a_storm_of_signals_ends_with_what_the_file_says() {
    let fleet = Fleet::new(&format!("{CONTROL}b: {{port: $1, environment: {{ROUND: \"0\"}}}}"));
    fleet.up();
    let control = Control::watch(&fleet);
    let (supervisor, keeper) = fleet.pair();
    let threads = || fs::read_dir(format!("/proc/{supervisor}/task")).unwrap().count();
    let descriptors = || fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap().count();
    let before = (threads(), descriptors());
    for round in 1..=200 {
        edit(&fleet, &format!("ROUND: \"{}\"", round - 1), &format!("ROUND: \"{round}\""));
        for process in [supervisor, keeper] {
            signal(process, Signal::SIGHUP);
        }
    }
    fleet.wait_for("b", |b| b["health"] == "healthy" && fleet.ask("b", "/self").contains("\"ROUND\": \"200\""));
    assert_eq!(fleet.pair(), (supervisor, keeper));
    control.finish();
    let settled = wait_until(PATIENCE, || threads() <= before.0 && descriptors() <= before.1 + 2);
    assert!(settled, "{before:?} became {:?}", (threads(), descriptors()));
}

#[test]
fn a_supervisor_that_dies_over_it_leaves_it_done_or_undone() {
    let fleet = Fleet::new(&format!("{CONTROL}b: {{port: $1, environment: {{ROUND: \"0\"}}}}"));
    fleet.up();
    let control = Control::watch(&fleet);
    for round in 1..=10 {
        edit(&fleet, &format!("ROUND: \"{}\"", round - 1), &format!("ROUND: \"{round}\""));
        let supervisor = fleet.pair().0;
        let generation = number(&fleet.instance("b")["pid"]);
        let apply = fleet.spawn(&["apply", "--wait"]);
        // Each round a little later: before it is read, in between, after.
        let so_far = || {
            fleet.ask_status()["instances"]
                .as_array()
                .is_some_and(|all| all.iter().any(|i| i["name"] == "b" && number(&i["pid"]) != generation))
        };
        if round % 2 == 0 {
            assert!(wait_until(PATIENCE, so_far));
        }
        let _ = kill(pid(supervisor), Signal::SIGKILL);
        apply.wait().expect(0);
        assert!(fleet.ask("b", "/self").contains(&format!("\"ROUND\": \"{round}\"")), "round {round}");
        assert_eq!(fleet.processes_of("b").len(), 1);
    }
    control.finish();
}

#[test]
fn when_both_die_after_a_rename_the_next_up_finds_everybody() {
    let fleet = Fleet::new("old: {port: $0}\nb: {port: $1}");
    fleet.up();
    edit(&fleet, "  old: {", "  new: {");
    fleet.run(&["apply", "--wait"]).expect(0);
    let pids = [fleet.pid("new"), fleet.pid("b")];
    kill_both(&fleet);
    fleet.up();
    assert_eq!([fleet.pid("new"), fleet.pid("b")], pids);
    names(&fleet, &["new", "b"]);
    // A second change, at a place that was free.
    edit(&fleet, "  new: {", "  old: {");
    fleet.run(&["apply", "--wait"]).expect(0).shows(&["old: added", "new: removed"]);
    assert_eq!(fleet.pid("b"), pids[1]);
    let records = fs::metadata(fleet.state(".run/records")).unwrap().len();
    edit(&fleet, "  old: {", "  new: {");
    fleet.run(&["apply", "--wait"]).expect(0);
    assert_eq!(fs::metadata(fleet.state(".run/records")).unwrap().len(), records);
}

#[test]
fn who_left_the_file_while_both_were_dead_ends_and_leaves_its_port() {
    let fleet = Fleet::new("old: {port: $0}\nb: {port: $1}");
    fleet.up();
    let b = fleet.pid("b");
    kill_both(&fleet);
    edit(&fleet, "  old: {", "  new: {");
    fleet.up();
    names(&fleet, &["new", "b"]);
    assert_eq!((fleet.processes_of("old"), fleet.pid("b")), (vec![], b));
}

#[test]
fn unless_stopped_remembers_a_stop_over_down_and_up() {
    let fleet = Fleet::new("a: {port: $0, restart: unless-stopped}\nb: {port: $1}\ntop:presets: {only-a: [a]}");
    fleet.up();
    fleet.run(&["stop", "a", "b"]).expect(0);
    fleet.run(&["down"]).expect(0);
    let words = "a stays stopped (restart: unless-stopped); laneway start a starts it";
    fleet.up().says(&[words]).shows(&["b     running  healthy"]);
    assert!(!listens(fleet.port(0)));
    fleet.up().says(&[words]);
    // The records are of another boot.
    fleet.run(&["down"]).expect(0);
    let records = File::options().write(true).open(fleet.state(".run/records")).unwrap();
    records.write_all_at(&[b'0'; 36], 16).unwrap();
    fleet.up().says(&[words]).shows(&["b     running  healthy"]);
    // An apply that changes it leaves it alone too.
    edit(&fleet, "a: {", "a: {environment: {X: \"1\"}, ");
    fleet.run(&["apply"]).expect(0).shows(&["a: changed (environment.X): stays stopped"]);
    fleet.run(&["only-a", "-d", "--wait"]).expect(0).shows(&["a     running  healthy"]);
    fleet.run(&["down"]).expect(0);
    let up = fleet.up();
    assert!(!up.err.contains("stays stopped") && listens(fleet.port(0)), "who was started again is up again");
}
