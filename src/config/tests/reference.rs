//! The tables of `docs/configuration.md` are made of the declared keys: between `<!-- keys of ...: a, b -->` and
//! `<!-- end of keys -->` stands what `LANEWAY_UPDATE_DOCS=1 cargo test --lib reference` writes there.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::config::keys::{FILE, INSTANCE, Key, PRESET, Takes, Unset, find};
use crate::config::schema::words;

const START: &str = "<!-- keys of ";
const END: &str = "<!-- end of keys -->";

/// The rows of `key`, and of the maps below it.
fn rows(key: &Key, path: &str, table: &mut String) {
    let path = format!("{path}{}", key.name);
    if !matches!(key.takes, Takes::Map(_)) {
        let unset = match key.unset {
            Unset::Value(value) | Unset::Formula(value) => format!("`{value}`"),
            Unset::Words(words) => words.to_owned(),
            Unset::Needed => "needed".to_owned(),
        };
        let about = key.about.replace('|', "\\|");
        writeln!(table, "| `{path}` | {} | {unset} | {about} |", words(&key.takes)).unwrap();
    }
    let below = match key.takes {
        Takes::Instance => &[][..],
        Takes::Dependencies(keys) => return keys.iter().for_each(|key| rows(key, &format!("{path}.NAME."), table)),
        _ => key.takes.below(),
    };
    below.iter().filter(|key| key.is_of_now()).for_each(|key| rows(key, &format!("{path}."), table));
}

/// The keys that are known and refused.
fn later(keys: &[Key], path: &str) -> Vec<String> {
    keys.iter()
        .flat_map(|key| match key.takes {
            Takes::Later => vec![format!("`{path}{}`", key.name)],
            Takes::Map(below) => later(below, &format!("{}.", key.name)),
            _ => Vec::new(),
        })
        .collect()
}

/// What stands in the region that `head` opens. `told` collects which keys have their place.
fn region(head: &str, told: &mut Vec<String>) -> String {
    let (whose, names) = head.split_once(':').unwrap_or((head, ""));
    let keys = match whose {
        "the file" => &FILE[..],
        "an instance" => &INSTANCE[..],
        "a preset" => &PRESET[..],
        "later versions" => return format!("{}.\n", later(&INSTANCE, "").join(", ")),
        other => panic!("there are no keys of {other}"),
    };
    let mut table = "| key | type | default | meaning |\n|---|---|---|---|\n".to_owned();
    for name in names.split(',').map(str::trim) {
        rows(find(keys, name).unwrap_or_else(|| panic!("{whose} has no key {name}")), "", &mut table);
        told.push(format!("{whose}: {name}"));
    }
    table
}

#[test]
fn the_reference_tells_every_key_as_it_is_declared() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (mut right, mut told) = (String::new(), Vec::new());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(START) {
        let (head, after) = rest[at + START.len()..].split_once(" -->\n").unwrap();
        right.push_str(&rest[..at]);
        write!(right, "{START}{head} -->\n\n{}\n", region(head, &mut told)).unwrap();
        rest = &after[after.find(END).unwrap()..];
    }
    right.push_str(rest);
    if std::env::var_os("LANEWAY_UPDATE_DOCS").is_some() {
        fs::write(&path, &right).unwrap();
    }
    let declared = [("the file", &FILE[..]), ("an instance", &INSTANCE), ("a preset", &PRESET)];
    let mut wanted: Vec<String> = declared
        .iter()
        .flat_map(|(whose, keys)| {
            keys.iter().filter(|key| key.is_of_now()).map(move |key| format!("{whose}: {}", key.name))
        })
        .collect();
    wanted.sort();
    told.sort();
    assert_eq!(told, wanted, "each key has its place once");
    let now = fs::read_to_string(&path).unwrap();
    let differs = now.lines().zip(right.lines()).find(|(now, right)| now != right);
    assert!(
        now == right,
        "docs/configuration.md does not say what src/config/keys.rs declares, first here:\n{differs:?}\n\
         LANEWAY_UPDATE_DOCS=1 cargo test --lib reference writes it"
    );
}
