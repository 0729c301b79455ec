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

use super::{pages, processes, stores};
use crate::doctor::evidence::{Asked, OpenFile, Process, Write};
use crate::plan::spec::{CacheBackend, Database, Spec};
use crate::runtime::changes::Changes;
use crate::runtime::clock::{Clock, pause};
use crate::runtime::page::Answer;
use crate::runtime::processes::descriptors;

/// As long as this nobody is asked, at least, to see what changes anyway.
const QUIET: Duration = Duration::from_millis(100);

/// Asks each instance that runs for a write, one after the other.
pub fn ask(specs: &[&Spec], found: &[Vec<Process>]) -> Vec<Asked<Write>> {
    let mut around = Around { files: Changes::new().ok(), stores: stores::listen(specs, found) };
    if let Some(changes) = &mut around.files {
        for directory in directories(specs, found) {
            changes.watch(&directory);
        }
    }
    let asked = specs.iter().zip(found).map(|(spec, processes)| {
        if processes.is_empty() {
            return Asked::Not("it does not run".to_owned());
        }
        match pages::address(spec) {
            Ok(_) => one(spec, processes, &mut around),
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

/// What is listened to while somebody is asked.
struct Around {
    files: Option<Changes>,
    stores: Vec<stores::Listener>,
}

/// What changed.
#[derive(Default)]
struct Changed {
    files: BTreeSet<PathBuf>,
    keys: BTreeSet<String>,
    flushed: bool,
}

impl Around {
    /// Since it was last asked.
    fn take(&mut self) -> Changed {
        let files = self.files.as_mut().map(Changes::take).unwrap_or_default();
        let mut changed = Changed { files, ..Changed::default() };
        for store in &mut self.stores {
            let (keys, flushed) = stores::take(store);
            changed.keys.extend(keys);
            changed.flushed |= flushed;
        }
        changed
    }
}

fn one(spec: &Spec, processes: &[Process], around: &mut Around) -> Asked<Write> {
    let health = pages::health_path(spec);
    let page = format!("{health}{}write=1", if health.contains('?') { '&' } else { '?' });
    around.take();
    let clock = Clock::start();
    let begin = clock.now();
    let (answer, opened) = watched(spec, &page, processes);
    let lasted = clock.now().since(begin);
    let Changed { mut files, mut keys, flushed } = around.take();
    let status = match answer {
        Ok(answer) => answer.status,
        Err(why) => return Asked::Failed(why),
    };
    // What lies in its own lane is its own business. Else: was it this one's doing?
    let is_own_file = |path: &PathBuf| path.starts_with(&spec.facts.state);
    let is_own_key = |key: &String| stores::is_of(key, spec);
    if files.iter().any(|path| !is_own_file(path)) || keys.iter().any(|key| !is_own_key(key)) {
        // Random keys are others each time; what they begin with is not.
        for _ in 0..2 {
            around.take();
            pause(lasted.max(QUIET));
            let others = around.take();
            let _ = pages::get(spec, &page, "");
            let again = around.take();
            files.retain(|path| is_own_file(path) || !others.files.contains(path) && again.files.contains(path));
            let starts = |keys: &BTreeSet<String>| keys.iter().map(|key| stores::start(key)).collect::<BTreeSet<_>>();
            let (others, again) = (starts(&others.keys), starts(&again.keys));
            keys.retain(|key| {
                let start = stores::start(key);
                is_own_key(key) || !others.contains(&start) && again.contains(&start)
            });
        }
    }
    let (changed, keys) = (files.into_iter().collect(), keys.into_iter().collect());
    Asked::Got(Write { page, status, opened, changed, keys, flushed })
}

/// Asks, and looks at what the instance's processes have open until the answer is there.
fn watched(spec: &Spec, page: &str, processes: &[Process]) -> (Result<Answer, String>, Vec<(u32, OpenFile)>) {
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
