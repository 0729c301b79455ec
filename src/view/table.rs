//! Tables. That of the status: NAME PHASE HEALTH PORT PID UPTIME RESTARTS URL.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

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

fn aligned<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for right in right {
        if let Some(column) = table.column_mut(*right) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
