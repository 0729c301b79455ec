//! How a process ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Signal;

/// The end of a process, as its parent learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself with this code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Which one.
        signal: Signal,
        /// Whether the kernel wrote a core dump.
        core: bool,
    },
    /// The kernel killed it for want of memory, and says so.
    OutOfMemory,
    /// Somebody else took the status.
    Unknown,
}

impl Exit {
    /// Whether it ended by itself with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { signal, core: false } => write!(f, "killed by {signal}"),
            Self::Signal { signal, core: true } => write!(f, "killed by {signal}, core dumped"),
            Self::OutOfMemory => f.write_str("killed by the kernel for want of memory"),
            Self::Unknown => f.write_str("exit status unknown"),
        }
    }
}
