//! `status --watch`: a picture on a terminal, lines elsewhere; through deaths, resizes and Ctrl-Z.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Attached, Fleet, PATIENCE, signal, wait_until};

/// To the alternate screen and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

fn fleet() -> Fleet {
    Fleet::new("a: {port: $0}\nb: {port: $1}")
}

/// The last picture, without colours.
fn picture(watch: &Attached) -> String {
    let screen = watch.screen();
    let last = screen.rsplit("\x1b[H").next().unwrap().to_owned();
    let mut plain = String::new();
    let mut letters = last.chars();
    while let Some(letter) = letters.next() {
        if letter == '\x1b' {
            letters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(letter);
        }
    }
    plain
}

#[track_caller]
fn shows(watch: &Attached, words: &str) {
    assert!(wait_until(PATIENCE, || picture(watch).contains(words)), "{words:?} is not in {}", picture(watch));
}

#[test]
fn the_picture_follows_the_fleet_and_the_terminal_comes_back() {
    let fleet = fleet();
    fleet.up();
    let watch = fleet.spawn_on_terminal(&["status", "--watch"]);
    watch.resize(100, 30);
    shows(&watch, "it: 2 of 2 as they shall be");
    assert!(watch.screen().starts_with(ENTER), "{:?}", watch.screen());
    fleet.run(&["stop", "a"]).expect(0);
    shows(&watch, "a     stopped");
    assert!(picture(&watch).contains("it: 1 of 1 as they shall be"), "{}", picture(&watch));
    // What is not well says why, and nothing but an age changes for it to be drawn anew.
    fleet.run(&["start", "a", "--wait"]).expect(0);
    fleet.run(&["kill", "-s", "STOP", "a"]).expect(0);
    shows(&watch, "unhealthy");
    shows(&watch, "it: 2 of 2 as they shall be");
    watch.type_in(b"\x03");
    let screen = || watch.screen();
    assert!(wait_until(PATIENCE, || screen().contains(LEAVE)), "{:?}", screen());
    let left = screen().rsplit(LEAVE).next().unwrap().to_owned();
    assert!(wait_until(PATIENCE, || screen().rsplit(LEAVE).next().unwrap().contains("NAME")), "{left:?}");
    watch.wait().expect(130);
}

