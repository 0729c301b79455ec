//! A lane on the disk: its secret, and which files and folders its paths really are. Makes nothing.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::doctor::evidence::{Identity, Process, Secret};
use crate::plan::spec::{CacheBackend, Database, Spec};

/// What tells secrets apart in one run, and says nothing of them to anybody who reads its fingerprints.
pub fn salt() -> &'static RandomState {
    use std::sync::OnceLock;
    static SALT: OnceLock<RandomState> = OnceLock::new();
    SALT.get_or_init(RandomState::new)
}

/// What stands in the secret's file; `processes` are told whether they have another one.
pub fn secret(spec: &Spec, salt: &RandomState, processes: &mut [Process]) -> Secret {
    let path = &spec.facts.secret_file;
    let found = fs::symlink_metadata(path).and_then(|metadata| {
        if metadata.is_file() { Ok(metadata.mode()) } else { Err(io::Error::other("it is no plain file")) }
    });
    match found.and_then(|mode| Ok((mode, fs::read_to_string(path)?))) {
        Ok((mode, text)) => {
            let text = text.trim();
            for process in processes {
                let real = process.environment.as_ref().and_then(|environment| environment.get("SECRET_KEY"));
                process.has_other_secret = real.is_some_and(|real| real != text);
            }
            Secret {
                error: None,
                exists: true,
                mode: mode & 0o7777,
                length: text.chars().count(),
                distinct: text.chars().collect::<BTreeSet<_>>().len(),
                fingerprint: salt.hash_one(text),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Secret::default(),
        Err(error) => Secret { error: Some(error.to_string()), exists: true, ..Secret::default() },
    }
}

/// The places of a lane that are there, and what the disk takes each for. A guest's are its owner's.
pub fn places(spec: &Spec) -> Vec<(&'static str, PathBuf, Identity)> {
    let facts = &spec.facts;
    if facts.lane != spec.name {
        return Vec::new();
    }
    let mut places: Vec<(&'static str, &Path)> = vec![
        ("state_dir", &facts.state),
        ("static_root", &facts.static_root),
        ("media_root", &facts.media_root),
        ("TMPDIR", &facts.tmp),
        ("LOG_DIR", &facts.log_dir),
        ("secret.file", &facts.secret_file),
    ];
    if let Database::Sqlite { path } = &facts.database {
        places.push(("database.path", path));
    }
    if facts.cache.backend == CacheBackend::File {
        places.push(("cache.location", Path::new(&facts.cache.location)));
    }
    let known = places.into_iter().filter_map(|(what, path)| {
        let metadata = fs::metadata(path).ok()?;
        Some((what, path.to_owned(), (metadata.dev(), metadata.ino())))
    });
    known.collect()
}
