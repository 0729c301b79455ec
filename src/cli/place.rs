//! Which fleet a command is about: the one that runs from this file if there is one, else the one the file describes.
//!
//! What runs is found through the registry, without reading the file: a file that was broken meanwhile is no reason why
//! a server could not be stopped.

use std::path::PathBuf;

use super::args::{Place, Values};
use super::report::Failure;
use crate::config::{self, Source};
use crate::control::Client;
use crate::daemon;
use crate::model::InstanceName;
use crate::plan::{self, Claim, Plan};
use crate::runtime::home::Home;
use crate::runtime::registry::Registry;

/// What the arguments say of the fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    source: Source,
}

impl Fleet {
    /// From the arguments.
    ///
    /// # Errors
    /// When the directory cannot be entered.
    pub fn new(place: &Place, values: &Values) -> Result<Self, Failure> {
        let here = std::env::current_dir()?;
        let directory = place.directory.as_ref().map_or(here.clone(), |directory| here.join(directory));
        if !directory.is_dir() {
            return Err(Failure::usage(format!("{} is no directory", directory.display()), "mend -C"));
        }
        let files = place.files.iter().map(|file| directory.join(file)).collect();
        if directory.to_str().is_none() {
            let what = format!("{} is no text: its name is not UTF-8", directory.display());
            return Err(Failure::usage(what, "rename the folder"));
        }
        let environment = daemon::readable_environment();
        let (profile, set) = (values.profile.clone(), values.set.clone());
        Ok(Self { source: Source { files, directory, profile, set, environment } })
    }

    /// The source of its settings.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The same fleet with another profile.
    #[must_use]
    pub fn with_profile(mut self, profile: Option<String>) -> Self {
        self.source.profile = profile.or(self.source.profile);
        self
    }

    /// The plan that the file comes to.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn plan(&self) -> Result<Plan, Failure> {
        Ok(plan::resolve(&self.source)?)
    }

    /// The same, with all that its instances claim.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn proven(&self) -> Result<(Plan, Vec<Claim>), Failure> {
        Ok(plan::prove(&self.source)?)
    }

    /// The directory of the fleet that runs, if one does.
    #[must_use]
    pub fn running(&self) -> Option<Home> {
        let registered = || Registry::of_user()?.state_dir_of(&config::base_file(&self.source)?);
        let described = || config::read(&self.source).0.map(|settings| settings.state_dir);
        let is_running = |state_dir: &PathBuf| Home::of(state_dir).is_locked();
        let state_dir = registered().or_else(|| described().filter(is_running))?;
        Some(Home::of(&state_dir))
    }

    /// A client of the fleet that runs.
    ///
    /// # Errors
    /// Exit code 3 when none does.
    pub fn client(&self) -> Result<Client, Failure> {
        self.running().map(Client::new).ok_or_else(|| self.nothing_runs())
    }

    /// The plan that runs, else the one that the file comes to.
    ///
    /// # Errors
    /// Everything that is wrong with the file, when nothing runs.
    pub fn running_plan_or_plan(&self) -> Result<Plan, Failure> {
        match self.running().and_then(|home| home.running_plan()) {
            Some(plan) => Ok(plan),
            None => self.plan(),
        }
    }

    /// Where this fleet would be, if its file can be read so far.
    #[must_use]
    pub fn home_at_rest(&self) -> Option<Home> {
        config::read(&self.source).0.map(|settings| Home::of(&settings.state_dir))
    }

    fn nothing_runs(&self) -> Failure {
        let unwatched = self.home_at_rest().map(|home| home.unwatched()).unwrap_or_default();
        if !unwatched.is_empty() {
            return Failure::not_running(unwatched_in_words(&unwatched)).or_hint(UNWATCHED_HINT);
        }
        match config::base_file(&self.source) {
            Some(file) => Failure::not_running(format!("nothing runs from {}", file.display())),
            None => match config::load(&self.source) {
                Err(problems) => problems.into(),
                Ok(_) => Failure::not_running("nothing runs"),
            },
        }
    }
}

/// What to do about servers that nobody watches.
pub const UNWATCHED_HINT: &str = "laneway up takes them over as they are; laneway down ends them";

/// Says who runs on without laneway.
#[must_use]
pub fn unwatched_in_words(unwatched: &[(InstanceName, u32)]) -> String {
    let named: Vec<_> = unwatched.iter().map(|(name, pid)| format!("{name} (pid {pid})")).collect();
    format!("laneway itself was killed; still running, with nobody watching: {}", named.join(", "))
}
