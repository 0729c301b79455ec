//! A wrong file through the whole command line: exit code 2, `file:line:column`, what to do, nothing started, no Rust
//! words. What each key refuses is tested beside `config`; here is what people and disks do to files.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Fleet, Output, timed};

/// Every verb that reads the file says the same.
#[track_caller]
fn refused(fleet: &Fleet, words: &[&str]) -> Output {
    for verb in [&["check"][..], &["up", "-d"], &["config"], &["status"]] {
        let (took, output) = timed(|| fleet.run(verb));
        assert!(took.as_secs() < 10, "{verb:?} took {took:?}");
        no_rust(&output);
        let output = output.expect(2).says(words);
        assert!(!fleet.state("").exists(), "{verb:?} made something");
        if verb == ["status"] {
            return output;
        }
    }
    unreachable!()
}

/// People are not shown panics and Debug dumps.
#[track_caller]
fn no_rust(output: &Output) {
    for word in ["panicked", "RUST_BACKTRACE", "Some(", "None)", "Error {", "Err(", "Os {", "kind:", "unwrap", ".rs:"] {
        assert!(!output.err.contains(word), "{word} in {}", output.err);
    }
}

/// The file's text is wrong, and standard error holds these words.
#[track_caller]
fn text(text: &str, words: &[&str]) -> Output {
    let fleet = Fleet::raw("");
    fs::write(fleet.file(), fleet.fill(text)).unwrap();
    refused(&fleet, words)
}

/// An instance with these keys is wrong.
#[track_caller]
fn keys(keys: &str, words: &[&str]) {
    text(&format!("instances:\n  a: {{command: [serve], {keys}}}\n"), words);
}

#[test]
fn help_about_what_is_no_verb_is_a_usage_error() {
    let fleet = Fleet::new("a: {port: $0}\ntop:presets: {both: [a]}");
    fleet.run(&["nonsense", "--help"]).expect(2).says(&["there is no verb or preset `nonsense`"]);
    fleet.run(&["both", "--help"]).expect(0).shows(&["--detach"]);
    fleet.run(&["reload", "--help"]).expect(2).says(&["laneway apply"]);
}

#[test]
fn a_file_that_is_not_there() {
    let fleet = Fleet::raw("");
    fs::remove_file(fleet.file()).unwrap();
    refused(&fleet, &["there is no instances.yaml in", "hint: name one with -f", "a minimal file is"]);
    fleet.run(&["-f", "nowhere.yaml", "check"]).expect(2).says(&["nowhere.yaml", "does not exist"]);
}

