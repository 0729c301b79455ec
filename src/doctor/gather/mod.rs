//! Looks: at processes, sockets, files, pages, settings. It judges nothing, changes nothing, and asks each server for a few
//! pages and one write; every wait has a deadline.

mod databases;
mod enforcement;
mod lane;
mod pages;
mod processes;
mod settings;
mod stores;
mod writes;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::evidence::{Asked, Evidence, Instance, Process};
use super::finding::Report;
use super::judge;
use crate::model::InstanceId;
use crate::plan::spec::{Plan, Spec};
use crate::plan::{self, Change};
use crate::runtime::clock::Clock;
use crate::runtime::registry::Registry;
use crate::view::snapshot::FleetStatus;

/// How many threads wait for servers at a time.
const THREADS: usize = 16;

/// What is to be examined.
pub struct Question<'a> {
    /// The plan that runs, else the one of the file.
    pub plan: &'a Plan,
    /// Whom findings are to be about; empty means all.
    pub chosen: Vec<InstanceId>,
    /// The fleet's name in the markers of its processes, if it has ever run: some may be there though nobody asks them.
    pub marker: Option<String>,
    /// The fleet as it runs, if that is to be looked at.
    pub running: Option<FleetStatus>,
    /// How what the file says differs from what runs; the problems of a file that cannot be read.
    pub drift: Option<Result<Vec<Change>, String>>,
}

/// Examines a fleet.
#[must_use]
pub fn examine(question: &Question<'_>) -> Report {
    let clock = Clock::start();
    let begin = clock.now();
    let plan = question.plan;
    let chosen: Vec<String> = question.chosen.iter().map(|id| plan.spec(*id).name.to_string()).collect();
    let evidence = gather(question);
    let checks = judge::judge(&evidence, &chosen);
    let names = plan.ids().map(|id| plan.spec(id).name.to_string());
    Report {
        project: plan.project.clone(),
        file: plan.file.clone(),
        live: evidence.live,
        instances: names.filter(|name| chosen.is_empty() || chosen.contains(name)).collect(),
        found: checks.iter().map(|check| check.findings.len()).sum(),
        milliseconds: u64::try_from(clock.now().since(begin).as_millis()).unwrap_or(u64::MAX),
        checks,
    }
}

fn gather<'a>(question: &'a Question<'a>) -> Evidence<'a> {
    let Question { plan, marker, running, drift, .. } = question;
    let specs: Vec<&Spec> = plan.ids().map(|id| plan.spec(id)).collect();
    let live = running.is_some();
    let claims = plan::claims(plan);
    let shared_claims = plan::collisions(&claims);
    let others = Registry::of_user().map(|registry| registry.others(plan)).unwrap_or_default();
    let foreign = plan::foreign_collisions(&claims, &others);
    let marker = marker.as_deref();
    let processes = match running {
        Some(status) => processes::of_fleet(marker, status, &specs),
        None => specs.iter().map(|_| Vec::new()).collect(),
    };
    let listeners = processes::listeners(marker, &specs, &processes);
    let phase = |spec: &Spec| {
        let instance = running.as_ref()?.instances.iter().find(|instance| instance.name == spec.name)?;
        Some(instance.phase.to_string())
    };
    // Settings are a process of their own that takes long; meanwhile the pages are asked for, and then the writes, each
    // alone, since what happens is to be known for this one's doing.
    let is_over = AtomicBool::new(!live);
    let (settings, database_servers, (cookies, writes)) = thread::scope(|scope| {
        let settings = scope.spawn(|| settings::ask(&specs, &processes));
        let sessions = scope.spawn(|| if live { databases::watch(&specs, &processes, &is_over) } else { Vec::new() });
        let pages = (cookies(&specs, &processes), writes::ask(&specs, &processes));
        is_over.store(true, Ordering::Release);
        (settings.join().unwrap_or_default(), sessions.join().unwrap_or_default(), pages)
    });
    let stores = if live { stores::look(&specs, &processes) } else { Vec::new() };
    let enforcement = in_parallel(specs.len(), |index| match (specs.get(index), processes.get(index)) {
        (Some(spec), Some(processes)) => enforcement::look(spec, processes, live),
        _ => Vec::new(),
    });
    let salt = lane::salt();
    let mut settings = settings.into_iter();
    let parts = specs.iter().zip(processes).zip(cookies).zip(writes).zip(enforcement);
    let instances = parts.map(|((((spec, mut processes), cookies), write), enforcement)| Instance {
        spec,
        phase: phase(spec),
        secret: lane::secret(spec, salt, &mut processes),
        processes,
        places: lane::places(spec),
        settings: settings.next().unwrap_or_else(|| Asked::Failed("the settings could not be asked for".to_owned())),
        cookies,
        write,
        enforcement,
        planned: spec.variables(),
    });
    let instances = instances.collect();
    Evidence {
        plan,
        live,
        instances,
        shared_claims,
        claims: claims.len(),
        foreign,
        stores,
        database_servers,
        foreign_prefixes: stores::prefixes(&others),
        listeners,
        drift: drift.as_ref(),
    }
}

fn cookies(specs: &[&Spec], processes: &[Vec<Process>]) -> Vec<Asked<Vec<super::evidence::Cookie>>> {
    in_parallel(specs.len(), |index| match (specs.get(index), processes.get(index)) {
        (Some(spec), Some(processes)) if !processes.is_empty() => pages::cookies(spec, specs),
        _ => Asked::Not("it does not run".to_owned()),
    })
}

/// What `work` gives for each of `count`, in their order, by a bounded number of threads.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0..count).map(|_| None).collect::<Vec<Option<T>>>());
    thread::scope(|scope| {
        for _ in 0..THREADS.min(count) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let result = work(index);
                    if let Some(place) = done.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
                        *place = Some(result);
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}
