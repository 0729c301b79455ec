//! The Tab key, in the shells that people type into. What a shell does not find by itself is asked of `laneway complete`.

use std::path::Path;
use std::process::Command;

use crate::harness::{Attached, Fleet, PATIENCE, wait_until};

fn fleet() -> Fleet {
    Fleet::new(concat!(
        "chat_main: {port: $0}\nchat_api: {port: $1}\nweb: {port: $2}\n",
        "top:presets: {start-chat: [chat_main, chat_api]}\n",
        "top:profiles: {dev: {}, prod: {}}"
    ))
}

/// What may follow `line`, whose last word is completed.
fn after(fleet: &Fleet, line: &str) -> Vec<String> {
    after_in(fleet, "zsh", line)
}

fn after_in(fleet: &Fleet, shell: &str, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let position = (words.len() - 1).to_string();
    let arguments = ["complete", shell, &position, "--"];
    let output = fleet.run(&[&arguments[..], &words[..]].concat()).expect(0);
    assert_eq!(output.err, "", "{line}");
    output.out.lines().map(|line| line.split([':', '\t']).next().unwrap().to_owned()).collect()
}

/// A shell on a terminal, with laneway in its PATH.
fn shell(fleet: &Fleet, program: &str, arguments: &[&str], first: &str) -> Attached {
    let folder = Path::new(env!("CARGO_BIN_EXE_laneway")).parent().unwrap();
    let mut command = Command::new(program);
    command.args(arguments);
    let mut command = fleet.clean(command);
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display())).env("PS1", "ready> ");
    let shell = Fleet::spawn_command_on_terminal(command);
    shell.resize(200, 50);
    // The words come out of the arithmetic only, so that what is typed is not taken for what is answered.
    shell.type_in(format!("{first}; echo completions $((40 + 2))\n").as_bytes());
    shell.wait_for("completions 42");
    shell
}

/// Types, and waits until the shell has made `words` of it.
#[track_caller]
fn makes(shell: &Attached, typed: &str, words: &str) {
    shell.type_in(typed.as_bytes());
    assert!(wait_until(PATIENCE, || shell.screen().contains(words)), "{typed:?}: {}", shell.screen());
    shell.type_in(b"\x15");
}

fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: completion in {program}, which is not installed");
    }
    there
}

#[test]
fn bash_completes_verbs_names_presets_profiles_and_paths() {
    let fleet = fleet();
    let shell = shell(&fleet, "bash", &["--norc", "-i"], "source <(laneway completions bash)");
    // What is common to both, then the list.
    makes(&shell, "laneway stop cha\t\t\t", "chat_api");
    assert!(shell.screen().contains("chat_main"), "{}", shell.screen());
    makes(&shell, "laneway restart chat_m\t", "laneway restart chat_main ");
    makes(&shell, "laneway unin\t", "laneway uninstall-service ");
    makes(&shell, "laneway start-\t", "laneway start-chat ");
    makes(&shell, "laneway --profile=d\t", "laneway --profile=dev ");
    makes(&shell, "laneway kill -s QU\t", "laneway kill -s QUIT ");
    makes(&shell, "laneway -f inst\t", "laneway -f instances.yaml ");
    // By the path that is typed: it need not be in PATH.
    makes(&shell, &format!("{} why we\t", env!("CARGO_BIN_EXE_laneway")), "laneway why web ");
    shell.type_in(b"exit\n");
    shell.wait();
}

#[test]
fn zsh_completes_too() {
    if !is_there("zsh") {
        return;
    }
    let fleet = fleet();
    let shell =
        shell(&fleet, "zsh", &["-f", "-i"], "autoload -U compinit; compinit -u -D; source <(laneway completions zsh)");
    makes(&shell, "laneway stop chat_m\t", "laneway stop chat_main");
    makes(&shell, "laneway start-\t", "laneway start-chat");
    makes(&shell, "laneway --profile=d\t", "laneway --profile=dev");
    makes(&shell, "laneway -f inst\t", "laneway -f instances.yaml");
    shell.type_in(b"exit\n");
    shell.wait();
}

