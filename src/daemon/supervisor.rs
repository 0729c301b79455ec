//! The supervisor's main: everything is put together here, and taken apart in the end.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::getppid;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::UnixListener;
use tracing::{info, warn};

use super::launch::{Launch, READY};
use crate::control;
use crate::keeper::protocol::{Kept, Order};
use crate::keeper::table::inherit;
use crate::plan::{self, Plan};
use crate::runtime::cgroup::Cgroups;
use crate::runtime::clock::{Clock, wall_clock};
use crate::runtime::driver::{Driver, Tools};
use crate::runtime::home::Home;
use crate::runtime::link::KeeperLink;
use crate::runtime::probe::Prober;
use crate::runtime::processes;
use crate::runtime::registry::Registry;
use crate::runtime::spawn::{Original, Spawner};
use crate::runtime::tree;

/// Ended as planned.
const DONE: i32 = 0;
/// Failed in a way that a new supervisor may mend.
const FAILED: i32 = 1;
/// Cannot do its work: the keeper does not start a new one.
const REFUSED: i32 = 2;
/// Descriptors that laneway needs for each instance and for itself, in the keeper, which needs more of them: directory,
/// file and index of two logs, a FIFO, a pipe, and a second pipe while one run follows another.
const DESCRIPTORS: (u64, u64) = (9, 128);

/// Runs as the supervisor, with the table that the keeper leaves. Returns the exit code.
#[must_use]
pub fn run(table: RawFd) -> i32 {
    // Standard error is a pipe to the keeper. When that is dead, a complaint about it would be a panic.
    let log = tracing_subscriber::fmt().with_writer(io::stderr).log_internal_errors(false);
    log.with_ansi(false).with_target(false).init();
    let mut left = Left::default();
    if let Err(error) = left.take(table) {
        warn!("the supervisor cannot start: {error}");
        return REFUSED;
    }
    // A second supervisor of the same keeper finds none: its client was answered long ago.
    let mut ready = left.kept(Kept::Ready).map(File::from);
    let is_first = ready.is_some();
    let link = left.link.take();
    let end = link.as_ref().and_then(|link| link.try_clone().ok()).map(KeeperLink::new);
    let code = match set_up(is_first, link, &mut left) {
        Ok(supervisor) => supervisor.serve(ready),
        Err(error) => {
            warn!("the supervisor cannot start: {error}");
            if let Some(ready) = &mut ready {
                let _ = writeln!(ready, "{error}");
            }
            REFUSED
        }
    };
    if let (DONE | REFUSED, Some(end)) = (code, end) {
        let _ = end.bye(u8::try_from(code).unwrap_or(1));
    }
    code
}

/// What the keeper left.
#[derive(Default)]
struct Left {
    kept: Vec<(Kept, OwnedFd)>,
    link: Option<OwnedFd>,
}

impl Left {
    fn take(&mut self, table: RawFd) -> io::Result<()> {
        inherit(table, |order, descriptor| match (order, descriptor) {
            (Order::Keep(what), Some(descriptor)) => self.kept.push((what, descriptor)),
            (Order::Link, Some(descriptor)) => self.link = Some(descriptor),
            _ => {}
        })
    }

    fn kept(&mut self, what: Kept) -> Option<OwnedFd> {
        let at = self.kept.iter().position(|(kept, _)| *kept == what)?;
        Some(self.kept.swap_remove(at).1)
    }
}

struct Supervisor {
    plan: Arc<Plan>,
    home: Home,
    fleet: String,
    link: OwnedFd,
    original: Original,
}

