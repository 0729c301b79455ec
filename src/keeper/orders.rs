//! Orders: from the table that this process was started with, over the link from the supervisor, and written down for
//! the one that follows.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::epoll::Epoll;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, recvmsg};

use super::clock::since_boot;
use super::journal::{OWN, log_of_slot};
use super::log::LogFile;
use super::memory;
use super::protocol::{Kept, MAX_ORDER, Order, news};
use super::run::{Keeper, watch};
use super::streams::Kind;
use super::supervisor::{self, Supervisor, become_program, pidfd_of_self};
use super::table::{Table, inherit};
use super::writer::Shared;

impl Keeper {
    /// One that has what is in the table at this descriptor.
    pub fn inherit(table: RawFd, epoll: &Epoll) -> io::Result<Self> {
        let mut keeper = Self::default();
        let (mut link, mut peer) = (None, None);
        inherit(table, |order, descriptor| match (order, descriptor) {
            (Order::Link, Some(descriptor)) => link = Some(descriptor),
            (Order::Peer, Some(descriptor)) => peer = Some(descriptor),
            (Order::Keep(what), Some(descriptor)) => keeper.keep(what, descriptor),
            (order, descriptor) => {
                // What is not understood is of another version, and can be done without.
                let _ = keeper.obey(epoll, order, descriptor);
            }
        })?;
        if let (Some(link), Some(pidfd)) = (link, peer) {
            let is_ready = keeper.was_ready;
            keeper.supervisor = Some(Supervisor { pidfd, link, born: since_boot(), is_ready, bye: None });
        }
        Ok(keeper)
    }

    fn keep(&mut self, what: Kept, descriptor: OwnedFd) {
        if let Some(place) = self.kept.get_mut(usize::from(what.number())) {
            *place = Some(descriptor);
        }
    }

    /// What is kept of this kind.
    pub fn kept(&self, what: Kept) -> Option<BorrowedFd<'_>> {
        Some(self.kept.get(usize::from(what.number()))?.as_ref()?.as_fd())
    }

    /// Opens what only the keeper writes, as an earlier keeper left it; a fresh one if there is none that can be used.
    pub fn own<T>(
        &mut self,
        what: Kept,
        create: impl Fn() -> io::Result<OwnedFd>,
        open: impl Fn(OwnedFd) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(left) = self.kept(what).map(|left| left.try_clone_to_owned()).transpose()?
            && let Ok(opened) = open(left)
        {
            return Ok(opened);
        }
        let fresh = create()?;
        self.keep(what, fresh.try_clone()?);
        open(fresh)
    }

    /// Does what an order says; `Err` if it needs something that did not come with it.
    fn obey(&mut self, epoll: &Epoll, order: Order<'_>, descriptor: Option<OwnedFd>) -> Result<(), &'static str> {
        let given = descriptor.ok_or("its descriptor is missing");
        match order {
            Order::Log { slot, max_size, max_files, name } => {
                let log = log_of_slot(slot).ok_or("there is no such slot")?;
                let file = LogFile::new(given?, name, max_size, max_files).ok_or("that is no name of a log")?;
                self.logs.declare(log, file);
            }
            Order::Run { slot, generation } => {
                let log = log_of_slot(slot).ok_or("there is no such slot")?;
                self.streams.add(epoll, given?, log, Kind::Run(generation));
            }
            Order::Fifo { slot } => {
                let log = log_of_slot(slot).ok_or("there is no such slot")?;
                self.streams.add(epoll, given?, log, Kind::Fifo);
            }
            Order::Output => self.streams.add(epoll, given?, OWN, Kind::Output),
            Order::Ready => self.supervisor_is_ready(),
            Order::Keep(Kept::Journal | Kept::Spool(_)) => return Err("the keeper has its own"),
            Order::Keep(what) => self.keep(what, given?),
            Order::Reap { pid } => supervisor::reap(pid),
            Order::Bye { code } => {
                if let Some(supervisor) = &mut self.supervisor {
                    supervisor.bye = Some(code);
                }
            }
            Order::Become => self.shall_become = true,
            // In a table only.
            Order::Link | Order::Peer | Order::Distrust => {}
        }
        Ok(())
    }

    /// From now on it is a supervisor that another one succeeds; and one that hears signals.
    fn supervisor_is_ready(&mut self) {
        self.was_ready = true;
        // What only a start needs.
        memory::unmap_program();
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.is_ready = true;
            // Children of a dead supervisor may have ended before anybody could be told.
            supervisor.tell(news::CHILD);
            if self.shall_end {
                supervisor.signal(Signal::SIGTERM);
            }
        }
    }

    /// Starts a supervisor, and leaves it everything that it may need.
    pub fn start_supervisor(&mut self, epoll: &Epoll) -> io::Result<()> {
        let mut table = self.table_of_kept()?;
        for stream in self.streams.all() {
            let slot = stream.log.checked_sub(1);
            if let (Kind::Run(generation), Some(slot)) = (stream.kind, slot) {
                table.add(&Order::Run { slot, generation }, stream.as_fd())?;
            }
        }
        let this = pidfd_of_self()?;
        table.add(&Order::Peer, this.as_fd())?;
        if self.deaths.are_distrusted() {
            table.say(&Order::Distrust)?;
        }
        let (supervisor, output) = Supervisor::start(table)?;
        // Only the first one answers to whoever started all this.
        if let Some(ready) = self.kept.get_mut(usize::from(Kept::Ready.number())) {
            *ready = None;
        }
        self.start_at = None;
        watch(epoll, &supervisor)?;
        self.streams.add(epoll, output, OWN, Kind::Output);
        self.supervisor = Some(supervisor);
        Ok(())
    }

    /// What every process that follows is left; the binary that this one is to become is for nobody else.
    fn table_of_kept(&self) -> io::Result<Table> {
        let mut table = Table::new()?;
        let is_left = |kept: &Kept| *kept != Kept::Binary;
        for (what, kept) in Kept::all().filter(is_left).filter_map(|what| Some((what, self.kept(what)?))) {
            table.add(&Order::Keep(what), kept)?;
        }
        Ok(table)
    }

    /// Becomes the program `Kept::Binary`. Returns why not.
    pub fn become_program(&mut self) -> io::Error {
        // A thread that hangs would let the exec hang.
        if self.logs.is_any_hanging() {
            return io::Error::other("a log's file system hangs");
        }
        let Some(supervisor) = &self.supervisor else { return io::Error::other("there is no supervisor") };
        let Some(binary) = self.kept(Kept::Binary) else { return io::Error::other("there is no program") };
        match self.table_of_all(supervisor) {
            Ok(table) => become_program(binary, &table),
            Err(error) => error,
        }
    }

    /// Everything, for a keeper that goes on where this one is.
    fn table_of_all(&self, supervisor: &Supervisor) -> io::Result<Table> {
        let mut table = self.table_of_kept()?;
        for (log, file) in self.logs.declared() {
            if let Some(slot) = log.checked_sub(1) {
                let (max_size, max_files) = file.limits();
                table.add(&Order::Log { slot, max_size, max_files, name: file.name() }, file.directory())?;
            }
        }
        for stream in self.streams.all() {
            let order = match (stream.kind, stream.log.checked_sub(1)) {
                (Kind::Output, _) | (_, None) => Order::Output,
                (Kind::Run(generation), Some(slot)) => Order::Run { slot, generation },
                (Kind::Fifo, Some(slot)) => Order::Fifo { slot },
            };
            table.add(&order, stream.as_fd())?;
        }
        table.add(&Order::Link, supervisor.link.as_fd())?;
        table.add(&Order::Peer, supervisor.pidfd.as_fd())?;
        if supervisor.is_ready {
            table.say(&Order::Ready)?;
        }
        Ok(table)
    }
}

