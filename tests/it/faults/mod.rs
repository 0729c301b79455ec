//! Faults, each made for real, while a control instance is asked twenty times a second and must not miss one answer.
//!
//! `control` is that witness. Each other file is one promise, and says what would break it.

pub mod control;
