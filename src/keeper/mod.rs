//! The small process: parent and restarter of the supervisor, reader of every server's output, writer of every log.
//!
//! It knows its protocol and the kernel, nothing else: no configuration, no HTTP, no decision about a server. Once set
//! up it allocates nothing, and it cannot panic. It may be killed at any moment: everything that it has and knows stands
//! in memory, descriptors and sockets that the supervisor holds too, and another keeper goes on with them.
//!
//! From the ground up: `protocol` and `table` are the language of the pair. `memory`, `spool`, `journal` and `backlog`
//! hold bytes on their way; `names`, `index` and `log` are the files; `logs`, `streams`, `relay` and `writer` bring the
//! one into the other without waiting for a disk; `deaths`, `supervisor`, `orders` and `run` are the process.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod backlog;
mod clock;
mod deaths;
mod index;
pub mod journal;
mod log;
mod logs;
pub mod memory;
mod names;
mod orders;
pub mod protocol;
mod relay;
mod run;
pub mod spool;
mod streams;
mod supervisor;
pub mod table;
#[cfg(test)]
mod tests;
mod writer;

pub use index::{INDEX_RECORD, IndexRecord};
pub use log::LogFile;
pub use names::newest_rotated;
pub use run::run;
