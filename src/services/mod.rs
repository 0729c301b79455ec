//! What instances lean on, as clients see it: Redis, PostgreSQL, SQLite, Django's ways of naming and packing.
//!
//! Each knows one service and takes plain values (a URL, a prefix, a path); none knows a plan, an instance or a terminal. They
//! block, so the supervisor calls them on a thread of their own. `upkeep` and `doctor` stand on them.

pub mod django;
pub mod postgres;
pub mod redis;
pub mod sqlite;
