//! A machine that has nothing to give: no descriptor, process, memory or disk. Servers go on, what cannot be done is said
//! and done once it can be, and nothing of ours grows.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

use super::Way;
use super::control::{CONTROL, Control};
use super::v1::V1;
use crate::harness::{Fleet, PATIENCE, get, number, signal, wait_until};

const SCARCE: &str = "the system has no process or descriptor to give";

/// `a` crashes and waits; `mend` brings back what it lacks, and nobody else was taken for ill meanwhile.
fn waits_and_starts(fleet: &Fleet, control: Control, mend: impl FnOnce()) {
    let _ = get(fleet.port(0), "/crash?1");
    assert!(wait_until(PATIENCE, || fleet.own_log().contains(SCARCE)), "{}", fleet.own_log());
    // Long enough for two bad answers.
    let is_ill = || fleet.own_log().contains("control: running, unhealthy");
    assert!(!wait_until(Duration::from_millis(1500), is_ill), "{}", fleet.own_log());
    mend();
    fleet.wait_for("a", |a| a["restarts"] == 1 && a["health"] == "healthy");
    let witness = fleet.instance("control");
    assert_eq!((number(&witness["restarts"]), &witness["health"]), (0, &"healthy".into()), "{witness}");
    control.finish();
}

#[test]
fn without_descriptors_nothing_is_called_unhealthy_and_starts_wait() {
    Way::each(|way| {
        let fleet = way.fleet(&format!("a: {{port: $0}}\n{CONTROL}"));
        let mut command = fleet.command(&["up", "-d", "--wait"]);
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_NOFILE, 256, 256)?));
        }
        fleet.run_command(command).expect(0);
        let (control, supervisor) = (Control::watch(&fleet), fleet.pair().0);
        // As many as it may have in all; those that it cannot accept wait in the queue of the socket.
        let clients: Vec<_> = (0..256).map(|_| fleet.connect().unwrap()).collect();
        let open = || fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap().count();
        assert!(wait_until(PATIENCE, || open() == 256), "{} are open", open());
        waits_and_starts(&fleet, control, || drop(clients));
    });
}

#[test]
fn without_processes_a_start_waits() {
    Way::each(|way| {
        let fleet = way.fleet(&format!("a: {{port: $0}}\n{CONTROL}"));
        fleet.up();
        let control = Control::watch(&fleet);
        let supervisor = fleet.pair().0;
        let Some(pids) = V1::of("pids", supervisor) else { return };
        // The one that brings new secrets to the disk would leave a place when it ends.
        let threads = || fs::read_dir(format!("/proc/{supervisor}/task")).unwrap().flatten();
        let is_durable = |name: std::io::Result<String>| name.is_ok_and(|name| name.trim() == "durable");
        let is_settled = || !threads().any(|thread| is_durable(fs::read_to_string(thread.path().join("comm"))));
        assert!(wait_until(PATIENCE, is_settled));
        pids.set("pids.max", &pids.get("pids.current"));
        waits_and_starts(&fleet, control, || pids.set("pids.max", "max"));
    });
}

#[test]
fn a_server_that_the_kernel_killed_for_want_of_memory_is_called_so() {
    Way::each(|way| {
        let fleet = way.fleet(&format!("a: {{port: $0, restart: \"no\"}}\n{CONTROL}"));
        fleet.up();
        let control = Control::watch(&fleet);
        let Some(memory) = V1::of("memory", fleet.pid("a")) else { return };
        memory.set("memory.limit_in_bytes", "33554432");
        let _ = get(fleet.port(0), "/eat?200");
        fleet.wait_for_phase("a", "failed");
        fleet.run(&["why", "a"]).expect(0).shows(&["killed by the kernel for want of memory", "dmesg"]);
        control.finish();
        // Another's SIGKILL is not mistaken for that.
        fleet.run(&["start", "--wait", "a"]).expect(0);
        signal(fleet.pid("a"), Signal::SIGKILL);
        fleet.wait_for_phase("a", "failed");
        fleet.run(&["why", "a"]).expect(0).shows(&["killed by SIGKILL (by somebody else"]);
    });
}

/// A small disk in the place of a directory.
struct Disk(PathBuf);

