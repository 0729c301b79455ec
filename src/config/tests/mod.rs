//! Whole files through `load`: what is taken, and what is said of everything else.

mod disk;
mod reference;
mod refused;
pub mod schema;
mod taken;

use super::scratch::Scratch;
use super::{Instance, Settings};

/// A file with one instance, `web`, that has a command; `rest` is indented below it.
fn web(rest: &str) -> String {
    let rest = rest.lines().map(|line| format!("    {line}\n")).collect::<Vec<_>>().concat();
    format!("instances:\n  web:\n    command: [serve]\n{rest}")
}

fn settings(text: &str) -> Settings {
    Scratch::with(text).load().unwrap_or_else(|problems| panic!("{problems}\n\n{text}"))
}

fn first(text: &str) -> Instance {
    settings(text).instances.into_iter().next().unwrap()
}

/// The problems of each text, one block each.
fn said<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let blocks = texts.into_iter().map(|text| {
        let text = text.as_ref();
        let shown: String = text.escape_debug().take(400).collect();
        format!(
            "--- {}\n{}",
            shown.replace("\\n", "\n    ").replace("\\\"", "\"").trim_end(),
            Scratch::with(text).problems()
        )
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

/// Compares with `snapshots/NAME.snap`.
fn holds(name: &str, text: &str) {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, text);
    });
}

/// Many lines as one text.
fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().concat()
}
