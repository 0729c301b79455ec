//! The supervisor's end of the link to the keeper: tells it which logs there are, hands it the pipes, and starts a new
//! keeper when it dies.
//!
//! Whatever the keeper was told is remembered here, with a duplicate of every pipe that still has bytes or a writer: so
//! a successor can be given everything before it exists.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::stat::{Mode, fstat, stat};
use nix::sys::time::TimeVal;
use nix::unistd::{pipe2, setsid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::lane::open_fifo;
use super::processes::pidfd_of;
use super::spawn::{MARKER, Spawner};
use crate::keeper::protocol::{Kept, MAX_ORDER, Order};
use crate::keeper::table::Table;
use crate::model::{InstanceId, Run};
use crate::plan::spec::Spec;

/// How long a keeper may leave an order unread before whoever gives it goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// What this process was left with, and leaves to whoever comes after it.
pub type Estate = BTreeMap<Kept, OwnedFd>;

/// The link.
#[derive(Debug)]
pub struct KeeperLink {
    pid: AtomicU32,
    told: Mutex<Told>,
}

/// Everything that the keeper was told.
#[derive(Debug)]
struct Told {
    socket: OwnedFd,
    estate: Estate,
    logs: BTreeMap<u32, (Declared, Opened)>,
    pipes: Vec<Pipe>,
}

/// A log of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Declared {
    path: PathBuf,
    max_size: u64,
    max_files: u32,
    fifo: Option<PathBuf>,
}

/// A run's output.
#[derive(Debug)]
struct Pipe {
    run: Run,
    read_end: OwnedFd,
    inode: u64,
    /// Its run is over: once nobody can write any more and nothing is left, it goes.
    is_over: bool,
}

impl Pipe {
    fn new(run: Run, read_end: OwnedFd) -> io::Result<Self> {
        let inode = fstat(&read_end)?.st_ino;
        Ok(Self { run, read_end, inode, is_over: false })
    }
}

/// The two logs of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// Standard output and error.
    Output,
    /// What it writes into the FIFO.
    Access,
}

impl Log {
    pub(super) const ALL: [Self; 2] = [Self::Output, Self::Access];
}

impl KeeperLink {
    /// Over the `socket` that the keeper `pid` left open, with what else it left and the pipes that it reads.
    ///
    /// # Errors
    /// The system's.
    pub fn new(socket: OwnedFd, pid: u32, estate: Estate, pipes: Vec<(Run, OwnedFd)>) -> io::Result<Self> {
        patient(&socket)?;
        let pipes = pipes.into_iter().map(|(run, read_end)| Pipe::new(run, read_end)).collect::<io::Result<_>>()?;
        let told = Told { socket, estate, logs: BTreeMap::new(), pipes };
        Ok(Self { pid: AtomicU32::new(pid), told: Mutex::new(told) })
    }

    /// The keeper.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Acquire)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the keeper of the instance's logs, and hands it the FIFO of the access log, unless it knows them as they
    /// stand there: somebody may have removed the lane meanwhile, and it was made again.
    ///
    /// # Errors
    /// When a log's directory or FIFO cannot be opened.
    pub fn declare(&self, id: InstanceId, spec: &Spec) -> io::Result<()> {
        let mut told = self.told();
        for log in Log::ALL {
            let (max_size, max_files) = (spec.logging.max_size, spec.logging.max_files);
            let fifo = match log {
                Log::Output => None,
                Log::Access => Some(spec.facts.access_log.clone()),
            };
            let declared = Declared { path: path_of(spec, log), max_size, max_files, fifo };
            let slot = slot(id, log);
            if told.logs.get(&slot).is_some_and(|(known, opened)| *known == declared && opened.stands_at(&declared)) {
                continue;
            }
            let opened = declared.open()?;
            for (order, descriptor) in declared.orders(slot, &opened) {
                told.send(&order, Some(descriptor))?;
            }
            told.logs.insert(slot, (declared, opened));
        }
        Ok(())
    }

