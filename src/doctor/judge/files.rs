//! Files that processes have open or write: none in a neighbour's lane, and no database file of two.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Verdict, and, count, fault, names, reasons, risk, shared};
use crate::doctor::evidence::{Evidence, Identity, Instance};
use crate::plan::spec::Database;

/// What SQLite puts beside a database.
const COMPANIONS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// That an instance wrote a file, or can: which, and what shows it.
struct Touch<'a> {
    instance: &'a Instance<'a>,
    path: PathBuf,
    evidence: String,
}

/// Everything that an instance was seen to write, or to hold open for it.
fn touches<'a>(instance: &'a Instance<'a>) -> Vec<Touch<'a>> {
    let mut touches = Vec::new();
    let mut add = |path: &Path, evidence: String| {
        touches.push(Touch { instance, path: path.to_owned(), evidence });
    };
    let name = &instance.spec.name;
    for process in &instance.processes {
        for file in process.files.iter().filter(|file| file.writes) {
            add(&file.path, format!("{name}: pid {} has {} open for writing", process.pid, file.path.display()));
        }
    }
    if let Some(write) = instance.write.got() {
        for (pid, file) in &write.opened {
            let shown = file.path.display();
            add(&file.path, format!("{name}: pid {pid} opened {shown} for writing when asked for {}", write.page));
        }
        for path in &write.changed {
            add(path, format!("{name}: {} changed when it was asked for {}", path.display(), write.page));
        }
    }
    // Its log is written by the keeper, and a FIFO is none.
    touches.retain(|touch| !touch.path.starts_with(&touch.instance.spec.facts.log_dir));
    touches
}

/// The database that a file belongs to: its journal is not one of its own.
fn base(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let base = COMPANIONS.iter().find_map(|ending| text.strip_suffix(ending));
    base.map_or_else(|| path.to_owned(), PathBuf::from)
}

/// Whether it looks like a database of SQLite: it has a journal, is one of a lane, or is called so.
fn is_database(path: &Path, evidence: &Evidence<'_>) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    COMPANIONS.iter().any(|companion| path.to_string_lossy().ends_with(companion))
        || ["sqlite3", "sqlite", "db"].contains(&ending)
        || evidence.instances.iter().any(|instance| own_database(instance) == Some(path))
}

fn own_database<'a>(instance: &'a Instance<'_>) -> Option<&'a Path> {
    match &instance.spec.facts.database {
        Database::Sqlite { path } => Some(path),
        Database::Postgres { .. } => None,
    }
}

/// Open or written files in a neighbour's lane, and files that two lanes write.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let running = evidence.instances.iter().filter(|instance| !instance.processes.is_empty()).count();
    if running == 0 {
        return Verdict { unseen: vec!["nobody runs".to_owned()], ..Verdict::default() };
    }
    let mut verdict =
        Verdict::seen(format!("what {} hold open and wrote when asked, each in its lane", count(running, "instance")));
    let all: Vec<Touch<'_>> = evidence.instances.iter().flat_map(touches).collect();
    let others = all.iter().filter(|touch| !is_database(&touch.path, evidence));
    let mut by_owner: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut told: BTreeSet<&Path> = BTreeSet::new();
    for touch in others.clone() {
        if let Some(owner) = owner_of(&touch.path, touch.instance, evidence) {
            told.insert(&touch.path);
            let parties = (touch.instance.spec.name.to_string(), owner.spec.name.to_string());
            let seen = by_owner.entry(parties).or_default();
            if !seen.contains(&touch.evidence) {
                seen.push(touch.evidence.clone());
            }
        }
    }
    for ((name, owner), seen) in by_owner {
        let what = format!("{name} writes in the lane of {owner}");
        let hint = format!("let {name} take its paths from its own environment; laneway env {name} shows them");
        verdict.findings.push(fault(vec![name, owner], what, seen, hint));
    }
    let rest = others.filter(|touch| !told.contains(touch.path.as_path()));
    for (path, holders) in shared(rest.map(|touch| (touch.path.clone(), touch.instance, &touch.evidence))) {
        let parties = names(&holders);
        let mut seen: Vec<String> = holders.iter().map(|(_, evidence)| (*evidence).clone()).collect();
        seen.dedup();
        let what = format!("{} write one file: {}", and(&parties), path.display());
        verdict.findings.push(fault(
            parties,
            what,
            seen,
            "give each a path in its own lane, such as one beneath TMPDIR",
        ));
    }
    verdict
}

/// Whose lane a path lies in, if it is not its own.
fn owner_of<'a>(path: &Path, own: &Instance<'_>, evidence: &'a Evidence<'_>) -> Option<&'a Instance<'a>> {
    let others = evidence.instances.iter().filter(|other| other.spec.facts.lane != own.spec.facts.lane);
    let mut owners = others.filter(|other| other.spec.facts.lane == other.spec.name);
    owners.find(|other| {
        let facts = &other.spec.facts;
        [&facts.state, &facts.static_root, &facts.media_root].iter().any(|folder| path.starts_with(folder))
    })
}

