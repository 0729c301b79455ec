//! The IO shell around `machine`: processes, sockets, files, the clock. It carries out orders and reports facts; it
//! decides nothing. `daemon` sets it up; `cli` uses its pieces that need no runtime.

pub mod audit;
pub mod auditor;
mod beneath;
mod birth;
pub mod care;
pub mod cgroup;
pub mod clock;
mod clone;
pub mod compress;
pub mod driver;
mod durable;
pub mod exchange;
pub mod handle;
pub mod home;
mod http;
pub mod kernel;
pub mod lane;
pub mod link;
pub mod logs;
pub mod look;
mod memory;
pub mod probe;
pub mod processes;
pub mod publisher;
pub mod records;
pub mod registry;
pub mod reload;
pub mod sockets;
pub mod spawn;
pub mod succession;
pub mod threads;
pub mod tree;
pub mod upgrade;