    /// A fresh pipe for one run: the keeper has its end, what is returned is for the run. It is open for reading too,
    /// so that a server never gets an EPIPE, whoever reads or does not. The lane must be prepared.
    ///
    /// # Errors
    /// When there is no pipe to be had, or a log's directory or FIFO cannot be opened.
    pub fn pipe(&self, run: Run, spec: &Spec) -> io::Result<OwnedFd> {
        self.declare(run.instance, spec)?;
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        let path = format!("/proc/self/fd/{}", write_end.as_raw_fd());
        let for_run = File::options().read(true).write(true).open(path)?;
        self.read(run, read_end)?;
        Ok(for_run.into())
    }

    /// The keeper reads this pipe of `run` into its log.
    ///
    /// # Errors
    /// When the keeper does not take it.
    pub fn read(&self, run: Run, read_end: OwnedFd) -> io::Result<()> {
        let mut told = self.told();
        told.tidy();
        told.pipes.push(Pipe::new(run, read_end)?);
        let Some(pipe) = told.pipes.last() else { return Ok(()) };
        told.send(&run_order(run), Some(pipe.read_end.as_fd()))
    }

    /// Nothing of this run is left; its pipe goes once the keeper has read it.
    pub fn is_over(&self, run: Run) {
        let mut told = self.told();
        for pipe in told.pipes.iter_mut().filter(|pipe| pipe.run == run) {
            pipe.is_over = true;
        }
        told.tidy();
    }

    /// The inode of the pipe of `run`.
    #[must_use]
    pub fn output_of(&self, run: Run) -> Option<u64> {
        self.told().pipes.iter().rev().find(|pipe| pipe.run == run).map(|pipe| pipe.inode)
    }

    /// Whether nothing of this instance's output is on its way any more.
    #[must_use]
    pub fn is_drained(&self, id: InstanceId) -> bool {
        let mut told = self.told();
        told.tidy();
        told.pipes.iter().all(|pipe| pipe.run.instance != id)
    }

    /// Whether some process can still write into the output of `run`; `None` if no pipe was made for it.
    #[must_use]
    pub fn has_writer(&self, run: Run) -> Option<bool> {
        let told = self.told();
        let pipe = told.pipes.iter().rev().find(|pipe| pipe.run == run)?;
        Some(!ready_events(&pipe.read_end).contains(PollFlags::POLLHUP))
    }

    /// Says that this supervisor answers from now on.
    ///
    /// # Errors
    /// When the keeper does not take it.
    pub fn ready(&self) -> io::Result<()> {
        self.told().send(&Order::Ready, None)
    }

    /// Leaves a descriptor to whoever comes after this process.
    ///
    /// # Errors
    /// When the keeper does not take it.
    pub fn keep(&self, what: Kept, descriptor: OwnedFd) -> io::Result<()> {
        let mut told = self.told();
        let sent = told.send(&Order::Keep(what), Some(descriptor.as_fd()));
        told.estate.insert(what, descriptor);
        sent
    }

    /// One of the descriptors that both hold.
    #[must_use]
    pub fn kept(&self, what: Kept) -> Option<OwnedFd> {
        self.told().estate.get(&what)?.try_clone().ok()
    }

    /// Leaves it to nobody any more.
    pub fn forget(&self, what: Kept) {
        self.told().estate.remove(&what);
    }

    /// The exit of this child of the keeper was taken note of.
    pub fn reap(&self, pid: u32) {
        // Lost with a keeper that dies, whose children are reaped by others.
        let _ = self.told().send(&Order::Reap { pid }, None);
    }

    /// Says that this supervisor ends as planned, and the keeper with it.
    pub fn bye(&self, code: u8) {
        let _ = self.told().send(&Order::Bye { code }, None);
    }

    /// The keeper becomes the program that was kept as `Kept::Binary`.
    ///
    /// # Errors
    /// When the keeper does not take it.
    pub fn become_binary(&self) -> io::Result<()> {
        self.told().send(&Order::Become, None)
    }

