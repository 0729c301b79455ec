//! The plan of the house: a room names only rooms below it, and each outside crate stays in its rooms.
//!
//! Read from the text, not from the compiler: comments are cut away, then paths are looked for. `checker_sees_*` show that
//! it sees what it should.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up.
const ROOMS: [&str; 14] = [
    "model", "keeper", "config", "plan", "services", "export", "machine", "view", "runtime", "upkeep", "doctor",
    "control", "daemon", "cli",
];

/// Rooms that may name fewer than all below them.
const NARROW: [(&str, &[&str]); 7] = [
    ("keeper", &["model"]),
    ("config", &["model"]),
    ("plan", &["config", "model"]),
    ("services", &["model"]),
    ("export", &["plan", "model"]),
    ("machine", &["plan", "model"]),
    ("view", &["machine", "plan", "model"]),
];

/// Outside crates that may be named in some rooms only. `file` instead of a room: that file alone.
const CRATES: [(&[&str], &[&str]); 14] = [
    (&["clap", "clap_complete", "clap_mangen", "anstream", "anstyle", "unicode_width"], &["cli"]),
    (&["humantime"], &["cli", "config"]),
    (&["annotate_snippets"], &["config"]),
    (&["nix", "rustix"], &["runtime", "keeper", "daemon", "control/server.rs", "cli"]),
    (&["tokio", "tokio_stream", "axum"], &["runtime", "control", "daemon"]),
    (&["hyper", "hyper_util", "http_body_util", "tokio_rustls", "rustls_native_certs"], &["runtime/http.rs"]),
    (&["serde_yaml"], &["config/parse.rs", "cli/settings.rs"]),
    (&["tracing_subscriber"], &["daemon"]),
    (&["flate2"], &["runtime/compress.rs"]),
    (&["redis"], &["services/redis.rs"]),
    (&["postgres", "postgres_protocol"], &["services/postgres.rs"]),
    (&["rusqlite"], &["services/sqlite.rs"]),
    (&["landlock"], &["runtime/landlock.rs"]),
    (&["sha2"], &["runtime/audit.rs", "services/postgres.rs"]),
];

/// Outside crates of the rooms that may have next to none.
const POOR: [(&str, &[&str]); 2] = [("model", &["serde"]), ("machine", &["serde"])];

/// Every outside crate, so that one that is new here has to be given its rooms.
const FREE: [&str; 6] = ["serde", "serde_json", "thiserror", "tracing", "getrandom", "libc"];

/// What is wrong with a file. `path` is relative to `src`.
fn wrong(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let room = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some(floor) = ROOMS.iter().position(|known| *known == room) else {
        return if ["lib", "main"].contains(&room) {
            found
        } else {
            vec![format!("{path}: the room {room} is not in the plan")]
        };
    };
    let (product, all) = (product_code(text), code(text));
    for target in after(&product, "crate::") {
        let Some(height) = ROOMS.iter().position(|known| *known == target) else {
            found.push(format!("{path}: `crate::{target}` is no room"));
            continue;
        };
        let narrow = NARROW.iter().find(|(of, _)| *of == room).map(|(_, allowed)| *allowed);
        if height > floor || narrow.is_some_and(|allowed| target != room && !allowed.contains(&target.as_str())) {
            found.push(format!("{path}: {room} names {target}"));
        }
    }
    for (crates, places) in CRATES {
        let is_home = places.iter().any(|place| *place == room || *place == path);
        let is_named = |outside: &&&str| names(&product, outside) && !is_module_of_ours(&product, outside);
        for outside in crates.iter().filter(|outside| !is_home && is_named(outside)) {
            found.push(format!("{path}: {outside} belongs to {}", places.join(", ")));
        }
    }
    for (_, allowed) in POOR.iter().filter(|(of, _)| *of == room) {
        let all_crates = CRATES.iter().flat_map(|(crates, _)| *crates).chain(&FREE);
        for outside in all_crates.filter(|outside| !allowed.contains(*outside) && names(&product, outside)) {
            found.push(format!("{path}: {room} is poor and names {outside}"));
        }
    }
    if path != "runtime/clock.rs" {
        for clock in ["Instant", "SystemTime"].into_iter().filter(|clock| product.contains(&format!("{clock}::now"))) {
            found.push(format!("{path}: {clock} is read in runtime/clock.rs only"));
        }
        let named = product.contains("std::time::Instant") || product.contains("std::time::SystemTime");
        if named || product.contains("UNIX_EPOCH") {
            found.push(format!("{path}: the clock is in runtime/clock.rs"));
        }
    }
    for line in product.lines().map(str::trim).filter(|line| line.starts_with("use ") || line.starts_with("pub use ")) {
        if line.contains("::*") {
            found.push(format!("{path}: a glob import: {line}"));
        }
    }
    for line in all.lines().map(str::trim).filter(|line| line.starts_with("use ") && line.contains("::*")) {
        if line != "use super::*;" && !line.contains("prelude::*") {
            found.push(format!("{path}: a glob import in tests: {line}"));
        }
    }
    found
}

