//! A keeper alone: the test is the supervisor that it watches, declares logs and hands it pipes, kills it and starts the
//! next one with everything that the dead one left.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use laneway::keeper::journal::{self, LogHealth};
use laneway::keeper::protocol::{Kept, MAX_ORDER, Order, SPOOLS};
use laneway::keeper::spool;
use laneway::keeper::table::Table;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair};
use nix::unistd::pipe2;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::harness::{PATIENCE, wait_until};

/// The keeper, and what it would leave to the next.
pub struct Rig {
    folder: PathBuf,
    kept: Vec<(Kept, OwnedFd)>,
    link: OwnedFd,
    their_link: OwnedFd,
    orders: RefCell<Vec<(Vec<u8>, OwnedFd)>>,
    keeper: Child,
}

impl Rig {
    /// A keeper with its own directory, and no log yet.
    pub fn new() -> Self {
        let number = nix::unistd::gettid();
        let folder = std::env::temp_dir().join(format!("laneway-keeper-{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join(".run")).unwrap();
        let mut kept = vec![
            (Kept::RunDir, File::open(folder.join(".run")).unwrap().into()),
            (Kept::Journal, journal::create().unwrap()),
        ];
        kept.extend((0..SPOOLS).map(|number| (Kept::Spool(number), spool::create().unwrap())));
        let flags = SockFlag::SOCK_CLOEXEC;
        let (link, their_link) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let orders = RefCell::default();
        let keeper = start(&kept, &their_link, &[]);
        Self { folder, kept, link, their_link, orders, keeper }
    }

    /// Its directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.keeper.id()
    }

    /// Declares a log.
    pub fn log(&self, slot: u32, folder: &Path, name: &str, max_size: u64, max_files: u32) {
        let directory: OwnedFd = File::open(folder).unwrap().into();
        self.order(&Order::Log { slot, max_size, max_files, name }, Some(directory));
    }

    /// A pipe into the log of `slot`, as a server has it.
    pub fn pipe(&self, slot: u32) -> File {
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
        self.order(&Order::Run { slot, generation: 1 }, Some(read_end));
        File::options().read(true).write(true).open(format!("/proc/self/fd/{}", write_end.as_raw_fd())).unwrap()
    }

    /// Gives an order, and remembers it for the next keeper if it has a descriptor.
    pub fn order(&self, order: &Order<'_>, descriptor: Option<OwnedFd>) {
        let mut buffer = [0; MAX_ORDER];
        let length = order.encode(&mut buffer).unwrap();
        let raw: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &control };
        sendmsg::<()>(self.link.as_raw_fd(), &[IoSlice::new(&buffer[..length])], control, MsgFlags::empty(), None)
            .unwrap();
        if let Some(descriptor) = descriptor {
            self.orders.borrow_mut().push((buffer[..length].to_vec(), descriptor));
        }
    }

    /// Kills the keeper and starts the next one with what it left.
    pub fn kill(&mut self) {
        self.keeper.kill().unwrap();
        self.keeper.wait().unwrap();
        self.keeper = start(&self.kept, &self.their_link, &self.orders.borrow());
    }

    /// How the log of `slot` is.
    pub fn health(&self, slot: u32) -> LogHealth {
        journal::read(self.kept(Kept::Journal), slot).unwrap()
    }

    /// One byte of news, if there is some.
    pub fn news(&self) -> Option<u8> {
        let mut byte = [0];
        recv(self.link.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT).ok().filter(|length| *length == 1)?;
        Some(byte[0])
    }

    /// Something that both processes hold.
    pub fn kept(&self, what: Kept) -> BorrowedFd<'_> {
        self.kept.iter().find(|(kept, _)| *kept == what).unwrap().1.as_fd()
    }

    /// Waits until the log of `slot` is as it should be.
    #[track_caller]
    pub fn wait_for_health(&self, slot: u32, is_so: impl Fn(&LogHealth) -> bool) {
        let came = wait_until(PATIENCE, || is_so(&self.health(slot)));
        assert!(came, "{:?}\n{}", self.health(slot), self.own_log());
    }

    /// What the keeper says.
    pub fn own_log(&self) -> String {
        fs::read_to_string(self.folder.join(".run/laneway.log")).unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start(kept: &[(Kept, OwnedFd)], link: &OwnedFd, orders: &[(Vec<u8>, OwnedFd)]) -> Child {
    let this = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    let mut table = Table::new().unwrap();
    for (what, descriptor) in kept {
        table.add(&Order::Keep(*what), descriptor.as_fd()).unwrap();
    }
    table.add(&Order::Link, link.as_fd()).unwrap();
    table.add(&Order::Peer, this.as_fd()).unwrap();
    table.say(&Order::Ready).unwrap();
    for (order, descriptor) in orders {
        table.add(&Order::decode(order).unwrap(), descriptor.as_fd()).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.arg("keeper").arg(table.number().to_string()).stdin(Stdio::null());
    // SAFETY: only system calls.
    unsafe {
        command.pre_exec(move || Ok(table.let_through()?));
    }
    command.spawn().unwrap()
}

/// Everything that stands in a log, in the order of time.
pub fn content(folder: &Path, name: &str) -> Vec<u8> {
    let prefix = format!("{name}.log.");
    let names = crate::harness::names_in(folder);
    let mut rotated: Vec<u64> = names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect();
    rotated.sort_unstable();
    let files = rotated.iter().map(|seq| format!("{prefix}{seq}")).chain([format!("{name}.log")]);
    let mut all = Vec::new();
    for file in files {
        if let Ok(mut file) = File::open(folder.join(file)) {
            file.read_to_end(&mut all).unwrap();
        }
    }
    all
}

/// What numbered lines say of what was written: `line 0000042 ....`, and markers among them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Lines that are whole and come after the one before, with a marker between if there is a gap.
    pub count: u64,
    /// Bytes of lines that are not there, between the first and the last that are.
    pub missing: u64,
    /// Bytes that markers say were dropped.
    pub marked: u64,
    /// Lines that are none, or stand at the wrong place.
    pub wrong: Vec<String>,
    /// Number of the last line.
    pub last: u64,
}

/// Line number `number`, which has `length` bytes.
pub fn line(number: u64, length: usize) -> String {
    let mut line = format!("line {number:09} ");
    line.extend(std::iter::repeat_n('.', length.saturating_sub(line.len() + 1)));
    line.push('\n');
    line
}

/// Reads lines of `length` bytes that begin with number 0.
pub fn check(content: &[u8], length: usize) -> Lines {
    let mut lines = Lines::default();
    let (mut next, mut has_gap) = (0, false);
    for text in content.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(text);
        if let Some(dropped) = text.strip_prefix("[laneway: ").and_then(|rest| rest.split_once(' ')) {
            lines.marked += dropped.0.parse::<u64>().unwrap();
            has_gap = true;
            continue;
        }
        let number = text.get(5..14).and_then(|number| number.parse::<u64>().ok());
        match number {
            Some(number) if *text == line(number, length) && (number == next || number > next && has_gap) => {
                lines.missing += (number - next) * length as u64;
                lines.count += 1;
                lines.last = number;
                next = number + 1;
            }
            _ => lines.wrong.push(format!("after {}: {text:?}", lines.last)),
        }
        has_gap = false;
    }
    lines.wrong.truncate(5);
    lines
}
