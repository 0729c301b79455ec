//! The supervisor's main: everything is put together here, and taken apart in the end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use tokio::net::UnixListener;
use tracing::{info, warn};

use super::grants;
use super::launch::{Launch, READY};
use super::reload::{Launched, register};
use crate::control;
use crate::keeper::memory;
use crate::keeper::protocol::Kept;
use crate::plan::{self, Plan};
use crate::runtime;
use crate::runtime::auditor::Auditor;
use crate::runtime::cgroup::Cgroups;
use crate::runtime::clock::Clock;
use crate::runtime::driver::{Driver, Tools};
use crate::runtime::home::Home;
use crate::runtime::landlock;
use crate::runtime::link::KeeperLink;
use crate::runtime::probe::Prober;
use crate::runtime::records::{Recorded, Records};
use crate::runtime::registry::Registry;
use crate::runtime::reload::Origin as _;
use crate::runtime::spawn::{Original, Spawner};
use crate::runtime::succession::{Adopted, After, Inheritance};
use crate::runtime::threads::in_thread;
use crate::runtime::tree;

/// Ended as planned.
const DONE: i32 = 0;
/// Failed; whether another one starts is for the keeper to say.
const FAILED: i32 = 1;
/// Cannot do its work: before the first one was ready nobody wants another.
const REFUSED: i32 = 2;
/// How long a new binary runs the supervisor before the keeper becomes it too.
const PROBATION: std::time::Duration = std::time::Duration::from_secs(10);
/// After this the servers of a fleet have started.
const STARTED: std::time::Duration = std::time::Duration::from_secs(10);
/// Descriptors that laneway needs for each instance and for itself, in the keeper, which needs more of them: directory,
/// file and index of two logs, a FIFO, a pipe, and a second pipe while one run follows another.
const DESCRIPTORS: (u64, u64) = (9, 128);

/// Runs as the supervisor, with what the table at `number` names. Returns the exit code.
#[must_use]
pub fn run(number: RawFd) -> i32 {
    // Standard error is a pipe to the keeper. When that is dead, a complaint about it would be a panic.
    share_free_memory();
    let log = tracing_subscriber::fmt().with_writer(io::stderr).log_internal_errors(false);
    log.with_ansi(false).with_target(false).init();
    let mut inheritance = match Inheritance::take(number) {
        Ok(inheritance) => inheritance,
        Err(error) => {
            warn!("the supervisor cannot start: {error}");
            return REFUSED;
        }
    };
    // A second supervisor of the same keeper finds none: its client was answered long ago.
    let mut ready = inheritance.remove(Kept::Ready).map(File::from);
    match set_up(inheritance, ready.is_some()) {
        Ok(supervisor) => supervisor.serve(ready),
        Err(error) => {
            warn!("the supervisor cannot start: {error}");
            if let Some(ready) = &mut ready {
                let _ = writeln!(ready, "{error}");
            }
            REFUSED
        }
    }
}

struct Supervisor {
    plan: Arc<Plan>,
    home: Home,
    fleet: String,
    launch: Launch,
    inheritance: Inheritance,
}

fn set_up(inheritance: Inheritance, is_first: bool) -> Result<Supervisor, String> {
    // What laneway makes is for its user alone; servers get their own mask back.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // Started through /proc/self/exe, it would be called `exe`.
    let _ = nix::sys::prctl::set_name(c"laneway");
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
    let mut launch = read_launch(&inheritance).map_err(|error| format!("the launch cannot be read: {error}"))?;
    let left = inheritance.estate.get(&Kept::Records).and_then(|left| left.try_clone().ok());
    let revision = left.map_or(0, |left| runtime::records::read_memory(&File::from(left)).revision());
    // A file that was broken meanwhile never disturbs what runs.
    let plan = match launch.take_plan(revision) {
        Some(plan) => plan,
        None => first_plan(launch.resolved.take().ok_or("the launch holds no plan")?),
    };
    let home = Home::of(&plan.state_dir);
    let fleet = match launch.fleet.take() {
        Some(fleet) => fleet,
        None => home.fleet_id().map_err(|error| format!("{}: {error}", home.directory().display()))?,
    };
    launch.fleet = Some(fleet.clone());
    if let Some(registry) = Registry::of_user().filter(|_| is_first) {
        if let Some(pid) = registry.occupant(&plan) {
            let state_dir = plan.state_dir.display();
            return Err(format!(
                "{state_dir} is in use by a supervisor (pid {pid}) that cannot be reached: its .run was deleted\n  \
                 hint: kill -TERM {pid} ends it with its servers; then laneway up"
            ));
        }
        check_neighbours(&plan)?;
    }
    if is_first {
        check_kernel(&plan)?;
    }
    check_descriptors(&plan)?;
    Ok(Supervisor { plan: Arc::new(plan), home, fleet, launch, inheritance })
}