    /// The socket on which the keeper's news come.
    ///
    /// # Errors
    /// The system's.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.told().socket.try_clone()
    }

    /// Starts a new keeper in place of a dead one, with everything that the dead one had. It is a child of this
    /// process. Returns a handle to it.
    ///
    /// # Errors
    /// The system's.
    pub fn succeed(&self, spawner: &Spawner) -> io::Result<OwnedFd> {
        let mut told = self.told();
        told.tidy();
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        patient(&ours)?;
        fcntl(&theirs, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // What we say ourselves came out of the dead one's end of the pipe; here is another one.
        let output = File::open("/proc/self/fd/2")?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let me = pidfd_of(std::process::id())?;
        let mut table = Table::new()?;
        told.leave(&mut table, &theirs, &me)?;
        table.add(&Order::Output, output.as_fd())?;
        for (slot, (declared, opened)) in &told.logs {
            for (order, descriptor) in declared.orders(*slot, opened) {
                table.add(&order, descriptor)?;
            }
        }
        table.say(&Order::Ready)?;
        let dead = self.pid();
        let pid = start_keeper(table, |command| spawner.spawn_own(command))?;
        spawner.forget(dead);
        told.socket = ours;
        self.pid.store(pid, Ordering::Release);
        pidfd_of(pid)
    }

    /// Writes down everything for the program that this process is about to become.
    ///
    /// # Errors
    /// The system's.
    pub fn leave(&self, keeper: &OwnedFd) -> io::Result<Table> {
        let mut told = self.told();
        told.tidy();
        let mut table = Table::new()?;
        let Told { socket, .. } = &*told;
        told.leave(&mut table, socket, keeper)?;
        Ok(table)
    }
}

impl Told {
    /// What every successor gets: the estate, the pipes, the link, and a handle to the other one.
    fn leave(&self, table: &mut Table, link: &OwnedFd, peer: &OwnedFd) -> io::Result<()> {
        for (what, descriptor) in &self.estate {
            table.add(&Order::Keep(*what), descriptor.as_fd())?;
        }
        table.add(&Order::Link, link.as_fd())?;
        table.add(&Order::Peer, peer.as_fd())?;
        for pipe in &self.pipes {
            table.add(&run_order(pipe.run), pipe.read_end.as_fd())?;
        }
        Ok(())
    }

    /// Lets pipes go that nobody can write into and that hold nothing any more.
    fn tidy(&mut self) {
        self.pipes.retain(|pipe| !pipe.is_over || ready_events(&pipe.read_end) != PollFlags::POLLHUP);
    }

    /// An order to a keeper that is dead is none: its successor is told everything anyway.
    fn send(&self, order: &Order<'_>, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut buffer = [0; MAX_ORDER];
        let length = order.encode(&mut buffer).ok_or_else(|| io::Error::other("the log's name is too long"))?;
        let parts = [IoSlice::new(buffer.get(..length).unwrap_or_default())];
        let descriptors = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
        let control: Vec<_> = descriptors.iter().map(|one| ControlMessage::ScmRights(one)).collect();
        match sendmsg::<()>(self.socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) | Err(nix::Error::EPIPE | nix::Error::ECONNRESET | nix::Error::ENOTCONN) => Ok(()),
            Err(nix::Error::EAGAIN) => Err(io::Error::other("the keeper takes no orders; is it stopped?")),
            Err(error) => Err(error.into()),
        }
    }
}

/// The descriptors of a log: its directory, its FIFO. Both are held here too: what stands in a FIFO is lost with the last
/// descriptor of it, and whoever writes into one that nobody reads gets an EPIPE.
#[derive(Debug)]
struct Opened {
    directory: OwnedFd,
    fifo: Option<OwnedFd>,
}

impl Opened {
    /// Whether the paths of `declared` still mean what is open.
    fn stands_at(&self, declared: &Declared) -> bool {
        let is_it = |path: &Path, open: &OwnedFd| match (stat(path), fstat(open)) {
            (Ok(there), Ok(here)) => (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino),
            _ => false,
        };
        is_it(declared.folder(), &self.directory)
            && declared.fifo.as_deref().zip(self.fifo.as_ref()).is_none_or(|(path, fifo)| is_it(path, fifo))
    }
}

