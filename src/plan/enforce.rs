//! What the system keeps an instance from, as far as the plan decides it: where it may write, what it may connect to, and
//! that no lane lies where another one may write.
//!
//! How it is enforced is `runtime`'s. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::{Collector, Fault, Settings};
use crate::model::InstanceName;

use super::claims::{port_of, server};
use super::facts::user_of;
use super::lane::Lane;
use super::spec::{CacheBackend, Database, DatabaseSetup, Enforced, Facts, Isolation, Plan, Spec};

/// As resolved.
pub fn isolation(lane: &Lane<'_>, facts: &Facts) -> Isolation {
    let written = &lane.instance.isolation;
    let paths = |key: &str, templates: &[String]| {
        let each = templates.iter().enumerate();
        each.map(|(index, template)| lane.path(&format!("isolation.{key}[{index}]"), template)).collect()
    };
    Isolation {
        enforce: written.enforce.clone(),
        narrow_reads: written.narrow_reads,
        also_read: paths("also_read", &written.also_read),
        also_write: paths("also_write", &written.also_write),
        connect: written.connect.as_ref().map(|ports| connect(ports, facts)),
        may_be_missing: written.may_be_missing,
    }
}

/// What is asked for, the own port, and where the facts point to.
fn connect(asked: &[u16], facts: &Facts) -> Vec<u16> {
    let mut ports: BTreeSet<u16> = asked.iter().copied().chain(facts.port).collect();
    if let Database::Postgres { url, .. } = &facts.database {
        ports.extend(port_of(url, 5432));
    }
    for url in [&facts.cache.url, &facts.channels_url].into_iter().flatten() {
        ports.extend(port_of(url, 6379));
    }
    ports.into_iter().collect()
}

/// Where `spec` may write when its files are enforced: its lane, and wherever its facts point to. Directories, none of
/// which need exist.
#[must_use]
pub fn writable(spec: &Spec) -> Vec<PathBuf> {
    let facts = &spec.facts;
    let mut folders = vec![&facts.state, &facts.static_root, &facts.media_root, &facts.tmp, &facts.log_dir];
    let cache = PathBuf::from(&facts.cache.location);
    if facts.cache.backend == CacheBackend::File {
        folders.push(&cache);
    }
    let mut folders: Vec<PathBuf> = folders.into_iter().chain(&spec.isolation.also_write).cloned().collect();
    if let Database::Sqlite { path } = &facts.database
        // SQLite needs its folder: it makes a journal beside the file.
        && let Some(parent) = path.parent()
    {
        folders.push(parent.to_owned());
    }
    folders.sort();
    // What lies in another one is said already.
    folders.dedup_by(|inner, outer| inner.starts_with(outer));
    folders
}

/// What nobody but its owner may write, and what it is.
fn private(plan: &Plan, spec: &Spec) -> Vec<(PathBuf, &'static str)> {
    let facts = &spec.facts;
    let mut all = vec![
        (facts.state.clone(), "directory"),
        (facts.static_root.clone(), "static files"),
        (facts.media_root.clone(), "uploads"),
        (facts.secret_file.clone(), "secret"),
    ];
    if let Database::Sqlite { path } = &facts.database {
        all.push((path.clone(), "database"));
    }
    if facts.cache.backend == CacheBackend::File {
        all.push((PathBuf::from(&facts.cache.location), "cache"));
    }
    all.retain(|(path, _)| path != &plan.state_dir);
    all
}

