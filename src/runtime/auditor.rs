//! The supervisor's way to its audit: a thread of its own writes, so that a disk that hangs keeps nobody from acting. Who
//! wishes something waits a moment for its line; then it is done without.

use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use super::audit::{Act, AuditLog, Begun, Ending};
use super::threads::in_thread;

/// How long a wish waits for its line.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many lines may wait for a disk.
const WAITING: usize = 1024;

enum Line {
    Begin(Act, Ticket, oneshot::Sender<()>),
    End(Ticket, Ending, oneshot::Sender<()>),
}

/// Hands lines to the thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auditor {
    lines: SyncSender<Line>,
}

/// A wish whose end is still to be written down.
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<OnceLock<Begun>>);

impl Auditor {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has none to give.
    pub fn start(state_dir: &Path) -> std::io::Result<Self> {
        let (lines, queue) = mpsc::sync_channel(WAITING);
        let log = AuditLog::of(state_dir);
        in_thread("audit", move || {
            for line in queue {
                let (written, done) = match line {
                    Line::Begin(act, ticket, done) => (log.begin(&act).map(|begun| drop(ticket.0.set(begun))), done),
                    Line::End(ticket, ending, done) => {
                        (ticket.0.get().map_or(Ok(()), |begun| begun.end(&ending)), done)
                    }
                };
                if let Err(error) = written {
                    warn!("{} lacks a line: {error}", log.path().display());
                }
                let _ = done.send(());
            }
        })?;
        Ok(Self { lines })
    }

    /// Writes down what is wished.
    pub async fn begin(&self, act: Act) -> Ticket {
        let ticket = Ticket::default();
        self.write(|done| Line::Begin(act, ticket.clone(), done)).await;
        ticket
    }

    /// Writes down how it ended.
    pub async fn end(&self, ticket: Ticket, ending: Ending) {
        self.write(|done| Line::End(ticket, ending, done)).await;
    }

    /// Writes down both, and waits for neither.
    pub fn note(&self, act: Act, ending: Ending) {
        let ticket = Ticket::default();
        for line in [
            Line::Begin(act, ticket.clone(), oneshot::channel().0),
            Line::End(ticket.clone(), ending, oneshot::channel().0),
        ] {
            self.hand_over(line);
        }
    }

    async fn write(&self, line: impl FnOnce(oneshot::Sender<()>) -> Line) {
        let (done, written) = oneshot::channel();
        self.hand_over(line(done));
        if timeout(PATIENCE, written).await.is_err() {
            warn!("the audit is not written for {} s; what is wished goes on", PATIENCE.as_secs());
        }
    }

    fn hand_over(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            warn!("the audit lacks a line: {WAITING} wait for the disk already");
        }
    }
}
