//! Memory that outlives the process: a memfd, mapped. It knows nothing of what stands in it.

use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::libc::c_void;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

/// A memfd and where it is mapped.
#[derive(Debug)]
pub(super) struct Memory {
    file: OwnedFd,
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: it is plain memory; whoever reads and writes it says how (see `words` and `bytes`).
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// A memfd of `length` bytes, all zero and none of them used yet; `name` is what people see of it in `/proc`.
///
/// # Errors
/// When there is no memory or no descriptor.
pub fn create(name: &CStr, length: usize) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MFdFlags::MFD_CLOEXEC)?;
    ftruncate(&file, i64::try_from(length).unwrap_or(i64::MAX))?;
    Ok(file)
}

/// Unmaps the program's own pages: those that are still needed come back from the page cache, 64 KiB at a time, and
/// those that only a start needs are the kernel's again. Code is mapped as it stands in its file, so nothing is lost.
pub fn unmap_program() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.contains('/')) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let address = |text| usize::from_str_radix(text, 16).ok();
        let Some((start, end)) = range.and_then(|(start, end)| Some((address(start)?, address(end)?))) else {
            continue;
        };
        if let Some(start) = NonNull::new(std::ptr::without_provenance_mut::<c_void>(start)) {
            // SAFETY: nobody writes to code; the next instruction there is read from the file again.
            let _ = unsafe { madvise(start, end.saturating_sub(start.as_ptr().addr()), MmapAdvise::MADV_DONTNEED) };
        }
    }
}

impl Memory {
    /// Maps the first `length` bytes of `file`.
    pub fn map(file: OwnedFd, length: usize) -> io::Result<Self> {
        let size = NonZeroUsize::new(length).ok_or_else(|| io::Error::other("nothing to map"))?;
        // Memory beyond the end of a file is a SIGBUS.
        if usize::try_from(fstat(&file)?.st_size).is_ok_and(|there| there < length) {
            return Err(io::Error::other("too short to be ours"));
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, &file, 0) }?;
        Ok(Self { file, start, length })
    }

    /// All of it, as numbers that are read and written whole.
    pub fn words(&self) -> &[AtomicU64] {
        let count = self.length.checked_div(size_of::<u64>()).unwrap_or(0);
        // SAFETY: mapped, as long as `self` lives, at the beginning of a page.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), count) }
    }

    /// The bytes from `from` to `to`, or none if they are not all inside.
    ///
    /// # Safety
    /// Nobody may change them while they are borrowed.
    pub unsafe fn bytes(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: mapped, as long as `self` lives; unchanged meanwhile, by the word of the caller.
        let all = unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.length) };
        all.get(from..to).unwrap_or_default()
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and borrowed by nobody any more.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
