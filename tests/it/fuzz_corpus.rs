//! Replays what fuzzing found worth keeping: each file of `fuzz/corpus` goes through the check of its target.

use std::fs;
use std::path::Path;

use super::harness::names_in;

#[path = "../../fuzz/src/lib.rs"]
mod checks;

#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let names = names_in(&folder);
    assert!(names.len() > 5, "where is the corpus of {target}?");
    for name in names {
        // Shown when the check panics.
        println!("fuzz/corpus/{target}/{name}");
        check(&fs::read(folder.join(name)).unwrap());
    }
}

#[test]
fn the_corpus_of_the_config_loader_holds() {
    replay("config", checks::config::check_config);
}

#[test]
fn the_corpus_of_the_placeholders_holds() {
    replay("placeholder", checks::placeholder::check_placeholder);
}

#[test]
fn the_corpus_of_health_answers_holds() {
    replay("health", checks::health::check_health);
}

#[test]
fn the_corpus_of_the_keepers_protocol_holds() {
    replay("keeper", checks::keeper::check_keeper);
}