/// SQLite: no two lanes write one file, whatever it is called, and each writes its own.
pub fn database(evidence: &Evidence<'_>) -> Verdict {
    let sqlite: Vec<_> = evidence.instances.iter().filter(|instance| own_database(instance).is_some()).collect();
    if sqlite.is_empty() {
        return Verdict { unseen: vec!["no instance is planned with SQLite".to_owned()], ..Verdict::default() };
    }
    let why = sqlite.iter().filter_map(|instance| Some((*instance, instance.write.why_not()?)));
    let mut verdict = Verdict { unseen: reasons(why), ..Verdict::default() };
    let all: Vec<Touch<'_>> = evidence.instances.iter().flat_map(touches).collect();
    let of_databases: Vec<&Touch<'_>> = all.iter().filter(|touch| is_database(&touch.path, evidence)).collect();
    let wrote = |instance: &Instance<'_>| {
        of_databases.iter().any(|touch| std::ptr::eq(touch.instance, instance) && instance.write.got().is_some())
    };
    let (writers, silent): (Vec<&Instance<'_>>, Vec<_>) =
        sqlite.iter().filter(|instance| instance.write.got().is_some()).partition(|instance| wrote(instance));
    let (failing, silent): (Vec<_>, Vec<_>) =
        silent.into_iter().partition(|i| i.write.got().is_some_and(|w| w.status >= 500));
    let silent = silent.into_iter().map(|instance| (instance, "asked for a write, it wrote no database"));
    verdict.unseen.extend(reasons(silent));
    if !failing.is_empty() {
        let parties: Vec<String> = failing.iter().map(|instance| instance.spec.name.to_string()).collect();
        let answers = failing.iter().filter_map(|i| Some((i, i.write.got()?)));
        let seen =
            answers.map(|(i, write)| format!("{}: GET {} was answered with {}", i.spec.name, write.page, write.status));
        let what = format!("{} cannot write: asked for it, the answer was an error", and(&parties));
        let hint = format!(
            "laneway logs {}: a folder or disk that is read-only, or a service that is gone",
            parties.join(" ")
        );
        verdict.findings.push(fault(parties, what, seen.collect(), hint));
    }
    if !writers.is_empty() {
        verdict.seen = Some(format!(
            "{} asked for a write, one at a time, and each wrote its own file",
            count(writers.len(), "instance")
        ));
    }
    let mut told: BTreeSet<(String, Identity)> = BTreeSet::new();
    let identity = |path: &Path| identities(evidence).get(path).copied();
    let touched = of_databases.iter().map(|touch| {
        let base = base(&touch.path);
        let key =
            identity(&base).map_or_else(|| base.display().to_string(), |(device, number)| format!("{device}:{number}"));
        (key, touch.instance, (base, &touch.evidence))
    });
    for (_, holders) in shared(touched) {
        let parties = names(&holders);
        let mut seen: Vec<String> = Vec::new();
        for name in &parties {
            let of_one = holders.iter().filter(|(instance, _)| instance.spec.name.as_str() == name);
            seen.extend(of_one.take(2).map(|(_, (_, evidence))| (*evidence).clone()));
        }
        for (instance, (path, _)) in &holders {
            if let Some(identity) = identity(path) {
                told.insert((instance.spec.name.to_string(), identity));
            }
        }
        let what = format!("{} write one database", and(&parties));
        let hint = "in the settings: \"NAME\": os.environ[\"DATABASE_NAME\"]; the rows of both are in it: decide whose they are";
        verdict.findings.push(fault(parties, what, seen, hint));
    }
    let mut strays: BTreeMap<(String, PathBuf), (Vec<String>, Vec<String>)> = BTreeMap::new();
    for touch in &of_databases {
        let path = base(&touch.path);
        let name = touch.instance.spec.name.to_string();
        let is_told = identity(&path).is_some_and(|identity| told.contains(&(name.clone(), identity)))
            || verdict.findings.iter().any(|f| f.instances.contains(&name) && f.evidence.contains(&touch.evidence));
        if is_own(&path, touch.instance, evidence) || is_told {
            continue;
        }
        let parties = match owner_of(&path, touch.instance, evidence) {
            Some(owner) => vec![name.clone(), owner.spec.name.to_string()],
            None => vec![name.clone()],
        };
        let entry = strays.entry((name, path)).or_insert((parties, Vec::new()));
        entry.1.push(touch.evidence.clone());
    }
    for ((name, path), (parties, seen)) in strays {
        let hint = "in the settings: \"NAME\": os.environ[\"DATABASE_NAME\"]";
        let seen = seen.into_iter().take(3).collect();
        if parties.len() > 1 {
            let what = format!("{name} writes the database of {}", and(parties.get(1..).unwrap_or_default()));
            verdict.findings.push(fault(parties, what, seen, hint));
        } else {
            let what = format!("{name} writes a database outside of its lane: {}", path.display());
            verdict.findings.push(risk(parties, what, seen, hint));
        }
    }
    verdict
}

/// Whether a database is the lane's own: the planned one, or one beneath the lane's folder.
fn is_own(path: &Path, instance: &Instance<'_>, evidence: &Evidence<'_>) -> bool {
    let identities = identities(evidence);
    let own = own_database(instance);
    path.starts_with(&instance.spec.facts.state)
        || own == Some(path)
        || own.and_then(|own| identities.get(own)).is_some_and(|own| identities.get(path) == Some(own))
}

/// What the disk says of every path that was seen.
fn identities<'a>(evidence: &'a Evidence<'_>) -> BTreeMap<&'a Path, Identity> {
    let places = evidence.instances.iter().flat_map(|instance| &instance.places);
    let places = places.map(|(_, path, identity)| (path.as_path(), *identity));
    let opened = evidence.instances.iter().filter_map(|instance| instance.write.got());
    let opened = opened.flat_map(|write| write.opened.iter().map(|(_, file)| file));
    let held = evidence.instances.iter().flat_map(|i| i.processes.iter().flat_map(|process| &process.files));
    places.chain(held.chain(opened).map(|file| (file.path.as_path(), file.identity))).collect()
}
