//! What must hold for any bytes at all: one function for each target. The fuzzer calls it, and so do laneway's own tests,
//! over the committed corpus. It panics when something does not hold.

pub mod config;
pub mod health;
pub mod keeper;
pub mod placeholder;

/// Longest message to a person, in characters.
const LONGEST_MESSAGE: usize = 4000;

/// A message is fit for a terminal: it has an end, and no character that does anything but stand there.
fn check_message(text: &str) {
    assert!(text.chars().count() <= LONGEST_MESSAGE, "{} characters: {text:.200?}...", text.chars().count());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "control characters in {text:?}");
}
