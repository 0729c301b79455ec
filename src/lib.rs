//! laneway: one app, many instances, side by side on one machine, each in its own lane.
//!
//! The way of the data: YAML -> `config` -> `plan` -> `machine` <-> `runtime` <-> `keeper` -> `view` -> `control` -> `cli`.
//! Rooms from the ground up; a room names only rooms below it (`tests/it/layers.rs` holds us to that).

#[cfg(not(target_os = "linux"))]
compile_error!("laneway needs Linux, 5.10 or newer: it stands on pidfds, cgroups, /proc and memfds");

pub mod model;

pub mod keeper;

pub mod config;
pub mod plan;

pub mod services;

pub mod export;

pub mod machine;
pub mod view;

pub mod runtime;

pub mod doctor;
pub mod upkeep;

pub mod control;

pub mod daemon;

pub mod cli;
