//! Fleets by chance: every policy, with and without checks, `pre_start`, dependencies and brake; and how their servers
//! behave.

use std::sync::Arc;
use std::time::Duration;

use super::super::{
    Brake, Condition, Dependency, Facts, HealthCheck, HealthTest, InstanceId, Plan, Restart, RestartPolicy, Spec, plan,
    spec,
};
use super::dice::Dice;
use crate::model::Mono;

/// How one server of an instance behaves, from its first moment on. Points in time count from there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conduct {
    /// When it answers.
    pub(super) ready: Duration,
    /// When it stops to answer without an end.
    pub(super) hangs: Option<Duration>,
    /// When it ends by itself, and with which code.
    pub(super) ends: Option<(Duration, i32)>,
    pub(super) ignores_term: bool,
    /// Children that outlive it.
    pub(super) children: u64,
    /// How long a kill takes, at most in milliseconds: a process may wait for a disk.
    pub(super) dying: u64,
}

/// A fleet of 3 to 40 instances, mostly small.
pub(super) fn fleet(dice: &mut Dice) -> Arc<Plan> {
    let count = if dice.chance(4) { dice.between(13, 40) } else { dice.between(3, 12) };
    let mut specs: Vec<Spec> = Vec::new();
    for number in 0..count {
        let one = instance(dice, number, &specs);
        specs.push(one);
    }
    let mut plan = Arc::unwrap_or_clone(plan(specs));
    plan.restart_brake = match dice.between(0, 2) {
        0 => None,
        1 => Some(Brake::default()),
        _ => Some(Brake { starts: 2, per: Duration::from_secs(2) }),
    };
    Arc::new(plan)
}

fn instance(dice: &mut Dice, number: u64, earlier: &[Spec]) -> Spec {
    let mut one = called(&format!("i{number}"), 8000 + u16::try_from(number).unwrap());
    if dice.chance(30) {
        one.pre_start = vec![vec!["prepare".to_owned()]; usize::try_from(dice.between(1, 2)).unwrap()];
        one.pre_start_timeout = dice.millis(1500, 4000);
    }
    one.healthcheck = dice.chance(75).then(|| HealthCheck {
        test: HealthTest::Tcp,
        interval: dice.millis(1500, 6000),
        timeout: dice.millis(200, 1000),
        retries: u32::try_from(dice.between(1, 3)).unwrap(),
        start_period: dice.millis(2500, 6000),
        start_interval: dice.millis(100, 300),
        restart_unhealthy: dice.chance(85),
    });
    let policies = [RestartPolicy::No, RestartPolicy::OnFailure, RestartPolicy::Always, RestartPolicy::UnlessStopped];
    one.restart = Restart {
        policy: dice.pick(&policies),
        delay: dice.millis(200, 1000),
        max_delay: dice.millis(1000, 4000),
        max_attempts: dice.chance(20).then(|| u32::try_from(dice.between(0, 4)).unwrap()),
        window: dice.millis(1000, 5000),
    };
    one.stop_grace_period = dice.millis(200, 3000);
    for (on, other) in earlier.iter().enumerate() {
        if one.depends_on.len() < 3 && dice.chance(20) {
            let condition = if is_job(other) {
                Condition::ServiceCompletedSuccessfully
            } else {
                dice.pick(&[Condition::ServiceStarted, Condition::ServiceHealthy])
            };
            one.depends_on.push(Dependency { on: InstanceId(u32::try_from(on).unwrap()), condition });
        }
    }
    if one.healthcheck.is_none() && matches!(one.restart.policy, RestartPolicy::No | RestartPolicy::OnFailure) {
        // Half of the workers do one thing and end.
        one.command = vec![dice.pick(&["work", "job"]).to_owned()];
    }
    one
}

/// An instance with everything of its own.
fn called(name: &str, port: u16) -> Spec {
    let one = spec(name);
    Spec { facts: Facts { port: Some(port), ..one.facts.clone() }, ..one }
}

