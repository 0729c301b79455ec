//! The one loop: an event comes in, the machine steps, its orders are carried out. It awaits nothing else: whatever may
//! block runs in a task or in the spawner thread and comes back as an event.

mod reload;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use super::care::{self, Care, Line};
use super::clock::{Clock, pause, wall_clock};
use super::handle::{Handle, Order};
use super::lane;
use super::link::{KeeperLink, Log, News, pidfd_of};
use super::look;
use super::probe::{CheckUnderWay, KnownListener, Patient, Prober};
use super::processes::ended;
use super::records::{BirthPlace, Record, Records};
use super::reload::{Asker, Origin, Refused, Reload, Resolved};
use super::spawn::{Job, Spawner};
use super::succession::Adopted;
use super::tree::Tree;
use super::upgrade;
use crate::keeper::protocol::{Kept, news};
use crate::machine::{Action, Event, Fleet, Memory, Obstacle, Request, RequestId, Standing, Trouble, Wait, Work};
use crate::model::{Exit, Health, InstanceId, InstanceName, Mono, Phase, Run};
use crate::plan::Change;
use crate::plan::spec::{Database, Framework, HealthCheck, HealthTest, Plan, Spec};
use crate::view::explain;
use crate::view::snapshot::{self, Applied, FleetStatus, InstanceStatus, Outcome, Surroundings};

/// From one try to start a keeper to the next.
const KEEPER_AGAIN: Duration = Duration::from_millis(500);
/// How long a process may take from its clone to its first act.
const BIRTH: Duration = Duration::from_secs(5);
/// From one look at a birth to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// From the answer to whoever asked for an upgrade to the upgrade.
const GOODBYE: Duration = Duration::from_millis(50);
/// How long an answer waits for the disk.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the fleet.
#[derive(Debug)]
pub struct Driver {
    clock: Clock,
    fleet: Fleet,
    tools: Arc<Tools>,
    started: Mono,
    trees: HashMap<Run, Living>,
    records: Records,
    memory: Memory,
    facts: mpsc::UnboundedSender<Fact>,
    inbox: mpsc::UnboundedReceiver<Fact>,
    orders: mpsc::Receiver<Order>,
    waiting: HashMap<RequestId, Waiting>,
    requests: u64,
    watchers: broadcast::Sender<InstanceStatus>,
    warnings: BTreeMap<InstanceId, String>,
    /// Counts health checks: each command check is a run with a label of its own.
    checks: u64,
    /// Who shall be started before anything else.
    wanted: Vec<InstanceId>,
    /// Where the binary to become is named.
    upgrade: PathBuf,
    /// What the keeper knows of every log.
    journal: Option<OwnedFd>,
    care: Care,
    to_compress: Line,
    /// Where the plan comes from.
    origin: Arc<dyn Origin>,
    /// Those that have not begun, and whether another one is under way.
    reloads: VecDeque<Reload>,
    is_reloading: bool,
    /// The plan, for the doors.
    plans: watch::Sender<Arc<Plan>>,
    /// The revision of the plan that clients find on the disk.
    published: watch::Sender<u64>,
}

/// What carries orders out.
#[derive(Debug)]
pub struct Tools {
    /// Makes processes.
    pub spawner: Spawner,
    /// Takes pipes and writes logs.
    pub keeper: Arc<KeeperLink>,
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
    /// Whom the wish left alone.
    kept_stopped: Vec<InstanceName>,
    reply: Reply,
}

/// Where an answer goes.
#[derive(Debug)]
enum Reply {
    Outcome(oneshot::Sender<Outcome>),
    /// With what changed.
    Applied(Vec<Change>, Asker),
}

impl Reply {
    fn send(self, outcome: Outcome) {
        match self {
            Self::Outcome(reply) => {
                let _ = reply.send(outcome);
            }
            Self::Applied(changes, reply) => {
                let _ = reply.send(Ok(Applied { changes, outcome }));
            }
        }
    }
}

