//! Colours: which, and whether there are any. They repeat what the words say.
//!
//! One answer holds for the whole process, clap's help and errors among it. `--color` decides first, then `NO_COLOR`,
//! `CLICOLOR_FORCE`, `CLICOLOR=0`, and last whether the stream is a terminal and `TERM` one that knows colours. Everybody
//! writes with colours, and `anstream` takes them out where the answer is no.

use std::ffi::OsString;

use anstream::ColorChoice;
use anstream::stream::RawStream;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

use super::args::Color;
use crate::model::{Health, Phase};
use crate::view::snapshot::InstanceStatus;
use crate::view::table;

const PREFIXES: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::BrightCyan];

/// From now on it is as a person asked for.
pub fn decide(color: Color) {
    let choice = match color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    };
    choice.write_global();
}

/// The same for a command line that clap does not understand, or that asks for help: nobody has read its flags.
pub fn decide_by(words: impl IntoIterator<Item = OsString>) {
    let mut words = words.into_iter().map(|word| word.to_string_lossy().into_owned()).take_while(|word| word != "--");
    while let Some(word) = words.next() {
        let asked = if word == "--color" { words.next() } else { word.strip_prefix("--color=").map(str::to_owned) };
        if let Some(color) = asked.and_then(|word| Color::from_str(&word, false).ok()) {
            decide(color);
        }
    }
}

/// Whether colours that are written there stay.
#[must_use]
pub fn is_coloured(stream: &impl RawStream) -> bool {
    anstream::AutoStream::choice(stream) != ColorChoice::Never
}

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
