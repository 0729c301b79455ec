//! The words of laneway: names, durations on one clock, signals, exits, phases.
//!
//! Knows nothing but std and serde; every other room speaks with these types.

mod exit;
mod name;
mod phase;
mod run;
mod signal;
mod size;
mod time;

pub use exit::Exit;
pub use name::{InstanceName, NameError};
pub use phase::{Goal, Health, Phase};
pub use run::{InstanceId, Run};
pub use signal::{Signal, UnknownSignal};
pub use size::in_bytes;
pub use time::{Mono, in_utc, in_words};
