//! Turns arguments into an exit code; nothing else.

fn main() {}
