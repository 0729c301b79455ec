//! `laneway prove`: a new binary shows that it understands what it would take over, on copies, before it may.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;

use super::launch::Launch;
use crate::keeper::protocol::{Kept, Order};
use crate::keeper::table;
use crate::runtime::records;
use crate::runtime::upgrade::PROVEN;

/// Reads what the table at `number` names, and says how much of it is understood. Returns the exit code.
#[must_use]
pub fn run(number: RawFd) -> i32 {
    let (mut launch, mut recorded) = (None, None);
    let inherited = table::inherit(number, |order, descriptor| match (order, descriptor) {
        (Order::Keep(Kept::Launch), Some(left)) => launch = Launch::read(left).ok(),
        (Order::Keep(Kept::Records), Some(left)) => recorded = Some(records::read(&File::from(left))),
        _ => {}
    });
    let plan = launch.and_then(|launch| launch.running);
    let (Ok(()), Some(plan), Some(recorded)) = (inherited, plan, recorded) else { return 1 };
    let understood = plan.ids().filter(|id| recorded.instances.get(id.index()).is_some_and(Option::is_some)).count();
    let words = format!("{PROVEN}{understood} {}\n", env!("CARGO_PKG_VERSION"));
    i32::from(io::stdout().write_all(words.as_bytes()).is_err())
}
