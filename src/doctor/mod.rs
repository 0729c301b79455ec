//! The doctor: looks whether the lanes are apart, by effects where the fleet runs, and says what it saw, where, and what to do.
//!
//! `gather` looks (processes, sockets, files, answers, services) and judges nothing; `judge` is pure: the evidence in, the
//! findings out. Knows no terminal; `cli` shows the report.

pub mod evidence;
pub mod finding;
mod gather;
mod judge;

pub use finding::{CheckReport, Finding, Outcome, Report, Severity};
pub use gather::{Question, examine};
