//! The audit: every act leaves its line, whoever dies over it, and what is done to the lines shows.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Attached, DEFAULTS, Fleet, PATIENCE, signal, wait_until};

const TWO: &str = "a: {port: $0}\nb: {port: $1}";

fn acts(fleet: &Fleet) -> Vec<Value> {
    serde_json::from_str(&fleet.run(&["audit", "--json", "-n", "all"]).expect(0).out).unwrap()
}

/// Door, verb, instances and end of each act.
fn shown(fleet: &Fleet) -> Vec<String> {
    let words = |act: &Value| {
        let instances: Vec<_> =
            act["instances"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let word = |key: &str| act[key].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {}", word("door"), word("verb"), instances.join(","), word("outcome"))
    };
    acts(fleet).iter().map(words).collect()
}

#[test]
fn every_act_leaves_a_line_with_who_and_how_it_ended() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    fleet.run(&["stop", "a"]).expect(0);
    fleet.run(&["start", "a", "--wait"]).expect(0);
    fleet.run(&["restart", "a", "b", "--wait"]).expect(0);
    fleet.run(&["kill", "-s", "USR1", "nobody"]).expect(2);
    fleet.run(&["kill", "-s", "CONT", "b"]).expect(0);
    fleet.run(&["exec", "b", "--", "true", "geheim"]).expect(0);
    fleet.run(&["env", "b", "--reveal"]).expect(0);
    fleet.run(&["apply", "--dry-run"]).expect(0);
    fleet.write(&fleet.text().replace("b: {", "b: {stop_signal: SIGINT, "));
    fleet.run(&["apply"]).expect(0);
    fleet.write(&fleet.text().replace("b: {", "b: {no_key: 1, "));
    fleet.run(&["apply"]).expect(2);
    let _ = fleet.api("POST", "/v1/stop", r#"{"instances": ["b"]}"#);
    signal(fleet.pair().0, Signal::SIGHUP);
    let noted = wait_until(PATIENCE, || shown(&fleet).iter().any(|act| act.starts_with("signal")));
    assert!(noted, "{}", fleet.own_log());
    fleet.run(&["down"]).expect(0);
    assert_eq!(
        shown(&fleet),
        [
            "cli start * done",
            "cli stop a done",
            "cli start a done",
            "cli restart a,b done",
            "cli kill b done",
            "cli exec b started",
            "cli env b done",
            "cli apply * done",
            "cli apply * refused",
            "api stop b done",
            "signal apply * taken",
            "cli down * done",
        ]
    );
    let acts = acts(&fleet);
    let of = |verb: &str| acts.iter().find(|act| act["verb"] == verb).unwrap();
    assert_eq!(of("kill")["detail"], "SIGCONT");
    assert_eq!(of("apply")["outcome_detail"], "b differs in stop_signal");
    let me = nix::unistd::getuid().as_raw();
    assert!(acts.iter().all(|act| act["door"] == "signal" || act["uid"] == me && act["pid"].is_u64()), "{acts:#?}");
    let text = fs::read_to_string(fleet.state("audit.jsonl")).unwrap();
    assert!(!text.contains("geheim"), "a command's arguments may be secrets");
    // It is there after `down`, and without a supervisor.
    fleet.run(&["audit", "verify"]).expect(0).shows(&["are as they were written", "head "]);
    fleet.run(&["audit", "-n", "1"]).expect(0).shows(&["TIME (UTC)", "down"]);
    fleet.run(&["audit", "--since", "1h"]).expect(0).shows(&["restart", "a b"]);
    fleet.run(&["audit", "--since", "2999-01-01"]).expect(0).says(&["nothing stands in"]);
    fleet.run(&["audit", "--since", "soon"]).expect(2).says(&["2026-11-21T17:20:00Z"]);
}

#[test]
fn what_was_touched_is_named_and_a_head_that_was_kept_shows_what_was_cut_off() {
    let fleet = Fleet::new(TWO);
    let file = fleet.state("audit.jsonl");
    fleet.run(&["audit"]).expect(0).says(&["nothing stands in"]);
    fleet.run(&["audit", "verify"]).expect(0).shows(&["no lines yet"]);
    for _ in 0..3 {
        fleet.run(&["env", "a", "--reveal"]).expect(0);
    }
    let good = fs::read_to_string(&file).unwrap();
    let said = fleet.run(&["audit", "verify"]).expect(0).says(&["keep the head elsewhere"]).out;
    let head = said.lines().find_map(|line| line.strip_prefix("head ")).unwrap();
    fs::write(&file, good.replacen("--reveal", "--hidden", 2)).unwrap();
    fleet.run(&["audit", "verify"]).expect(1).says(&["audit.jsonl, line 1: entry 1 is not what its hash says"]);
    let verdict: Value = serde_json::from_str(&fleet.run(&["audit", "verify", "--json"]).expect(1).out).unwrap();
    assert_eq!(verdict["fault"]["line"], 1);
    let lines: Vec<_> = good.split_inclusive('\n').collect();
    fs::write(&file, [&lines[..2], &lines[3..]].concat().concat()).unwrap();
    fleet.run(&["audit", "verify"]).expect(1).says(&["line 3: entry 4 stands where 3 should"]);
    fs::write(&file, lines[..4].concat()).unwrap();
    fleet.run(&["audit", "verify"]).expect(0);
    fleet.run(&["audit", "verify", "--head", head]).expect(1).says(&["its end was cut off"]);
    // A crash leaves a line without its end: that is no tampering, and the next one goes on.
    fs::write(&file, &good[..good.len() - 30]).unwrap();
    fleet.run(&["audit", "verify"]).expect(0).says(&["has no end"]);
    fleet.run(&["env", "a", "--reveal"]).expect(0);
    fleet.run(&["audit", "verify"]).expect(0).says(&["1 line(s) without an end: their writers died"]);
}

#[test]
fn many_commands_and_the_supervisor_write_one_chain() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let execs: Vec<Attached> = (0..12).map(|_| fleet.spawn(&["exec", "a", "--", "true"])).collect();
    let kills: Vec<Attached> = (0..12).map(|_| fleet.spawn(&["kill", "-s", "CONT", "b"])).collect();
    for command in execs.into_iter().chain(kills) {
        command.wait().expect(0);
    }
    let acts = shown(&fleet);
    let count = |act: &str| acts.iter().filter(|other| *other == act).count();
    assert_eq!((count("cli exec a started"), count("cli kill b done")), (12, 12), "{acts:#?}");
    fleet.run(&["audit", "verify"]).expect(0);
}

