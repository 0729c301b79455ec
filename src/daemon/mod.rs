//! The composition root: settings to plan to fleet, driver, doors. And how a pair of keeper and supervisor is started.

mod grants;
mod launch;
mod prove;
mod reload;
mod supervisor;

pub use launch::{Launch, LaunchError, readable_environment, start};
pub use prove::run as prove;
pub use supervisor::run as run_supervisor;
