//! What happens when one instance is asked for a write, and nobody else: which files its processes open for it, and what
//! changes in the folders of all lanes.
//!
//! Django closes SQLite after each request, so a look at descriptors between requests sees nothing. They are looked at over
//! and over while the answer is on its way, which names the process; inotify sees what was too quick for that. What others
//! write at the same time is told apart by asking again, and by waiting as long without asking.

use std::collections::{BTreeMap, BTreeSet};
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
const QUIET: Duration = Duration::from_millis(250);
/// So many rounds without others settle whose doing something was.
const CLEAN: u32 = 2;
/// How many rounds there are at most: more would accuse somebody where others write nearly all the time.
const ROUNDS: u32 = 4;

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
    // Random keys are others each time; what they begin with is not.
    let starts = |keys: &BTreeSet<String>| keys.iter().map(|key| stores::start(key)).collect::<BTreeSet<_>>();
    let mut other_files = Suspects::new(files.iter().filter(|path| !is_own_file(path)).cloned());
    let mut other_keys = Suspects::new(keys.iter().filter(|key| !is_own_key(key)).map(|key| stores::start(key)));
    for _ in 0..ROUNDS {
        if other_files.are_settled() && other_keys.are_settled() {
            break;
        }
        around.take();
        pause(lasted.max(QUIET));
        let unasked = around.take();
        let _ = pages::get(spec, &page, "");
        let asked = around.take();
        other_files.round(&unasked.files, &asked.files);
        other_keys.round(&starts(&unasked.keys), &starts(&asked.keys));
    }
    let (guilty_files, guilty_keys) = (other_files.guilty(), other_keys.guilty());
    files.retain(|path| is_own_file(path) || guilty_files.contains(path));
    keys.retain(|key| is_own_key(key) || guilty_keys.contains(&stores::start(key)));
    let (changed, keys) = (files.into_iter().collect(), keys.into_iter().collect());
    Asked::Got(Write { page, status, opened, changed, keys, flushed })
}

/// What changed outside of its lane when an instance was asked, and in how many rounds nobody else changed it. A
/// neighbour's own health check now and then writes the same, so one round that was disturbed settles nothing.
struct Suspects<T>(BTreeMap<T, u32>);

impl<T: Ord> Suspects<T> {
    fn new(suspects: impl Iterator<Item = T>) -> Self {
        Self(suspects.map(|suspect| (suspect, 0)).collect())
    }

    /// Takes in what changed in a while in which it was not asked, and what when it was.
    fn round(&mut self, unasked: &BTreeSet<T>, asked: &BTreeSet<T>) {
        self.0.retain(|suspect, _| asked.contains(suspect));
        for (suspect, clean) in &mut self.0 {
            *clean += u32::from(!unasked.contains(suspect));
        }
    }

    fn are_settled(&self) -> bool {
        self.0.values().all(|clean| *clean >= CLEAN)
    }

    /// What changed whenever it was asked, and did not without that.
    fn guilty(self) -> BTreeSet<T> {
        self.0.into_iter().filter(|(_, clean)| *clean >= CLEAN).map(|(suspect, _)| suspect).collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_when_asked_and_only_then_is_guilty() {
        let none = BTreeSet::new();
        let both = BTreeSet::from(["key", "noise"]);
        let key = BTreeSet::from(["key"]);
        let noise = BTreeSet::from(["noise"]);
        let mut suspects = Suspects::new(["key", "noise", "once"].into_iter());
        suspects.round(&noise, &both);
        assert!(!suspects.are_settled());
        // A neighbour's check falls into the quiet while: that round says nothing.
        suspects.round(&both, &both);
        suspects.round(&noise, &both);
        assert_eq!(suspects.guilty(), key);
        // Not each time that it was asked.
        let mut suspects = Suspects::new(["key"].into_iter());
        for asked in [&key, &none, &key] {
            suspects.round(&none, asked);
        }
        assert!(suspects.are_settled() && suspects.guilty().is_empty());
    }
}