#[test]
fn an_act_that_the_supervisor_died_over_was_written_down_before() {
    let fleet = Fleet::raw(&format!(
        "{DEFAULTS}  environment: {{PUPPET: ignore-term}}\ninstances: {{a: {{port: $0, stop_grace_period: 3s}}}}\n"
    ));
    fleet.up();
    let (supervisor, _) = fleet.pair();
    let stop = fleet.spawn(&["stop", "a"]);
    fleet.wait_for_phase("a", "stopping");
    signal(supervisor, Signal::SIGKILL);
    stop.wait().expect(0);
    // Asked twice by the same client, done once: the first time nobody lived to say how it ended.
    assert_eq!(shown(&fleet), ["cli start * done", "cli stop a -", "cli stop a done"]);
    let acts = acts(&fleet);
    assert_eq!(acts[1]["pid"], acts[2]["pid"]);
    fleet.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_client_that_leaves_does_not_take_its_line_along() {
    let fleet = Fleet::raw(&format!(
        "{DEFAULTS}  environment: {{PUPPET: ignore-term}}\ninstances: {{a: {{port: $0, stop_grace_period: 1s}}}}\n"
    ));
    fleet.up();
    let stop = fleet.spawn(&["stop", "a"]);
    fleet.wait_for_phase("a", "stopping");
    stop.signal(Signal::SIGKILL);
    fleet.wait_for_phase("a", "stopped");
    assert!(wait_until(PATIENCE, || shown(&fleet).last().is_some_and(|act| act == "cli stop a done")));
}

#[test]
fn the_door_of_a_terminal_is_told_from_that_of_a_signal() {
    for (door, by) in [("terminal", None), ("signal", Some(Signal::SIGTERM))] {
        let fleet = Fleet::new(TWO);
        let up = fleet.spawn_on_terminal(&["up"]);
        up.wait_for("logs follow");
        match by {
            None => up.type_in(b"\x03"),
            Some(signal) => up.signal(signal),
        }
        up.wait();
        assert_eq!(shown(&fleet), ["cli start * done", &format!("{door} down * done")]);
    }
}

#[test]
fn an_audit_that_cannot_be_written_stops_nobody_and_is_said() {
    let fleet = Fleet::new(TWO);
    fs::create_dir_all(fleet.state("audit.jsonl")).unwrap();
    fleet.up();
    fleet.run(&["stop", "a"]).expect(0);
    fleet.run(&["exec", "b", "--", "true"]).expect(0).says(&["audit.jsonl lacks a line"]);
    assert!(fleet.own_log().contains("audit.jsonl lacks a line"), "{}", fleet.own_log());
    fleet.run(&["down"]).expect(0);
}

#[test]
fn an_ordinary_user_reads_what_root_wrote_for_him() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let fleet = Fleet::new(TWO);
    fleet.run_as_nobody(&["up", "-d", "--wait"]).expect(0);
    fs::remove_file(fleet.state("audit.jsonl")).unwrap();
    fleet.run(&["exec", "a", "--", "true"]).expect(0);
    fleet.run_as_nobody(&["stop", "a"]).expect(0);
    let output = fleet.run_as_nobody(&["audit"]).expect(0).shows(&["exec", "stop"]);
    assert!(output.out.contains("root (") && output.out.contains("nobody ("), "{}", output.out);
    fleet.run_as_nobody(&["down"]).expect(0);
    // A reader follows the hashes with what every machine has.
    let by_hand = "head -1 audit.jsonl | sed 's/,\"hash\":\"[0-9a-f]*\"}$/}/' | tr -d '\\n' | sha256sum";
    let sum = Command::new("sh").args(["-c", by_hand]).current_dir(fleet.state("")).output().unwrap();
    let first: Value =
        serde_json::from_str(fs::read_to_string(fleet.state("audit.jsonl")).unwrap().lines().next().unwrap()).unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(first["hash"].as_str().unwrap()));
}
