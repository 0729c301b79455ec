//! A shared machine: who else is on it reads nothing, leads laneway nowhere, and cannot keep it from its work.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};

use super::control::{CONTROL, Control};
use crate::harness::{Fleet, living, timed};

/// Directories that laneway makes, or writes into.
const DIRECTORIES: [&str; 8] =
    [".run", "a", "a/log", "a/tmp", "a/secrets", "a/staticfiles_a", "a/media_a", "a/database"];

/// Files that a lane cannot do without.
const NEEDED: [&str; 2] = ["a/secrets/secret_key", "a/log/access.log"];

/// Files that laneway writes, or replaces.
const WRITTEN: [&str; 10] = [
    ".gitignore",
    ".run/lock",
    ".run/control.sock",
    ".run/fleet",
    ".run/plan.json",
    ".run/plan.json.new",
    ".run/laneway.log",
    "a/log/a.log",
    "a/log/a.idx",
    "a/log/a.access.log",
];

/// Everything beneath a directory: paths and contents.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(contents(&path));
        }
        // Nothing comes out of a FIFO while nobody writes.
        let content = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.insert(path, content);
    }
    found
}

/// A fleet in whose state directory `path` is a link to somewhere else, and what is there.
fn led_astray(path: &str, is_directory: bool) -> (Fleet, PathBuf) {
    let fleet = Fleet::new("a: {port: $0, database: {path: \"{state}/database/x.sqlite3\"}}");
    let elsewhere = fleet.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let precious = elsewhere.join("precious");
    fs::write(&precious, "x".repeat(64)).unwrap();
    let link = fleet.state(path);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(if is_directory { &elsewhere } else { &precious }, link).unwrap();
    (fleet, elsewhere)
}

#[test]
fn a_link_in_the_state_directory_leads_nowhere() {
    let planted = DIRECTORIES.map(|path| (path, true)).into_iter().chain(NEEDED.map(|path| (path, false)));
    for (path, is_directory) in planted {
        let (fleet, elsewhere) = led_astray(path, is_directory);
        let before = contents(&elsewhere);
        let place = fleet.state(path);
        let output = fleet.run(&["up", "-d", "--wait"]).expect(1);
        assert!(output.err.contains(place.to_str().unwrap()), "{path}: {}", output.err);
        assert_eq!(contents(&elsewhere), before, "{path}");
    }
    for path in WRITTEN {
        let (fleet, elsewhere) = led_astray(path, false);
        let before = contents(&elsewhere);
        fleet.run(&["up", "-d", "--wait"]);
        fleet.run(&["down"]);
        assert_eq!(contents(&elsewhere), before, "{path}");
    }
}

#[test]
fn a_state_directory_behind_a_link_is_the_users_choice() {
    let fleet = Fleet::new("a: {port: $0}");
    fs::create_dir(fleet.folder().join("big disk")).unwrap();
    symlink("big disk", fleet.folder().join(".laneway")).unwrap();
    fleet.up();
    assert!(fleet.folder().join("big disk/a/secrets/secret_key").exists());
}

#[test]
fn what_laneway_makes_is_for_its_user_alone_under_any_mask() {
    for mask in [0, 0o027, 0o077, 0o777] {
        let fleet = Fleet::new("a: {port: $0}");
        let mut command = fleet.command(&["up", "-d", "--wait"]);
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(move || {
                umask(Mode::from_bits_truncate(mask));
                Ok(())
            });
        }
        fleet.run_command(command).expect(0);
        fleet.ask("a", "/print?10");
        fleet.ask("a", "/access?GET+/");
        fleet.run(&["restart", "--wait", "a"]).expect(0);
        let found = contents(&fleet.state(""));
        assert!(found.len() > 15, "{found:?}");
        for path in found.keys().chain([&fleet.state("")]) {
            let metadata = fs::symlink_metadata(path).unwrap();
            let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(metadata.permissions().mode() & 0o7777, wanted, "{} under {mask:03o}", path.display());
        }
        assert!(fs::symlink_metadata(fleet.state("a/log/access.log")).unwrap().file_type().is_fifo());
    }
}

