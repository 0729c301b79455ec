//! Lines to standard output and standard error, for people who may have stopped listening: `laneway config | head` ends
//! quietly where std would panic. Colours are taken out where nobody wants them (`anstream`).

use std::fmt::Arguments;
use std::io::Write;

/// What a shell reports of a program that wrote into a closed pipe.
pub const CLOSED_PIPE: u8 = 128 + 13;

/// A line to standard output; without a reader the command has no more to do.
pub fn line(words: Arguments<'_>) {
    // In one piece: a table of a thousand lines is not a thousand system calls.
    if anstream::stdout().write_all(format!("{words}\n").as_bytes()).is_err() {
        std::process::exit(i32::from(CLOSED_PIPE));
    }
}

/// A line to standard error; what nobody reads is no reason to stop.
pub fn aside(words: Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{words}");
}

/// As in std, without its panic.
macro_rules! println {
    ($($words:tt)*) => { $crate::cli::out::line(format_args!($($words)*)) };
}

/// As in std, without its panic.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::cli::out::aside(format_args!($($words)*)) };
}

pub(super) use {eprintln, println};
