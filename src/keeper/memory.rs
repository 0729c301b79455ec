//! Memory that outlives the process: a memfd, mapped. It knows nothing of what stands in it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
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
/// those that only a start needs are the kernel's again. Only where every page is as it stands in the file: constants
/// that hold addresses were filled in when the program was loaded.
pub fn unmap_program() {
    let Ok(file) = File::open("/proc/self/smaps") else { return };
    let mut mapping = None;
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        mapping = Mapping::read(&line).or(mapping);
        if let Some(Mapping { start, length, is_fixed: true }) = mapping
            && line.starts_with("Anonymous:")
            && line.ends_with(" 0 kB")
        {
            // SAFETY: nobody writes there, and what is needed next is read from the file again.
            let _ = unsafe { madvise(start, length, MmapAdvise::MADV_DONTNEED) };
        }
    }
}

/// A part of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    start: NonNull<c_void>,
    length: usize,
    /// Of a file, and nobody writes to it.
    is_fixed: bool,
}

impl Mapping {
    /// From its first line in `/proc/self/smaps`; `None` for any other line.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).ok());
        let (start, end, rights) = (start?, end?, words.next()?);
        let is_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
        Some(Self {
            start: NonNull::new(std::ptr::without_provenance_mut(start))?,
            length: end.checked_sub(start)?,
            is_fixed: is_file && rights.starts_with("r-") && rights.ends_with('p'),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_nobody_writes_are_unmapped() {
        let table = [
            ("r-xp 0017b000 fe:00 131 /srv/a b/laneway", Some(true)),
            ("r--p 00000000 fe:00 131 /usr/lib/libc.so.6", Some(true)),
            ("rw-p 00000000 fe:00 131 /usr/lib/libc.so.6", Some(false)),
            ("r--s 00000000 fe:00 131 /tmp/shared", Some(false)),
            ("r-xp 00000000 00:00 0 [vdso]", Some(false)),
            ("r--p 00000000 00:00 0 ", Some(false)),
        ];
        for (rest, expected) in table {
            let mapping = Mapping::read(&format!("55d0a1000000-55d0a1002000 {rest}"));
            assert_eq!(mapping.map(|mapping| mapping.is_fixed), expected, "{rest}");
            let place = mapping.map(|mapping| (mapping.start.as_ptr().addr(), mapping.length));
            assert_eq!(place, Some((0x55d0_a100_0000, 0x2000)));
        }
        assert!(
            ["Anonymous:             0 kB", "VmFlags: rd ex mr mw me"].map(Mapping::read).iter().all(Option::is_none)
        );
        // The test goes on in the same code.
        unmap_program();
    }
}