/// Where a fleet was left running, everybody stays at the place that the records go by.
fn first_plan(plan: Plan) -> Plan {
    let before = Home::of(&plan.state_dir).last_plan();
    let before = before.filter(|before| before.project == plan.project && before.namespace == plan.namespace);
    match before {
        Some(before) => plan::merge(&before, plan, |_| true),
        None => plan,
    }
}

/// Holds a plan against the other fleets of this user.
pub(super) fn check_neighbours(plan: &Plan) -> Result<(), String> {
    let others = Registry::of_user().map(|registry| registry.others(plan)).unwrap_or_default();
    // Most fleets are alone, and claims of a thousand instances take a while.
    if others.is_empty() {
        return Ok(());
    }
    let collisions = plan::foreign_collisions(&plan::claims(plan), &others);
    if collisions.is_empty() {
        return Ok(());
    }
    Err(collisions.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Holds a plan against what this kernel can enforce.
pub(super) fn check_kernel(plan: &Plan) -> Result<(), String> {
    let mut refusals = landlock::refusals(plan);
    refusals.next().map_or(Ok(()), |(spec, what)| Err(format!("{}: {what}\n  hint: {}", spec.name, landlock::HINT)))
}

/// Holds a plan against the limit of open files.
pub(super) fn check_descriptors(plan: &Plan) -> Result<(), String> {
    let count = plan.order.len();
    let needed = (count as u64).saturating_mul(DESCRIPTORS.0).saturating_add(DESCRIPTORS.1);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, limit)) if needed > limit => Err(format!(
            "{count} instances need about {needed} open files, the limit is {limit}\n  hint: ulimit -n {needed}"
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Supervisor {
    /// `ready` is where the first supervisor says so, or why not.
    fn serve(self, mut ready: Option<File>) -> i32 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let run = runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(self.run(&mut ready)));
        let Err(error) = run else { return DONE };
        warn!("the supervisor fails: {error}");
        match ready {
            // What kept this one from getting ready would keep the next one too.
            Some(mut ready) => {
                let _ = writeln!(ready, "{error}");
                REFUSED
            }
            None => FAILED,
        }
    }

    async fn run(self, ready: &mut Option<File>) -> Result<(), String> {
        let Self { plan, home, fleet, launch, mut inheritance } = self;
        let say = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        let left = inheritance.remove(Kept::Records);
        let after = match (&left, inheritance.distrust) {
            // The first of its pair, or one before it died too early to leave any.
            (None, _) => After::Both,
            (Some(_), true) => After::Crashes,
            (Some(_), false) => After::Supervisor,
        };
        let left_listener = inheritance.remove(Kept::Listener);
        let Inheritance { estate, link, keeper, pipes, .. } = inheritance;
        let keeper_pid = pid_of(&keeper).ok_or("the keeper is gone already")?;
        let link = KeeperLink::new(link, keeper_pid, estate, pipes).map_err(|e| say("the link", &e))?;
        let link = Arc::new(link);
        let cgroups =
            if std::env::var_os(NO_CGROUPS).is_some() { None } else { Cgroups::find(&format!("laneway-{fleet}")) };
        let original = Original { descriptors: launch.descriptors, umask: launch.umask };
        let spawner = Spawner::start(&fleet, cgroups.clone(), original, Arc::clone(&link));
        let spawner = spawner.map_err(|e| say("no thread", &e))?;
        let (mut records, recorded) = records(&home, left).map_err(|e| say("the records", &e))?;
        // Both may have died before one of the two was on the disk.
        let before = home.last_plan().filter(|before| before.revision == recorded.memory.revision());
        let is_same = |id| before.as_ref().is_some_and(|before| plan::is_same(before, &plan, id));
        let adopted = Adopted::find(&plan, recorded, after, &spawner, &link, is_same);
        if after == After::Both {
            adopted.record(&plan, &link, &mut records);
        }
        let prober = Prober::new(Clock::start()).map_err(|e| say("the HTTP client", &e))?;
        let auditor = Auditor::start(&plan.state_dir).map_err(|e| say("no thread", &e))?;
        let tools = Tools { spawner, keeper: Arc::clone(&link), prober, auditor: auditor.clone() };
        let listener = listen(&home, left_listener, &link).map_err(|e| say("the control socket", &e))?;
        if before.as_ref() != Some(&*plan)
            && let Err(error) = home.write_plan(&plan)
        {
            if ready.is_some() {
                return Err(say("plan.json", &error));
            }
            // The servers run, and need their supervisor more than clients need the plan.
            warn!("plan.json cannot be written, clients go by the plan before: {error}");
        }
        drop(before);
        let origin = Launched { launch, home: home.clone(), link: Arc::clone(&link) };
        let kept = origin.keep(&plan, None);
        kept.and_then(|()| link.keep(Kept::Records, records.descriptor().try_clone_to_owned()?))
            .map_err(|e| say("the keeper", &e))?;
        if ready.is_some() {
            register(&plan);
        } else {
            // A disk that hangs must not keep the servers from their supervisor.
            let registered = Arc::clone(&plan);
            let begun = in_thread("register", move || register(&registered));
            begun.unwrap_or_else(|error| warn!("this fleet cannot be registered anew: {error}"));
        }
        let (driver, handle) =
            Driver::new(Arc::clone(&plan), Arc::new(origin), home.upgrade(), tools, records, adopted);
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(grants::keep(handle.clone()));
        let door = tokio::spawn(control::serve(listener, handle, auditor, async {
            let _ = end.await;
        }));
        info!("supervisor of {} with {} instances, keeper {keeper_pid}", plan.project, plan.order.len());
        link.ready().map_err(|e| say("the keeper", &e))?;
        if let Some(mut ready) = ready.take() {
            let _ = ready.write_all(READY.as_bytes());
        }
        tokio::spawn(upgrade_keeper(Arc::clone(&link)));
        tokio::spawn(give_memory_back());
        let run = driver.run(keeper).await;
        // Whoever waits for an answer gets it before the socket goes.
        drop(ended);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), door).await;
        for survivor in tree::kill_children(link.pid()) {
            warn!("ended pid {} ({}), which hid from its instance's stop", survivor.pid, survivor.command);
        }
        home.clear();
        if let Some(registry) = Registry::of_user() {
            registry.leave(&plan);
        }
        if let Some(cgroups) = cgroups {
            cgroups.remove();
        }
        info!("everything is down");
        link.bye(0);
        run.map_err(|e| say("signals", &e))
    }
}

