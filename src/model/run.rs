//! One run of one instance. Generations only grow, so that a fact about an older run can be told from one about this run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Position of an instance in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub u32);

impl InstanceId {
    /// As an index into a list with one entry per instance.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One process tree started for an instance: the server, or one `pre_start` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Whose run it is.
    pub instance: InstanceId,
    /// Counts the runs of this instance, from 1.
    pub generation: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instance.0, self.generation)
    }
}
