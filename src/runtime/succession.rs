//! What a supervisor finds when it starts: the descriptors that were left to it, what was recorded, and the processes
//! that still run. Nothing is believed that the kernel does not confirm: pid and start time, boot, cgroup, marker.
//!
//! Called once by `daemon`, before the driver runs.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use nix::libc::{O_CLOEXEC, O_NONBLOCK};
use tracing::info;

use super::care;
use super::driver::label;
use super::link::{Estate, KeeperLink, run_of};
use super::processes::Identity;
use super::records::{Record, Recorded, Records};
use super::spawn::Spawner;
use super::tree::Tree;
use crate::keeper::protocol::{Kept, Order};
use crate::keeper::table;
use crate::machine::{Instance, Memory};
use crate::model::{Goal, InstanceId, Run};
use crate::plan::Plan;

/// What was left to this process.
#[derive(Debug)]
pub struct Inheritance {
    /// What both hold.
    pub estate: Estate,
    /// The link to the keeper.
    pub link: OwnedFd,
    /// A handle to the keeper.
    pub keeper: OwnedFd,
    /// The pipes that the keeper reads.
    pub pipes: Vec<(Run, OwnedFd)>,
    /// What is recorded made earlier supervisors crash.
    pub distrust: bool,
}

impl Inheritance {
    /// Takes over the table at `number`.
    ///
    /// # Errors
    /// When it is none, or not one for a supervisor.
    pub fn take(number: RawFd) -> io::Result<Self> {
        let (mut estate, mut pipes) = (Estate::new(), Vec::new());
        let (mut link, mut keeper, mut distrust) = (None, None, false);
        table::inherit(number, |order, descriptor| match (order, descriptor) {
            (Order::Keep(what), Some(kept)) => {
                estate.insert(what, kept);
            }
            (Order::Link, socket) => link = socket,
            (Order::Peer, pidfd) => keeper = pidfd,
            (Order::Run { slot, generation }, Some(pipe)) => pipes.push((run_of(slot, generation), pipe)),
            (Order::Distrust, _) => distrust = true,
            // For a keeper.
            (
                Order::Keep(_)
                | Order::Run { .. }
                | Order::Log { .. }
                | Order::Fifo { .. }
                | Order::Ready
                | Order::Output
                | Order::Reap { .. }
                | Order::Bye { .. }
                | Order::Become,
                _,
            ) => {}
        })?;
        let missing = |what: &str| io::Error::other(format!("the table has no {what}"));
        let link = link.ok_or_else(|| missing("link"))?;
        let keeper = keeper.ok_or_else(|| missing("keeper"))?;
        Ok(Self { estate, link, keeper, pipes, distrust })
    }

    /// Takes one of the descriptors that both hold out of the estate.
    pub fn remove(&mut self, what: Kept) -> Option<OwnedFd> {
        self.estate.remove(&what)
    }
}

/// Who died before this supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// A supervisor: what is recorded is exact, and every spawn can be resolved.
    Supervisor,
    /// Both, or nobody: what is recorded is a hint, and a person asks anew.
    Both,
    /// Supervisors that crashed over what is recorded: nothing of it is believed but the goals.
    Crashes,
}

/// What goes on.
#[derive(Debug)]
pub struct Adopted {
    /// The instances, in the order of the plan.
    pub instances: Vec<Instance>,
    /// What else the fleet knew.
    pub memory: Memory,
    /// The processes of their runs.
    pub trees: Vec<(Run, Tree)>,
    /// The runs whose first process is gone, and nobody knows how it ended.
    pub gone: Vec<Run>,
    /// Who shall run and is not among them.
    pub wanted: Vec<InstanceId>,
}