/// The text without comments.
fn code(text: &str) -> String {
    text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect::<Vec<_>>().join("\n")
}

/// The same without the tests, which stand last in a file, or in files of their own.
fn product_code(text: &str) -> String {
    let code = code(text);
    match code.find("#[cfg(test)]\nmod tests {") {
        Some(at) => code[..at].to_owned(),
        None => code,
    }
}

/// The words that follow `prefix`; those in braces too.
fn after(text: &str, prefix: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| is_word(c) || c == '$') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => top_level(list),
            None => vec![rest],
        };
        words.extend(list.into_iter().map(|item| item.trim_start().chars().take_while(|c| is_word(*c)).collect()));
    }
    words.retain(|word: &String| !word.is_empty());
    words
}

/// The items of a list in braces, up to its end.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn names(text: &str, outside: &str) -> bool {
    let start =
        |at: usize| !text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
    text.match_indices(&format!("{outside}::")).any(|(at, _)| start(at))
        || [format!("use {outside};"), format!("use {outside} as")].iter().any(|line| text.contains(line))
}

/// Whether the file takes a module of ours by that name: `use crate::services::{postgres, redis};`.
fn is_module_of_ours(text: &str, name: &str) -> bool {
    let ours = text.split(';').filter_map(|statement| statement.trim_start().strip_prefix("use "));
    let ours = ours.filter(|path| path.starts_with("crate::") || path.starts_with("super::"));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    ours.flat_map(|path| path.split(|c| !is_word(c)).collect::<Vec<_>>()).any(|word| word == name)
}

/// Every file of `src`: its path there, and its text.
fn files() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&source, &mut paths);
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "rs"));
    let relative = |path: &Path| path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

/// A file of tests: the whole of it is behind `#[cfg(test)]`.
fn is_of_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("/scratch.rs")
}

#[test]
fn every_room_names_only_rooms_below_it_and_only_its_own_crates() {
    let files = files();
    assert!(files.len() > 60, "where is the source?");
    let faults: Vec<_> =
        files.iter().filter(|(path, _)| !is_of_tests(path)).flat_map(|(path, text)| wrong(path, text)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_outside_crate_has_its_rooms() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (_, after) = manifest.split_once("[dependencies]").unwrap();
    let (dependencies, _) = after.split_once("\n[").unwrap();
    let names = dependencies.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" ="));
    for name in names.map(|(name, _)| name.replace('-', "_")) {
        let known = CRATES.iter().any(|(crates, _)| crates.contains(&name.as_str())) || FREE.contains(&name.as_str());
        assert!(known, "{name} has no room in tests/it/layers.rs");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in files() {
        assert!(text.starts_with("//! "), "{path} has no //! header");
    }
}

#[test]
fn checker_sees_an_arrow_upwards() {
    let bad = |path: &str, text: &str| wrong(path, text).join("\n");
    assert!(bad("plan/x.rs", "use crate::machine::Fleet;").contains("plan names machine"));
    assert!(bad("config/x.rs", "use crate::{model, plan::Plan};").contains("config names plan"));
    assert!(bad("keeper/x.rs", "fn f() { crate::config::load(); }").contains("keeper names config"));
    assert!(bad("attic/x.rs", "").contains("not in the plan"));
    assert!(bad("runtime/x.rs", "use crate::cellar::Y;").contains("no room"));
    assert_eq!(bad("cli/x.rs", "use crate::control::{Client, crate_like};\n// crate::nowhere::x"), "");
    assert_eq!(bad("plan/x.rs", "use crate::config::X;\n#[cfg(test)]\nmod tests {\n use crate::cli::Y;\n}"), "");
}

#[test]
fn checker_sees_a_crate_in_the_wrong_room() {
    let bad = |path: &str, text: &str| wrong(path, text).join("\n");
    assert!(bad("plan/x.rs", "use clap::Parser;").contains("clap belongs to cli"));
    assert!(bad("cli/x.rs", "async fn f() { tokio::spawn(g()); }").contains("tokio belongs to"));
    assert!(bad("machine/x.rs", "use serde_json::Value;").contains("poor and names serde_json"));
    assert!(bad("view/x.rs", "use nix::unistd;").contains("nix belongs to"));
    assert!(bad("config/load.rs", "let x = serde_yaml::from_str(y);").contains("serde_yaml belongs to"));
    assert!(bad("runtime/probe.rs", "let now = std::time::Instant::now();").contains("runtime/clock.rs"));
    assert!(bad("runtime/probe.rs", "use super::*;").contains("a glob import"));
    assert_eq!(bad("runtime/clock.rs", "use std::time::SystemTime; fn f() { SystemTime::now(); }"), "");
    assert_eq!(bad("plan/x.rs", "let knix = reclap::x();"), "");
    let module = "use crate::services::{postgres, redis};\nfn f() { redis::with_login(); }";
    assert_eq!(bad("runtime/x.rs", module), "");
    assert!(
        bad("runtime/x.rs", "use crate::services::postgres;\nfn f() { redis::cmd(); }").contains("redis belongs to")
    );
}