impl Shared {
    /// Hands signals on.
    pub fn take_signals(&self, keeper: &mut Keeper) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            match (Signal::try_from(number), &keeper.supervisor) {
                (Ok(signal @ (Signal::SIGTERM | Signal::SIGINT)), supervisor) => {
                    // One that is not ready may not hear it yet.
                    keeper.shall_end |= keeper.was_ready && !supervisor.as_ref().is_some_and(|it| it.is_ready);
                    match supervisor {
                        Some(supervisor) => supervisor.signal(signal),
                        None => keeper.start_at = Some(since_boot()),
                    }
                }
                (Ok(Signal::SIGHUP), Some(supervisor)) if supervisor.is_ready => supervisor.signal(Signal::SIGHUP),
                (Ok(Signal::SIGCHLD), Some(supervisor)) => supervisor.tell(news::CHILD),
                (Ok(_) | Err(_), _) => {}
            }
        }
    }

    /// Takes what the supervisor has ordered.
    pub fn take_orders(&self, keeper: &mut Keeper) {
        loop {
            let Some(supervisor) = &keeper.supervisor else { return };
            let mut datagram = [0; MAX_ORDER];
            let mut space = nix::cmsg_space!([RawFd; 1]);
            let mut parts = [IoSliceMut::new(&mut datagram)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let link = supervisor.link.as_raw_fd();
            let (length, descriptor) = match recvmsg::<()>(link, &mut parts, Some(&mut space), flags) {
                Ok(message) => (message.bytes, passed_descriptor(&message)),
                Err(_) => return,
            };
            if length == 0 {
                // The supervisor is dying; its pidfd says when it is dead.
                let _ = self.epoll.delete(supervisor.link.as_fd());
                return;
            }
            if let Some(order) = datagram.get(..length).and_then(Order::decode)
                && let Err(why) = keeper.obey(&self.epoll, order, descriptor)
            {
                self.say(keeper, format_args!("cannot do {order:?}: {why}"));
            }
        }
    }
}

fn passed_descriptor(message: &RecvMsg<'_, '_, ()>) -> Option<OwnedFd> {
    let mut passed = None;
    for control in message.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            for descriptor in descriptors {
                // SAFETY: the kernel has just made it for us; whatever is not kept is closed by the next assignment.
                passed = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
    passed
}
