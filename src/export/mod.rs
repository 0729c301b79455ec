//! A plan in the words of other tools: text out, nothing else. Pure; `cli` finds out what has to be known of the machine,
//! and writes the files.

pub mod systemd;
