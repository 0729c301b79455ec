//! What a server prints is kept, whole and in order, over crashes, restarts and rotations.

use std::fs;

use crate::harness::{Attached, Fleet, PATIENCE, get, names_in, number, wait_until};

/// The numbers of `line 0000042 of NAME`, in the order in which they stand there.
fn numbers(text: &str, name: &str) -> Vec<u32> {
    let lines = text.lines().filter_map(|line| line.split_once("line ")?.1.split_once(" of "));
    lines.filter(|(_, of)| *of == name).map(|(number, _)| number.parse().unwrap()).collect()
}

#[track_caller]
fn none_lost(found: &[u32], count: usize) {
    let first_wrong = found.iter().zip(1..).find(|(found, wanted)| *found != wanted);
    assert_eq!((found.len(), first_wrong), (count, None));
}

#[track_caller]
fn wait_for_lines(follower: &Attached, name: &str, count: usize) {
    let met = wait_until(PATIENCE, || numbers(&follower.out(), name).len() >= count);
    assert!(met, "{} of {count} lines of {name}", numbers(&follower.out(), name).len());
}

#[test]
fn lines_of_all_instances_are_merged_in_the_order_of_time() {
    let fleet = Fleet::new("a: {port: $0}\nlonger: {port: $1}");
    fleet.up();
    for round in 0..4 {
        for name in ["a", "longer"] {
            fleet.ask(name, &format!("/say?{name}+says+{round}%0A"));
            let said = format!("{name} says {round}\n");
            assert!(wait_until(PATIENCE, || fleet.log(name).contains(&said)));
            // The index tells times apart that are 10 ms apart.
            fleet.wait_for(name, |_| true);
            let before = std::fs::metadata(fleet.state(&format!("{name}/log/{name}.log"))).unwrap().modified().unwrap();
            assert!(wait_until(PATIENCE, || before.elapsed().is_ok_and(|age| age.as_millis() > 15)));
        }
    }
    let shown = fleet.run(&["logs"]).expect(0).out;
    let expected: Vec<_> = (0..4)
        .flat_map(|round| [format!("a      | a says {round}"), format!("longer | longer says {round}")])
        .collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    let last = fleet.run(&["logs", "-n", "3"]).expect(0).out;
    assert_eq!(last.lines().collect::<Vec<_>>(), expected[5..]);
    let one = fleet.run(&["logs", "longer", "-n", "1", "--no-prefix"]).expect(0).out;
    assert_eq!(one, "longer says 3\n");
    assert_eq!(fleet.run(&["logs", "-n", "0"]).expect(0).out, "");
    assert_eq!(fleet.run(&["logs", "-n", "all", "a"]).expect(0).out.lines().count(), 4);
    fleet.run(&["down"]).expect(0);
    assert_eq!(fleet.run(&["logs"]).expect(0).out, shown, "they are there without a supervisor");
}

#[test]
fn following_goes_on_across_a_crash_a_restart_and_a_stop() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}");
    fleet.up();
    let follower = fleet.spawn(&["logs", "-f", "-n", "all"]);
    fleet.ask("b", "/print?1");
    wait_for_lines(&follower, "b", 1);
    fleet.ask("a", "/say?first%0A");
    let old = fleet.pid("a");
    let _ = get(fleet.port(0), "/crash?1");
    fleet.wait_for("a", |a| number(&a["pid"]) != old && a["health"] == "healthy");
    fleet.ask("a", "/say?second%0A");
    fleet.run(&["restart", "--wait", "a"]).expect(0);
    fleet.ask("a", "/say?third%0A");
    follower.wait_for("third");
    fleet.run(&["stop", "a"]).expect(0);
    fleet.run(&["start", "--wait", "a"]).expect(0);
    fleet.ask("a", "/say?fourth%0A");
    follower.wait_for("fourth");
    let said: Vec<_> = ["first", "second", "third", "fourth"].iter().map(|word| format!("a | {word}")).collect();
    let out = follower.out();
    assert_eq!(out.lines().filter(|line| line.starts_with("a | ")).collect::<Vec<_>>(), said, "{out}");
}

#[test]
fn a_flood_over_many_rotations_loses_and_doubles_nothing() {
    let fleet = Fleet::new("a: {port: $0, logging: {max_size: 64k, max_files: 50}}");
    fleet.up();
    let follower = fleet.spawn(&["logs", "-f", "-n", "all", "a"]);
    fleet.ask("a", "/print?1");
    wait_for_lines(&follower, "a", 1);
    for _ in 0..4 {
        fleet.ask("a", "/print?5000");
    }
    assert!(wait_until(PATIENCE, || numbers(&fleet.log("a"), "a").len() >= 20_001));
    none_lost(&numbers(&fleet.log("a"), "a"), 20_001);
    wait_for_lines(&follower, "a", 20_001);
    none_lost(&numbers(&follower.out(), "a"), 20_001);
    none_lost(&numbers(&fleet.run(&["logs", "-n", "all"]).expect(0).out, "a"), 20_001);
    let files = names_in(&fleet.state("a/log"));
    assert!(files.iter().filter(|name| name.starts_with("a.log.")).count() >= 5, "{files:?}");
    for name in files.iter().filter(|name| name.starts_with("a.log")) {
        let text = fs::read_to_string(fleet.state("a/log").join(name)).unwrap();
        assert!(text.len() <= 64 * 1024 && (text.is_empty() || text.ends_with('\n')), "{name}: {}", text.len());
    }
}