#[test]
fn fish_completes_too() {
    if !is_there("fish") {
        return;
    }
    let fleet = fleet();
    let folder = Path::new(env!("CARGO_BIN_EXE_laneway")).parent().unwrap();
    let complete = |line: &str| {
        let mut command = Command::new("fish");
        let script = format!("laneway completions fish | source; complete --do-complete '{line}'");
        command.args(["--no-config", "-c", &script]);
        let mut command = fleet.clean(command);
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display()));
        fleet.run_command(command).expect(0).out
    };
    assert_eq!(complete("laneway stop cha"), "chat_main\nchat_api\n");
    assert_eq!(complete("laneway stop "), "chat_main\nchat_api\nweb\nstart-chat\tpreset\n");
    assert!(complete("laneway start-").starts_with("start-chat\t"));
    assert_eq!(complete("laneway --profile "), "dev\nprod\n");
    assert_eq!(complete("laneway -f inst"), "instances.yaml\n");
}

#[test]
fn each_place_gets_what_fits_it() {
    let fleet = fleet();
    for (line, wanted) in [
        ("laneway st", &["status", "start", "stop", "start-chat"][..]),
        ("laneway stop ", &["chat_main", "chat_api", "web", "start-chat"]),
        ("laneway stop web chat_", &["chat_main", "chat_api"]),
        ("laneway stop chat_main chat_", &["chat_api"]),
        ("laneway why ", &["chat_main", "chat_api", "web"]),
        ("laneway logs -n 5 w", &["web"]),
        ("laneway status --w", &["--watch"]),
        ("laneway start-chat --wait-", &["--wait-timeout"]),
        ("laneway --color ", &["auto", "always", "never"]),
        ("laneway completions f", &["fish"]),
        ("laneway env --format d", &["dotenv"]),
        ("laneway --profile p", &["prod"]),
        ("laneway kill -s TE", &["TERM"]),
        // Of the program's own processes nobody is told, and a word that begins nothing gets nothing.
        ("laneway keep", &[]),
        ("laneway stop nobod", &[]),
    ] {
        assert_eq!(after(&fleet, line), wanted, "{line}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert_eq!(after_in(&fleet, shell, "laneway stop we"), ["web"], "{shell}");
    }
}

#[test]
fn the_fleet_that_runs_is_completed_whatever_became_of_its_file() {
    let fleet = fleet();
    fleet.up();
    fleet.write("instances: [");
    assert_eq!(after(&fleet, "laneway stop "), ["chat_main", "chat_api", "web", "start-chat"]);
    assert_eq!(after(&fleet, "laneway why c"), ["chat_main", "chat_api"]);
    fleet.run(&["down"]).expect(0);
}

#[test]
fn without_a_file_it_is_silent_and_with_a_strange_one_too() {
    let fleet = fleet();
    let elsewhere = fleet.folder().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(fleet.file(), fleet.folder().join("other.yaml")).unwrap();
    assert_eq!(after(&fleet, "laneway stop "), [""; 0]);
    assert_eq!(after(&fleet, "laneway -f other.yaml stop w"), ["web"]);
    assert_eq!(after(&fleet, "laneway -C elsewhere -f ../other.yaml stop w"), ["web"]);
    assert_eq!(after(&fleet, "laneway -C nowhere stop "), [""; 0]);
    // A FIFO that nobody writes to holds up whoever opens it as a file.
    nix::unistd::mkfifo(&fleet.file(), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(after(&fleet, "laneway stop "), [""; 0]);
    std::fs::remove_file(fleet.file()).unwrap();
    std::fs::write(fleet.file(), "instances:\n  a: {port: x}\n  b: {prot: 1}\n").unwrap();
    assert_eq!(after(&fleet, "laneway stop "), ["a", "b"], "half a file has names too");
    for words in [&["complete", "bash", "9", "--", "laneway"][..], &["complete", "bash", "0"]] {
        assert_eq!(fleet.run(words).expect(0).out, "", "{words:?}");
    }
}
