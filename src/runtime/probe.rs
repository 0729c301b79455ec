//! One health check: the question, one total deadline, and whose socket answered.
//!
//! A verdict is bound to the listener. After the answer every socket that listens on the instance's port is looked at:
//! it must belong to this run, else somebody else may have answered, and the verdict is a conflict.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Mutex, MutexGuard, Notify, Semaphore};
use tokio::time::{sleep, timeout};

use super::clock::Clock;
use super::http::{Asker, Question, printable};
use super::look;
use super::processes;
use super::sockets;
use super::spawn::{Job, Spawner};
use super::tree::Tree;
use crate::machine::{Fault, Obstacle, Owner, Verdict};
use crate::plan::spec::{HealthCheck, HealthTest, Spec};

/// Checks under way at one time, over the whole fleet.
const IN_FLIGHT: usize = 64;
/// After this it is asked again, where there was nothing to ask with.
const AGAIN: Duration = Duration::from_millis(500);

/// Whose health is checked, and how.
#[derive(Clone, Copy, Debug)]
pub struct Patient<'a> {
    /// The instance.
    pub spec: &'a Spec,
    /// Its check.
    pub check: &'a HealthCheck,
    /// The run's processes.
    pub tree: &'a Tree,
    /// The run's socket, once it was seen.
    pub known: &'a KnownListener,
    /// The run's command check, while there is one.
    pub under_way: &'a CheckUnderWay,
}

/// How much of a command's output is kept, in bytes.
const TAIL: usize = 4096;

/// What all checks share.
#[derive(Clone, Debug)]
pub struct Prober {
    asker: Asker,
    places: Arc<Semaphore>,
    clock: Clock,
}

/// Ends a command check with its run: the sweep of the run waits until nothing is left of the check.
#[derive(Debug, Default)]
pub struct CheckUnderWay {
    over: Notify,
    place: Mutex<()>,
}

impl CheckUnderWay {
    /// The run has ended. Resolves when its check has, and lets no other begin as long as what it returns is held.
    pub async fn end(&self) -> MutexGuard<'_, ()> {
        self.over.notify_one();
        self.place.lock().await
    }
}

/// The socket of a run that was seen listening: looking again is one `readlink` instead of a search.
#[derive(Debug, Default)]
pub struct KnownListener(std::sync::Mutex<Option<(u32, u32, u32)>>);

impl Prober {
    /// A prober with all places free.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(clock: Clock) -> io::Result<Self> {
        Ok(Self { asker: Asker::new()?, places: Arc::new(Semaphore::new(IN_FLIGHT)), clock })
    }

    /// Checks the health of a run. `command` makes the job of a command check, given its output.
    pub async fn check(
        &self,
        patient: &Patient<'_>,
        spawner: &Spawner,
        command: impl FnOnce(OwnedFd) -> Result<Job, Obstacle> + Clone + Send + 'static,
    ) -> Verdict {
        let Ok(_place) = self.places.acquire().await else {
            return broken("the checks are closed");
        };
        loop {
            let verdict = self.check_once(patient, spawner, command.clone()).await;
            // Without a descriptor to spare, nothing was asked or nobody's socket was seen: no word about the server. The
            // last verdict stands meanwhile, and its age is seen.
            if processes::can_look() {
                return verdict;
            }
            sleep(AGAIN).await;
        }
    }

    async fn check_once(
        &self,
        Patient { spec, check, tree, known, under_way }: &Patient<'_>,
        spawner: &Spawner,
        command: impl FnOnce(OwnedFd) -> Result<Job, Obstacle> + Send + 'static,
    ) -> Verdict {
        let began = self.clock.now();
        let answer = match &check.test {
            HealthTest::Http { .. } => timeout(check.timeout, self.ask(spec, check)).await,
            HealthTest::Tcp => timeout(check.timeout, connect(spec)).await,
            HealthTest::Command(_) => Ok(run(spawner, command, check.timeout, under_way).await),
        };
        let status = match answer {
            Ok(Ok(status)) => status,
            Ok(Err(fault)) => return foreign(spec, tree, known).unwrap_or(Verdict::Bad(fault)),
            Err(_) => {
                let fault = Fault::TimedOut { after: check.timeout };
                return foreign(spec, tree, known).unwrap_or(Verdict::Bad(fault));
            }
        };
        let took = self.clock.now().since(began);
        let answered_by_port = !matches!(check.test, HealthTest::Command(_));
        match listeners(spec, tree, known) {
            Listeners::Foreign(owner) => Verdict::Conflict { owner },
            Listeners::None if answered_by_port => Verdict::Bad(Fault::Refused),
            Listeners::Own | Listeners::None => Verdict::Good { status, took },
        }
    }

    /// The question of an HTTP check alone: the status of a good answer. The caller sets the deadline, and looks whose
    /// socket it was.
    ///
    /// # Errors
    /// What is wrong with the answer, in words that are fit for a terminal.
    pub async fn ask(&self, spec: &Spec, check: &HealthCheck) -> Result<Option<u16>, Fault> {
        let HealthTest::Http { scheme, path, expect_status, headers, body } = &check.test else { return Ok(None) };
        let question = Question {
            address: SocketAddr::new(spec.facts.reachable_host(), spec.facts.port.unwrap_or_default()),
            scheme,
            path,
            headers,
            expect_status: *expect_status,
            body: body.as_deref(),
        };
        self.asker.ask(&question).await.map(Some)
    }
}

