//! The true binary against true processes. One test binary, one module per promise; `cargo test` runs them in parallel.
//!
//! `harness` owns everything that a test starts, waits in one place, and fails a test that leaves a process behind.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed; the lints' own exemption does not reach helper functions"
)]

mod harness;

mod api;
mod apply;
mod audit;
mod bad_input;
mod caches;
mod caches_example;
mod completions;
mod databases;
mod docs;
mod doctor;
mod enforcement;
mod example;
mod explained;
mod faults;
mod fuzz_corpus;
mod health;
mod isolation;
mod keeper_logs;
mod layers;
mod lifecycle;
mod logs;
mod mishaps;
mod obstacles;
mod pid_one;
mod postgres_server;
mod redis_server;
mod rig;
mod service;
mod terminal;
mod verbs;
mod watch;
mod words;
