//! Words to the service manager that started this process (`sd_notify(3)`): systemd, or whoever speaks as it does.
//!
//! Knows the socket and the variables that name it. Nobody hears a word that is sent to no service manager, so nothing
//! here fails.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager's ear.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Notifier {
    /// To the manager that waits for this very process; `None` if none does. The variables reach every descendant of a
    /// service, so that a shell that was started in one has them too.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        if variable("SYSTEMD_EXEC_PID").is_some_and(|main| main != std::process::id().to_string()) {
            return None;
        }
        let name = variable("NOTIFY_SOCKET")?;
        let manager = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        Some(Self { socket: UnixDatagram::unbound().ok()?, manager: manager.ok()? })
    }

    /// How often the manager wants to hear `WATCHDOG=1`, if it does.
    #[must_use]
    pub fn watchdog() -> Option<Duration> {
        if variable("WATCHDOG_PID").is_some_and(|watched| watched != std::process::id().to_string()) {
            return None;
        }
        variable("WATCHDOG_USEC")?.parse().ok().map(Duration::from_micros)
    }

    /// Says some assignments, one a line.
    pub fn say(&self, assignments: &str) {
        let _ = self.socket.send_to_addr(assignments.as_bytes(), &self.manager);
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
