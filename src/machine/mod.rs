//! The heart: what happens next, decided without a clock, a process or a file.
//!
//! `Fleet::step(event, now)` takes one fact or wish and returns orders; `Fleet::next_deadline()` says when to call again
//! if nothing happens until then. Time is an argument, deadlines are data, jitter comes from a seed. The driver in
//! `runtime` performs the orders; `view` reads the state. Nothing here may know either.

#![deny(clippy::wildcard_enum_match_arm)]

mod action;
mod backoff;
mod brake;
mod checks;
mod event;
mod fleet;
mod instance;
mod state;
#[cfg(test)]
mod tests;

pub use action::{Action, Answer, Trouble, Work};
pub use checks::{Checked, Checks};
pub use event::{Event, Fault, Obstacle, Owner, Request, RequestId, Survivor, Verdict, Wait};
pub use fleet::{Fleet, Memory, Standing};
pub use instance::Instance;
pub use state::{Cause, Failure, FailureKind, Sent, Stage, Starting, State, Stopping, Sweeping, Then, Waiting};
