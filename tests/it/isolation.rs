//! Lanes: what a server gets, what it does not get, and that no two instances or fleets meet.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::Fleet;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn variables(text: &str) -> BTreeMap<String, String> {
    serde_json::from_str(text).unwrap()
}

/// What a shell has after it evaluated `script` with nothing before.
fn evaluated(fleet: &Fleet, script: &str) -> BTreeMap<String, String> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{script}\nexec /usr/bin/env -0")]);
    let mut command = fleet.clean(command);
    command.env_clear();
    let output = fleet.run_command(command).expect(0);
    let pairs = output.out.split('\0').filter_map(|pair| pair.split_once('='));
    let shells_own = ["PWD", "OLDPWD", "SHLVL", "_"];
    pairs.filter(|(name, _)| !shells_own.contains(name)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

const AWKWARD: &str =
    "a: {port: $0, environment: {AWKWARD: \"it's \\\"a\\\" $$HOME `x` \\\\ \\n end\", EMPTY: \"\", API_TOKEN: hush}}";

#[test]
fn env_for_a_shell_evaluates_to_what_it_is_as_json() {
    let fleet = Fleet::new(AWKWARD);
    let json = variables(&fleet.run(&["env", "a", "--format", "json", "--reveal"]).expect(0).out);
    let shell = evaluated(&fleet, &fleet.run(&["env", "a", "--reveal"]).expect(0).out);
    assert_eq!(shell, json);
    assert_eq!(json["AWKWARD"], "it's \"a\" $HOME `x` \\ \n end");
    assert_eq!(json["INSTANCE_NAME"], "a");
    assert_eq!(json["PORT"], fleet.port(0).to_string());
}

#[test]
fn env_is_what_the_server_gets() {
    let mut fleet = Fleet::new(AWKWARD);
    fleet.set("FOREIGN_VARIABLE", "of the caller");
    fleet.up();
    let mut server: BTreeMap<String, String> =
        serde_json::from_value(fleet.ask_self("a")["environment"].clone()).unwrap();
    for marker in ["LANEWAY_RUN", "LANEWAY_INSTANCE"] {
        assert!(server.remove(marker).is_some(), "{marker}");
    }
    let said = variables(&fleet.run(&["env", "a", "--format", "json", "--reveal"]).expect(0).out);
    assert_eq!(server, said);
    assert!(!server.contains_key("FOREIGN_VARIABLE") && !server.contains_key("XDG_STATE_HOME"), "{server:?}");
}

#[test]
fn env_as_dotenv_is_read_back_by_laneway_itself() {
    let fleet = Fleet::new(AWKWARD);
    let said = fleet.run(&["env", "a", "--format", "dotenv"]).expect(0).out;
    let line = said.lines().find(|line| line.starts_with("AWKWARD=")).unwrap();
    fs::write(fleet.folder().join("one.env"), line).unwrap();
    fleet.write(&format!("{}instances:\n  a: {{port: $0, env_file: one.env}}\n", crate::harness::DEFAULTS));
    let json = variables(&fleet.run(&["env", "a", "--format", "json"]).expect(0).out);
    assert_eq!(json["AWKWARD"], "it's \"a\" $HOME `x` \\ \n end");
}

#[test]
fn secrets_are_hidden_unless_revealed() {
    let fleet = Fleet::new("a: {port: $0, environment: {API_TOKEN: hush, DB: \"postgres://me:geheim@h/x\"}}");
    fleet.up();
    let secret = fs::read_to_string(fleet.state("a/secrets/secret_key")).unwrap();
    for format in ["shell", "dotenv", "json"] {
        let output = fleet.run(&["env", "a", "--format", format]).expect(0);
        for word in [secret.trim(), "hush", "geheim"] {
            assert!(!output.out.contains(word), "{format} shows {word}");
        }
        let output = fleet.run(&["env", "a", "--format", format, "--reveal"]).expect(0);
        for word in [secret.trim(), "hush", "geheim"] {
            assert!(output.out.contains(word), "{format} lacks {word}");
        }
    }
    for verb in [&["status", "--json"][..], &["why", "a", "--json"], &["config"], &["config", "--json"], &["logs"]] {
        assert!(!fleet.run(verb).out.contains(secret.trim()), "{verb:?}");
    }
    assert!(!fleet.own_log().contains(secret.trim()));
    assert!(!fleet.api("GET", "/v1/status", "").1.contains(secret.trim()));
}

#[test]
fn a_secret_is_made_once_for_one_instance() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}");
    fleet.up();
    let read = |name: &str| fs::read_to_string(fleet.state(&format!("{name}/secrets/secret_key"))).unwrap();
    let (a, b) = (read("a"), read("b"));
    assert!(a.len() >= 50 && a != b);
    assert_eq!(mode(&fleet.state("a/secrets/secret_key")), 0o600);
    assert_eq!(fleet.ask_self("a")["environment"]["SECRET_KEY"], a.trim());
    fleet.run(&["restart", "--wait", "a"]).expect(0);
    fleet.run(&["down"]).expect(0);
    fleet.up();
    assert_eq!(read("a"), a);
    assert_eq!(fleet.ask_self("a")["environment"]["SECRET_KEY"], a.trim());
}

