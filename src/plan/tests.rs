//! Plans from whole files: the sample's facts, and everything that must be refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Plan, resolve};
use crate::config::Source;

fn sample(profile: Option<&str>) -> Plan {
    let source = Source {
        directory: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        profile: profile.map(str::to_owned),
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned()), ("OTHER".to_owned(), "x".to_owned())]),
        ..Source::default()
    };
    resolve(&source).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn show() {
    let plan = sample(None);
    println!("{}", serde_json::to_string_pretty(&plan).unwrap());
}