impl Adopted {
    /// Takes over what `recorded` speaks of and the kernel confirms, and ends everything else that earlier supervisors of
    /// this fleet left. `is_same` says whether an instance is still what it was when it was recorded.
    #[must_use]
    pub fn find(
        plan: &Arc<Plan>,
        recorded: Recorded,
        after: After,
        spawner: &Spawner,
        keeper: &KeeperLink,
        is_same: impl Fn(InstanceId) -> bool,
    ) -> Self {
        let mut adopted = Self {
            instances: Vec::new(),
            memory: match after {
                After::Supervisor => recorded.memory,
                After::Both => recorded.memory.without_wishes(plan),
                After::Crashes => Memory::default().without_wishes(plan),
            },
            trees: Vec::new(),
            gone: Vec::new(),
            wanted: Vec::new(),
        };
        let mut known = BTreeSet::new();
        let runs = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.instance.generation);
        let runs: Vec<u64> = recorded.instances.iter().map(runs).collect();
        let places = (0..).map(InstanceId).zip(recorded.instances);
        let mut records: HashMap<_, _> =
            places.filter_map(|(id, record)| record.map(|record| (record.name.clone(), (id, record)))).collect();
        let retired: BTreeSet<_> = plan.retired().collect();
        for id in plan.places() {
            // Whoever comes to this place, its runs are counted on: what is left of one is never taken for another.
            let generation = runs.get(id.index()).copied().unwrap_or(0);
            let Some((place, record)) = records.remove(&plan.spec(id).name) else {
                adopted.instances.push(Instance::at_rest_after(generation, false));
                continue;
            };
            if after == After::Crashes {
                adopted.wanted.extend((record.instance.goal == Goal::Up && !retired.contains(&id)).then_some(id));
            }
            // Its runs go by the place that it had. Wherever that was, what a person wanted of it still holds.
            let may_live = place == id
                && match after {
                    After::Supervisor => true,
                    After::Both => recorded.is_of_this_boot && is_same(id),
                    After::Crashes => false,
                };
            let found = if may_live { find_run(plan, &record, spawner) } else { Found::Nothing };
            let Record { instance, output, .. } = record;
            let run = instance.state.run();
            let mut goes_on = may_live && after == After::Supervisor;
            match (found, run) {
                (Found::Tree(tree), Some(run)) => {
                    // A new keeper was not told; one that lives on hears it twice.
                    if keeper.declare(id, plan.spec(id)).is_err() {
                        care::make_again(plan, id, keeper);
                    }
                    if after == After::Both {
                        reopen_output(&tree, run, output, keeper);
                    }
                    known.insert(label(plan, run));
                    adopted.trees.push((run, tree));
                    goes_on = true;
                }
                // What else there is of it ends with the leftovers.
                (Found::Gone, Some(run)) => adopted.gone.push(run),
                // The supervisor before knew that it is gone, and died too.
                (Found::Nothing, Some(run)) if goes_on && instance.state.pid().is_some() => adopted.gone.push(run),
                // It may be being born.
                (Found::Nothing, Some(run)) if goes_on => {
                    known.insert(label(plan, run));
                }
                (Found::Nothing, _) | (_, None) => {}
            }
            let rests = Instance::at_rest_after(generation.max(instance.generation), instance.held);
            adopted.instances.push(if goes_on { instance } else { rests });
        }
        for (label, process) in spawner.clear_leftovers(|run| !known.contains(run)) {
            adopted.wait_for(plan, &label, process, spawner);
        }
        if !adopted.trees.is_empty() {
            info!("took over {} running processes", adopted.trees.len());
        }
        adopted
    }

    /// An instance of which something would not go waits for its end, as after a stop: nothing runs twice. It may be the
    /// rest of a run that was being cleared.
    fn wait_for(&mut self, plan: &Plan, label: &str, process: Identity, spawner: &Spawner) {
        let Some((name, generation)) = label.rsplit_once('-') else { return };
        let place = plan.places().find(|id| plan.spec(*id).name.as_str() == name);
        let (Some(id), Ok(generation)) = (place, generation.parse()) else { return };
        let run = Run { instance: id, generation };
        if let Some(instance) = self.instances.get_mut(id.index())
            && (instance.state.run() == Some(run) || instance.wait_for(run))
        {
            self.trees.extend(spawner.adopt(label, process, 0).map(|tree| (run, tree)));
        }
    }

    /// Records what goes on, so that whoever succeeds this supervisor finds all of it.
    pub fn record(&self, plan: &Plan, keeper: &KeeperLink, records: &mut Records) {
        let living: HashMap<_, _> = self.trees.iter().map(|(run, tree)| (*run, tree.identity())).collect();
        let record = |(id, instance)| (id, Record::of(plan, id, instance, keeper, |run| living.get(&run).copied()));
        let all: Vec<_> = plan.places().zip(&self.instances).map(record).collect();
        records.save(&all, Some(&self.memory));
    }
}

/// What became of a recorded run.
enum Found {
    /// There is none, or its first process is not known.
    Nothing,
    /// Its first process is gone.
    Gone,
    /// Its first process lives, or nobody has reaped it.
    Tree(Tree),
}

fn find_run(plan: &Plan, record: &Record, spawner: &Spawner) -> Found {
    let (Some(run), Some(process)) = (record.instance.state.run(), record.process) else { return Found::Nothing };
    spawner.adopt(&label(plan, run), process, record.output.unwrap_or(0)).map_or(Found::Gone, Found::Tree)
}

/// Both are dead, and so are their ends of the pipe; the run has its own, and it is open for reading too.
fn reopen_output(tree: &Tree, run: Run, output: Option<u64>, keeper: &KeeperLink) {
    for pid in tree.members() {
        for number in [1, 2] {
            let path = format!("/proc/{pid}/fd/{number}");
            let is_ours = output.is_some() && fs::metadata(&path).ok().map(|metadata| metadata.ino()) == output;
            let opened = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_CLOEXEC).open(&path);
            if let (true, Ok(pipe)) = (is_ours, opened)
                && keeper.read(run, pipe.into()).is_ok()
            {
                return;
            }
        }
    }
}
