//! The small process: parent and restarter of the supervisor, reader of every server's output, writer of every log.
//!
//! It knows its protocol and the kernel, nothing else: no configuration, no HTTP, no decision about a server. Once set
//! up it allocates nothing, and it cannot panic. The supervisor is its child; what a dead supervisor leaves becomes its
//! children too, and is reaped here.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod log;
pub mod protocol;
mod run;
pub mod table;

pub use log::{INDEX_RECORD, IndexRecord, LogFile, newest_rotated};
pub use run::{LAUNCH_FD, LINK_FD, LOCK_FD, READY_FD, RUN_DIR_FD, is_started_by_laneway, run};
