//! What a reload is: who asks for it, what it needs of whoever put the supervisor together, and why it may be refused.
//!
//! The driver carries it out (`driver/reload.rs`); `daemon` implements `Origin`.

use std::fmt::Debug;
use std::io;

use tokio::sync::oneshot;

use crate::config::Problems;
use crate::machine::{RequestId, Wait};
use crate::model::{InstanceId, InstanceName};
use crate::plan::Plan;
use crate::view::snapshot::Applied;

/// Somebody wants the fleet to be as the file says now.
#[derive(Debug)]
pub struct Reload {
    /// The name of the wish, if it came with one.
    pub id: Option<RequestId>,
    /// When it counts as fulfilled.
    pub wait: Wait,
    /// Only say what it would change.
    pub dry_run: bool,
    /// Who waits for the answer; nobody after a SIGHUP.
    pub reply: Option<Asker>,
}

/// Who waits for the answer to a reload.
pub type Asker = oneshot::Sender<Result<Applied, Refused>>;

/// What the file comes to now.
#[derive(Debug)]
pub struct Resolved {
    /// The plan, not yet merged with the one that runs.
    pub plan: Plan,
    /// Who takes over what another one has: the heir, then the holder.
    pub heirs: Vec<(InstanceName, InstanceName)>,
}

/// Why everything stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The file is wrong.
    #[error("the file is not taken over, everything runs on as it was:\n{0}")]
    File(Problems),
    /// Something else is in the way.
    #[error("{what}")]
    Other {
        /// What.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// Where the plan came from, and where it is made known. May block, but for `keep`.
pub trait Origin: Debug + Send + Sync {
    /// Reads the file again. `holders` are the instances of `running` that may have what a new one takes over.
    ///
    /// # Errors
    /// When the file is wrong, or what it says cannot take the place of `running`.
    fn resolve(&self, running: &Plan, holders: &[InstanceId]) -> Result<Resolved, Refused>;

    /// Leaves the plan that runs to the next supervisor, with the one that is about to take its place.
    ///
    /// # Errors
    /// When memory is full, or the keeper does not take it.
    fn keep(&self, running: &Plan, next: Option<&Plan>) -> io::Result<()>;

    /// Makes the plan known to clients and to other fleets. What fails is logged: the servers run, and that counts.
    fn publish(&self, plan: &Plan);
}