#[test]
fn every_directory_of_a_lane_is_for_its_user_alone() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    for folder in ["", ".run", "a", "a/log", "a/tmp", "a/secrets", "a/staticfiles_a", "a/media_a"] {
        assert_eq!(mode(&fleet.state(folder)), 0o700, "{folder}");
    }
    assert_eq!(mode(&fleet.state(".run/control.sock")), 0o600);
    assert_eq!(mode(&fleet.state("a/log/access.log")), 0o600);
    assert_eq!(fs::read_to_string(fleet.state(".gitignore")).unwrap(), "*\n");
}

#[test]
fn exec_runs_in_the_lane_and_passes_the_exit_code_on() {
    let fleet = Fleet::new("a: {port: $0, working_dir: inside}");
    fs::create_dir(fleet.folder().join("inside")).unwrap();
    let said = fleet.run(&["exec", "a", "--", "sh", "-c", "pwd; echo $INSTANCE_NAME $PORT; echo $SECRET_KEY | wc -c"]);
    let said = said.expect(0).out;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], fleet.folder().join("inside").to_str().unwrap());
    assert_eq!(lines[1], format!("a {}", fleet.port(0)));
    assert!(lines[2].trim().parse::<u32>().unwrap() > 50);
    fleet.run(&["exec", "a", "--", "sh", "-c", "exit 37"]).expect(37);
    fleet.run(&["exec", "a", "--", "sh", "-c", "kill -TERM $$"]).expect(128 + 15);
    fleet.run(&["exec", "a", "--", "no-such-program"]).expect(2).says(&["`no-such-program` cannot be run"]);
    fleet.run(&["exec", "nobody", "--", "true"]).expect(2).says(&["nobody"]);
}

#[test]
fn exec_has_the_same_environment_as_the_server() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    let server = fleet.ask_self("a")["environment"].clone();
    let said = fleet.run(&["exec", "a", "--", "/usr/bin/env", "-0"]).expect(0).out;
    let own: BTreeMap<_, _> = said.split('\0').filter_map(|pair| pair.split_once('=')).collect();
    for (name, value) in server.as_object().unwrap().iter().filter(|(name, _)| !name.starts_with("LANEWAY_")) {
        assert_eq!(own.get(name.as_str()), Some(&value.as_str().unwrap()), "{name}");
    }
}

#[test]
fn exec_passes_the_terminal_on() {
    let fleet = Fleet::new("a: {port: $0}");
    let script = "test -t 0 && test -t 1 && echo it is; echo $TERM; stty size >/dev/null && echo sized";
    let output = fleet.spawn_on_terminal(&["exec", "a", "--", "sh", "-c", script]).wait().expect(0);
    assert!(output.err.contains("it is") && output.err.contains("xterm-256color") && output.err.contains("sized"));
}

#[test]
fn two_fleets_of_one_user_may_not_meet() {
    let first = Fleet::new("a: {port: $0}");
    first.up();
    let mut second = Fleet::new("");
    second.beside(&first);
    let place = first.folder().to_str().unwrap().to_owned();
    // Same port; apart in everything else.
    second.write(&format!(
        "name: other\nnamespace: mine\ninstances: {{z: {{port: {}, command: [serve]}}}}",
        first.port(0)
    ));
    second.run(&["up", "-d"]).expect(1).says(&["port", "belongs to `a` of", &place]);
    second.run(&["check"]).expect(1).says(&["belongs to `a` of", &place]);
    // Same name: same cookies, which know no ports.
    second.write("instances: {a: {port: $1, command: [serve]}}");
    second.run(&["up", "-d"]).expect(1).says(&["the cookie sessionid_a", "belongs to `a` of", &place, "namespace"]);
    second.write("namespace: mine\ninstances: {a: {port: $1, command: [python3, -IS, $puppet]}}");
    second.run(&["check"]).expect(0);
    second.up();
    // Both are there, each its own.
    first.run(&["status"]).expect(0);
    second.run(&["down"]).expect(0);
    first.run(&["down"]).expect(0);
    second.write("instances: {a: {port: $1, command: [python3, -IS, $puppet]}}");
    second.up();
}

