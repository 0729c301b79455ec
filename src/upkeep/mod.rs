//! What people do to lanes beside starting and stopping them: look into caches and clear them, make, migrate, save and drop
//! databases.
//!
//! Knows the plan and the services, no terminal: questions, progress and tables are `cli`'s. It blocks; the supervisor calls
//! it on a thread of its own.

pub mod cache;
pub mod database;
