//! The one loop: an event comes in, the machine steps, its orders are carried out. It awaits nothing else: whatever may
//! block runs in a task or in the spawner thread and comes back as an event.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::{error, info, warn};

use super::clock::Clock;
use super::handle::{Handle, Order};
use super::home::Home;
use super::lane;
use super::link::KeeperLink;
use super::look;
use super::probe::{CheckUnderWay, KnownListener, Patient, Prober};
use super::spawn::{Job, Spawner};
use super::tree::Tree;
use crate::machine::{Action, Event, Fleet, Obstacle, Request, RequestId, Trouble, Wait, Work};
use crate::model::{Goal, Health, InstanceId, InstanceName, Phase, Run};
use crate::plan::spec::{Database, Framework, HealthCheck, HealthTest, Plan, Spec};
use crate::view::explain;
use crate::view::snapshot::{self, FleetStatus, InstanceStatus, Outcome, Surroundings};

/// Runs the fleet.
#[derive(Debug)]
pub struct Driver {
    clock: Clock,
    fleet: Fleet,
    home: Home,
    tools: Arc<Tools>,
    keeper_pid: u32,
    trees: HashMap<Run, Living>,
    facts: mpsc::UnboundedSender<Fact>,
    inbox: mpsc::UnboundedReceiver<Fact>,
    orders: mpsc::Receiver<Order>,
    waiting: HashMap<RequestId, Waiting>,
    requests: u64,
    watchers: broadcast::Sender<InstanceStatus>,
    goals: BTreeSet<InstanceName>,
    warnings: BTreeMap<InstanceId, String>,
    /// Counts health checks: each command check is a run with a label of its own.
    checks: u64,
}

/// What carries orders out.
#[derive(Debug)]
pub struct Tools {
    /// Makes processes.
    pub spawner: Spawner,
    /// Takes pipes and writes logs.
    pub keeper: KeeperLink,
    /// Checks health.
    pub prober: Prober,
}

/// The tree of a run, and its socket once it was seen.
#[derive(Clone, Debug)]
struct Living {
    tree: Arc<Tree>,
    listener: Arc<KnownListener>,
    check: Arc<CheckUnderWay>,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
struct Waiting {
    who: Vec<InstanceId>,
    reply: Option<oneshot::Sender<Outcome>>,
}

/// What tasks report.
#[derive(Debug)]
enum Fact {
    Born(Run, Tree),
    Event(Event),
    KeeperDied,
}

impl Driver {
    /// A driver of the fleet `plan`, at rest.
    #[must_use]
    pub fn new(plan: Arc<Plan>, clock: Clock, home: Home, tools: Tools, keeper_pid: u32, seed: u64) -> (Self, Handle) {
        let (handle, orders) = Handle::new();
        let (facts, inbox) = mpsc::unbounded_channel();
        let driver = Self {
            clock,
            fleet: Fleet::new(plan, seed),
            home,
            tools: Arc::new(tools),
            keeper_pid,
            trees: HashMap::new(),
            facts,
            inbox,
            orders,
            waiting: HashMap::new(),
            requests: 0,
            watchers: broadcast::channel(1024).0,
            goals: BTreeSet::new(),
            warnings: BTreeMap::new(),
            checks: 0,
        };
        (driver, handle)
    }

