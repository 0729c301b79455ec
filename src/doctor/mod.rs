//! The doctor: looks whether the lanes are apart, by effects where the fleet runs, and says what it saw, where, and what to do.
//!
//! Gathering (processes, sockets, files, services) and judging (pure) are apart. Knows no terminal; `cli` shows the findings.
