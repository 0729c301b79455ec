//! What comes in: wishes of people, and facts about runs. A fact carries its run, so that a late one can be told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Exit, InstanceId, InstanceName, Run, Signal};
use crate::plan::Plan;

/// One input of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A person wishes something; answered by one `Action::Reply` after its effect.
    Request {
        /// Comes back in the reply.
        id: RequestId,
        /// The wish.
        request: Request,
    },
    /// The run's first process exists.
    Spawned {
        /// Which run.
        run: Run,
        /// Its first process.
        pid: u32,
    },
    /// The run's first process could not be made; nothing of it exists.
    NotSpawned {
        /// Which run.
        run: Run,
        /// What is in the way.
        obstacle: Obstacle,
    },
    /// An earlier supervisor ordered the run and died; its first process was never made.
    Unborn {
        /// Which run.
        run: Run,
    },
    /// The run's first process ended.
    Exited {
        /// Which run.
        run: Run,
        /// How.
        exit: Exit,
    },
    /// Everything else of the run was killed and looked for again.
    Swept {
        /// Which run.
        run: Run,
        /// Who is still there.
        left: Vec<Survivor>,
    },
    /// A health check of the run came to an end.
    Probed {
        /// Which run.
        run: Run,
        /// What it found.
        verdict: Verdict,
    },
    /// The point that `next_deadline` named has come.
    DeadlinePassed,
}

/// Names one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What a person may wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// These and what they depend on shall run.
    Start {
        /// Which.
        who: Vec<InstanceId>,
        /// When the wish counts as fulfilled.
        wait: Wait,
    },
    /// All shall run, except those that a person stopped and whose policy remembers it (`kept_stopped`).
    StartAll {
        /// When the wish counts as fulfilled.
        wait: Wait,
    },
    /// These shall end and begin anew.
    Restart {
        /// Which.
        who: Vec<InstanceId>,
        /// When the wish counts as fulfilled.
        wait: Wait,
    },
    /// These shall end.
    Stop {
        /// Which.
        who: Vec<InstanceId>,
    },
    /// The fleet shall be as another plan says: what is no more ends, what is new begins, and what changed begins anew if
    /// its process has to. Nothing else is touched.
    Apply {
        /// The plan, with everybody who stays at the same place.
        plan: Arc<Plan>,
        /// Who takes over what another one had: the heir, then the holder, who has to be gone first.
        heirs: Vec<(InstanceName, InstanceName)>,
        /// When the wish counts as fulfilled.
        wait: Wait,
    },
    /// Their first processes shall get a signal; what is wanted of them stays as it is.
    Signal {
        /// Which; none = whoever runs.
        who: Vec<InstanceId>,
        /// With what.
        signal: Signal,
    },
    /// All shall end, and laneway with them.
    Down {
        /// Without grace.
        now: bool,
    },
}

/// When a start counts as fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The servers exist.
    Started,
    /// They are healthy, or run where there is no check.
    Healthy {
        /// Say who is not, after this long.
        timeout: Duration,
    },
}

/// Why a process cannot be made. Looked at again each second, without making one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Obstacle {
    /// Somebody else listens on the instance's port.
    PortTaken {
        /// The port.
        port: u16,
        /// Who.
        owner: Owner,
    },
    /// The program is not there or cannot be run.
    Program {
        /// Which.
        path: PathBuf,
        /// The system's word.
        error: String,
    },
    /// The working directory is not there or cannot be entered.
    Directory {
        /// Which.
        path: PathBuf,
        /// The system's word.
        error: String,
    },
    /// The lane (its directories, its secret, its log) cannot be prepared.
    Lane {
        /// Which path.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The system has no process or descriptor to give.
    Resources {
        /// The system's word.
        error: String,
    },
}

/// Who holds a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its process, where it can be seen.
    pub pid: Option<u32>,
    /// Its command line, or what is known instead.
    pub command: String,
    /// The address that it listens on.
    pub address: String,
}

/// A process that would not go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its process.
    pub pid: u32,
    /// Its command line.
    pub command: String,
    /// Its state, as the kernel words it.
    pub state: String,
}

/// What a health check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// A good answer in time, by a process of this run, from the socket that it owns.
    Good {
        /// The HTTP status, where there is one.
        status: Option<u16>,
        /// From the first packet to the last.
        took: Duration,
    },
    /// No answer, or not a good one.
    Bad(Fault),
    /// Somebody else listens on the instance's port.
    Conflict {
        /// Who.
        owner: Owner,
    },
}

/// What was wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub enum Fault {
    /// Nobody listens.
    Refused,
    /// No whole answer in time.
    TimedOut {
        /// The deadline that passed.
        after: Duration,
    },
    /// A status that is not expected.
    Status {
        /// Which.
        status: u16,
        /// Where a redirect points.
        location: Option<String>,
    },
    /// The expected text is not in the body.
    Body,
    /// The connection broke, or the answer is no HTTP.
    Broken {
        /// The client's word.
        error: String,
    },
    /// The command ended badly.
    Command {
        /// How.
        exit: Exit,
        /// The last line that it printed.
        output: String,
    },
}