    /// Runs until everything is down. `keeper_died` resolves when the keeper does: then the fleet goes down too, for
    /// nobody reads its output any more.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub async fn run(mut self, keeper_died: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let facts = self.facts.clone();
        tokio::spawn(async move {
            keeper_died.await;
            let _ = facts.send(Fact::KeeperDied);
        });
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut child = signal(SignalKind::child())?;
        self.resume();
        loop {
            let deadline = self.fleet.next_deadline();
            let due = async {
                match deadline {
                    Some(at) => sleep_until(self.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            let actions = tokio::select! {
                biased;
                () = heard(&mut term) => self.go_down("SIGTERM"),
                () = heard(&mut interrupt) => self.go_down("SIGINT"),
                () = heard(&mut hangup) => Vec::new(),
                Some(fact) = self.inbox.recv() => self.take_fact(fact),
                Some(order) = self.orders.recv() => self.take_order(order),
                () = due => self.step(Event::DeadlinePassed),
                // Last: orphans that end all the time are not to keep anybody waiting.
                () = heard(&mut child) => {
                    self.tools.spawner.reap_strangers();
                    Vec::new()
                }
            };
            if self.obey(actions) {
                return Ok(());
            }
        }
    }

    /// Starts again what an earlier supervisor ran, if it did not end as planned.
    fn resume(&mut self) {
        let plan = Arc::clone(self.fleet.plan());
        let who: Vec<_> = self.home.goals().iter().filter_map(|name| plan.find(name.as_str())).collect();
        if !who.is_empty() {
            info!("an earlier supervisor died; starting {} instances again", who.len());
            self.requests += 1;
            let request = Request::Start { who, wait: Wait::Started };
            let actions = self.step(Event::Request { id: RequestId(self.requests), request });
            self.obey(actions);
        }
    }

    fn go_down(&mut self, why: &str) -> Vec<Action> {
        info!("{why}: going down");
        // Never without grace: a service manager sends one signal to the keeper, which hands it on, and one to us.
        self.requests += 1;
        self.step(Event::Request { id: RequestId(self.requests), request: Request::Down { now: false } })
    }

    fn take_fact(&mut self, fact: Fact) -> Vec<Action> {
        match fact {
            Fact::Event(event) => {
                if let Event::Swept { run, left } = &event
                    && left.is_empty()
                {
                    self.trees.remove(run);
                }
                self.step(event)
            }
            Fact::Born(run, tree) => {
                let (pid, tree) = (tree.pid(), Arc::new(tree));
                self.trees
                    .insert(run, Living { tree: Arc::clone(&tree), listener: Arc::default(), check: Arc::default() });
                let facts = self.facts.clone();
                tokio::spawn(async move {
                    let exit = tree.exit().await;
                    let _ = facts.send(Fact::Event(Event::Exited { run, exit }));
                });
                self.tools.spawner.reap_strangers();
                self.step(Event::Spawned { run, pid })
            }
            Fact::KeeperDied => {
                error!("the keeper died, and with it the logs");
                if self.fleet.is_ending() { Vec::new() } else { self.go_down("keeper died") }
            }
        }
    }

    fn take_order(&mut self, order: Order) -> Vec<Action> {
        match order {
            Order::Look(reply) => {
                let _ = reply.send(self.status());
                Vec::new()
            }
            Order::Watch(reply) => {
                let _ = reply.send((self.status(), self.watchers.subscribe()));
                Vec::new()
            }
            Order::Request(request, reply) => {
                self.requests += 1;
                let id = RequestId(self.requests);
                let who = match &request {
                    Request::Start { who, .. } | Request::Restart { who, .. } | Request::Stop { who } => who.clone(),
                    Request::Down { .. } => self.fleet.plan().ids().collect(),
                };
                self.waiting.insert(id, Waiting { who, reply: Some(reply) });
                self.step(Event::Request { id, request })
            }
        }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let is_request = matches!(event, Event::Request { .. });
        let actions = self.fleet.step(event, self.clock.now());
        if is_request {
            self.keep_goals();
        }
        actions
    }

    /// Goals are on the disk before a request is answered.
    fn keep_goals(&mut self) {
        let plan = self.fleet.plan();
        let up = plan.ids().filter(|id| self.fleet.instance(*id).goal == Goal::Up);
        let up: BTreeSet<_> = up.map(|id| plan.spec(id).name.clone()).collect();
        if up != self.goals {
            if let Err(error) = self.home.write_goals(&up) {
                warn!("the goals cannot be written: {error}");
            }
            self.goals = up;
        }
    }

    /// Carries orders out; returns whether the last of them was to end.
    fn obey(&mut self, actions: Vec<Action>) -> bool {
        let mut ends = false;
        for action in actions {
            match action {
                Action::Spawn { run, work } => self.spawn(run, work),
                Action::Signal { run, signal } => {
                    if let Some(living) = self.trees.get(&run) {
                        living.tree.signal(signal);
                    }
                }
                Action::Kill { run } => {
                    if let Some(living) = self.trees.get(&run) {
                        living.tree.kill();
                    }
                }
                Action::Sweep { run } => self.sweep(run),
                Action::Probe { run } => self.probe(run),
                Action::Changed { instance } => self.changed(instance),
                Action::Reply { id, answer } => self.reply(id, &answer.troubles),
                Action::Exit => ends = true,
            }
        }
        ends
    }

    fn spawn(&self, run: Run, work: Work) {
        let (plan, tools, facts) = (Arc::clone(self.fleet.plan()), Arc::clone(&self.tools), self.facts.clone());
        tokio::spawn(async move {
            let fact = match make(plan, run, work, tools).await {
                Ok(tree) => Fact::Born(run, tree),
                Err(obstacle) => Fact::Event(Event::NotSpawned { run, obstacle }),
            };
            let _ = facts.send(fact);
        });
    }

    fn sweep(&self, run: Run) {
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

    fn probe(&mut self, run: Run) {
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
                job(spec, format!("{}-check-{number}", label(&for_command, run)), words, |_| Ok(output))
            };
            let Living { tree, listener: known, check: under_way } = &living;
            let patient = Patient { spec, check, tree, known, under_way };
            let verdict = tools.prober.check(&patient, &tools.spawner, job).await;
            let _ = facts.send(Fact::Event(Event::Probed { run, verdict }));
        });
    }

