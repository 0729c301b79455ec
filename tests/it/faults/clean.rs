//! Starting clean: whatever laneway was started with, a server starts as if from a fresh login of that user.

use std::os::unix::process::CommandExt;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::stat::{Mode, umask};

use crate::harness::{Fleet, is_alive};

/// How laneway may be started, what is done to it between fork and exec, and the mask and the soft limit of open files
/// that servers are to have then.
struct Start {
    name: &'static str,
    make: fn(),
    umask: u64,
    descriptors: Option<u64>,
}

const STARTS: [Start; 8] = [
    Start { name: "as usual", make: || (), umask: 0o022, descriptors: None },
    Start { name: "every signal blocked", make: block_all, umask: 0o022, descriptors: None },
    Start { name: "every signal ignored", make: ignore_all, umask: 0o022, descriptors: None },
    Start { name: "descriptors 0 to 2 closed", make: close_standard, umask: 0o022, descriptors: None },
    Start { name: "descriptors that nobody closed", make: open_many, umask: 0o022, descriptors: None },
    Start { name: "no mask", make: || masked(0), umask: 0, descriptors: None },
    Start { name: "a mask that hides from oneself", make: || masked(0o777), umask: 0o777, descriptors: None },
    Start { name: "a low limit", make: || limited(64), umask: 0o022, descriptors: Some(64) },
];

fn block_all() {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None).unwrap();
}

fn ignore_all() {
    for each in Signal::iterator().filter(|each| ![Signal::SIGKILL, Signal::SIGSTOP].contains(each)) {
        // SAFETY: no handler of ours is installed.
        unsafe { signal(each, SigHandler::SigIgn) }.unwrap();
    }
}

fn close_standard() {
    for number in 0..3 {
        // SAFETY: nobody uses it between here and exec.
        unsafe { libc::close(number) };
    }
}

fn open_many() {
    for number in 3..100 {
        // SAFETY: in a child that execs next; what it covers is of no use to the program.
        unsafe { libc::dup2(0, number) };
    }
}

fn masked(mask: u32) {
    umask(Mode::from_bits_truncate(mask));
}

fn limited(descriptors: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, hard).unwrap();
}

#[test]
fn a_server_starts_clean_whatever_laneway_was_started_with() {
    for start in STARTS {
        eprintln!("start: {}", start.name);
        let fleet = Fleet::new("a: {port: $0, stop_grace_period: 60s}");
        let mut command = fleet.command(&["up", "-d", "--wait"]);
        let make = start.make;
        // SAFETY: system calls between fork and exec only.
        unsafe {
            command.pre_exec(move || {
                umask(Mode::from_bits_truncate(0o022));
                make();
                Ok(())
            });
        }
        fleet.run_command(command).expect(0);
        is_clean(&fleet, &start);
        let (supervisor, keeper) = fleet.pair();
        // A server that hears SIGTERM, and a pair that hears of its end.
        fleet.run(&["down"]).expect(0);
        assert!(!is_alive(supervisor) && !is_alive(keeper));
    }
}

fn is_clean(fleet: &Fleet, start: &Start) {
    let own = fleet.ask_self("a");
    assert_eq!((&own["sid"], &own["pgid"]), (&own["pid"], &own["pid"]), "its own session and group");
    assert_eq!(own["blocked"], "0000000000000000");
    // Python itself ignores SIGPIPE (13) and SIGXFSZ (25); 32 and 33 are the C library's own.
    let ignored = u64::from_str_radix(own["ignored"].as_str().unwrap(), 16).unwrap();
    assert_eq!(ignored & !(1 << 12 | 1 << 24 | 3 << 31), 0, "{ignored:x}");
    let descriptors = own["descriptors_at_start"].as_object().unwrap();
    // Python sees the directory that it lists them by.
    let is_another = |name: &&String| name.as_str() > "2" && !descriptors[*name].as_str().unwrap().contains("/fd");
    assert_eq!(descriptors.keys().find(is_another), None, "{descriptors:?}");
    assert_eq!(own["descriptors"]["0"], "/dev/null");
    assert!(own["descriptors"]["1"].as_str().unwrap().starts_with("pipe:"));
    assert_eq!(own["descriptors"]["1"], own["descriptors"]["2"]);
    assert_eq!(own["umask"], start.umask);
    let usual = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(own["nofile"][0], start.descriptors.unwrap_or(usual.0));
    assert_eq!(own["nofile"][1], usual.1);
    assert_eq!(own["oom_score_adj"], 200);
    assert_eq!(own["cwd"], fleet.folder().to_str().unwrap());
}
