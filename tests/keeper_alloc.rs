//! Once it is set up, the keeper allocates nothing: it runs in this process, beside an allocator that counts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use laneway::keeper::journal;
use laneway::keeper::protocol::{Kept, Order, SPOOLS};
use laneway::keeper::spool;
use laneway::keeper::table::Table;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use rustix::process::{PidfdFlags, pidfd_open};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: by the word of the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by the word of the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Adds what stays open until the process ends, as it would over an exec.
fn leave(table: &mut Table, order: &Order<'_>, descriptor: OwnedFd) {
    table.add(order, descriptor.as_fd()).unwrap();
    let _ = descriptor.into_raw_fd();
}

#[test]
fn a_flood_over_many_rotations_allocates_nothing() {
    let folder = std::env::temp_dir().join(format!("laneway-allocations-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let journal = journal::create().unwrap();
    let (_link, their_link) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let mut table = Table::new().unwrap();
    leave(&mut table, &Order::Keep(Kept::RunDir), File::open(&folder).unwrap().into());
    leave(&mut table, &Order::Keep(Kept::Journal), journal.try_clone().unwrap());
    for number in 0..SPOOLS {
        leave(&mut table, &Order::Keep(Kept::Spool(number)), spool::create().unwrap());
    }
    leave(&mut table, &Order::Link, their_link);
    let this = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    leave(&mut table, &Order::Peer, this);
    let log = Order::Log { slot: 0, max_size: 100_000, max_files: 5, name: "a" };
    leave(&mut table, &log, File::open(&folder).unwrap().into());
    leave(&mut table, &Order::Run { slot: 0, generation: 1 }, read_end);
    let number = table.number();
    std::mem::forget(table);
    std::thread::spawn(move || laneway::keeper::run(number));

    let mut pipe = File::from(write_end);
    let line = [b'x'; 119];
    let rotations = || journal::read(journal.as_fd(), 0).unwrap().newest_rotated;
    let mut write_until = |rotated: u64| {
        for _ in 0..1_000_000 {
            if rotations() >= rotated {
                return;
            }
            pipe.write_all(&line).unwrap();
            pipe.write_all(b"\n").unwrap();
        }
    };
    // Whatever is made once is made by then.
    write_until(8);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    write_until(60);
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(rotations() >= 60, "{} rotations", rotations());
    assert_eq!(after - before, 0, "allocations");
    std::fs::remove_dir_all(&folder).unwrap();
}
