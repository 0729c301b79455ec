//! Signals that a person sends, colours, and the manual.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Fleet, PATIENCE, number, pid, signal, wait_until};

/// Two processes that say which signals they get: the first one and its child.
const FAMILY: &str = r#"
trap 'echo first got USR1' USR1
trap 'echo first got HUP' HUP
bash -c 'trap "echo child got USR1" USR1; echo child $$; while :; do sleep 0.01; done' &
while :; do wait; done
"#;

fn family() -> (Fleet, u32) {
    let fleet = Fleet::new("a: {command: [bash, family.sh], healthcheck: {disable: true}}");
    fs::write(fleet.folder().join("family.sh"), FAMILY).unwrap();
    fleet.up();
    let child = || fleet.log("a").lines().find_map(|line| line.strip_prefix("child ")?.parse().ok());
    assert!(wait_until(PATIENCE, || child().is_some()), "{}", fleet.log("a"));
    let child = child().unwrap();
    (fleet, child)
}

#[test]
fn a_killed_server_comes_back_and_why_says_that_a_person_did_it() {
    let fleet = Fleet::new("a: {port: $0, restart_policy: {delay: 30s, max_delay: 30s}}\nb: {port: $1}");
    fleet.up();
    let (first, other) = (fleet.pid("b"), fleet.pid("a"));
    fleet.run(&["kill", "b"]).expect(0).shows(&["b: SIGKILL sent"]);
    let b = fleet.wait_for("b", |b| b["health"] == "healthy" && b["pid"] != first);
    assert_eq!((&b["goal"], &b["restarts"], fleet.pid("a")), (&json!("up"), &json!(1), other), "{b}");
    fleet.run(&["why", "b"]).expect(0).shows(&["killed by SIGKILL (which a person sent)"]);

    // While it waits for its next start, the evidence is in front.
    fleet.run(&["kill", "-s", "term", "a"]).expect(0).shows(&["a: SIGTERM sent"]);
    fleet.wait_for_phase("a", "backoff");
    fleet.run(&["why", "a"]).expect(0).shows(&["a person sent it SIGTERM,", "ago (laneway kill)", "starts again in"]);
    assert!(fleet.own_log().contains("a: SIGTERM sent, as a person wished"), "{}", fleet.own_log());
}

#[test]
fn a_signal_reaches_the_first_process_and_no_other() {
    let (fleet, child) = family();
    let server = fleet.pid("a");
    fleet.run(&["kill", "--signal", "SIGUSR1", "a"]).expect(0);
    assert!(wait_until(PATIENCE, || fleet.log("a").contains("first got USR1")), "{}", fleet.log("a"));
    // Had the child been sent it too, it would say so now or with this one.
    signal(child, Signal::SIGUSR1);
    assert!(wait_until(PATIENCE, || fleet.log("a").contains("child got USR1")), "{}", fleet.log("a"));
    fleet.run(&["kill", "-s", "1", "a"]).expect(0);
    assert!(wait_until(PATIENCE, || fleet.log("a").contains("first got HUP")), "{}", fleet.log("a"));
    assert_eq!(fleet.log("a").matches("got USR1").count(), 2, "{}", fleet.log("a"));
    assert_eq!(fleet.pid("a"), server, "it goes on");
    fleet.run(&["why", "a"]).expect(0).shows(&["a person sent it SIGHUP,"]);
}

#[test]
fn who_does_not_run_is_named_and_the_others_are_signalled() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}\ntop:presets: {both: [a, b]}");
    fleet.run(&["kill", "a"]).expect(3).says(&["nothing runs"]);
    fleet.up();
    fleet.run(&["stop", "a"]).expect(0);
    let before = fleet.pid("b");
    fleet
        .run(&["kill", "both"])
        .expect(1)
        .shows(&["b: SIGKILL sent"])
        .says(&["a: it is stopped: there is no process that could get a signal"]);
    fleet.wait_for("b", |b| b["health"] == "healthy" && b["pid"] != before);
    assert_eq!(fleet.instance("a")["phase"], "stopped");
    // All that run: who does not was not asked for.
    assert_eq!(fleet.run(&["kill", "-s", "CONT", "--all"]).expect(0).out, "b: SIGCONT sent\n");
    fleet.run(&["kill", "nobody"]).expect(2).says(&["`nobody`"]);
    fleet.run(&["kill", "-s", "TREM", "b"]).expect(2).says(&["`TREM` is no signal; did you mean TERM?"]);
    fleet.run(&["kill", "-s", "0", "b"]).expect(2).says(&["is no signal", "HUP, INT"]);
    fleet.run(&["stop", "b"]).expect(0);
    fleet.run(&["kill", "--all"]).expect(3).says(&["no instance runs"]);
}

