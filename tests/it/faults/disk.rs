//! Disks that are full or gone: no server waits or sees an error, no other log suffers, and people are told exactly.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use super::control::{CONTROL, Control};
use super::hand_over::{counters, kill_keeper, kill_supervisor};
use crate::harness::{Fleet, PATIENCE, get, names_in, number, signal, wait_until};

/// A small file system of its own, until it is dropped.
struct Small(PathBuf);

impl Small {
    /// Over this directory of the state directory; `None`, aloud, where that is not allowed.
    fn over(fleet: &Fleet, directory: &str) -> Option<Self> {
        let path = fleet.state(directory);
        fs::create_dir_all(&path).unwrap();
        let made = mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=256k,mode=700"));
        if let Err(error) = made {
            eprintln!("skipped: nothing can be mounted here ({error}); run as root");
            return None;
        }
        Some(Self(path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_said_and_what_is_lost_is_counted() {
    let fleet = Fleet::new(&format!("{CONTROL}loud: {{port: $0, logging: {{max_size: 10m}}}}\nother: {{port: $1}}\n"));
    let Some(_small) = Small::over(&fleet, "loud/log") else { return };
    fleet.up();
    let control = Control::watch(&fleet);
    // About 2.2 MB: 256 KiB find room, 1 MiB waits, the rest goes.
    assert!(get(fleet.port(0), "/print?100000").is_some(), "the server waited for the disk");
    let _ = get(fleet.port(1), "/print?1000");
    let loud = fleet.wait_for("loud", |loud| {
        number(&loud["log_troubles"][0]["dropped_bytes"]) > 0
            && number(&loud["log_troubles"][0]["waiting_bytes"]) > 500_000
    });
    let trouble = &loud["log_troubles"][0];
    assert_eq!(trouble["what"], "no space left on device", "{trouble}");
    assert!(trouble["file_system"].as_str().unwrap().starts_with("tmpfs at "), "{trouble}");
    fleet.run(&["why", "loud"]).expect(0).shows(&["cannot be written for", "no space left on device", "tmpfs at"]);
    assert!(fleet.own_log().contains("no space left on device"));
    assert!(wait_until(PATIENCE, || fleet.log("other").lines().count() == 1000), "another log suffered");
    assert_eq!(fleet.instance("loud")["health"], "healthy");
    // Room again: what waited is written, then the marker, then what comes.
    let log = fleet.state("loud/log");
    let text = mount(None::<&str>, &log, None::<&str>, MsFlags::MS_REMOUNT, Some("size=64m"));
    text.unwrap();
    assert!(wait_until(PATIENCE, || fleet.log("loud").contains("bytes of log dropped]")), "{:?}", names_in(&log));
    let _ = get(fleet.port(0), "/print?10");
    assert!(wait_until(PATIENCE, || fleet.log("loud").contains("line 0100010 of loud")));
    let log = fleet.log("loud");
    let (before, after) = log.split_once("[laneway: ").unwrap();
    let (count, after) = after.split_once(" bytes of log dropped]\n").unwrap();
    let line = "line 0000001 of loud\n".len();
    let kept = before.lines().count() + after.lines().count();
    assert!(before.ends_with('\n') && before.lines().chain(after.lines()).all(|text| text.len() == line - 1));
    assert_eq!(kept * line + count.parse::<usize>().unwrap(), 100_010 * line, "every byte is there or counted");
    fleet.wait_for("loud", |loud| loud["log_troubles"][0]["what"].is_null());
    fleet.run(&["why", "loud"]).expect(0).shows(&[&format!("{count} bytes were dropped")]);
    control.finish();
    fleet.run(&["down"]).expect(0);
}

#[test]
fn a_log_directory_that_somebody_removed_is_made_again() {
    let fleet = Fleet::new(&format!("{CONTROL}loud: {{port: $0}}\n"));
    fleet.up();
    let control = Control::watch(&fleet);
    fs::remove_dir_all(fleet.state("loud/log")).unwrap();
    let mut printed = 0;
    let is_back = || {
        // The keeper looks at its file when something comes.
        let _ = get(fleet.port(0), "/print?1");
        printed += 1;
        fleet.state("loud/log/loud.log").exists()
    };
    assert!(wait_until(PATIENCE, is_back), "{}", fleet.own_log());
    let last = format!("line {printed:07} of loud");
    assert!(wait_until(PATIENCE, || fleet.log("loud").contains(&last)), "{}", fleet.log("loud"));
    control.finish();
}

#[test]
fn a_log_directory_that_is_gone_when_both_are_replaced_is_made_again() {
    let fleet = Fleet::new(&format!("{CONTROL}loud: {{port: $0}}\n"));
    fleet.up();
    for kill in [[kill_keeper, kill_supervisor], [kill_supervisor, kill_keeper]] {
        fs::remove_dir_all(fleet.state("loud/log")).unwrap();
        for kill in kill {
            kill(&fleet);
        }
        let is_back = || {
            let _ = get(fleet.port(0), "/print?1");
            fleet.log("loud").contains("of loud")
        };
        assert!(wait_until(PATIENCE, is_back), "{}", fleet.own_log());
    }
}

#[test]
fn a_supervisor_is_replaced_also_where_nothing_can_be_written() {
    let fleet = Fleet::new(CONTROL);
    let Some(small) = Small::over(&fleet, ".run") else { return };
    fleet.up();
    let before = counters(&fleet);
    let control = Control::watch(&fleet);
    assert!(fs::write(small.0.join("all"), vec![0; 1 << 20]).is_err());
    for _ in 0..4 {
        kill_supervisor(&fleet);
        kill_keeper(&fleet);
        assert_eq!(counters(&fleet), before);
    }
    control.finish();
    fleet.run(&["down"]).expect(0);
    drop(small);
}

#[test]
fn a_supervisor_is_replaced_also_where_its_directory_was_deleted() {
    let fleet = Fleet::new(CONTROL);
    fleet.up();
    let server = fleet.pid("control").to_string();
    let (supervisor, keeper) = fleet.pair();
    fs::remove_dir_all(fleet.state(".run")).unwrap();
    signal(supervisor, Signal::SIGKILL);
    let answer = || get(fleet.port(9), "/pid").map(|(_, pid)| pid);
    assert_eq!(answer(), Some(server.clone()));
    // Only a supervisor that took it over starts it again.
    let _ = get(fleet.port(9), "/crash?1");
    assert!(wait_until(PATIENCE, || answer().is_some_and(|pid| pid != server)), "nobody looks after the server");
    signal(keeper, Signal::SIGTERM);
    assert!(wait_until(PATIENCE, || fleet.processes().is_empty()), "{:?}", fleet.processes());
}

#[test]
fn rotated_files_are_compressed_and_read_as_before() {
    let logging = "logging: {max_size: 16k, max_files: 1000, compress: true}";
    let fleet = Fleet::new(&format!("{CONTROL}loud: {{port: $0, {logging}}}\n"));
    fleet.up();
    let control = Control::watch(&fleet);
    let _ = get(fleet.port(0), "/print?20000");
    let is_done = || {
        let names = names_in(&fleet.state("loud/log"));
        let rotated = |name: &&String| name.starts_with("loud.log.");
        let is_compressed = |name: &String| Path::new(name).extension().is_some_and(|kind| kind == "gz");
        names.iter().filter(rotated).count() >= 25 && names.iter().filter(rotated).all(is_compressed)
    };
    assert!(wait_until(PATIENCE, is_done), "{:?}", names_in(&fleet.state("loud/log")));
    let output = fleet.run(&["logs", "loud", "-n", "20000", "--no-prefix"]).expect(0);
    let lines: Vec<_> = output.out.lines().filter(|line| line.contains("line ")).collect();
    assert_eq!(lines.len(), 20_000);
    assert!(lines.iter().enumerate().all(|(at, line)| line.contains(&format!("line {:07} of loud", at + 1))));
    control.finish();
}
