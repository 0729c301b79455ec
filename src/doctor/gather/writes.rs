//! What happens when one instance is asked for a write, and nobody else: which files its processes open for it, and what
//! changes in the folders of all lanes.
//!
//! Django closes SQLite after each request, so a look at descriptors between requests sees nothing. They are looked at over
//! and over while the answer is on its way, which names the process; inotify sees what was too quick for that. What others
//! write at the same time is told apart by asking again, and by waiting as long without asking.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{pages, processes};
use crate::doctor::evidence::{Asked, OpenFile, Process, Write};
use crate::plan::spec::{CacheBackend, Database, Spec};
use crate::runtime::changes::Changes;
use crate::runtime::clock::{Clock, pause};
use crate::runtime::processes::descriptors;

/// As long as this nobody is asked, at least, to see what changes anyway.
const QUIET: Duration = Duration::from_millis(100);

/// Asks each instance that runs for a write, one after the other.
pub fn ask(specs: &[&Spec], found: &[Vec<Process>]) -> Vec<Asked<Write>> {
    let mut changes = Changes::new().ok();
    if let Some(changes) = &mut changes {
        for directory in directories(specs, found) {
            changes.watch(&directory);
        }
    }
    let asked = specs.iter().zip(found).map(|(spec, processes)| {
        if processes.is_empty() {
            return Asked::Not("it does not run".to_owned());
        }
        match pages::address(spec) {
            Ok(_) => one(spec, processes, changes.as_mut()),
            Err(why) => Asked::Not(why),
        }
    });
    asked.collect()
}

/// Where files of a lane are, and where an app that minds no lane would put them. The logs are the keeper's.
fn directories(specs: &[&Spec], found: &[Vec<Process>]) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for spec in specs {
        let facts = &spec.facts;
        let own = [&facts.state, &facts.static_root, &facts.media_root, &facts.tmp, &spec.working_dir];
        directories.extend(own.map(Clone::clone));
        if let Database::Sqlite { path } = &facts.database {
            directories.extend(path.parent().map(Path::to_owned));
        }
        if facts.cache.backend == CacheBackend::File {
            directories.insert(PathBuf::from(&facts.cache.location));
        }
    }
    let open = found.iter().flatten().flat_map(|process| &process.files).filter(|file| file.writes);
    directories.extend(open.filter_map(|file| Some(file.path.parent()?.to_owned())));
    for spec in specs {
        directories.remove(&spec.facts.log_dir);
    }
    directories
}

fn one(spec: &Spec, processes: &[Process], mut changes: Option<&mut Changes>) -> Asked<Write> {
    let health = pages::health_path(spec);
    let page = format!("{health}{}write=1", if health.contains('?') { '&' } else { '?' });
    let mut take = || changes.as_mut().map(|changes| changes.take()).unwrap_or_default();
    take();
    let clock = Clock::start();
    let begin = clock.now();
    let (answer, opened) = watched(spec, &page, processes);
    let lasted = clock.now().since(begin);
    let mut changed = take();
    let status = match answer {
        Ok(answer) => answer.status,
        Err(why) => return Asked::Failed(why),
    };
    // What lies in its own lane is its own business. Else: was it this one's doing?
    let is_own = |path: &PathBuf| path.starts_with(&spec.facts.state);
    if changed.iter().any(|path| !is_own(path)) {
        for _ in 0..2 {
            take();
            pause(lasted.max(QUIET));
            let others = take();
            changed.retain(|path| is_own(path) || !others.contains(path));
            let _ = pages::get(spec, &page, "");
            let again = take();
            changed.retain(|path| is_own(path) || again.contains(path));
        }
    }
    Asked::Got(Write { page, status, opened, changed: changed.into_iter().collect() })
}

/// Asks, and looks at what the instance's processes have open until the answer is there.
fn watched(spec: &Spec, page: &str, processes: &[Process]) -> (Result<pages::Answer, String>, Vec<(u32, OpenFile)>) {
    let before: BTreeSet<(u32, &Path)> = processes
        .iter()
        .flat_map(|process| process.files.iter().map(|file| (process.pid, file.path.as_path())))
        .collect();
    let is_answered = AtomicBool::new(false);
    let mut opened: Vec<(u32, OpenFile)> = Vec::new();
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let answer = pages::get(spec, page, "");
            is_answered.store(true, Ordering::Release);
            answer
        });
        while !is_answered.load(Ordering::Acquire) {
            for process in processes {
                for (path, writes) in descriptors(process.pid).files {
                    let is_known = before.contains(&(process.pid, path.as_path()))
                        || opened.iter().any(|(pid, file)| *pid == process.pid && file.path == path);
                    if writes && !is_known {
                        opened.extend(processes::open_file(path, writes).map(|file| (process.pid, file)));
                    }
                }
            }
            thread::yield_now();
        }
        asked.join().unwrap_or_else(|_| Err("the thread that asked has died".to_owned()))
    });
    (answer, opened)
}