#[test]
fn a_wish_that_is_asked_again_signals_once() {
    let (fleet, _) = family();
    let body = r#"{"instances": ["a"], "signal": "usr1"}"#;
    let ask = || {
        let head =
            format!("POST /v1/kill HTTP/1.0\r\nIdempotency-Key: 77\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = fleet.connect().unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("\"done\":true"), "{answer}");
    };
    ask();
    assert!(wait_until(PATIENCE, || fleet.log("a").contains("first got USR1")));
    signal(fleet.pair().0, Signal::SIGKILL);
    assert!(wait_until(PATIENCE, || fleet.connect().is_some()));
    // Another supervisor, the same wish.
    ask();
    fleet.run(&["kill", "-s", "HUP", "a"]).expect(0);
    assert!(wait_until(PATIENCE, || fleet.log("a").contains("first got HUP")), "{}", fleet.log("a"));
    assert_eq!(fleet.log("a").matches("first got USR1").count(), 1, "{}", fleet.log("a"));
}

#[test]
fn a_kill_of_a_stopped_process_and_of_one_that_stops() {
    let fleet = Fleet::new("a: {port: $0, stop_grace_period: 60s, environment: {PUPPET: ignore-term}}");
    fleet.up();
    let before = fleet.pid("a");
    fleet.run(&["kill", "-s", "STOP", "a"]).expect(0);
    fleet.run(&["kill", "a"]).expect(0);
    fleet.wait_for("a", |a| a["health"] == "healthy" && a["pid"] != before);
    // Who waits for the grace of a stop need not: the stop ends as it would.
    let stop = fleet.spawn(&["stop", "a"]);
    fleet.wait_for_phase("a", "stopping");
    fleet.run(&["kill", "a"]).expect(0);
    stop.wait().expect(0);
    assert_eq!(fleet.instance("a")["phase"], "stopped");
}

/// Whether what a command prints has colours, with these variables and flags, on a terminal and off it.
fn is_coloured(fleet: &Fleet, variables: &[(&str, &str)], arguments: &[&str], on_terminal: bool) -> bool {
    let mut command = fleet.command(arguments);
    command.envs(variables.iter().copied());
    if !on_terminal {
        let output = fleet.run_command(command);
        return output.out.contains('\x1b') || output.err.contains('\x1b');
    }
    // The harness sets TERM, as a terminal does.
    let term = variables.iter().find(|(name, _)| *name == "TERM").map(|(_, value)| *value);
    let mut shell = Command::new("sh");
    let words = arguments.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let term = term.map(|term| format!("TERM={term} ")).unwrap_or_default();
    shell.args(["-c", &format!("{term}{} {words}; echo ended", env!("CARGO_BIN_EXE_laneway"))]);
    let mut shell = fleet.clean(shell);
    shell.envs(variables.iter().copied());
    let shell = Fleet::spawn_command_on_terminal(shell);
    shell.wait_for("ended");
    let screen = shell.screen();
    shell.wait();
    screen.contains('\x1b')
}

