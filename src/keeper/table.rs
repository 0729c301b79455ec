//! What one process of the pair leaves to the next: its open descriptors, and a table that says what each of them is.
//!
//! The table is a memfd of orders, each with the number of the descriptor that belongs to it. Whoever starts the next
//! process writes it before; so the successor is complete before it exists, and its maker may die at once.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::memory;
use super::protocol::{MAX_ORDER, Order};

/// The first bytes of a table, with the version of its format.
const MAGIC: &[u8; 8] = b"laneway1";
/// Bytes before each order: descriptor and length.
const HEAD: usize = 5;

/// A table that is being written.
#[derive(Debug)]
pub struct Table {
    file: File,
    passed: Vec<RawFd>,
}

impl Table {
    /// An empty one.
    ///
    /// # Errors
    /// When the system has no descriptor to give.
    pub fn new() -> io::Result<Self> {
        let file = File::from(memory::create(c"laneway-table", 0)?);
        let mut table = Self { passed: vec![file.as_raw_fd()], file };
        table.file.write_all(MAGIC)?;
        Ok(table)
    }

    /// Adds an order with its descriptor, which must stay open until the next process runs.
    ///
    /// # Errors
    /// When memory is full.
    pub fn add(&mut self, order: &Order<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.write(order, descriptor.as_raw_fd())?;
        self.passed.push(descriptor.as_raw_fd());
        Ok(())
    }

    /// Adds an order that needs no descriptor.
    ///
    /// # Errors
    /// When memory is full.
    pub fn say(&mut self, order: &Order<'_>) -> io::Result<()> {
        self.write(order, -1)
    }

    fn write(&mut self, order: &Order<'_>, descriptor: RawFd) -> io::Result<()> {
        let mut buffer = [0; MAX_ORDER];
        let length = order.encode(&mut buffer).ok_or_else(|| io::Error::other("an order does not fit"))?;
        self.file.write_all(&descriptor.to_le_bytes())?;
        self.file.write_all(&[u8::try_from(length).unwrap_or(0)])?;
        self.file.write_all(buffer.get(..length).unwrap_or_default())
    }

    /// The number under which the next process finds it: its first argument.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Lets everything in it through the next exec of this process: to be called in the child, or before an exec in
    /// place. Only system calls.
    ///
    /// # Errors
    /// When a descriptor was closed meanwhile.
    pub fn let_through(&self) -> nix::Result<()> {
        self.mark(FdFlag::empty())
    }

    /// Takes `let_through` back, after an exec that failed.
    ///
    /// # Errors
    /// When a descriptor was closed meanwhile.
    pub fn hold_back(&self) -> nix::Result<()> {
        self.mark(FdFlag::FD_CLOEXEC)
    }

    fn mark(&self, flags: FdFlag) -> nix::Result<()> {
        for number in &self.passed {
            // SAFETY: used for one system call, which fails if nothing is open there.
            fcntl(unsafe { BorrowedFd::borrow_raw(*number) }, FcntlArg::F_SETFD(flags))?;
        }
        Ok(())
    }
}

/// Reads the table that this process was started with, and takes over what is in it. Unknown orders (of another
/// version) are left out and their descriptors closed.
///
/// # Errors
/// When there is no table at `number`.
pub fn inherit(number: RawFd, mut take: impl FnMut(Order<'_>, Option<OwnedFd>)) -> io::Result<()> {
    if !is_there(number) {
        return Err(io::Error::other("no table was left at this descriptor"));
    }
    // SAFETY: whoever starts this process leaves it open, and it is taken once.
    let mut file = File::from(unsafe { own(number) });
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    let Some(entries) = entries(&text) else { return Err(io::Error::other("this is no table")) };
    for (descriptor, order) in entries {
        // SAFETY: the table says that it was left open for this process, and names each once.
        let descriptor = is_there(descriptor).then(|| unsafe { own(descriptor) });
        if let Some(order) = Order::decode(order) {
            take(order, descriptor);
        }
    }
    Ok(())
}

/// What stands in the text of a table: numbers of descriptors (-1: none), and encoded orders. `None` if it is no table.
#[must_use]
pub fn entries(text: &[u8]) -> Option<impl Iterator<Item = (RawFd, &[u8])>> {
    let mut rest = text.strip_prefix(MAGIC)?;
    Some(std::iter::from_fn(move || {
        let (head, tail) = rest.split_first_chunk::<HEAD>()?;
        let [a, b, c, d, length] = *head;
        let (order, tail) = tail.split_at_checked(usize::from(length))?;
        rest = tail;
        Some((RawFd::from_le_bytes([a, b, c, d]), order))
    }))
}

/// Whether `number` is the table of this process.
#[must_use]
pub fn is_there(number: RawFd) -> bool {
    // SAFETY: used for one system call, which may fail if nothing is open there.
    number >= 0 && fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD).is_ok()
}

/// Owns a descriptor that was left open, and keeps it from every process that is made from now on.
unsafe fn own(number: RawFd) -> OwnedFd {
    // SAFETY: by the word of the caller.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    let _ = fcntl(owned.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    owned
}