/// What tasks report.
#[derive(Debug)]
enum Fact {
    Born(Run, Tree),
    Event(Event),
    /// Was this run born before this supervisor was? Asked since then.
    Recall(Run, Mono),
    /// A child of the keeper has ended, and may be a stranger.
    KeepersChild,
    /// Something about the logs has changed.
    Logs,
    /// Rotated files were compressed.
    Compressed,
    KeeperDied,
    /// A binary proved itself, and whoever asked was told.
    Proven(OwnedFd),
    /// The file was read again.
    Resolved(Reload, Box<Result<Resolved, Refused>>),
    /// Clients and other fleets know the plan with this revision.
    Published(u64),
}

impl Driver {
    /// A driver of the fleet `plan`, which came from `origin`, that goes on with what was `adopted`. `upgrade` is where a
    /// binary to become is named.
    #[must_use]
    pub fn new(
        plan: Arc<Plan>,
        origin: Arc<dyn Origin>,
        upgrade: PathBuf,
        tools: Tools,
        records: Records,
        adopted: Adopted,
    ) -> (Self, Handle) {
        let clock = Clock::start();
        let seed = u64::from(std::process::id()) ^ u64::from(wall_clock().subsec_nanos()) << 32;
        let plans = watch::channel(Arc::clone(&plan)).0;
        let published = watch::channel(plan.revision).0;
        let (handle, orders) = Handle::new(plans.subscribe());
        let (facts, inbox) = mpsc::unbounded_channel();
        let Adopted { instances, memory, trees, gone, wanted } = adopted;
        for run in gone {
            let _ = facts.send(Fact::Event(Event::Exited { run, exit: Exit::Unknown }));
        }
        let mut driver = Self {
            clock,
            fleet: Fleet::restore(plan, seed, instances, memory),
            journal: tools.keeper.kept(Kept::Journal),
            tools: Arc::new(tools),
            started: clock.now(),
            trees: HashMap::new(),
            records,
            memory: Memory::default(),
            facts,
            inbox,
            orders,
            waiting: HashMap::new(),
            requests: 0,
            watchers: broadcast::channel(1024).0,
            warnings: BTreeMap::new(),
            checks: 0,
            wanted: Vec::new(),
            upgrade,
            care: Care::default(),
            to_compress: Line::default(),
            origin,
            reloads: VecDeque::new(),
            is_reloading: false,
            plans,
            published,
        };
        for (run, tree) in trees {
            driver.live(run, tree);
        }
        driver.wanted = wanted;
        (driver, handle)
    }

    /// Runs until everything is down. `keeper` is a handle to the keeper.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub async fn run(mut self, keeper: OwnedFd) -> io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut child = signal(SignalKind::child())?;
        upgrade::hear_signals();
        self.listen_to_keeper(keeper);
        let now = self.clock.now();
        let mut actions = self.fleet.resume(now);
        let who = std::mem::take(&mut self.wanted);
        if !who.is_empty() {
            let id = self.next_request();
            let request = Request::Start { who, wait: Wait::Started };
            actions.extend(self.fleet.step(Event::Request { id, request }, now));
        }
        // Not before: who shall run would be forgotten if this supervisor died in between.
        self.save();
        if self.obey(actions) {
            return Ok(());
        }
        self.tools.spawner.reap_strangers();
        self.look_after_logs();
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
                () = heard(&mut hangup) => {
                    self.hang_up();
                    Vec::new()
                }
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

    /// Hears of its death, and of what it says until then.
    fn listen_to_keeper(&self, keeper: OwnedFd) {
        let facts = self.facts.clone();
        tokio::spawn(async move {
            if ended(keeper).await.is_ok() {
                let _ = facts.send(Fact::KeeperDied);
            }
        });
        let (facts, socket) = (self.facts.clone(), self.tools.keeper.socket());
        tokio::spawn(async move {
            let Ok(socket) = socket else { return };
            let Ok(mut stream) = News::new(socket) else { return };
            while let Ok(news) = stream.next().await {
                let fact = match news {
                    news::CHILD => Fact::KeepersChild,
                    news::LOGS => Fact::Logs,
                    _ => continue,
                };
                let _ = facts.send(fact);
            }
        });
    }