#[test]
fn files_that_are_none() {
    text("", &["instances.yaml: is empty", "hint: a minimal file is"]);
    let fleet = Fleet::raw("");
    fs::remove_file(fleet.file()).unwrap();
    fs::create_dir(fleet.file()).unwrap();
    refused(&fleet, &["instances.yaml", "is a directory, not a file"]);
    fs::remove_dir(fleet.file()).unwrap();
    nix::unistd::mkfifo(&fleet.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&fleet, &["is a named pipe, not a file"]);
    fs::remove_file(fleet.file()).unwrap();
    std::os::unix::fs::symlink("/dev/zero", fleet.file()).unwrap();
    refused(&fleet, &["is a device, not a file"]);
    fs::remove_file(fleet.file()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fleet.file()).unwrap();
    refused(&fleet, &["instances.yaml", "socket"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    let fleet = Fleet::raw("instances: {}");
    fs::set_permissions(fleet.file(), fs::Permissions::from_mode(0o000)).unwrap();
    let output = if nix::unistd::geteuid().is_root() { fleet.run_as_nobody(&["check"]) } else { fleet.run(&["check"]) };
    let output = output.expect(2).says(&["may not be read by you", "chmod u+r"]);
    no_rust(&output);
}

#[test]
fn a_file_of_100_megabytes() {
    let fleet = Fleet::raw("");
    // Sparse: it costs no disk.
    fs::File::create(fleet.file()).unwrap().set_len(100 * 1024 * 1024).unwrap();
    let (took, _) = timed(|| refused(&fleet, &["is larger than 1 MiB"]));
    assert!(took.as_secs() < 5, "{took:?}");
}

#[test]
fn bytes_that_are_no_text() {
    let fleet = Fleet::raw("");
    fs::write(fleet.file(), b"name: x\nproject: \xff\xfe\n").unwrap();
    refused(&fleet, &["is not UTF-8 text: byte 0xff in line 2, column 10", "save it as UTF-8"]);
    fs::write(fleet.file(), b"name: \0\n").unwrap();
    refused(&fleet, &["byte 0x00"]);
}

#[test]
fn text_that_is_no_yaml() {
    text("instances:\n\ta: {}\n", &["instances.yaml:2:", "hint:", "tab"]);
    text("instances:\n  a:\n    command: [\"serve]\n", &["instances.yaml:3:"]);
    text("instances:\n  a: {command: [serve]\n", &["instances.yaml:"]);
    text("just words", &["instances.yaml:1:1"]);
    text(&"[".repeat(200_000), &["instances.yaml:1:"]);
    text(&format!("{}x: 1\n", "a:\n ".repeat(3000)), &["instances.yaml:"]);
}

#[test]
fn an_alias_bomb() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let all = vec![format!("*a{}", n - 1); 10].join(", ");
        writeln!(bomb, "a{n}: &a{n} [{all}]").unwrap();
    }
    text(&bomb, &["instances.yaml:"]);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_fine() {
    let fleet = Fleet::raw("");
    let text = "\u{feff}instances:\r\n  a:\r\n    port: $0\r\n    command: [serve]\r\n";
    fs::write(fleet.file(), fleet.fill(text)).unwrap();
    fleet.run(&["check"]).expect(0).shows(&["1 instances", "none shared"]);
}

#[test]
fn keys_that_stand_twice_or_are_unknown() {
    text("instances:\n  a: {command: [x], port: 1, port: 2}\n", &["instances.yaml:2:", "port", "twice"]);
    keys("prot: 80", &["instances.yaml:2:", "prot", "did you mean `port`?"]);
    keys("health_check: {}", &["did you mean `healthcheck`?"]);
    text("instance: {a: {command: [x]}}\n", &["did you mean `instances`?"]);
}

#[test]
fn ports_that_are_none() {
    keys("port: [80]", &["instances.yaml:2:", "must be one value, this is a list"]);
    for port in ["0", "-1", "65536", "abc", "8000.5"] {
        keys(&format!("port: {port}"), &["instances.yaml:2:", "port", "65535"]);
    }
    text(
        "instances:\n  a: {command: [x], port: 8000}\n  b: {command: [x], port: 8000}\n",
        &["instances.yaml:3:", "instances.b.port", "port 8000", "belongs to `a` already"],
    );
    text(
        "instances:\n  a: {command: [x], port: 8000, host: 0.0.0.0}\n  b: {command: [x], port: 8000}\n",
        &["instances.yaml:3:", "port 8000"],
    );
}

#[test]
fn names_that_are_none() {
    for name in ["Chat", "a b", "-x", "a.b", "../etc", "şube", &"x".repeat(33)] {
        text(&format!("instances:\n  {name}: {{command: [x]}}\n"), &["instances.yaml:2:", "hint:"]);
    }
    text("instances:\n  \"\": {command: [x]}\n", &["instances.yaml:2:", "an instance name is empty"]);
    text("instances:\n  şube_ankara: {command: [x]}\n", &["sube_ankara"]);
    text("instances:\n  a-b: {command: [x]}\n  a_b: {command: [x]}\n", &["instances.yaml:3:", "become one"]);
}

#[test]
fn one_database_under_several_names() {
    let two = |first: &str, second: &str| {
        format!(
            "instances:\n  a: {{command: [x], database: {{path: {first}}}}}\n  b: {{command: [x], database: {{path: {second}}}}}\n"
        )
    };
    text(&two("one.db", "./x/../one.db"), &["instances.yaml:3:", "instances.b.database.path", "one.db", "`a`"]);
    let fleet = Fleet::raw(&two("real.db", "link.db"));
    fs::write(fleet.folder().join("real.db"), "").unwrap();
    std::os::unix::fs::symlink("real.db", fleet.folder().join("link.db")).unwrap();
    refused(&fleet, &["instances.yaml:3:", "database"]);
    fs::remove_file(fleet.folder().join("link.db")).unwrap();
    fs::hard_link(fleet.folder().join("real.db"), fleet.folder().join("link.db")).unwrap();
    refused(&fleet, &["instances.yaml:3:", "under another name"]);
}

#[test]
fn lanes_that_would_meet() {
    let two = |keys: &str| format!("instances:\n  a: {{command: [x], {keys}}}\n  b: {{command: [x], {keys}}}\n");
    text(&two("cookies: {session: sid}"), &["instances.yaml:3:", "the cookie sid", "belongs to `a`", "{lane}"]);
    text(&two("cache: {prefix: p}"), &["instances.yaml:3:", "prefix p"]);
    text(&two("static_root: s"), &["instances.yaml:3:", "the path"]);
    text(&two("secret: {file: s}"), &["instances.yaml:3:"]);
}

#[test]
fn values_that_go_round_the_checks() {
    keys("environment: {PORT: \"80\"}", &["instances.yaml:2:", "PORT is a fact of the lane", "write `port` instead"]);
    keys("environment: {SESSION_COOKIE_NAME: x}", &["`cookies.session`"]);
    keys("environment: {LANEWAY_RUN: x}", &["LANEWAY_RUN is laneway's own"]);
    keys("environment: {DEBUG: NO}", &["instances.yaml:2:", "DEBUG", "quote"]);
    keys("environment: {KEY: \"${LANEWAY_NOT_SET:?say which}\"}", &["instances.yaml:2:", "say which"]);
    keys("environment: {KEY: \"{prot}\"}", &["instances.yaml:2:", "{prot}", "did you mean"]);
}

#[test]
fn orders_and_presets_that_lead_nowhere() {
    text(
        "instances:\n  a: {command: [x], depends_on: [b]}\n  b: {command: [x], depends_on: [a]}\n",
        &["instances.yaml:", "a", "b", "depends_on"],
    );
    text("instances:\n  a: {command: [x]}\npresets: {chat: [b]}\n", &["instances.yaml:3:", "`b`"]);
    text("instances:\n  a: {command: [x]}\npresets: {status: [a]}\n", &["instances.yaml:3:", "status", "verb"]);
    text("instances:\n  a: {command: [x]}\npresets: {a: [a]}\n", &["instances.yaml:3:", "instance"]);
}

#[test]
fn all_problems_are_told_at_once() {
    let output = text(
        "naem: x\ninstances:\n  a: {command: serve, port: 0}\n  B: {command: [x]}\n  c: {command: [x], prot: 1, environment: {HOST: x}}\n",
        &["instances.yaml:1:1", "instances.yaml:3:", "instances.yaml:4:", "instances.yaml:5:", "6 problems"],
    );
    assert!(output.err.lines().filter(|line| line.starts_with("instances.yaml:")).count() >= 6, "{}", output.err);
    assert!(output.err.ends_with("nothing was started or changed\n"), "{}", output.err);
    // The count has a line of its own.
    assert!(output.err.lines().last().unwrap().starts_with("laneway: "), "{}", output.err);
}

#[test]
fn on_a_terminal_the_line_is_shown() {
    let fleet = Fleet::raw("instances:\n  a: {command: [x], prot: 80}\n");
    let output = fleet.spawn_on_terminal(&["check"]).wait().expect(2);
    assert!(output.err.contains("prot: 80") && output.err.contains("^^^^"), "{}", output.err);
}

#[test]
fn a_broken_file_never_disturbs_what_runs() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}");
    fleet.up();
    let good = fleet.text();
    for broken in ["[[[[", "", "instances: {}", "state_dir: elsewhere\nnaem: 5"] {
        fs::write(fleet.file(), broken).unwrap();
        fleet.run(&["status"]).expect(0);
        fleet.run(&["why", "a"]).expect(0);
        fleet.run(&["logs", "a"]).expect(0);
        fleet.run(&["env", "a"]).expect(0);
        fleet.run(&["restart", "--wait", "a"]).expect(0);
        fleet.run(&["up", "-d"]).expect(2);
        fleet.run(&["check"]).expect(2);
    }
    fleet.run(&["stop", "a"]).expect(0);
    assert_eq!(fleet.instance("b")["health"], "healthy");
    fleet.run(&["down"]).expect(0);
    assert_eq!(fleet.processes(), []);
    fs::write(fleet.file(), good).unwrap();
    fleet.up();
}

#[test]
fn a_supervisor_that_comes_back_to_a_broken_file_runs_what_ran() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    fs::write(fleet.file(), "[[[[").unwrap();
    let (supervisor, _) = fleet.pair();
    crate::harness::signal(supervisor, nix::sys::signal::Signal::SIGKILL);
    fleet.wait_for("a", |a| a["health"] == "healthy" && fleet.pair().0 != supervisor);
}
