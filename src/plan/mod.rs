//! Settings to specs: facts, environment, order, collisions, difference.
//!
//! Pure but for two looks at the disk: what paths really name (`paths`), and the `env_file`s (`build`, through `config`).
//! `resolve` is the way in; `machine` decides over the [`spec::Plan`] that it gives.

mod build;
mod claims;
mod diff;
mod enforce;
mod environment;
mod facts;
mod lane;
mod merge;
mod order;
mod origins;
mod paths;
pub mod placeholder;
mod select;
pub mod spec;

#[cfg(test)]
mod tests;

pub use build::{build, prove, resolve};
pub use claims::{Claim, Collision, Foreign, Kind, claims, collisions, foreign_collisions, heirs};
pub use diff::{Callers, Change, diff, is_same, needs_restart};
pub use enforce::writable;
pub use environment::key_of;
pub use merge::merge;
pub use order::start_order;
pub use origins::{Explained, Origin, explain};
pub use select::{Unknown, glob, select};
pub use spec::Plan;
