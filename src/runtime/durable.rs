//! Brings new files to the disk together, while everything else goes on. A hundred first starts would else wait for a
//! hundred turns of the disk; and one turn after the other beside them would hold up whatever they make there.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::thread::park_timeout;
use std::time::Duration;

use nix::libc::{SYNC_FILE_RANGE_WRITE, sync_file_range};
use tracing::warn;

use super::threads::in_thread;

/// How long files are waited for that go together. A server takes longer to its first answer.
const GATHER: Duration = Duration::from_millis(200);

/// What is not on the disk yet; `None` when no thread is at work on it.
static WAITING: Mutex<Option<Vec<File>>> = Mutex::new(None);

/// Brings `file` to the disk soon.
///
/// # Errors
/// The disk's, where the system has no thread to give and this one waits.
pub fn soon(file: File) -> io::Result<()> {
    {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = &mut *waiting {
            waiting.push(file);
            return Ok(());
        }
        *waiting = Some(vec![file]);
    }
    let work = || {
        loop {
            park_timeout(GATHER);
            match sync_all() {
                Some(Ok(())) => {}
                Some(Err(error)) => warn!("a new secret cannot be brought to the disk: {error}"),
                None => return,
            }
        }
    };
    in_thread("durable", work).or_else(|_| std::iter::from_fn(sync_all).collect())
}

/// The result of all that wait; `None` if none does.
fn sync_all() -> Option<io::Result<()>> {
    let files = {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        let files = waiting.take().filter(|files| !files.is_empty())?;
        *waiting = Some(Vec::new());
        files
    };
    for file in &files {
        // All get their places first; then the first turn of the disk takes all of them, and the others are none.
        // SAFETY: a plain system call.
        unsafe { sync_file_range(file.as_raw_fd(), 0, 0, SYNC_FILE_RANGE_WRITE) };
    }
    Some(files.iter().try_for_each(File::sync_all))
}
