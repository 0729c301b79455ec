//! laneway: one app, many instances, side by side on one machine, each in its own lane.
//!
//! The way of the data: YAML -> `config` -> `plan` -> `machine` <-> `runtime` <-> `keeper` -> `view` -> `control` -> `cli`.
//! Rooms from the ground up; a room names only rooms below it (`tests/it/layers.rs` holds us to that).

pub mod config;
pub mod model;
pub mod plan;