impl Declared {
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn open(&self) -> io::Result<Opened> {
        let directory = open(self.folder(), OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let fifo = self.fifo.as_deref().map(open_fifo).transpose()?.map(OwnedFd::from);
        Ok(Opened { directory, fifo })
    }

    fn orders<'a>(&'a self, slot: u32, opened: &'a Opened) -> Vec<(Order<'a>, BorrowedFd<'a>)> {
        let name = self.path.file_stem().and_then(|name| name.to_str()).unwrap_or("log");
        let log = Order::Log { slot, max_size: self.max_size, max_files: self.max_files, name };
        let fifo = opened.fifo.as_ref().map(|fifo| (Order::Fifo { slot }, fifo.as_fd()));
        std::iter::once((log, opened.directory.as_fd())).chain(fifo).collect()
    }
}

/// What the keeper says, one by one.
#[derive(Debug)]
pub struct News {
    socket: AsyncFd<OwnedFd>,
}

impl News {
    /// Of the keeper at the other end of `socket`.
    ///
    /// # Errors
    /// When it cannot be waited on.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an owned descriptor stays open, and the same, as long as the registration owns it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// The next one.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn next(&mut self) -> io::Result<u8> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                let mut news = [0];
                match recv(socket.as_raw_fd(), &mut news, MsgFlags::MSG_DONTWAIT)? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(news[0]),
                }
            });
            if let Ok(received) = received {
                return received;
            }
        }
    }
}

/// Starts a keeper that finds `table`; returns its number. It is left alone by terminals, and by what this process was
/// started with: a lock in a script, a pipe that never ends.
///
/// # Errors
/// The system's.
pub fn start_keeper(table: Table, spawn: impl FnOnce(&mut Command) -> io::Result<Child>) -> io::Result<u32> {
    close_all_on_exec()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("laneway").arg("keeper").arg(table.number().to_string()).current_dir("/");
    command.env_remove(MARKER).env_remove("LANEWAY_INSTANCE");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: only async-signal-safe calls on what was made before.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            Ok(table.let_through()?)
        });
    }
    Ok(spawn(&mut command)?.id())
}

/// (To mark them all by one `close_range` takes Linux 5.11.)
fn close_all_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let number: Option<RawFd> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            // SAFETY: used for one system call, which may fail if it was that of the directory, closed by now.
            let _ = fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
    }
    Ok(())
}

/// Orders wait for a keeper that is busy, not for one that is stopped.
fn patient(socket: &OwnedFd) -> io::Result<()> {
    fcntl(socket, FcntlArg::F_SETFL(OFlag::empty()))?;
    let patience = TimeVal::new(i64::try_from(PATIENCE.as_secs()).unwrap_or(1), 0);
    Ok(setsockopt(socket, sockopt::SendTimeout, &patience)?)
}

fn ready_events(pipe: &OwnedFd) -> PollFlags {
    let mut looked_at = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut looked_at, PollTimeout::ZERO);
    looked_at[0].revents().unwrap_or(PollFlags::empty())
}

fn run_order(run: Run) -> Order<'static> {
    Order::Run { slot: slot(run.instance, Log::Output), generation: run.generation }
}

/// The run whose output the keeper reads for `slot`.
#[must_use]
pub fn run_of(slot: u32, generation: u64) -> Run {
    Run { instance: InstanceId(slot / 2), generation }
}

/// Names a log to the keeper.
pub(super) fn slot(id: InstanceId, log: Log) -> u32 {
    id.0.saturating_mul(2).saturating_add(match log {
        Log::Output => 0,
        Log::Access => 1,
    })
}

/// Where a log is.
pub(super) fn path_of(spec: &Spec, log: Log) -> PathBuf {
    match log {
        Log::Output => spec.log_file(),
        // Beside the FIFO, whose own name is taken.
        Log::Access => spec.facts.log_dir.join(format!("{}.access.log", spec.name)),
    }
}