/// The file after somebody wrote in it: a few instances more, less, different, or under other names and ports. `names`
/// counts those that were ever given.
pub(super) fn edited(dice: &mut Dice, file: &Plan, names: &mut u64) -> Plan {
    let mut specs = file.specs.clone();
    for _ in 0..dice.between(1, 3) {
        let at = dice.position(specs.len());
        match dice.between(0, 8) {
            0 => {
                let new = instance(dice, *names, &specs);
                specs.push(new);
                *names += 1;
            }
            1 if specs.len() > 2 => {
                let kept: Vec<_> = (0..specs.len()).filter(|index| *index != at).collect();
                specs = chosen(&specs, &kept);
            }
            2 => {
                // A new name for the same thing, or one that somebody had before.
                let number = if dice.chance(70) { *names } else { dice.between(0, *names - 1) };
                *names = (*names).max(number + 1);
                let name = format!("i{number}");
                if specs.iter().all(|spec| spec.name.as_str() != name) {
                    let Spec { name, facts, working_dir, .. } = called(&name, specs[at].facts.port.unwrap());
                    specs[at] = Spec { name, facts, working_dir, ..specs[at].clone() };
                }
            }
            3 => {
                let other = dice.position(specs.len());
                let ports = [at, other].map(|index| specs[index].facts.port);
                specs[at].facts.port = ports[1];
                specs[other].facts.port = ports[0];
            }
            4 => {
                let mut order: Vec<_> = (0..specs.len()).collect();
                order.rotate_left(at);
                specs = chosen(&specs, &order);
            }
            5 => {
                specs[at].restart.delay = dice.millis(200, 1000);
                specs[at].stop_grace_period = dice.millis(200, 3000);
            }
            6 => {
                if let Some(check) = &mut specs[at].healthcheck {
                    check.interval = dice.millis(1500, 6000);
                }
            }
            _ => {
                let value = dice.between(0, 3).to_string();
                specs[at].environment.insert("MODE".to_owned(), value);
            }
        }
    }
    Plan { order: (0..).map(InstanceId).take(specs.len()).collect(), specs, ..file.clone() }
}

/// These of `specs`, in this order. Nobody depends on who is not among them.
fn chosen(specs: &[Spec], which: &[usize]) -> Vec<Spec> {
    let place = |on: InstanceId| which.iter().position(|index| *index == on.index());
    let one = |index: &usize| {
        let mut one = specs[*index].clone();
        one.depends_on = (specs[*index].depends_on.iter())
            .filter_map(|dependency| {
                let on = InstanceId(u32::try_from(place(dependency.on)?).unwrap());
                Some(Dependency { on, ..*dependency })
            })
            .collect();
        one
    };
    which.iter().map(one).collect()
}

/// Whether it is meant to end by itself.
pub(super) fn is_job(spec: &Spec) -> bool {
    spec.command[0] == "job"
}

/// How the next `pre_start` command of an instance behaves.
pub(super) fn preparation(dice: &mut Dice, is_calm: bool) -> Conduct {
    let code = i32::from(!is_calm && dice.chance(15));
    let longest = if dice.chance(30) { 10 } else { 900 };
    let ends = (is_calm || dice.chance(93)).then(|| (dice.millis(0, longest), code));
    Conduct { ends, ..troubled(dice, is_calm) }
}

/// How the next server of an instance behaves. In calm times it answers, and does what it is meant to.
pub(super) fn server(dice: &mut Dice, spec: &Spec, is_calm: bool) -> Conduct {
    let mut conduct = troubled(dice, is_calm);
    if is_job(spec) {
        conduct.ends = Some((dice.millis(10, 3000), i32::from(!is_calm && dice.chance(20))));
    } else if !is_calm {
        match dice.between(0, 19) {
            0 => {
                conduct.ends = Some((dice.millis(0, 10), 1));
                conduct.children = dice.between(0, 2);
            }
            1 => conduct.ends = Some((dice.millis(0, 3000), 0)),
            2 | 3 => conduct.ends = Some((dice.millis(0, 20_000), dice.pick(&[0, 1, 137]))),
            4 => conduct.hangs = Some(dice.millis(0, 15_000)),
            5 => conduct.ready = Duration::from_hours(1),
            _ => {}
        }
    }
    conduct
}

fn troubled(dice: &mut Dice, is_calm: bool) -> Conduct {
    Conduct {
        ready: dice.millis(5, 1500),
        hangs: None,
        ends: None,
        ignores_term: dice.chance(15),
        children: if dice.chance(25) { dice.between(1, 3) } else { 0 },
        dying: if !is_calm && dice.chance(8) { 9000 } else { 1 },
    }
}

impl Conduct {
    /// Whether it gives a reason to be ended: it hung, or takes longer to answer than it may.
    pub(super) fn is_bad(&self, spec: &Spec, born: Mono, now: Mono) -> bool {
        let late = spec.healthcheck.as_ref().is_some_and(|check| self.ready > check.start_deadline());
        late || self.hangs.is_some_and(|hangs| born + hangs <= now)
    }

    pub(super) fn answers(&self, born: Mono, now: Mono) -> bool {
        born + self.ready <= now && self.hangs.is_none_or(|hangs| born + hangs > now)
    }
}