    /// Nothing is lost by its death but the process itself: the servers write on, and what they write waits in pipes.
    fn succeed_keeper(&mut self) {
        match self.tools.keeper.succeed(&self.tools.spawner) {
            Ok(keeper) => {
                let pid = self.tools.keeper.pid();
                warn!("the keeper died; a new one runs, pid {pid}");
                self.listen_to_keeper(keeper);
            }
            Err(error) => {
                error!("the keeper died, and no new one can be started: {error}; trying again");
                let facts = self.facts.clone();
                tokio::spawn(async move {
                    sleep(KEEPER_AGAIN).await;
                    let _ = facts.send(Fact::KeeperDied);
                });
            }
        }
    }

    fn look_after_logs(&mut self) {
        let Some(journal) = &self.journal else { return };
        let chores = self.care.look(self.fleet.plan(), journal);
        for id in chores.to_make {
            let (plan, tools) = (Arc::clone(self.fleet.plan()), Arc::clone(&self.tools));
            tokio::task::spawn_blocking(move || care::make_again(&plan, id, &tools));
        }
        for id in chores.changed {
            let status = self.instance(id);
            for trouble in &status.log_troubles {
                warn!("{}: {}", status.name, trouble.in_words());
            }
            let _ = self.watchers.send(status);
        }
        let next = self.to_compress.join(chores.to_compress);
        self.compress(next);
    }

    fn compress(&self, who: Option<(InstanceId, Log, u64)>) {
        let Some((id, log, last)) = who else { return };
        let (plan, tools, facts) = (Arc::clone(self.fleet.plan()), Arc::clone(&self.tools), self.facts.clone());
        tokio::spawn(async move {
            care::compress(plan, id, log, last, tools).await;
            let _ = facts.send(Fact::Compressed);
        });
    }

    /// In a thread of its own: a binary may take its time to fail.
    fn prove_binary(&self, reply: oneshot::Sender<Result<String, String>>) {
        let keeper = &self.tools.keeper;
        if keeper.kept(Kept::Binary).is_some() {
            let _ = reply.send(Err("an upgrade is under way already: the keeper follows soon".to_owned()));
            return;
        }
        let (launch, records) = (keeper.kept(Kept::Launch), keeper.kept(Kept::Records));
        let (path, instances, facts) = (self.upgrade.clone(), self.fleet.plan().specs.len(), self.facts.clone());
        let tools = Arc::clone(&self.tools);
        tokio::task::spawn_blocking(move || {
            let (Some(launch), Some(records)) = (launch, records) else { return };
            let binary = upgrade::open_binary(&path);
            let proof = binary
                .and_then(|file| Ok((upgrade::prove(&file, &launch, &records, instances, &tools.spawner)?, file)));
            let binary = match proof {
                Ok((version, binary)) => {
                    info!("becoming laneway {version}");
                    let _ = reply.send(Ok(version));
                    binary
                }
                Err(why) => {
                    warn!("refused to become another binary: {why}");
                    let _ = reply.send(Err(why));
                    return;
                }
            };
            // Time for the answer to leave.
            pause(GOODBYE);
            let _ = facts.send(Fact::Proven(binary.into()));
        });
    }

    /// Everything is recorded already, as for a successor. If the new program dies soon, the keeper starts the old one.
    fn become_binary(&mut self, binary: &OwnedFd) -> io::Result<()> {
        let keeper = &self.tools.keeper;
        keeper.keep(Kept::Binary, binary.try_clone()?)?;
        let peer = pidfd_of(keeper.pid())?;
        let table = keeper.leave(&peer)?;
        let Err(error) = upgrade::become_program(binary, &table);
        keeper.forget(Kept::Binary);
        Err(error)
    }

