//! The words of the command line: its own, those of other tools, and those that nobody knows.

use crate::harness::Fleet;

const VERBS: [&str; 21] = [
    "apply",
    "upgrade",
    "up",
    "down",
    "start",
    "stop",
    "kill",
    "restart",
    "status",
    "why",
    "logs",
    "env",
    "exec",
    "config",
    "check",
    "doctor",
    "schema",
    "completions",
    "man",
    "install-service",
    "uninstall-service",
];

fn fleet() -> Fleet {
    Fleet::new("a: {port: $0}\ntop:presets: {start-chat: [a]}")
}

#[test]
fn verbs_of_other_tools_are_answered_with_laneways_own() {
    let fleet = fleet();
    for (theirs, ours) in [
        ("reload", "laneway restart"),
        ("tail", "laneway logs -f"),
        ("ls", "laneway status"),
        ("monit", "laneway status"),
        ("watch", "laneway status --watch"),
        ("shutdown", "laneway down"),
        ("run", "laneway exec"),
    ] {
        fleet.run(&[theirs]).expect(2).says(&[&format!("there is no verb `{theirs}`"), ours]);
        fleet.run(&[theirs, "a"]).expect(2).says(&[ours]);
    }
}

#[test]
fn an_unknown_verb_gets_the_nearest_one() {
    let fleet = fleet();
    fleet.run(&["statsu"]).expect(2).says(&["`statsu`", "did you mean `status`?"]);
    fleet.run(&["start-chta"]).expect(2).says(&["did you mean `start-chat`?"]);
    fleet.run(&["zzzzzzzz"]).expect(2).says(&["presets are start-chat"]);
    // Hidden verbs are nobody's answer.
    assert!(!fleet.run(&["keepre"]).expect(2).err.contains("keeper`?"));
}

#[test]
fn help_lists_every_verb_and_is_no_failure() {
    let fleet = fleet();
    let help = fleet.run(&["--help"]).expect(0).out;
    for verb in VERBS {
        assert!(help.lines().any(|line| line.trim_start().starts_with(verb)), "{verb} is not in {help}");
        let own = fleet.run(&[verb, "--help"]).expect(0).out;
        assert!(own.contains("Usage: laneway"), "{own}");
    }
    assert!(!help.contains("keeper") && !help.contains("supervisor"), "{help}");
    assert!(help.contains("Presets are verbs too: start-chat\n"), "{help}");
    assert!(help.find("  status").unwrap() < help.find("  install-service").unwrap(), "what is daily comes first");
    assert!(help.contains("Exit codes:") && help.contains("3        nothing runs"), "{help}");
    let is_of_verb = |line: &&str| VERBS.iter().any(|verb| line.starts_with(&format!("  {verb} ")));
    for line in help.lines().filter(is_of_verb) {
        assert!(line.chars().count() <= 80, "it does not fit into a terminal: {line}");
    }
    fleet.run(&["start-chat", "--help"]).expect(0).shows(&["start-chat", "--wait"]);
    fleet.run(&["--version"]).expect(0).shows(&["laneway "]);
}

#[test]
fn a_wrong_use_of_a_verb_is_exit_code_2() {
    let fleet = fleet();
    for words in [
        &[][..],
        &["start"],
        &["stop"],
        &["why"],
        &["kill"],
        &["kill", "--all", "a"],
        &["kill", "-s", "NOPE", "a"],
        &["completions", "tcsh"],
        &["status", "--watch", "nobody"],
        &["status", "--color", "sometimes"],
        &["exec", "a"],
        &["up", "--no-such-flag"],
        &["logs", "-n", "many"],
        &["up", "--wait-timeout", "soon"],
        &["env", "a", "--format", "xml"],
        &["up", "nobody"],
        &["logs", "nobody"],
        &["env", "nobody"],
        &["status", "nobody"],
        &["start-chat", "a"],
        &["--set", "no-equals-sign", "check"],
        &["--profile", "nobodys", "check"],
    ] {
        let output = fleet.run(words);
        assert_eq!(output.code, 2, "{words:?}: {output:?}");
        assert!(output.err.len() > 20, "{words:?}: {output:?}");
    }
}

#[test]
fn a_reader_that_stops_listening_is_no_panic() {
    let fleet = fleet();
    let laneway = env!("CARGO_BIN_EXE_laneway");
    for verb in ["config", "--help", "env a", "check", "status", "nonsense"] {
        // The reader is gone before the first byte.
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("(sleep 0.05; {laneway} {verb} 2>&3; echo $? >&3) 3>&2 | exec true")]);
        let output = fleet.run_command(fleet.clean(command));
        assert!(!output.err.contains("panicked") && !output.err.contains("101"), "{verb}: {output:?}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("{laneway} {verb} >&- 2>&-; echo $?")]);
        let output = fleet.run_command(fleet.clean(command));
        assert!(!output.out.contains("101"), "{verb}: {output:?}");
    }
}

#[test]
fn the_hidden_verbs_started_by_hand_say_who_starts_them() {
    let fleet = Fleet::new("a: {port: $0}");
    for verb in ["keeper", "supervisor"] {
        fleet.run(&[verb]).expect(2).says(&["not started by hand", "laneway up"]);
    }
}
