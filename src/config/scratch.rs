//! A folder for one test, with files in it; gone when the test is over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::tests::schema::refusal;
use super::{Problems, Settings, Source, load};

/// A folder called `project`, inside a folder that nothing else uses.
pub struct Scratch {
    outer: PathBuf,
}

impl Scratch {
    /// A folder without files.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let outer = std::env::temp_dir().join(format!("laneway-{}-{number}", std::process::id()));
        std::fs::create_dir_all(outer.join("project")).unwrap();
        // A symlinked temporary folder would show in every path.
        Self { outer: outer.canonicalize().unwrap() }
    }

    /// A folder with `text` as its configuration file.
    pub fn with(text: &str) -> Self {
        let scratch = Self::new();
        scratch.write("instances.yaml", text);
        scratch
    }

    /// The folder.
    pub fn path(&self) -> PathBuf {
        self.outer.join("project")
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/"))).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What `load` and `resolve` take, with one variable in the caller's environment.
    pub fn source(&self) -> Source {
        Source {
            directory: self.path(),
            environment: BTreeMap::from([("CALLER".to_owned(), "from the caller".to_owned())]),
            ..Source::default()
        }
    }

    /// The settings in the folder. What the loader takes, the schema must take.
    pub fn load(&self) -> Result<Settings, Problems> {
        let loaded = self.load_only();
        if loaded.is_ok() {
            self.fits_schema();
        }
        loaded
    }

    /// The settings in the folder, whatever the schema says.
    pub fn load_only(&self) -> Result<Settings, Problems> {
        load(&self.source())
    }

    /// Fails unless the schema takes the configuration file.
    pub fn fits_schema(&self) {
        let text = std::fs::read_to_string(self.path().join("instances.yaml")).unwrap();
        let refusal = refusal(text.trim_start_matches('\u{feff}'));
        assert_eq!(refusal, None, "the loader takes it, and the schema does not:\n{text}");
    }

    /// What is said of the folder's files, its own path taken out.
    pub fn problems(&self) -> String {
        self.load().map_or_else(|problems| self.shown(&problems.to_string()), |_| "fine".to_owned())
    }

    /// `text` without the path of this test's folder.
    pub fn shown(&self, text: &str) -> String {
        text.replace(&self.path().display().to_string(), "[here]")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.outer);
    }
}
