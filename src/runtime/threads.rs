//! Threads for what may block: a disk that hangs keeps such a thread, and nobody else.

use std::io;
use std::thread;

/// Does `work` in a thread of its own.
///
/// # Errors
/// When the system has none to give; then nothing was done.
pub fn in_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}