impl Disk {
    fn at(place: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&place).unwrap();
        match mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some(options)) {
            Ok(()) => Some(Self(place)),
            Err(error) => {
                eprintln!("SKIPPED: no tmpfs can be mounted here: {error}");
                None
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn on_a_full_disk_servers_are_stopped_and_started_and_a_new_lane_waits() {
    for options in ["size=256k", "size=8m,nr_inodes=64"] {
        let fleet = Fleet::new(&format!("a: {{port: $0}}\nb: {{port: $1}}\n{CONTROL}"));
        let Some(disk) = Disk::at(fleet.folder().join(".laneway"), options) else { return };
        fleet.run(&["up", "-d", "--wait", "a", "control"]).expect(0);
        let control = Control::watch(&fleet);
        let stuffing = disk.0.join("stuffing");
        fs::create_dir(&stuffing).unwrap();
        // Until there is no room for another one: 4 KiB each, and an inode.
        let full = (0..).map(|number| fs::write(stuffing.join(number.to_string()), [1; 4096])).find_map(Result::err);
        eprintln!("{options}: {full:?}");
        fleet.run(&["restart", "--wait", "a"]).expect(0);
        fleet.run(&["stop", "a"]).expect(0);
        fleet.run(&["start", "--wait", "a"]).expect(0);
        fleet.run(&["start", "--wait", "b"]).expect(1).says(&["no space left"]);
        fs::remove_dir_all(&stuffing).unwrap();
        fleet.wait_for_health("b", "healthy");
        control.finish();
        fleet.run(&["down"]).expect(0);
        drop(disk);
    }
}

#[test]
fn an_environment_that_no_program_can_be_given_is_named() {
    let fleet = Fleet::new(&format!("a: {{port: $0, environment: {{BIG: {}}}}}", "x".repeat(200_000)));
    fleet.run(&["up", "-d", "--wait"]).expect(1).says(&["arguments and environment are longer than the kernel takes"]);
}

/// What keeper and supervisor have: descriptors, threads, KiB of memory of their own, and directories of cgroups.
fn belongings(fleet: &Fleet) -> [usize; 4] {
    let (supervisor, keeper) = fleet.pair();
    let count = |pid: u32, what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let memory = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap()
    };
    let id = fs::read_to_string(fleet.state(".run/fleet")).unwrap();
    let cgroups = PathBuf::from(format!("/sys/fs/cgroup/unified/laneway-{id}"));
    let of_both = |of: &dyn Fn(u32) -> usize| of(supervisor) + of(keeper);
    let directories = fs::read_dir(cgroups).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    [of_both(&|pid| count(pid, "fd")), of_both(&|pid| count(pid, "task")), of_both(&memory), directories.count()]
}

#[test]
fn nothing_grows_with_restarts() {
    // The full count takes minutes; continuous integration sets it.
    let wanted = std::env::var("LANEWAY_TEST_RESTARTS").map_or(200, |count| count.parse().unwrap());
    let workers = (0..10).map(|number| format!("i{number}: {{healthcheck: {{disable: true}}}}"));
    let fleet = Fleet::new(&[workers.collect::<Vec<_>>().join("\n"), CONTROL.to_owned()].join("\n"));
    fleet.up();
    let round = || {
        fleet.run(&["restart", "--wait", "i*"]).expect(0);
    };
    // The first rounds fill what is kept.
    (0..3).for_each(|_| round());
    let (before, control) = (belongings(&fleet), Control::watch(&fleet));
    (0..wanted / 10).for_each(|_| round());
    let after = belongings(&fleet);
    eprintln!("{wanted} restarts; descriptors, threads, KiB, cgroups: {before:?}, then {after:?}");
    assert!(after[0] <= before[0] && after[1] <= before[1] && after[3] <= before[3], "{before:?}, then {after:?}");
    assert!(after[2] <= before[2] + 2048, "{before:?}, then {after:?}");
    control.finish();
}

#[test]
fn busy_processors_make_nobody_unhealthy() {
    let fleet = Fleet::new(&format!("a: {{port: $0}}\nb: {{port: $1}}\n{CONTROL}"));
    fleet.up();
    let (control, pid) = (Control::watch(&fleet), fleet.pid("a"));
    fleet.ask("b", "/spin?8");
    let since = |a: &serde_json::Value| a["since_seconds"].as_f64().unwrap_or(0.0);
    let begin = since(&fleet.instance("a"));
    let mut events = fleet.events().skip(1);
    let a = fleet.wait_for("a", |a| since(a) > begin + 3.0);
    assert_eq!((number(&a["pid"]), &a["health"]), (pid, &"healthy".into()), "{a}");
    fleet.run(&["stop", "b"]).expect(0);
    let first = events.next().unwrap().1;
    assert_eq!(first["name"], "b", "something else changed before b was stopped: {first}");
    let tally = control.finish();
    assert!(tally.slowest < Duration::from_secs(1), "{tally:?}");
}
