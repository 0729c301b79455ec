//! The supervisor's end of the link to the keeper: tells it which logs there are and hands it the pipes.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

use super::lane::open_fifo;
use crate::keeper::protocol::{MAX_ORDER, Order};
use crate::model::InstanceId;
use crate::plan::spec::Spec;

/// The link.
#[derive(Debug)]
pub struct KeeperLink {
    socket: OwnedFd,
}

/// The two logs of an instance.
#[derive(Clone, Copy)]
enum Log {
    Output,
    Access,
}

impl KeeperLink {
    /// Over the socket that the keeper left open.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Tells the keeper of the instance's logs, and hands it the FIFO of the access log.
    fn declare(&self, id: InstanceId, spec: &Spec) -> io::Result<()> {
        for log in [Log::Output, Log::Access] {
            let path = path_of(spec, log);
            let folder = path.parent().unwrap_or(Path::new("/"));
            let directory = open(folder, OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("log");
            let (max_size, max_files) = (spec.logging.max_size, spec.logging.max_files);
            self.send(&Order::Log { slot: slot(id, log), max_size, max_files, name }, directory.as_fd())?;
        }
        let fifo = open_fifo(&spec.facts.access_log)?;
        self.send(&Order::Fifo { slot: slot(id, Log::Access) }, fifo.as_fd())
    }

    /// A fresh pipe for one run: the keeper has its end, what is returned is for the run. It is open for reading too,
    /// so that a server never gets an EPIPE, whoever reads or does not. The lane must be prepared.
    ///
    /// # Errors
    /// When there is no pipe to be had, a log's directory or FIFO cannot be opened, or the keeper is gone.
    pub fn pipe(&self, id: InstanceId, spec: &Spec) -> io::Result<OwnedFd> {
        // Each time anew: somebody may have removed the lane meanwhile, and it was made again.
        self.declare(id, spec)?;
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        self.send(&Order::Run { slot: slot(id, Log::Output), generation: 0 }, read_end.as_fd())?;
        let path = format!("/proc/self/fd/{}", write_end.as_raw_fd());
        Ok(File::options().read(true).write(true).open(path)?.into())
    }

    /// Says that this supervisor answers from now on.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn ready(&self) -> io::Result<()> {
        self.send(&Order::Ready, self.socket.as_fd())
    }

    /// Says that this supervisor is about to end as planned, and with which code.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn bye(&self, code: u8) -> io::Result<()> {
        self.send(&Order::Bye { code }, self.socket.as_fd())
    }

    fn send(&self, order: &Order<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let mut buffer = [0; MAX_ORDER];
        let length = order.encode(&mut buffer).ok_or_else(|| io::Error::other("the log's name is too long"))?;
        let parts = [IoSlice::new(buffer.get(..length).unwrap_or_default())];
        let descriptors = [descriptor.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }
}

fn slot(id: InstanceId, log: Log) -> u32 {
    id.0.saturating_mul(2).saturating_add(match log {
        Log::Output => 0,
        Log::Access => 1,
    })
}

fn path_of(spec: &Spec, log: Log) -> PathBuf {
    match log {
        Log::Output => spec.log_file(),
        // Beside the FIFO, whose own name is taken.
        Log::Access => spec.facts.log_dir.join(format!("{}.access.log", spec.name)),
    }
}
