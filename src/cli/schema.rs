//! The verb `schema`: what editors need to complete and check `instances.yaml`.

use std::process::ExitCode;

use super::ctl::to_json;
use super::out::println;
use super::report::{DONE, Failure};
use crate::config;

/// `laneway schema`: needs no file.
///
/// # Errors
/// None that is known of.
pub fn run() -> Result<ExitCode, Failure> {
    println!("{}", to_json(&config::schema())?);
    Ok(ExitCode::from(DONE))
}