async fn connect(spec: &Spec) -> Result<Option<u16>, Fault> {
    let address = (spec.facts.reachable_host(), spec.facts.port.unwrap_or_default());
    match TcpStream::connect(address).await {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Fault::Refused),
        Err(error) => Err(Fault::Broken { error: look::words(&error) }),
    }
}

/// Runs a command in the lane; its whole tree is gone afterwards, whatever it did.
async fn run(
    spawner: &Spawner,
    command: impl FnOnce(OwnedFd) -> Result<Job, Obstacle> + Send + 'static,
    deadline: Duration,
    under_way: &CheckUnderWay,
) -> Result<Option<u16>, Fault> {
    let Ok(_place) = under_way.place.try_lock() else {
        return Err(Fault::Broken { error: "its run has ended".to_owned() });
    };
    let broken = |error: io::Error| Fault::Broken { error: look::words(&error) };
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).map_err(|error| broken(error.into()))?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| broken(error.into()))?;
    let printed = tokio::spawn(last_line(Receiver::from_owned_fd(read_end).map_err(broken)?));
    let tree = match spawner.spawn(move || command(write_end)).await {
        Ok(tree) => Arc::new(tree),
        Err(obstacle) => return Err(Fault::Broken { error: in_words(&obstacle) }),
    };
    let exit = tokio::select! {
        exit = timeout(deadline, tree.exit()) => exit.ok(),
        () = under_way.over.notified() => None,
    };
    if exit.is_none() {
        tree.kill();
        tree.exit().await;
    }
    tree.sweep(spawner).await;
    match exit {
        Some(exit) if exit.is_success() => Ok(None),
        // Its tree is gone, so the pipe is at its end; unless somebody hid from the sweep.
        Some(exit) => {
            let output = timeout(Duration::from_secs(1), printed).await;
            Err(Fault::Command { exit, output: output.ok().and_then(Result::ok).unwrap_or_default() })
        }
        None => Err(Fault::TimedOut { after: deadline }),
    }
}

/// Reads to the end, so that no check waits for a reader, and keeps the last line.
async fn last_line(mut pipe: Receiver) -> String {
    let mut tail = Vec::new();
    let mut block = vec![0; TAIL];
    while let Ok(length @ 1..) = pipe.read(&mut block).await {
        tail.extend_from_slice(block.get(..length).unwrap_or_default());
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    let text = String::from_utf8_lossy(&tail).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).map(printable).unwrap_or_default()
}

fn in_words(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Program { path, error } => format!("the check's program `{}`: {error}", path.display()),
        Obstacle::Directory { path, error } | Obstacle::Lane { path, error } => {
            format!("`{}`: {error}", path.display())
        }
        Obstacle::Resources { error } => error.clone(),
        Obstacle::PortTaken { port, .. } => format!("port {port} is taken"),
    }
}

fn broken(error: &str) -> Verdict {
    Verdict::Bad(Fault::Broken { error: error.to_owned() })
}

/// Whose the sockets on the instance's port are.
enum Listeners {
    Own,
    None,
    Foreign(Owner),
}

fn foreign(spec: &Spec, tree: &Tree, known: &KnownListener) -> Option<Verdict> {
    match listeners(spec, tree, known) {
        Listeners::Foreign(owner) => Some(Verdict::Conflict { owner }),
        Listeners::Own | Listeners::None => None,
    }
}

fn listeners(spec: &Spec, tree: &Tree, known: &KnownListener) -> Listeners {
    let Some(port) = spec.facts.port else { return Listeners::Own };
    let mut own = false;
    for listener in sockets::listeners(port).unwrap_or_default() {
        if !listener.meets(spec.facts.host) {
            continue;
        }
        if known.is(listener.inode) || known.find(listener.inode, tree) {
            own = true;
        } else {
            return Listeners::Foreign(look::owner(&listener));
        }
    }
    if own { Listeners::Own } else { Listeners::None }
}

impl KnownListener {
    fn is(&self, inode: u32) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.is_some_and(|(pid, descriptor, of)| of == inode && processes::holds_socket(pid, descriptor, inode))
    }

    fn find(&self, inode: u32, tree: &Tree) -> bool {
        let holder =
            tree.members().into_iter().find_map(|pid| Some((pid, processes::socket_descriptor(pid, inode)?, inode)));
        if holder.is_some() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = holder;
        }
        holder.is_some()
    }
}
