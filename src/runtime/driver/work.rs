//! Runs of instances: made, found again, swept, checked. Each works in a task of its own and reports a fact.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::{Driver, Fact, Living, Tools};
use crate::machine::{Action, Event, Obstacle, Work};
use crate::model::{Exit, Mono, Run, Signal};
use crate::plan::spec::{HealthCheck, HealthTest, OwnStep, Plan, Spec};
use crate::runtime::durable;
use crate::runtime::landlock;
use crate::runtime::lane;
use crate::runtime::look;
use crate::runtime::probe::Patient;
use crate::runtime::records::BirthPlace;
use crate::runtime::spawn::Job;
use crate::runtime::tree::Tree;
use crate::view::snapshot::TroubleStatus;

/// How long a process may take from its clone to its first act.
const BIRTH: Duration = Duration::from_secs(5);
/// From one look at a birth to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Driver {
    pub(super) fn spawn(&self, run: Run, work: Work) {
        let (plan, tools, facts) = (Arc::clone(self.fleet.plan()), Arc::clone(&self.tools), self.facts.clone());
        let birth_place = self.records.expect(run);
        tokio::spawn(async move {
            let made = match birth_place {
                Ok(birth_place) => make(plan, run, work, tools, birth_place).await,
                Err(error) => Err(Obstacle::Resources { error: look::words(&error) }),
            };
            let fact = match made {
                Ok(tree) => Fact::Born(run, tree),
                Err(obstacle) => Fact::Event(Event::NotSpawned { run, obstacle }),
            };
            let _ = facts.send(fact);
        });
    }

    /// An earlier supervisor may have made it and died before it could say so. The first act of a process is to note its
    /// number; a process that has not come so far holds the run's pipe.
    pub(super) fn recall(&mut self, run: Run, since: Mono) -> Vec<Action> {
        if let Some(pid) = self.records.born(run) {
            let label = label(self.fleet.plan(), run);
            let output = self.tools.keeper.output_of(run).unwrap_or(0);
            let newborn = self.tools.spawner.adopt_newborn(&label, pid, output);
            self.tools.spawner.is_settled();
            let Some(tree) = newborn else {
                // It lived and is gone, and so is whoever could say how. What it left goes too: nobody could find it later.
                for (_, process) in self.tools.spawner.clear_leftovers(|other| other == label) {
                    if let Some(tree) = self.tools.spawner.adopt(&label, process, output) {
                        self.live(run, tree);
                    }
                }
                let mut actions = self.step(Event::Spawned { run, pid });
                actions.extend(self.step(Event::Exited { run, exit: Exit::Unknown }));
                return actions;
            };
            self.live(run, tree);
            return self.step(Event::Spawned { run, pid });
        }
        let now = self.clock.now();
        if self.tools.keeper.has_writer(run) == Some(true) && now.since(since) < BIRTH {
            let facts = self.facts.clone();
            tokio::spawn(async move {
                sleep(LOOK_AGAIN).await;
                let _ = facts.send(Fact::Recall(run, since));
            });
            return Vec::new();
        }
        self.tools.spawner.is_settled();
        self.step(Event::Unborn { run })
    }

    pub(super) fn sweep(&self, run: Run) {
        let Some(living) = self.trees.get(&run).cloned() else {
            let _ = self.facts.send(Fact::Event(Event::Swept { run, left: Vec::new() }));
            return;
        };
        let (tools, facts) = (Arc::clone(&self.tools), self.facts.clone());
        tokio::spawn(async move {
            let _no_check = living.check.end().await;
            let left = living.tree.sweep(&tools.spawner).await;
            let _ = facts.send(Fact::Event(Event::Swept { run, left }));
        });
    }

    /// Sends what a person wants sent, or says whom it could not be sent to. The log has it, as what follows has its cause
    /// there.
    pub(super) fn deliver(&self, run: Run, signal: Signal) -> Result<(), TroubleStatus> {
        let name = self.fleet.plan().spec(run.instance).name.clone();
        let sent =
            self.trees.get(&run).map_or(Err(io::ErrorKind::NotFound.into()), |living| living.tree.deliver(signal));
        match &sent {
            Ok(()) => info!("{name}: {signal} sent, as a person wished"),
            Err(error) => warn!("{name}: {signal} could not be sent: {error}"),
        }
        sent.map_err(|error| TroubleStatus { name, what: format!("{signal} could not be sent: {error}"), hint: None })
    }

    pub(super) fn probe(&mut self, run: Run) {
        let plan = Arc::clone(self.fleet.plan());
        let Some(living) = self.trees.get(&run).cloned() else { return };
        let (tools, facts) = (Arc::clone(&self.tools), self.facts.clone());
        self.checks += 1;
        let number = self.checks;
        tokio::spawn(async move {
            let spec = plan.spec(run.instance);
            let Some(check) = &spec.healthcheck else { return };
            let for_command = Arc::clone(&plan);
            let job = move |output| {
                let spec = for_command.spec(run.instance);
                let Some(HealthCheck { test: HealthTest::Command(words), .. }) = &spec.healthcheck else {
                    return Err(Obstacle::Resources { error: "no command".to_owned() });
                };
                let label = format!("{}-check-{number}", label(&for_command, run));
                job(&for_command, spec, label, words, |_| Ok(output))
            };
            let Living { tree, listener: known, check: under_way } = &living;
            let patient = Patient { spec, check, tree, known, under_way };
            let verdict = tools.prober.check(&patient, &tools.spawner, job).await;
            let _ = facts.send(Fact::Event(Event::Probed { run, verdict }));
        });
    }
}