fn set_up(is_first: bool, link: Option<OwnedFd>, left: &mut Left) -> Result<Supervisor, String> {
    // What laneway makes is for its user alone; servers get their own mask back.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // Started through /proc/self/exe, it would be called `exe`.
    let _ = nix::sys::prctl::set_name(c"laneway");
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
    let link = link.ok_or("the keeper left no link")?;
    let launch = read_launch(left).map_err(|error| format!("the launch cannot be read: {error}"))?;
    let resolved = plan::resolve(&launch.source()).map_err(|problems| problems.to_string());
    // A file that was broken meanwhile never disturbs what runs.
    let plan = match remembered(left).filter(|_| !is_first) {
        Some(plan) => plan,
        None => resolved?,
    };
    let home = Home::of(&plan.state_dir);
    let fleet = home.fleet_id().map_err(|error| format!("{}: {error}", home.directory().display()))?;
    if let Some(registry) = Registry::of_user() {
        if let Some(pid) = registry.occupant(&plan).filter(|_| is_first) {
            let state_dir = plan.state_dir.display();
            return Err(format!(
                "{state_dir} is in use by a supervisor (pid {pid}) that cannot be reached: its .run was deleted\n  \
                 hint: kill -TERM {pid} ends it with its servers; then laneway up"
            ));
        }
        let collisions = registry.collisions(&plan);
        if !collisions.is_empty() {
            return Err(collisions.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        }
    }
    let (needed, limit) = descriptors(&plan);
    if needed > limit {
        return Err(format!(
            "{} instances need about {needed} open files, the limit is {limit}\n  hint: ulimit -n {needed}",
            plan.specs.len()
        ));
    }
    let original = Original { descriptors: launch.descriptors, umask: launch.umask };
    Ok(Supervisor { plan: Arc::new(plan), home, fleet, link, original })
}

fn descriptors(plan: &Plan) -> (u64, u64) {
    let needed = (plan.specs.len() as u64).saturating_mul(DESCRIPTORS.0).saturating_add(DESCRIPTORS.1);
    (needed, getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard))
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
        let Self { plan, home, fleet, link, original } = self;
        let say = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        let cgroups =
            if std::env::var_os(NO_CGROUPS).is_some() { None } else { Cgroups::find(&format!("laneway-{fleet}")) };
        clear_leftovers(&fleet, cgroups.as_ref());
        if ready.is_some() {
            // A person asks anew; what a dead pair wanted is no wish any more.
            home.clear();
        }
        let clock = Clock::start();
        let tools = Tools {
            spawner: Spawner::start(fleet, cgroups.clone(), original).map_err(|e| say("no thread", &e))?,
            keeper: KeeperLink::new(link),
            prober: Prober::new(clock).map_err(|e| say("the HTTP client", &e))?,
        };
        let keeper_pid = getppid();
        let is_ready = tools.keeper.ready();
        let seed = u64::from(std::process::id()) ^ u64::from(wall_clock().subsec_nanos()) << 32;
        let number = u32::try_from(keeper_pid.as_raw()).unwrap_or(0);
        let (driver, handle) = Driver::new(Arc::clone(&plan), clock, home.clone(), tools, number, seed);
        let listener = home.listen().map_err(|e| say("the control socket", &e))?;
        listener.set_nonblocking(true).map_err(|e| say("the control socket", &e))?;
        let listener = UnixListener::from_std(listener).map_err(|e| say("the control socket", &e))?;
        home.write_plan(&plan).map_err(|e| say("plan.json", &e))?;
        let registry = Registry::of_user();
        if let Some(Err(error)) = registry.as_ref().map(|registry| registry.enter(&plan)) {
            warn!("this fleet cannot be registered, others will not be checked against it: {error}");
        }
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let door = tokio::spawn(control::serve(listener, handle, Arc::clone(&plan), async {
            let _ = end.await;
        }));
        info!("supervisor of {} with {} instances, keeper {keeper_pid}", plan.project, plan.specs.len());
        is_ready.map_err(|e| say("the keeper", &e))?;
        if let Some(mut ready) = ready.take() {
            let _ = ready.write_all(READY.as_bytes());
        }
        let run = driver.run(death_of(keeper_pid)).await;
        // Whoever waits for an answer gets it before the socket goes.
        drop(ended);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), door).await;
        for survivor in tree::kill_children() {
            warn!("ended pid {} ({}), which hid from its instance's stop", survivor.pid, survivor.command);
        }
        home.clear();
        if let Some(registry) = registry {
            registry.leave(&plan);
        }
        if let Some(cgroups) = cgroups {
            cgroups.remove();
        }
        info!("everything is down");
        run.map_err(|e| say("signals", &e))
    }
}

/// Set by tests to follow the way that machines without a writable cgroup v2 go.
const NO_CGROUPS: &str = "LANEWAY_TEST_NO_CGROUPS";

/// Ends what a dead pair left behind: nothing runs twice.
fn clear_leftovers(fleet: &str, cgroups: Option<&Cgroups>) {
    let left = cgroups.map_or(0, Cgroups::clear);
    if left > 0 {
        warn!("ended the processes of {left} runs that an earlier supervisor left");
    }
    for survivor in tree::kill_leftovers(fleet) {
        warn!("ended pid {} ({}), which an earlier supervisor left", survivor.pid, survivor.command);
    }
}

/// Resolves when the process ends.
async fn death_of(pid: nix::unistd::Pid) {
    let Some(pid) = Pid::from_raw(pid.as_raw()) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if processes::ended(pidfd).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The plan that the supervisor before this one ran, in the directory whose descriptor the keeper left.
fn remembered(left: &Left) -> Option<Plan> {
    let (_, run_dir) = left.kept.iter().find(|(kept, _)| *kept == Kept::RunDir)?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", run_dir.as_raw_fd())).ok()?;
    Home::of(path.parent()?).running_plan()
}

fn read_launch(left: &mut Left) -> io::Result<Launch> {
    let mut file = File::from(left.kept(Kept::Launch).ok_or_else(|| io::Error::other("the keeper left none"))?);
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}