#[test]
fn sigterm_gives_the_terminal_back_too() {
    let fleet = fleet();
    fleet.up();
    let watch = fleet.spawn_on_terminal(&["status", "--watch"]);
    shows(&watch, "2 of 2");
    signal(watch.id(), Signal::SIGTERM);
    watch.wait_for(LEAVE);
    watch.wait().expect(143);
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_takes_it_again() {
    let fleet = fleet();
    fleet.up();
    let script = format!(
        "{} status --watch; echo \"watch: $?\"; read line; fg; echo \"end: $?\"",
        env!("CARGO_BIN_EXE_laneway")
    );
    let mut shell = Command::new("bash");
    shell.args(["--norc", "-m", "-c", &script]);
    let shell = Fleet::spawn_command_on_terminal(fleet.clean(shell));
    shows(&shell, "2 of 2");
    shell.type_in(b"\x1a");
    shell.wait_for("watch: 148");
    let before = shell.screen();
    assert_eq!((before.matches(ENTER).count(), before.matches(LEAVE).count()), (1, 1), "{before:?}");
    shell.type_in(b"\n");
    assert!(wait_until(PATIENCE, || shell.screen().matches(ENTER).count() == 2), "{:?}", shell.screen());
    shell.type_in(b"\x03");
    shell.wait_for("end: 130");
    assert_eq!(shell.screen().matches(LEAVE).count(), 2);
    shell.wait().expect(0);
}

#[test]
fn no_row_is_wider_than_the_terminal_and_no_picture_higher() {
    let fleet = Fleet::new("a: {port: $0}\nwaits: {port: $1, command: [/nowhere/at-all/there-is-no-such-program]}");
    fleet.run(&["up", "-d"]).expect(1);
    let watch = fleet.spawn_on_terminal(&["status", "--watch"]);
    for (columns, rows) in [(120, 40), (80, 24), (40, 8), (20, 4), (80, 24)] {
        watch.resize(columns, rows);
        let fits = || {
            let picture = picture(&watch);
            let lines: Vec<&str> = picture.lines().map(|line| line.trim_end_matches('\r')).collect();
            let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            let is_full = widest + 10 > usize::from(columns) || columns > 80;
            picture.starts_with("it: 1 of 2") && is_full && widest <= columns.into() && lines.len() <= rows.into()
        };
        assert!(wait_until(PATIENCE, fits), "{columns}x{rows}: {:?}", picture(&watch));
    }
    shows(&watch, "hint: mend `command`");
    signal(watch.id(), Signal::SIGINT);
    watch.wait().expect(130);
}

#[test]
fn the_picture_outlives_the_supervisor_and_the_fleet() {
    let fleet = fleet();
    fleet.up();
    let watch = fleet.spawn_on_terminal(&["status", "--watch"]);
    watch.resize(120, 30);
    shows(&watch, "2 of 2");
    signal(fleet.pair().0, Signal::SIGKILL);
    fleet.run(&["stop", "a"]).expect(0);
    shows(&watch, "a     stopped");
    // One that is silent is no reason to show nothing, nor to show it as if it were so now.
    let (supervisor, _) = fleet.pair();
    signal(supervisor, Signal::SIGSTOP);
    shows(&watch, "no answer for 3 s, this is how it was");
    assert!(picture(&watch).contains("stopped"), "{}", picture(&watch));
    signal(supervisor, Signal::SIGCONT);
    assert!(wait_until(PATIENCE, || !picture(&watch).contains("no answer")));
    fleet.run(&["down"]).expect(0);
    shows(&watch, "nothing runs from");
    fleet.up();
    shows(&watch, "2 of 2");
    watch.type_in(b"\x03");
    watch.wait().expect(130);
}

#[test]
fn without_a_terminal_there_is_a_line_for_each_change() {
    let fleet = fleet();
    let mut watch = fleet.spawn(&["status", "--watch"]);
    watch.wait_for("nothing runs from");
    fleet.up();
    let lines = || watch.out();
    assert!(wait_until(PATIENCE, || lines().matches("running, healthy").count() == 2), "{}", lines());
    let pid = fleet.pid("b");
    signal(fleet.pair().0, Signal::SIGKILL);
    fleet.wait_for_health("b", "healthy");
    fleet.run(&["kill", "b"]).expect(0);
    assert!(wait_until(PATIENCE, || lines().matches("killed by SIGKILL").count() > 0), "{}", lines());
    fleet.wait_for("b", |b| b["health"] == "healthy" && b["pid"] != pid);
    assert!(wait_until(PATIENCE, || lines().matches("b  running, healthy").count() == 2), "{}", lines());
    // What another supervisor says from the beginning is said again only where it is new.
    assert_eq!(lines().matches("a  running, healthy").count(), 1, "{}", lines());
    assert!(!lines().contains('\x1b'), "{}", lines());
    assert!(!watch.has_ended());
    watch.signal(Signal::SIGINT);
    watch.wait().expect(130);
}

#[test]
fn json_is_a_line_for_each_change() {
    let fleet = fleet();
    fleet.up();
    let watch = fleet.spawn(&["status", "--watch", "--json", "a"]);
    let phases = || -> Vec<String> {
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let all = watch.out();
        // A line that is being written is no line yet.
        let whole = all.rfind('\n').map_or("", |end| &all[..end]);
        let lines = whole.lines().map(line).inspect(|line| assert_eq!(line["name"], "a"));
        lines.map(|line| line["phase"].as_str().unwrap().to_owned()).collect()
    };
    assert!(wait_until(PATIENCE, || phases() == ["running"]), "{:?}", phases());
    fleet.run(&["stop", "b", "a"]).expect(0);
    assert!(wait_until(PATIENCE, || phases() == ["running", "stopping", "stopped"]), "{:?}", phases());
    fleet.run(&["down"]).expect(0);
    watch.signal(Signal::SIGTERM);
    watch.wait().expect(143);
}

#[test]
fn a_terminal_that_knows_no_motion_gets_lines() {
    let fleet = fleet();
    fleet.up();
    let script = format!("TERM=dumb exec {} status --watch", env!("CARGO_BIN_EXE_laneway"));
    let mut shell = Command::new("bash");
    shell.args(["--norc", "-c", &script]);
    let watch = Fleet::spawn_command_on_terminal(fleet.clean(shell));
    watch.wait_for("b  running, healthy");
    assert!(!watch.screen().contains('\x1b'), "{:?}", watch.screen());
    watch.type_in(b"\x03");
    watch.wait().expect(130);
}