/// One heap for all threads: the few that there are wait for the disk, not for memory. Before there is a second one.
fn share_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain call.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// What the start alone has used goes back to the system: else the allocator keeps it for years, and its code stays. Once when the plan was
/// made, once when the servers have started.
async fn give_memory_back() {
    for pause in [std::time::Duration::ZERO, STARTED] {
        tokio::time::sleep(pause).await;
        #[cfg(target_env = "gnu")]
        // SAFETY: a plain call.
        unsafe {
            nix::libc::malloc_trim(0);
        }
        memory::unmap_program();
    }
}

/// A supervisor of another binary than the keeper's: the keeper follows once it is known that this one lives.
async fn upgrade_keeper(link: Arc<KeeperLink>) {
    if link.kept(Kept::Binary).is_none() {
        return;
    }
    tokio::time::sleep(PROBATION).await;
    link.become_binary().unwrap_or_else(|error| warn!("the keeper does not take the new binary: {error}"));
    link.forget(Kept::Binary);
}

/// The records of this fleet, and what stands in them.
fn records(home: &Home, left: Option<OwnedFd>) -> io::Result<(Records, Recorded)> {
    let disk = home.records().inspect_err(|error| warn!("the records cannot be kept on the disk: {error}")).ok();
    if let Some(left) = left {
        let records = Records::inherit(left, disk)?;
        let recorded = records.read();
        return Ok((records, recorded));
    }
    let recorded = disk.as_ref().map(runtime::records::read).unwrap_or_default();
    Ok((Records::new(disk)?, recorded))
}

/// The socket that an earlier supervisor listened on: whoever connected since then is served. Else a new one.
fn listen(home: &Home, left: Option<OwnedFd>, link: &KeeperLink) -> io::Result<UnixListener> {
    let listener = match left {
        Some(left) => std::os::unix::net::UnixListener::from(left),
        None => home.listen()?,
    };
    listener.set_nonblocking(true)?;
    link.keep(Kept::Listener, OwnedFd::from(listener.try_clone()?))?;
    UnixListener::from_std(listener)
}

/// Set by tests to follow the way that machines without a writable cgroup v2 go.
const NO_CGROUPS: &str = "LANEWAY_TEST_NO_CGROUPS";

/// The process that `pidfd` means, if it lives.
fn pid_of(pidfd: &OwnedFd) -> Option<u32> {
    let shown = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = shown.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok()
}

fn read_launch(inheritance: &Inheritance) -> io::Result<Launch> {
    let left = inheritance.estate.get(&Kept::Launch);
    Launch::read(left.ok_or_else(|| io::Error::other("there is none"))?.try_clone()?)
}
