//! Another binary takes over while everything runs; one that cannot is refused, and the old one goes on.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::control::{CONTROL, Control};
use crate::harness::{Fleet, PATIENCE, get, is_alive, signal, wait_until};

fn fleet() -> Fleet {
    let fleet = Fleet::new(&format!("{CONTROL}loud: {{port: $0}}\n"));
    fleet.up();
    fleet
}

/// The true binary as another file, as after an installation.
fn another(fleet: &Fleet, name: &str) -> PathBuf {
    let path = fleet.folder().join(name);
    fs::copy(env!("CARGO_BIN_EXE_laneway"), &path).unwrap();
    path
}

fn executable(fleet: &Fleet, name: &str, text: &str) -> PathBuf {
    let path = fleet.folder().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn runs(pid: u32, binary: &Path) -> bool {
    let target = fs::metadata(binary).unwrap();
    fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|exe| (exe.dev(), exe.ino()) == (target.dev(), target.ino()))
}

#[test]
fn a_good_binary_takes_over_in_the_same_processes() {
    let fleet = fleet();
    let new = another(&fleet, "new-laneway");
    let (pair, pids) = (fleet.pair(), [fleet.pid("control"), fleet.pid("loud")]);
    let control = Control::watch(&fleet);
    let _ = get(fleet.port(0), "/print?1000");
    let upgrade = fleet.spawn(&["upgrade", new.to_str().unwrap()]);
    assert!(wait_until(PATIENCE, || runs(pair.0, &new)), "{}", fleet.own_log());
    // Whoever comes meanwhile is served, and whatever comes is heard.
    for _ in 0..50 {
        signal(pair.0, Signal::SIGHUP);
        signal(pair.1, Signal::SIGHUP);
    }
    let _ = get(fleet.port(0), "/print?1000");
    let output = upgrade.wait().expect(0);
    assert!(output.out.contains("the servers went on") && output.out.contains("keeper: laneway"), "{output:?}");
    assert!(runs(pair.0, &new) && runs(pair.1, &new));
    assert_eq!((fleet.pair(), [fleet.pid("control"), fleet.pid("loud")]), (pair, pids));
    assert!(wait_until(PATIENCE, || fleet.log("loud").lines().count() == 2000));
    control.finish();
    // Everything still works, also the exit of a server that an earlier image made.
    let _ = get(fleet.port(0), "/crash?5");
    fleet.wait_for("loud", |loud| loud["restarts"] == 1 && loud["health"] == "healthy");
    fleet.run(&["why", "loud"]).expect(0).shows(&["exit code 5"]);
    fleet.run(&["upgrade", new.to_str().unwrap()]).expect(0).shows(&["runs already"]);
    fleet.run(&["down"]).expect(0);
    assert_eq!(fleet.processes(), []);
}

#[test]
fn a_new_supervisor_that_dies_soon_gives_way_to_the_old_one() {
    let fleet = fleet();
    let new = another(&fleet, "new-laneway");
    let (supervisor, keeper) = fleet.pair();
    let pids = [fleet.pid("control"), fleet.pid("loud")];
    let control = Control::watch(&fleet);
    let upgrade = fleet.spawn(&["upgrade", new.to_str().unwrap()]);
    upgrade.wait_for("the servers went on");
    signal(supervisor, Signal::SIGKILL);
    let is_old = || {
        let (old, same) = fleet.pair();
        old != supervisor && same == keeper && is_alive(old) && runs(old, Path::new(env!("CARGO_BIN_EXE_laneway")))
    };
    assert!(wait_until(PATIENCE, is_old), "{}", fleet.own_log());
    assert_eq!([fleet.pid("control"), fleet.pid("loud")], pids);
    control.finish();
}

#[test]
fn what_is_no_good_binary_is_refused_and_nothing_changes() {
    let fleet = fleet();
    let (pair, pids) = (fleet.pair(), [fleet.pid("control"), fleet.pid("loud")]);
    let control = Control::watch(&fleet);
    let writable = another(&fleet, "writable");
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o777)).unwrap();
    let plain = fleet.folder().join("plain");
    fs::write(&plain, "text").unwrap();
    let cases = [
        (executable(&fleet, "empty", ""), "no file with something in it"),
        (executable(&fleet, "crashes", "#!/bin/sh\nkill -SEGV $$\n"), "does not take over what runs"),
        (executable(&fleet, "fails", "#!/bin/sh\necho usage: something >&2; exit 2\n"), "does not take over"),
        (executable(&fleet, "hangs", "#!/bin/sh\nexec sleep 30\n"), "says nothing for 5 s"),
        (executable(&fleet, "forks", "#!/bin/sh\nsleep 30 &\nsetsid sleep 20 &\nexit 1\n"), "does not take over"),
        (executable(&fleet, "old", "#!/bin/sh\necho laneway understands: 0 0.0.1\n"), "understands 0 of 2 instances"),
        (writable, "others can write it"),
        (plain, "cannot be tried"),
        (fleet.folder(), "no file with something in it"),
        (PathBuf::from("/nonexistent/laneway"), "No such file"),
    ];
    for (binary, words) in cases {
        fleet.run(&["upgrade", binary.to_str().unwrap()]).expect(1).says(&[words]);
    }
    assert_eq!((fleet.pair(), [fleet.pid("control"), fleet.pid("loud")]), (pair, pids));
    control.finish();
}

#[test]
fn with_nothing_running_there_is_nothing_to_upgrade() {
    Fleet::new("a: {port: $0}").run(&["upgrade"]).expect(3);
}

#[test]
fn a_sigterm_between_the_images_is_heard_by_the_new_one() {
    let fleet = fleet();
    let new = another(&fleet, "new-laneway");
    let (supervisor, keeper) = fleet.pair();
    let upgrade = fleet.spawn(&["upgrade", new.to_str().unwrap()]);
    // The answer leaves 50 ms before the exec; whatever comes meanwhile is for whoever listens then.
    assert!(wait_until(PATIENCE, || fleet.own_log().contains("becoming laneway")));
    let is_done = || {
        let _ = nix::sys::signal::kill(crate::harness::pid(supervisor), Signal::SIGTERM);
        !is_alive(supervisor) && !is_alive(keeper)
    };
    assert!(wait_until(PATIENCE, is_done), "{}", fleet.own_log());
    assert!(fleet.own_log().contains("everything is down"), "{}", fleet.own_log());
    assert_eq!(fleet.processes().iter().filter(|process| process.command.contains("puppet")).count(), 0);
    drop(upgrade);
}
