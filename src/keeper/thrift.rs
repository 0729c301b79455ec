//! What the start alone has used goes back to the system: both processes run for years, and start in milliseconds.
//! Knows nothing of what either of them does. Keeper and supervisor call it when they are ready.

use std::fs;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Lets go of memory that the allocator holds free, and of pages of the program that were needed once. The kernel still
/// has those, and brings them back where they are needed again (measured: 1.2 MiB of 1.9 are not).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain call.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    for (start, length) in text() {
        if let (Some(start), Some(length)) = (NonNull::new(start as *mut _), NonZeroUsize::new(length)) {
            // SAFETY: a private mapping of a file that nobody has written to: the same bytes come back.
            let _ = unsafe { madvise(start, length.get(), MmapAdvise::MADV_DONTNEED) };
        }
    }
}

/// One heap for all threads, before there is a second one: the few that there are wait for the disk, not for memory.
pub fn share_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain call.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Where the program's own code is mapped, and how many bytes of it.
fn text() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let own = maps.lines().next().and_then(|line| line.split_once('/')).map(|(_, path)| path.to_owned());
    let lines = maps
        .lines()
        .filter(|line| line.contains(" r-xp ") && line.split_once('/').map(|(_, path)| path) == own.as_deref());
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        Some((start, end.checked_sub(start)?))
    };
    lines.filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_on_without_the_pages_that_it_gave_back() {
        let here = give_back as *const () as usize;
        assert!(text().iter().any(|(start, length)| (*start..start + length).contains(&here)), "{:?}", text());
        give_back();
    }
}