#[test]
fn one_place_decides_about_colours_for_everything_that_is_printed() {
    let fleet = Fleet::new("a: {port: $0}\ntop:presets: {start-a: [a]}");
    let broken = fleet.folder().join("broken.yaml");
    fs::write(&broken, "instances: {a: {prot: 1}}\n").unwrap();
    fleet.up();
    fleet.ask("a", "/say?words%0A");
    let everything: [&[&str]; 9] = [
        &["status"],
        &["why", "a"],
        &["logs", "-n", "all"],
        &["--help"],
        &["logs", "--help"],
        &["start-a", "--help"],
        &["--no-such-flag"],
        &["stop", "nobody"],
        &["-f", "broken.yaml", "check"],
    ];
    for words in everything {
        for (variables, terminal, wanted) in [
            (&[][..], true, true),
            (&[][..], false, false),
            (&[("NO_COLOR", "1")][..], true, false),
            (&[("CLICOLOR_FORCE", "1")][..], false, true),
        ] {
            let is = is_coloured(&fleet, variables, words, terminal);
            assert_eq!(is, wanted, "{words:?} with {variables:?}, terminal: {terminal}");
        }
        let first = |color: &'static str| [&[color], words].concat();
        assert!(is_coloured(&fleet, &[], &first("--color=always"), false), "{words:?}");
        assert!(!is_coloured(&fleet, &[], &first("--color=never"), true), "{words:?}");
    }
    // After the verb it is the same flag, of presets too; what stands behind `--` belongs to another program.
    assert!(is_coloured(&fleet, &[], &["status", "--color", "always"], false));
    assert!(is_coloured(&fleet, &[], &["start-a", "--color", "always", "--no-such-flag"], false));
    assert!(!is_coloured(&fleet, &[], &["exec", "nobody", "--", "--color=always"], false));
}

#[test]
fn the_flag_beats_the_variables_and_no_colour_beats_force() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    for (variables, flag, terminal, wanted) in [
        (&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")][..], "auto", true, false),
        (&[("NO_COLOR", "")], "auto", true, true),
        (&[("CLICOLOR_FORCE", "")], "auto", false, false),
        (&[("CLICOLOR", "0")], "auto", true, false),
        (&[("TERM", "dumb")], "auto", true, false),
        (&[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")], "auto", true, true),
        (&[("NO_COLOR", "1")], "always", false, true),
        (&[("CLICOLOR_FORCE", "1")], "never", false, false),
        (&[("TERM", "dumb")], "always", true, true),
    ] {
        let is = is_coloured(&fleet, variables, &["--color", flag, "status"], terminal);
        assert_eq!(is, wanted, "{variables:?} --color {flag}, terminal: {terminal}");
    }
}

#[test]
fn the_manual_has_a_page_for_each_verb_and_renders_without_a_warning() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.run(&["man", "pages/man1"]).expect(0).says(&["pages are in pages/man1"]);
    let folder = fleet.folder().join("pages/man1");
    let help = fleet.run(&["--help"]).expect(0).out;
    for verb in ["up", "status", "kill", "completions", "install-service"] {
        assert!(help.contains(&format!("  {verb} ")), "{verb}");
        let page = fs::read_to_string(folder.join(format!("laneway-{verb}.1"))).unwrap();
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXAMPLES", "EXIT STATUS", "FILES", "ENVIRONMENT", "SEE ALSO"] {
            assert!(page.contains(&format!(".SH {section}")) || page.contains(&format!(".SH \"{section}\"")), "{page}");
        }
    }
    let whole = fleet.run(&["man"]).expect(0).out;
    assert_eq!(whole, fs::read_to_string(folder.join("laneway.1")).unwrap());
    for hidden in ["laneway-keeper", "laneway-complete.1", "laneway-supervisor"] {
        assert!(!folder.join(hidden).exists() && !whole.contains(hidden), "{hidden}");
    }
    fs::write(fleet.folder().join("file"), "").unwrap();
    fleet.run(&["man", "file/there"]).expect(1).says(&["file/there"]);
    if Command::new("groff").arg("--version").output().is_err() {
        eprintln!("SKIPPED: the pages are not rendered, since groff is not installed");
        return;
    }
    for page in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let output = Command::new("groff").args(["-ww", "-man", "-Tutf8", "-z"]).arg(&page).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", page.display());
    }
}

#[test]
fn the_first_process_is_the_one_that_status_shows() {
    let fleet = Fleet::new("a: {command: [sleep, \"1000\"], healthcheck: {disable: true}}");
    fleet.up();
    let before = number(&fleet.instance("a")["pid"]);
    fleet.run(&["kill", "-s", "STOP", "a"]).expect(0);
    let state = || fs::read_to_string(format!("/proc/{before}/stat")).unwrap();
    assert!(wait_until(PATIENCE, || state().contains(") T ")), "{}", state());
    nix::sys::signal::kill(pid(before), Signal::SIGCONT).unwrap();
}