#[test]
fn another_user_is_turned_away_even_where_the_directory_is_open() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let fleet = Fleet::new(CONTROL);
    fleet.up();
    let socket = fleet.state(".run/control.sock");
    for path in [fleet.folder().join(".laneway"), fleet.state(".run"), socket.clone()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "5", "--unix-socket", socket.to_str().unwrap(), "http://laneway/v1/status"])
        .uid(65534)
        .gid(65534);
    let output = fleet.run_command(fleet.clean(curl));
    assert!(output.code != 0 && output.out.is_empty(), "{output:?}");
    assert!(fleet.own_log().contains("user 65534 was turned away"), "{}", fleet.own_log());
    fleet.run(&["status"]).expect(0);
}

#[test]
fn clients_that_hang_or_talk_nonsense_disturb_nobody() {
    let fleet = Fleet::new(&format!("a: {{port: $0}}\n{CONTROL}"));
    fleet.up();
    let (pid, control) = (fleet.pid("a"), Control::watch(&fleet));
    let open = || fleet.connect().unwrap();
    let silent: Vec<_> = (0..200).map(|_| open()).collect();
    let mut half = open();
    half.write_all(b"POST /v1/down HTTP/1.1\r\nContent-Le").unwrap();
    let followed_by_much = |head: &str| [head.as_bytes().to_vec(), vec![b' '; 1 << 20]].concat();
    let endless = followed_by_much("GET /v1/status HTTP/1.1\r\nX: ");
    let large = followed_by_much("POST /v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n");
    for nonsense in [b"\x16\x03\x01 nonsense\r\n\r\n".to_vec(), vec![0; 1 << 16], endless, large] {
        let mut stream = open();
        // It may refuse before it has read everything.
        let _ = stream.write_all(&nonsense);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let is_answered = || fleet.ask_status()["instances"][0]["pid"] == pid;
    let answered = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..200).map(|_| scope.spawn(is_answered)).collect();
        askers.into_iter().filter_map(|asker| asker.join().ok()).filter(|is_so| *is_so).count()
    });
    assert_eq!(answered, 200);
    let (took, output) = timed(|| fleet.run(&["status"]));
    output.expect(0);
    assert!(took < Duration::from_secs(2), "{took:?}");
    fleet.run(&["stop", "a"]).expect(0);
    control.finish();
    fleet.run(&["down"]).expect(0);
    drop((silent, half));
}

#[test]
fn no_secret_leaves_its_lane() {
    const CANARY: &str = "canary-5e1f";
    let instances = format!(
        "a: {{port: $0, environment: {{API_TOKEN: {CANARY}, DB: \"postgres://me:{CANARY}@h/x\"}}}}\n\
         broken: {{port: $1, command: [./nothing], environment: {{API_TOKEN: {CANARY}}}}}"
    );
    let fleet = Fleet::new(&instances);
    let mut said = vec![fleet.run(&["up", "-d", "--wait"]).expect(1)];
    let key = fs::read_to_string(fleet.state("a/secrets/secret_key")).unwrap().trim().to_owned();
    let environment = fleet.ask_self("a")["environment"].to_string();
    assert!(environment.contains(CANARY) && environment.contains(&key), "the server has them");
    let commands: String = living().into_iter().map(|process| process.command + "\n").collect();
    for verb in ["status", "why", "env", "config", "logs", "check"] {
        let arguments: &[&str] = match verb {
            "env" | "why" => &[verb, "a"],
            _ => &[verb],
        };
        said.push(fleet.run(arguments));
    }
    said.push(fleet.run(&["status", "--json"]));
    said.push(fleet.run(&["why", "broken", "--json"]));
    fleet.write(&fleet.text().replace("./nothing", "./nothing, 7: [").replace("postgres:", "postgres"));
    said.push(fleet.run(&["check"]).expect(2));
    let mut texts: Vec<String> = said.iter().map(|output| format!("{}{}", output.out, output.err)).collect();
    texts.extend(["/v1/status", "/v1/instances/a", "/v1/instances/broken"].map(|path| fleet.api("GET", path, "").1));
    texts.extend([commands, fleet.own_log()]);
    for text in &texts {
        assert!(!text.contains(CANARY) && !text.contains(&key), "{text}");
    }
    // The running plan has the values of the file, for `env` and `exec`, and nobody else may read it. Not the key.
    let plan = fs::read_to_string(fleet.state(".run/plan.json")).unwrap();
    assert!(plan.contains(CANARY) && !plan.contains(&key));
}
