//! Colours. They repeat what the words say, and are taken out where nobody wants them (`anstream`).

use anstyle::{AnsiColor, Style};

use crate::model::{Health, Phase};
use crate::view::snapshot::InstanceStatus;
use crate::view::table;

const PREFIXES: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::BrightCyan];

/// The colour of the instance at `position`.
#[must_use]
pub fn prefix(position: usize) -> Style {
    let colour = PREFIXES.get(position % PREFIXES.len()).copied().unwrap_or(AnsiColor::White);
    Style::new().fg_color(Some(colour.into()))
}

/// Phase and health, in the colour of their meaning.
#[must_use]
pub fn state(instance: &InstanceStatus) -> String {
    let style = meaning(instance);
    match instance.health {
        Health::Unknown | Health::Starting => format!("{style}{}{style:#}", instance.phase),
        health => format!("{style}{}, {health}{style:#}", instance.phase),
    }
}

/// Green: well. Yellow: on the way. Red: not well. None: at rest.
fn meaning(instance: &InstanceStatus) -> Style {
    let colour = match instance.phase {
        _ if instance.is_well() => AnsiColor::Green,
        Phase::Stopped => return Style::new(),
        Phase::Starting | Phase::Stopping => AnsiColor::Yellow,
        Phase::Waiting | Phase::Backoff | Phase::Failed | Phase::Running | Phase::Completed => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}

/// The status table with a bold head, and each line in the colour of its instance.
#[must_use]
pub fn table(instances: &[InstanceStatus]) -> String {
    let table = table::status(instances);
    let bold = Style::new().bold();
    let mut lines = table.lines();
    let head = lines.next().map(|head| format!("{bold}{head}{bold:#}"));
    let rows = lines.zip(instances).map(|(line, instance)| {
        let style = meaning(instance);
        let name = instance.name.as_str();
        let rest = line.strip_prefix(name).unwrap_or(line);
        format!("{style}{name}{style:#}{rest}")
    });
    head.into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}
