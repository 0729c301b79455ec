//! Turns arguments into an exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    laneway::cli::run()
}