#[test]
fn more_than_is_kept_is_removed_from_the_old_end() {
    let fleet = Fleet::new("a: {port: $0, logging: {max_size: 8k, max_files: 3}}");
    fleet.up();
    fleet.ask("a", "/print?5000");
    assert!(wait_until(PATIENCE, || numbers(&fleet.log("a"), "a").last() == Some(&5000)));
    let kept = numbers(&fleet.log("a"), "a");
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a hole in what is kept");
    let files = names_in(&fleet.state("a/log"));
    assert_eq!(files.iter().filter(|name| name.starts_with("a.log")).count(), 3, "{files:?}");
}

#[test]
fn no_line_is_lost_when_the_supervisor_is_killed_amid_a_flood() {
    let fleet = Fleet::new("a: {port: $0, environment: {PUPPET: flood=20000}}");
    fleet.up();
    let (supervisor, _) = fleet.pair();
    crate::harness::signal(supervisor, nix::sys::signal::Signal::SIGKILL);
    assert!(wait_until(PATIENCE, || numbers(&fleet.log("a"), "a").len() >= 20_000));
    none_lost(&numbers(&fleet.log("a"), "a"), 20_000);
    assert_eq!(fleet.wait_for("a", |a| a["health"] == "healthy")["restarts"], 0);
}

#[test]
fn the_last_words_of_a_crashing_server_are_kept() {
    let fleet = Fleet::new(
        "a: {port: $0, restart: \"no\", environment: {PUPPET: \"crash=50:9 last=without-a-line-end flood=3000\"}}",
    );
    fleet.run(&["up", "-d"]);
    fleet.wait_for_phase("a", "failed");
    assert!(wait_until(PATIENCE, || fleet.log("a").ends_with("without-a-line-end")), "{}", fleet.log("a"));
    none_lost(&numbers(&fleet.log("a"), "a"), 3000);
    fleet.run(&["logs", "-n", "1", "a"]).expect(0).shows(&["a | without-a-line-end"]);
}

#[test]
fn what_is_printed_at_the_end_is_kept_by_down() {
    let fleet = Fleet::new(
        "a: {command: [sh, -c, 'trap \"seq 1 5000; exit 0\" TERM; while :; do sleep 0.01; done'], healthcheck: {disable: true}}",
    );
    fleet.up();
    // The trap stands once the shell is in its loop.
    let in_loop = || fleet.processes_of("a").iter().any(|process| process.command.starts_with("sleep"));
    assert!(wait_until(PATIENCE, in_loop));
    fleet.run(&["down"]).expect(0);
    let expected = (1..=5000).map(|number| format!("{number}\n")).collect::<Vec<_>>().concat();
    // The shell may say of what it slept in that it was terminated.
    let log = fleet.log("a");
    assert!(log.ends_with(&expected), "{} bytes of {}", log.len(), expected.len());
}

#[test]
fn control_characters_reach_a_file_but_no_terminal() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    fleet.ask("a", "/say?%1b]0;owned%07%1b[31mred%0A");
    assert!(wait_until(PATIENCE, || fleet.log("a").ends_with("red\n")));
    assert!(fleet.run(&["logs", "a"]).out.contains("\u{1b}]0;owned\u{7}\u{1b}[31mred"), "bytes are bytes");
    let screen = fleet.spawn_on_terminal(&["logs", "a"]).wait().expect(0).err;
    assert!(screen.contains("^[]0;owned^G^[[31mred"), "{screen:?}");
    assert!(!screen.contains("\u{1b}]0;") && !screen.contains('\u{7}'), "{screen:?}");
}

#[test]
fn standard_error_stands_in_the_order_in_which_it_came() {
    let fleet = Fleet::new(
        "a: {command: [sh, -c, 'echo 1; echo 2 >&2; echo 3; exec sleep 1000'], healthcheck: {disable: true}}",
    );
    fleet.up();
    assert!(wait_until(PATIENCE, || fleet.log("a") == "1\n2\n3\n"), "{:?}", fleet.log("a"));
}

#[test]
fn logs_of_a_fleet_that_never_ran_are_empty() {
    let fleet = Fleet::new("a: {port: $0}");
    assert_eq!(fleet.run(&["logs"]).expect(0).out, "");
    let follower = fleet.spawn(&["logs", "-f"]);
    fleet.up();
    fleet.ask("a", "/say?hello%0A");
    follower.wait_for("a | hello");
}