    fn changed(&mut self, id: InstanceId) {
        self.look_for_ignored_facts(id);
        let status = self.instance(id);
        let level = (status.phase, status.health);
        let line = format!("{}: {}, {}: {}", status.name, status.phase, status.health, status.explanation.reason);
        match level {
            (Phase::Backoff | Phase::Failed | Phase::Waiting, _) | (_, Health::Unhealthy | Health::PortConflict) => {
                warn!("{line}");
            }
            _ => info!("{line}"),
        }
        let _ = self.watchers.send(status);
    }

    /// A Django app that answers well without its lane's database file has not read its facts.
    fn look_for_ignored_facts(&mut self, id: InstanceId) {
        let facts = &self.fleet.plan().spec(id).facts;
        if self.fleet.instance(id).state.health() != Health::Healthy {
            return;
        }
        match &facts.database {
            Database::Sqlite { path } if facts.framework == Framework::Django && !path.exists() => {
                self.warnings.insert(id, explain::ignored_database(path));
            }
            Database::Sqlite { .. } | Database::Postgres { .. } => {
                self.warnings.remove(&id);
            }
        }
    }

    fn reply(&mut self, id: RequestId, troubles: &[(InstanceId, Trouble)]) {
        let Some(Waiting { who, reply: Some(reply) }) = self.waiting.remove(&id) else { return };
        let told =
            troubles.iter().map(|(id, trouble)| snapshot::trouble(&self.fleet, *id, *trouble, &self.instance(*id)));
        let outcome = Outcome {
            done: troubles.is_empty(),
            troubles: told.collect(),
            instances: who.iter().map(|id| self.instance(*id)).collect(),
        };
        let _ = reply.send(outcome);
    }

    fn instance(&self, id: InstanceId) -> InstanceStatus {
        let spec = self.fleet.plan().spec(id);
        let surroundings = Surroundings { log: spec.log_file(), warning: self.warnings.get(&id).cloned() };
        snapshot::instance(&self.fleet, id, self.clock.now(), surroundings)
    }

    fn status(&self) -> FleetStatus {
        let plan = self.fleet.plan();
        FleetStatus {
            project: plan.project.clone(),
            file: plan.file.clone(),
            profile: plan.profile.clone(),
            supervisor_pid: std::process::id(),
            keeper_pid: self.keeper_pid,
            uptime_seconds: self.clock.now().0.as_secs_f64(),
            ending: self.fleet.is_ending(),
            instances: plan.ids().map(|id| self.instance(id)).collect(),
        }
    }
}

/// Resolves at the next signal of its kind; never if there can be none.
async fn heard(stream: &mut Stream) {
    if stream.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Looks for obstacles, prepares the lane, makes the process.
async fn make(plan: Arc<Plan>, run: Run, work: Work, tools: Arc<Tools>) -> Result<Tree, Obstacle> {
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
            job(spec, label(&plan, run), words, |spec| tools.keeper.pipe(run.instance, spec))
        }
    };
    tools.spawner.spawn(prepare).await
}

fn label(plan: &Plan, run: Run) -> String {
    format!("{}-{}", plan.spec(run.instance).name, run.generation)
}

fn job(
    spec: &Spec,
    label: String,
    words: &[String],
    output: impl FnOnce(&Spec) -> io::Result<OwnedFd>,
) -> Result<Job, Obstacle> {
    let broken = |error: lane::LaneError| Obstacle::Lane { error: look::words(&error.error), path: error.path };
    let mut environment = lane::prepare(spec).map_err(broken)?;
    environment.insert("LANEWAY_INSTANCE".into(), OsString::from(spec.name.as_str()));
    let path = spec.environment.get("PATH").map(String::as_str);
    let program = look::program(words, &spec.working_dir, path)?;
    let output = output(spec).map_err(|error| Obstacle::Resources { error: look::words(&error) })?;
    let (arguments, directory) = (words.to_vec(), spec.working_dir.clone());
    Ok(Job { label, program, arguments, directory, environment, output })
}
