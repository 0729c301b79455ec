//! Brings new files to the disk, one after the other, while everything else goes on: a hundred first starts would else wait
//! for a hundred turns of the disk (5 ms each where a machine is busy).

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use super::threads::in_thread;

/// What is not on the disk yet; `None` when no thread is at work on it.
static WAITING: Mutex<Option<Vec<File>>> = Mutex::new(None);

/// Brings `file` to the disk soon: before a server that was just started has answered anybody, unless the disk is slower
/// than the server.
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
        while let Some(synced) = sync_one() {
            if let Err(error) = synced {
                warn!("a new secret cannot be brought to the disk: {error}");
            }
        }
    };
    in_thread("durable", work).or_else(|_| std::iter::from_fn(sync_one).collect())
}

/// The result of one; `None` if there was none.
fn sync_one() -> Option<io::Result<()>> {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(file) = waiting.as_mut().and_then(Vec::pop) else {
        *waiting = None;
        return None;
    };
    drop(waiting);
    Some(file.sync_all())
}