#[test]
fn a_fleet_that_was_killed_claims_nothing() {
    let first = Fleet::new("a: {port: $0}");
    first.up();
    let (supervisor, keeper) = first.pair();
    for (pid, signal) in [(keeper, Signal::SIGSTOP), (supervisor, Signal::SIGKILL), (keeper, Signal::SIGKILL)] {
        crate::harness::signal(pid, signal);
    }
    assert!(crate::harness::wait_until(crate::harness::PATIENCE, || !crate::harness::is_alive(keeper)));
    let mut second = Fleet::new("a: {port: $0}");
    second.beside(&first);
    second.up();
    second.run(&["down"]).expect(0);
    first.run(&["up", "-d", "--wait"]).expect(0);
}

#[test]
fn a_fleet_whose_supervisor_is_being_replaced_keeps_its_claims() {
    let first = Fleet::new("a: {port: $0}");
    first.up();
    let (supervisor, keeper) = first.pair();
    // As long as the keeper is stopped, there is no supervisor.
    crate::harness::signal(keeper, Signal::SIGSTOP);
    crate::harness::signal(supervisor, Signal::SIGKILL);
    assert!(crate::harness::wait_until(crate::harness::PATIENCE, || !crate::harness::is_alive(supervisor)));
    let mut second = Fleet::new("b: {port: $0}");
    second.beside(&first);
    second.write(&second.text().replace(&second.port(0).to_string(), &first.port(0).to_string()));
    for _ in 0..2 {
        second.run(&["check"]).expect(1).says(&[first.folder().to_str().unwrap()]);
    }
    crate::harness::signal(keeper, Signal::SIGCONT);
    first.wait_for_health("a", "healthy");
}

#[test]
fn a_guest_lives_in_the_lane_of_its_owner_with_its_own_port_and_log() {
    let fleet = Fleet::new("main: {port: $0}\nworker: {port: $1, lane: main, environment: {PUPPET: say=i-work}}");
    fleet.up();
    let of = |name: &str| fleet.ask_self(name)["environment"].clone();
    let (owner, guest) = (of("main"), of("worker"));
    for fact in ["DATABASE_NAME", "SESSION_COOKIE_NAME", "CACHE_KEY_PREFIX", "SECRET_KEY", "MEDIA_ROOT"] {
        assert_eq!(owner[fact], guest[fact], "{fact}");
    }
    for fact in ["PORT", "INSTANCE_NAME", "ACCESS_LOG"] {
        assert_ne!(owner[fact], guest[fact], "{fact}");
    }
    fleet.run(&["logs", "worker"]).expect(0).shows(&["worker | i-work"]);
    assert!(fleet.state("main/log/worker.log").exists());
}

#[test]
fn two_instances_share_no_fact() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}");
    fleet.up();
    let of = |name: &str| fleet.ask_self(name)["environment"].clone();
    let (a, b) = (of("a"), of("b"));
    let shared = |name: &str| ["PATH", "HOME", "LANG", "HOST", "CACHE_BACKEND", "CACHE_TIMEOUT"].contains(&name);
    for (name, value) in a.as_object().unwrap() {
        assert!(shared(name) || b[name] != *value, "{name} is {value} in both");
    }
}

#[test]
fn what_is_written_into_the_access_log_ends_in_a_file() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    fleet.ask("a", "/access?GET+/+200");
    let read = || fs::read_to_string(fleet.state("a/log/a.access.log")).unwrap_or_default();
    assert!(crate::harness::wait_until(crate::harness::PATIENCE, || read() == "GET / 200\n"), "{:?}", read());
    // The FIFO outlives the server, and a new one writes into the same file.
    fleet.run(&["restart", "--wait", "a"]).expect(0);
    fleet.ask("a", "/access?GET+/x+404");
    assert!(crate::harness::wait_until(crate::harness::PATIENCE, || read().ends_with("GET /x 404\n")), "{:?}", read());
}

#[test]
fn the_pair_keeps_no_descriptor_and_no_terminal_of_its_client() {
    let fleet = Fleet::new("a: {port: $0}");
    let mut command = fleet.command(&["up", "-d", "--wait"]);
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            nix::libc::dup2(1, 99);
            Ok(())
        });
    }
    fleet.run_command(command).expect(0);
    let (supervisor, keeper) = fleet.pair();
    for pid in [supervisor, keeper] {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            assert!(!target.to_string_lossy().ends_with(".out"), "{pid} keeps {}", target.display());
        }
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    }
    let status: Value = fleet.status();
    assert_eq!(status["instances"][0]["health"], "healthy");
}
