//! What goes out: orders to the driver. Each is carried out once, and what comes of it returns as an event of its run.

use serde::{Deserialize, Serialize};

use super::event::RequestId;
use crate::model::{InstanceId, Run, Signal};

/// One order of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look for obstacles; if there is none, make the process. Comes back as `Spawned` or `NotSpawned`.
    Spawn {
        /// The new run.
        run: Run,
        /// What shall run.
        work: Work,
    },
    /// An earlier supervisor ordered this run and died: find out whether it was born. Comes back as `Spawned` or `Unborn`.
    Recall {
        /// Which run.
        run: Run,
    },
    /// Ask the run's process group to end.
    Signal {
        /// Which run.
        run: Run,
        /// With what.
        signal: Signal,
    },
    /// A person wants the run's first process, and nobody else, to get this signal. Never given a second time: a successor
    /// cannot know whether it was carried out, and many signals mean something else when they come twice.
    Deliver {
        /// The wish.
        id: RequestId,
        /// Which run.
        run: Run,
        /// With what.
        signal: Signal,
    },
    /// Kill everything of the run. Its first process comes back as `Exited`.
    Kill {
        /// Which run.
        run: Run,
    },
    /// The first process is gone: kill what else there is of the run, and look. Comes back as `Swept`.
    Sweep {
        /// Which run.
        run: Run,
    },
    /// Check the run's health. Comes back as `Probed`.
    Probe {
        /// Which run.
        run: Run,
    },
    /// An instance's phase or health changed: tell whoever watches.
    Changed {
        /// Which.
        instance: InstanceId,
    },
    /// A request had its effect, or cannot have it.
    Reply {
        /// Which request.
        id: RequestId,
        /// What came of it.
        answer: Answer,
    },
    /// Nothing runs any more, and nothing shall: end.
    Exit,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// The `pre_start` command at this position.
    PreStart(usize),
    /// The server.
    Server,
}

/// What came of a request: who is not as wished. Empty = done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whom it failed for.
    pub troubles: Vec<(InstanceId, Trouble)>,
}

/// Why a wish is not fulfilled for an instance. The instance's state has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Its state says why it does not run.
    NotUp,
    /// It has no process that could get a signal.
    NoProcess,
    /// It waits for another instance that does not run.
    Dependency {
        /// Which.
        on: InstanceId,
    },
    /// The time was up.
    TimedOut,
    /// Some of its processes would not go.
    Survivors,
    /// It was taken out of the file.
    Retired,
    /// Laneway is ending.
    Ending,
    /// Somebody else wished the contrary meanwhile.
    Overruled,
}