/// Looks for obstacles, prepares the lane, makes the process.
async fn make(
    plan: Arc<Plan>,
    run: Run,
    work: Work,
    tools: Arc<Tools>,
    birth_place: BirthPlace,
) -> Result<Tree, Obstacle> {
    let prepare = {
        let tools = Arc::clone(&tools);
        move || {
            let spec = plan.spec(run.instance);
            let words = match work {
                Work::Server => &spec.command,
                Work::PreStart(position) => spec.pre_start.get(position).unwrap_or(&spec.command),
            };
            // Also before `pre_start`: migrating for a server that cannot start helps nobody.
            look::port(spec)?;
            if let Work::PreStart(position) = work
                && let Some(step) = spec.own_steps().get(position)
            {
                let job = own_job(spec, *step, label(&plan, run), |spec| tools.keeper.pipe(run, spec))?;
                return Ok(Job { birth_place: Some(birth_place), ..job });
            }
            let job = job(&plan, spec, label(&plan, run), words, |spec| tools.keeper.pipe(run, spec))?;
            Ok(Job { birth_place: Some(birth_place), ..job })
        }
    };
    tools.spawner.spawn(prepare).await
}

/// Names the run among all of its fleet: in its marker, and in its cgroup.
pub fn label(plan: &Plan, run: Run) -> String {
    format!("{}-{}", plan.spec(run.instance).name, run.generation)
}

/// A step of laneway's own: laneway itself, in the lane, logged as what the user wrote. It may wait for a server, so it
/// is no work for a thread of the supervisor's; and it alone gets the administrator's URL.
fn own_job(
    spec: &Spec,
    step: OwnStep,
    label: String,
    output: impl FnOnce(&Spec) -> io::Result<OwnedFd>,
) -> Result<Job, Obstacle> {
    prepare(spec)?;
    let bare = Spec { environment: BTreeMap::new(), inherited: BTreeSet::new(), ..spec.clone() };
    let scarce = |error: String| Obstacle::Resources { error };
    let verb = match step {
        OwnStep::Database => "make-database",
        OwnStep::Isolate => "make-isolation",
    };
    let bare = serde_json::to_string(&bare).map_err(|error| scarce(error.to_string()))?;
    Ok(Job {
        label,
        program: PathBuf::from("/proc/self/exe"),
        arguments: ["laneway", verb].map(str::to_owned).to_vec(),
        directory: PathBuf::from("/"),
        environment: BTreeMap::from([(lane::SPEC_VARIABLE.into(), bare.into())]),
        output: output(spec).map_err(|error| scarce(look::words(&error)))?,
        // It does what the instance may not.
        rules: None,
        birth_place: None,
    })
}

fn job(
    plan: &Plan,
    spec: &Spec,
    label: String,
    words: &[String],
    output: impl FnOnce(&Spec) -> io::Result<OwnedFd>,
) -> Result<Job, Obstacle> {
    let mut environment = prepare(spec)?;
    let rules = landlock::rules(plan, spec, &[]).map_err(broken)?;
    environment.insert("LANEWAY_INSTANCE".into(), OsString::from(spec.name.as_str()));
    let path = spec.environment.get("PATH").map(String::as_str);
    let program = look::program(words, &spec.working_dir, path)?;
    let output = output(spec).map_err(|error| Obstacle::Resources { error: look::words(&error) })?;
    let (arguments, directory) = (words.to_vec(), spec.working_dir.clone());
    Ok(Job { label, program, arguments, directory, environment, output, rules, birth_place: None })
}

fn prepare(spec: &Spec) -> Result<BTreeMap<OsString, OsString>, Obstacle> {
    lane::prepare(spec, durable::soon).map_err(broken)
}

fn broken(lane::LaneError { path, error }: lane::LaneError) -> Obstacle {
    match look::words(&error) {
        words if look::is_scarcity(&error) => Obstacle::Resources { error: words },
        words => Obstacle::Lane { error: words, path },
    }
}
