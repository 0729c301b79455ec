//! The one loop: an event comes in, the machine steps, its orders are carried out. It awaits nothing else: whatever may
//! block runs in a task or in the spawner thread and comes back as an event.

mod pair;
mod reload;
mod told;
mod work;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::sleep_until;
use tracing::{error, info};

use super::audit::{Act, Door, Ending};
use super::auditor::Auditor;
use super::care::{Care, Line};
use super::clock::{Clock, wall_clock};
use super::handle::{Handle, Order};
use super::link::KeeperLink;
use super::probe::{CheckUnderWay, KnownListener, Prober};
use super::publisher::Publisher;
use super::records::{Record, Records};
use super::reload::{Origin, Refused, Reload, Resolved};
use super::spawn::Spawner;
use super::succession::Adopted;
use super::tree::Tree;
use super::upgrade;
use crate::keeper::protocol::Kept;
use crate::machine::{Action, Event, Fleet, Memory, Request, RequestId, Standing, Wait};
use crate::model::{Exit, InstanceId, Mono, Run};
use crate::plan::spec::Plan;
use crate::view::snapshot::InstanceStatus;
use told::{Reply, Waiting};
pub(super) use work::label;

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
    /// Tells the apps how everybody is.
    publisher: Publisher,
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
    /// Writes down what people wish.
    pub auditor: Auditor,
}

/// The tree of a run, and its socket once it was seen.
#[derive(Clone, Debug)]
struct Living {
    tree: Arc<Tree>,
    listener: Arc<KnownListener>,
    check: Arc<CheckUnderWay>,
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
            publisher: Publisher::default(),
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
        self.tools.spawner.reap_strangers_at_keeper();
        self.look_after_logs();
        self.follow_plan();
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
                    self.note_signal("apply", "SIGHUP");
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

    fn go_down(&mut self, why: &str) -> Vec<Action> {
        info!("{why}: going down");
        if !self.fleet.is_ending() {
            self.note_signal("down", why);
        }
        // Never without grace: a service manager sends one signal to the keeper, which hands it on, and one to us.
        let id = self.next_request();
        self.step(Event::Request { id, request: Request::Down { now: false } })
    }

    /// A signal does not say whose it is, and nobody waits for its end.
    fn note_signal(&self, verb: &str, signal: &str) {
        let (verb, detail) = (verb.to_owned(), Some(signal.to_owned()));
        let act = Act { door: Door::Signal, peer: None, verb, instances: vec!["*".to_owned()], detail };
        self.tools.auditor.note(act, Ending { outcome: "taken", detail: None });
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
                self.step(Event::Spawned { run, pid })
            }
            Fact::Recall(run, since) => self.recall(run, since),
            Fact::KeepersChild => {
                self.tools.spawner.reap_strangers_at_keeper();
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
                    Request::Signal { who, .. } if !who.is_empty() => who.clone(),
                    Request::Signal { .. } => {
                        let runs = |id: &InstanceId| self.fleet.instance(*id).state.pid().is_some();
                        self.fleet.present().into_iter().filter(runs).collect()
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
        let is_other = !self.fleet.is_kept_in(&self.memory);
        if is_other {
            self.memory = self.fleet.memory();
        }
        self.records.save(&changed, is_other.then_some(&self.memory));
    }

    fn record(&self, id: InstanceId) -> Record {
        let process = |run| self.trees.get(&run).map(|living| living.tree.identity());
        Record::of(self.fleet.plan(), id, self.fleet.instance(id), &self.tools.keeper, process)
    }

    /// Carries orders out; returns whether the last of them was to end.
    fn obey(&mut self, actions: Vec<Action>) -> bool {
        let mut ends = false;
        let mut undelivered = Vec::new();
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
                Action::Deliver { id, run, signal } => {
                    undelivered.extend(self.deliver(run, signal).err().map(|trouble| (id, trouble)));
                }
                Action::Kill { run } => {
                    if let Some(living) = self.trees.get(&run) {
                        living.tree.kill();
                    }
                }
                Action::Sweep { run } => self.sweep(run),
                Action::Probe { run } => self.probe(run),
                Action::Changed { instance } => self.changed(instance),
                Action::Reply { id, answer } => self.reply(id, &answer.troubles, &undelivered),
                Action::Exit => ends = true,
            }
        }
        ends
    }
}

/// Resolves at the next signal of its kind; never if there can be none.
async fn heard(stream: &mut Stream) {
    if stream.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