    fn go_down(&mut self, why: &str) -> Vec<Action> {
        info!("{why}: going down");
        // Never without grace: a service manager sends one signal to the keeper, which hands it on, and one to us.
        let id = self.next_request();
        self.step(Event::Request { id, request: Request::Down { now: false } })
    }

    /// A name for a request that came without: no supervisor of this boot has used it.
    fn next_request(&mut self) -> RequestId {
        let now = u64::try_from(self.clock.now().0.as_nanos()).unwrap_or(u64::MAX);
        self.requests = now.max(self.requests + 1);
        RequestId(self.requests)
    }

    /// The processes of a run, from now on.
    fn live(&mut self, run: Run, tree: Tree) {
        let tree = Arc::new(tree);
        self.trees.insert(run, Living { tree: Arc::clone(&tree), listener: Arc::default(), check: Arc::default() });
        let facts = self.facts.clone();
        tokio::spawn(async move {
            let exit = tree.exit().await;
            let _ = facts.send(Fact::Event(Event::Exited { run, exit }));
        });
    }

    fn take_fact(&mut self, fact: Fact) -> Vec<Action> {
        match fact {
            Fact::Event(event) => {
                let swept = if let Event::Swept { run, .. } = &event { Some(*run) } else { None };
                let actions = self.step(event);
                // Else somebody is left, or its end has not been heard of: then it is swept once more, and recorded until
                // then.
                if let Some(run) = swept
                    && self.fleet.instance(run.instance).state.run() != Some(run)
                {
                    self.trees.remove(&run);
                    self.tools.keeper.is_over(run);
                }
                actions
            }
            Fact::Born(run, tree) => {
                let pid = tree.pid();
                self.live(run, tree);
                self.tools.spawner.reap_strangers();
                self.step(Event::Spawned { run, pid })
            }
            Fact::Recall(run, since) => self.recall(run, since),
            Fact::KeepersChild => {
                self.tools.spawner.reap_strangers();
                Vec::new()
            }
            Fact::Logs => {
                self.look_after_logs();
                Vec::new()
            }
            Fact::Compressed => {
                let next = self.to_compress.done();
                self.compress(next);
                Vec::new()
            }
            Fact::KeeperDied => {
                self.succeed_keeper();
                // Its successor says only what is new.
                self.look_after_logs();
                Vec::new()
            }
            Fact::Resolved(reload, resolved) => self.resolved(reload, *resolved),
            Fact::Published(revision) => {
                self.published(revision);
                Vec::new()
            }
            Fact::Proven(binary) => {
                if let Err(error) = self.become_binary(&binary) {
                    error!("the new binary cannot be run, this one goes on: {error}");
                }
                Vec::new()
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
            Order::Upgrade(reply) => {
                self.prove_binary(reply);
                Vec::new()
            }
            Order::Reload(reload) => {
                self.take_reload(reload);
                Vec::new()
            }
            Order::Request(id, request, reply) => {
                let id = id.unwrap_or_else(|| self.next_request());
                let mut kept_stopped = Vec::new();
                let who = match &request {
                    Request::Start { who, .. } | Request::Restart { who, .. } | Request::Stop { who } => who.clone(),
                    Request::StartAll { .. } => {
                        kept_stopped = self.fleet.kept_stopped();
                        let starts = |id: &InstanceId| !kept_stopped.contains(id);
                        self.fleet.plan().ids().filter(starts).collect()
                    }
                    Request::Apply { .. } | Request::Down { .. } => self.fleet.present(),
                };
                let kept_stopped = kept_stopped.iter().map(|id| self.fleet.plan().spec(*id).name.clone()).collect();
                self.waiting.insert(id, Waiting { who, kept_stopped, reply: Reply::Outcome(reply) });
                match self.fleet.standing(id) {
                    Standing::New => self.step(Event::Request { id, request }),
                    Standing::Waits => Vec::new(),
                    Standing::Answered(answer) => vec![Action::Reply { id, answer }],
                }
            }
        }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.fleet.step(event, self.clock.now());
        self.save();
        actions
    }

    /// What changed is recorded before the orders that follow from it are carried out: whoever comes after this process
    /// knows what may be under way.
    fn save(&mut self) {
        let changed: Vec<_> = self.fleet.take_unsaved().into_iter().map(|id| (id, self.record(id))).collect();
        let memory = self.fleet.memory();
        let is_other = memory != self.memory;
        self.records.save(&changed, is_other.then_some(&memory));
        self.memory = memory;
    }

    fn record(&self, id: InstanceId) -> Record {
        let instance = self.fleet.instance(id).clone();
        let run = instance.state.run();
        let process = run.and_then(|run| self.trees.get(&run)).map(|living| living.tree.identity());
        let output = run.and_then(|run| self.tools.keeper.output_of(run));
        Record { name: self.fleet.plan().spec(id).name.clone(), instance, process, output }
    }

    /// Carries orders out; returns whether the last of them was to end.
    fn obey(&mut self, actions: Vec<Action>) -> bool {
        let mut ends = false;
        for action in actions {
            match action {
                Action::Spawn { run, work } => self.spawn(run, work),
                Action::Recall { run } => {
                    self.tools.spawner.is_in_doubt();
                    let _ = self.facts.send(Fact::Recall(run, self.clock.now()));
                }
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
    fn recall(&mut self, run: Run, since: Mono) -> Vec<Action> {
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
        let Some(Waiting { who, kept_stopped, reply }) = self.waiting.remove(&id) else { return };
        let told =
            troubles.iter().map(|(id, trouble)| snapshot::trouble(&self.fleet, *id, *trouble, &self.instance(*id)));
        let outcome = Outcome {
            done: troubles.is_empty(),
            troubles: told.collect(),
            instances: who.iter().map(|id| self.instance(*id)).collect(),
            kept_stopped,
        };
        let flushed = self.records.flushed();
        let (mut published, revision) = (self.published.subscribe(), self.fleet.plan().revision);
        tokio::spawn(async move {
            // What was wished is on the disk before it is answered, and the plan that it speaks of, unless the disk hangs.
            let written = async {
                flushed.await;
                let _ = published.wait_for(|known| *known >= revision).await;
            };
            if timeout(DISK_PATIENCE, written).await.is_err() {
                warn!("the disk does not take the records; they are in memory");
            }
            reply.send(outcome);
        });
    }

    fn instance(&self, id: InstanceId) -> InstanceStatus {
        let spec = self.fleet.plan().spec(id);
        let now = u64::try_from(wall_clock().as_micros()).unwrap_or(u64::MAX);
        let log_troubles =
            self.journal.as_ref().map(|journal| self.care.trouble(id, spec, journal, now)).unwrap_or_default();
        let surroundings =
            Surroundings { log: spec.log_file(), log_troubles, warning: self.warnings.get(&id).cloned() };
        snapshot::instance(&self.fleet, id, self.clock.now(), surroundings)
    }

    fn status(&self) -> FleetStatus {
        let plan = self.fleet.plan();
        FleetStatus {
            project: plan.project.clone(),
            file: plan.file.clone(),
            profile: plan.profile.clone(),
            supervisor_pid: std::process::id(),
            keeper_pid: self.tools.keeper.pid(),
            uptime_seconds: self.clock.now().since(self.started).as_secs_f64(),
            ending: self.fleet.is_ending(),
            instances: self.fleet.present().into_iter().map(|id| self.instance(id)).collect(),
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
            let job = job(spec, label(&plan, run), words, |spec| tools.keeper.pipe(run, spec))?;
            Ok(Job { birth_place: Some(birth_place), ..job })
        }
    };
    tools.spawner.spawn(prepare).await
}

/// Names the run among all of its fleet: in its marker, and in its cgroup.
pub(super) fn label(plan: &Plan, run: Run) -> String {
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
    Ok(Job { label, program, arguments, directory, environment, output, birth_place: None })
}
