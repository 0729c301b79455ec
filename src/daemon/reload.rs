//! Where the plan of a running fleet comes from: the files, the profile and the `--set` that it was launched with, and the
//! environment of this process. The driver asks for it again at every reload.

use std::io;
use std::sync::Arc;

use tracing::warn;

use super::launch::Launch;
use super::supervisor::{check_descriptors, check_kernel, check_neighbours};
use crate::config::Source;
use crate::keeper::protocol::Kept;
use crate::model::InstanceId;
use crate::plan::{self, Plan};
use crate::runtime::home::Home;
use crate::runtime::link::KeeperLink;
use crate::runtime::registry::Registry;
use crate::runtime::reload::{Origin, Refused, Resolved};

/// What a fleet was launched with, and where its plan is made known.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) launch: Launch,
    pub(super) home: Home,
    pub(super) link: Arc<KeeperLink>,
}

impl Origin for Launched {
    fn resolve(&self, running: &Plan, holders: &[InstanceId]) -> Result<Resolved, Refused> {
        let mut source = self.launch.source();
        if source.files.is_empty() {
            // Found once, it is the one: a nearer file that came later is another fleet's.
            source = Source { files: vec![running.file.clone()], ..source };
        }
        let plan = plan::resolve(&source).map_err(Refused::File)?;
        let fixed = [
            ("name", plan.project == running.project),
            ("namespace", plan.namespace == running.namespace),
            ("state_dir", plan.state_dir == running.state_dir),
        ];
        if let Some((part, _)) = fixed.into_iter().find(|(_, is_same)| !is_same) {
            return Err(Refused::Other {
                what: format!("`{part}` differs: everything that the running servers have is called by it"),
                hint: Some("laneway down, then up".to_owned()),
            });
        }
        let fits = check_neighbours(&plan).and_then(|()| check_kernel(&plan)).and_then(|()| check_descriptors(&plan));
        fits.map_err(|what| Refused::Other { what, hint: None })?;
        let heirs = plan::heirs(running, holders, &plan);
        Ok(Resolved { plan, heirs })
    }

    fn keep(&self, running: &Plan, next: Option<&Plan>) -> io::Result<()> {
        let launch = Launch { running: Some(running.clone()), next: next.cloned(), ..self.launch.clone() };
        self.link.keep(Kept::Launch, launch.to_memory()?)
    }

    fn publish(&self, plan: &Plan) {
        if let Err(error) = self.home.write_plan(plan) {
            warn!("plan.json cannot be written, clients go by the plan before: {error}");
        }
        register(plan);
    }
}

/// Makes the fleet known to the user's others.
pub(super) fn register(plan: &Plan) {
    if let Some(Err(error)) = Registry::of_user().map(|registry| registry.enter(plan)) {
        warn!("this fleet cannot be registered, others will not be checked against it: {error}");
    }
}
