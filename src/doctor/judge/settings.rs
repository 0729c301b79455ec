//! The settings that an app really has: whether two lanes have one value, and whether it is the lane's.

use super::{Verdict, and, count, fault, names, reasons, risk, shared};
use crate::doctor::evidence::{Asked, CacheSetting, DatabaseSetting, Evidence, Instance, Settings};
use crate::plan::spec::{CacheBackend, Database};

/// One thing that a lane has for itself: what it is called, what the settings say, what the lane says, and how to mend it.
struct Subject {
    name: &'static str,
    /// As the app has it; `None` where it has none, or none that others could reach.
    real: fn(&Settings) -> Option<String>,
    planned: fn(&Instance<'_>) -> Option<String>,
    line: &'static str,
}

const SUBJECTS: [Subject; 8] = [
    Subject {
        name: "database",
        real: |settings| settings.databases.get("default").and_then(database),
        planned: |instance| match &instance.spec.facts.database {
            Database::Sqlite { path } => Some(path.display().to_string()),
            // The server may be named in many ways; that two have one is found all the same.
            Database::Postgres { .. } => None,
        },
        line: "\"NAME\": os.environ[\"DATABASE_NAME\"]",
    },
    Subject {
        name: "cache",
        real: |settings| settings.caches.get("default").and_then(cache),
        planned: |instance| match instance.spec.facts.cache.backend {
            CacheBackend::File => Some(instance.spec.facts.cache.location.clone()),
            _ => None,
        },
        line: "\"KEY_PREFIX\": os.environ[\"CACHE_KEY_PREFIX\"]",
    },
    Subject {
        name: "SESSION_COOKIE_NAME",
        real: |settings| text(&settings.session_cookie),
        planned: |instance| Some(instance.spec.facts.session_cookie.clone()),
        line: "SESSION_COOKIE_NAME = os.environ[\"SESSION_COOKIE_NAME\"]",
    },
    Subject {
        name: "CSRF_COOKIE_NAME",
        real: |settings| text(&settings.csrf_cookie),
        planned: |instance| Some(instance.spec.facts.csrf_cookie.clone()),
        line: "CSRF_COOKIE_NAME = os.environ[\"CSRF_COOKIE_NAME\"]",
    },
    Subject {
        name: "STATIC_ROOT",
        real: |settings| settings.static_root.as_ref().map(|path| path.display().to_string()),
        planned: |instance| Some(instance.spec.facts.static_root.display().to_string()),
        line: "STATIC_ROOT = os.environ[\"STATIC_ROOT\"]",
    },
    Subject {
        name: "MEDIA_ROOT",
        real: |settings| settings.media_root.as_ref().map(|path| path.display().to_string()),
        planned: |instance| Some(instance.spec.facts.media_root.display().to_string()),
        line: "MEDIA_ROOT = os.environ[\"MEDIA_ROOT\"]",
    },
    Subject {
        name: "TMPDIR",
        real: |settings| settings.temporary.as_ref().map(|path| path.display().to_string()),
        planned: |instance| Some(instance.spec.facts.tmp.display().to_string()),
        line: "take out what sets TMPDIR in the command, or makes Python unable to use it",
    },
    Subject {
        name: "FILE_UPLOAD_TEMP_DIR",
        real: |settings| settings.upload_temporary.as_ref().map(|path| path.display().to_string()),
        planned: |_| None,
        line: "FILE_UPLOAD_TEMP_DIR = os.environ[\"TMPDIR\"]",
    },
];

/// What names one database on the machine or in the net.
fn database(setting: &DatabaseSetting) -> Option<String> {
    let DatabaseSetting { engine, name, host, port, .. } = setting;
    if engine.ends_with("sqlite3") {
        // One in memory is nobody else's.
        let is_file = !name.is_empty() && !name.contains(":memory:") && !name.contains("mode=memory");
        return is_file.then(|| name.clone());
    }
    (!name.is_empty()).then(|| format!("{name} at {host}:{port} ({engine})"))
}

/// What names one keyspace that others could reach.
fn cache(setting: &CacheSetting) -> Option<String> {
    let kind = setting.backend.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let location = setting.location.join(",");
    if kind.starts_with("locmem") || kind.starts_with("dummy") || kind.is_empty() {
        return None;
    }
    if kind.starts_with("filebased") {
        return Some(location);
    }
    Some(format!(
        "{location} with the prefix {}",
        if setting.key_prefix.is_empty() { "\"\"" } else { &setting.key_prefix }
    ))
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// Each subject once: who shares it, and who has another value than the lane's.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let asked: Vec<_> = evidence.instances.iter().filter_map(|i| Some((i, i.settings.got()?))).collect();
    let why = evidence.instances.iter().filter_map(|i| match &i.settings {
        Asked::Not(why) => Some((i, why.as_str())),
        Asked::Failed(_) | Asked::Got(_) => None,
    });
    let mut verdict = Verdict { unseen: reasons(why), ..Verdict::default() };
    let failed = evidence.instances.iter().filter_map(|i| match &i.settings {
        Asked::Failed(why) => Some((i.spec.name.to_string(), why)),
        Asked::Not(_) | Asked::Got(_) => None,
    });
    let (parties, seen): (Vec<String>, Vec<String>) =
        failed.map(|(name, why)| (name.clone(), format!("{name}: {why}"))).unzip();
    if !parties.is_empty() {
        let what =
            format!("the settings of {} cannot be asked for: a server that ended would not start again", and(&parties));
        verdict.findings.push(risk(parties, what, seen, "mend the settings"));
    }
    if asked.is_empty() {
        return verdict;
    }
    verdict.seen =
        Some(format!("{} of {}, each its lane's", count(SUBJECTS.len(), "setting"), count(asked.len(), "instance")));
    for subject in &SUBJECTS {
        let real = || asked.iter().filter_map(|(instance, settings)| Some(((subject.real)(settings)?, *instance, ())));
        let mut told: Vec<String> = Vec::new();
        for (value, holders) in shared(real()) {
            let parties = names(&holders);
            told.extend(parties.clone());
            let seen = parties.iter().map(|name| format!("{name}: {} is {value}", subject.name)).collect();
            let what = format!("{} have one {}", and(&parties), subject.name);
            verdict.findings.push(fault(parties, what, seen, format!("in the settings: {}", subject.line)));
        }
        let (mut parties, mut seen) = (Vec::new(), Vec::new());
        for (value, instance, ()) in real() {
            let name = instance.spec.name.to_string();
            let Some(planned) = (subject.planned)(instance) else { continue };
            if value != planned && !told.contains(&name) && !is_same_file(&value, &planned) {
                seen.push(format!("{name}: {} is {value}, its lane's is {planned}", subject.name));
                parties.push(name);
            }
        }
        if !parties.is_empty() {
            let what =
                format!("the {} of {} is not that of the lane: only luck keeps it apart", subject.name, and(&parties));
            verdict.findings.push(risk(parties, what, seen, format!("in the settings: {}", subject.line)));
        }
    }
    verdict
}

/// Paths may be written in several ways.
fn is_same_file(a: &str, b: &str) -> bool {
    let clean = |path: &str| std::path::Path::new(path).components().collect::<std::path::PathBuf>();
    a.starts_with('/') && clean(a) == clean(b)
}