/// Reports where an instance whose files are enforced could still write what is another lane's, or laneway's.
pub(super) fn check(settings: &Settings, plan: &Plan, collector: &Collector) {
    check_services(settings, plan, collector);
    let enforced = |spec: &&Spec| spec.isolation.has(Enforced::Files);
    if !plan.specs.iter().any(|spec| enforced(&spec)) {
        return;
    }
    let mut owned: BTreeMap<PathBuf, (Option<&InstanceName>, &'static str)> = BTreeMap::new();
    for spec in plan.specs.iter().filter(|spec| spec.facts.lane == spec.name) {
        owned.extend(private(plan, spec).into_iter().map(|(path, what)| (path, (Some(&spec.name), what))));
    }
    owned.insert(plan.state_dir.join(".run"), (None, "laneway's own directory"));
    owned.insert(plan.file.clone(), (None, "the configuration"));
    for (spec, instance) in plan.specs.iter().zip(&settings.instances).filter(|(spec, _)| enforced(spec)) {
        for folder in writable(spec) {
            // Paths are sorted by their components, so what lies in a folder comes right after it.
            let within = owned.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
            let foreign = within.map(|(path, (owner, what))| (path, owner, what));
            let mut foreign = foreign.filter(|(_, owner, _)| **owner != Some(&spec.facts.lane));
            let Some((place, holder, what)) = foreign.next() else { continue };
            let whose = holder.map_or(String::new(), |holder| format!("`{holder}`'s "));
            let key = key_of(spec, &folder);
            let fault = Fault::new(format!(
                "may not be enforced: {} would be writable, and {whose}{what} lies there ({})",
                folder.display(),
                place.display()
            ));
            let path = format!("instances.{}.isolation.enforce", instance.name);
            let hint = format!("`{key}` needs a folder of its own; without the key it has one");
            collector.report(instance.origin(key), &path, fault.hint(hint));
        }
    }
}

/// Reports lanes whose services could not be told apart by the server.
fn check_services(settings: &Settings, plan: &Plan, collector: &Collector) {
    let mut roles: BTreeMap<(String, &str), &InstanceName> = BTreeMap::new();
    for (spec, instance) in plan.specs.iter().zip(&settings.instances).filter(|(spec, _)| spec.facts.lane == spec.name)
    {
        let report = |key: &str, what: String, hint: &str| {
            let path = format!("instances.{}.{key}", instance.name);
            collector.report(instance.origin(key), &path, Fault::new(what).hint(hint));
        };
        let facts = &spec.facts;
        if let (Some(_), Some(cache), Some(channels)) = (&facts.cache.user, &facts.cache.url, &facts.channels_url) {
            let host = |url: &str| server(url, 6379).rsplit_once('/').map(|(host, _)| host.to_owned());
            if host(cache) != host(channels) {
                let what =
                    "is on another server than the cache, and `isolation` makes a user on that one only".to_owned();
                report("channels.url", what, "use the same server, with another number if need be");
            }
        }
        let Database::Postgres { url, .. } = &facts.database else { continue };
        let is_enforced = spec.isolation.has(Enforced::Postgres);
        if let (true, Some(DatabaseSetup::Create { max_connections: None, .. })) = (is_enforced, &spec.database_setup) {
            let what = "is missing, and `isolation` gives each role a limit".to_owned();
            report("database.max_connections", what, "such as 20: more than the server's processes and threads need");
        }
        let role = user_of(url).unwrap_or_default();
        if role.is_empty() {
            if is_enforced {
                let what = "names no role, and `isolation` asks for one of the lane's own".to_owned();
                report("database.url", what, "such as postgres://role:password@host, or `create: true`");
            }
        } else if let Some(other) = roles.insert((server(url, 5432), role), &spec.name)
            && (is_enforced
                || plan.find(other.as_str()).is_some_and(|id| plan.spec(id).isolation.has(Enforced::Postgres)))
        {
            let what = format!("has the role `{role}`, which is `{other}`'s: the server could not tell the two apart");
            report("database.url", what, "give each lane a role of its own, or say `create: true`");
        }
    }
}

/// Which key lets `spec` write into `folder`.
fn key_of(spec: &Spec, folder: &Path) -> &'static str {
    let facts = &spec.facts;
    match &facts.database {
        Database::Sqlite { path } if path.parent() == Some(folder) => "database.path",
        _ if facts.static_root == folder => "static_root",
        _ if facts.media_root == folder => "media_root",
        _ if spec.isolation.also_write.iter().any(|path| path == folder) => "isolation.also_write",
        _ => "cache.location",
    }
}
