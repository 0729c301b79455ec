//! Tables. That of the status: NAME PHASE HEALTH PORT PID UPTIME RESTARTS URL.

use std::time::Duration;

use super::snapshot::InstanceStatus;
use crate::model::{Phase, in_words};

/// One line per instance, columns as wide as they need to be, no frame.
#[must_use]
pub fn status(instances: &[InstanceStatus]) -> String {
    rows(instances.iter().map(|instance| {
        [
            instance.name.to_string(),
            instance.phase.to_string(),
            instance.health.to_string(),
            or_dash(instance.port),
            or_dash(instance.pid),
            or_dash(instance.uptime_seconds.map(|seconds| in_words(Duration::from_secs_f64(seconds.floor())))),
            instance.restarts.to_string(),
            or_dash(instance.url.as_ref()),
        ]
    }))
}

/// The same for instances of which nothing runs: names and ports.
#[must_use]
pub fn at_rest(instances: &[(String, Option<u16>)]) -> String {
    rows(instances.iter().map(|(name, port)| {
        let none = || "-".to_owned();
        let stopped = Phase::Stopped.to_string();
        [name.clone(), stopped, none(), or_dash(*port), none(), none(), none(), none()]
    }))
}

fn rows(rows: impl Iterator<Item = [String; 8]>) -> String {
    let head = ["NAME", "PHASE", "HEALTH", "PORT", "PID", "UPTIME", "RESTARTS", "URL"];
    aligned(head, rows, &[3, 4, 6])
}

/// Any table: one line per row, columns as wide as they need to be, no frame.
#[must_use]
pub fn plain<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    aligned(head, rows.iter().cloned(), &[])
}

/// Columns stand two spaces apart; those at `right` are aligned to the right.
fn aligned<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>, right: &[usize]) -> String {
    let rows: Vec<_> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = width - cell.chars().count();
            let (before, after) = if right.contains(&column) { (gap, 0) } else { (0, gap) };
            table.extend(std::iter::repeat_n(' ', before));
            table.push_str(cell);
            table.extend(std::iter::repeat_n(' ', after + 2));
        }
        table.truncate(table.trim_end_matches(' ').len());
        table.push('\n');
    }
    table.pop();
    table
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
