//! Options that look right and break, and sockets that servers share without saying so.

use std::collections::BTreeMap;

use super::{Verdict, and, count, fault, names, reasons, risk, shared};
use crate::doctor::evidence::{Evidence, Instance, Settings};

/// An option that breaks: where, what it is, since when that is known, and what to write instead.
struct Broken {
    is_there: fn(&Instance<'_>, &Settings) -> Vec<String>,
    what: &'static str,
    hint: &'static str,
}

const BROKEN: [Broken; 3] = [
    Broken {
        is_there: |_, settings| {
            let redis = |backend: &str| backend == "django.core.cache.backends.redis.RedisCache";
            let caches = settings.caches.iter().filter(|(_, cache)| redis(&cache.backend));
            let caches = caches.filter(|(_, cache)| cache.options.iter().any(|option| option == "CLIENT_CLASS"));
            caches
                .map(|(alias, _)| format!("CACHES[{alias:?}] is Django's own RedisCache with the option CLIENT_CLASS"))
                .collect()
        },
        what: "every use of the cache fails: CLIENT_CLASS is an option of django-redis, and Django's own RedisCache has none",
        hint: "take CLIENT_CLASS out of OPTIONS",
    },
    Broken {
        is_there: |_, settings| {
            let databases = settings.databases.iter().filter(|(_, database)| database.engine.contains("postgresql"));
            let databases =
                databases.filter(|(_, database)| database.options.iter().any(|option| option == "MAX_CONNS"));
            databases
                .map(|(alias, _)| format!("DATABASES[{alias:?}] is PostgreSQL with the option MAX_CONNS"))
                .collect()
        },
        what: "every connection to the database fails: libpq knows no option MAX_CONNS",
        hint: "take MAX_CONNS out of OPTIONS; OPTIONS[\"pool\"] = {\"max_size\": 5} limits what one process opens, \
               and database.max_connections what the lane's role may",
    },
    Broken {
        is_there: |instance, settings| {
            let lasting = |age: Option<f64>| age.is_none_or(|age| age > 0.0);
            let databases = settings.databases.iter().filter(|(_, database)| {
                is_asgi(instance, settings) && lasting(database.conn_max_age) && !database.engine.ends_with("sqlite3")
            });
            databases
                .map(|(alias, database)| match database.conn_max_age {
                    Some(age) => format!("DATABASES[{alias:?}] has CONN_MAX_AGE {age} under an ASGI server"),
                    None => format!("DATABASES[{alias:?}] has CONN_MAX_AGE None under an ASGI server"),
                })
                .collect()
        },
        what: "connections to the database pile up: under ASGI each thread keeps its own until the role has none left",
        hint: "CONN_MAX_AGE = 0, and OPTIONS[\"pool\"] = True where connecting is slow",
    },
];

fn is_asgi(instance: &Instance<'_>, settings: &Settings) -> bool {
    let command = instance.spec.command.join(" ").to_ascii_lowercase();
    ["uvicorn", "daphne", "hypercorn", "asgi"].iter().any(|word| command.contains(word))
        || command.contains("runserver") && settings.asgi_runserver
}

/// Options of the settings that break, each once with everybody who has it.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let asked: Vec<_> = evidence.instances.iter().filter_map(|i| Some((i, i.settings.got()?))).collect();
    let why = evidence.instances.iter().filter_map(|i| Some((i, i.settings.why_not()?)));
    let mut verdict = Verdict { unseen: reasons(why), ..Verdict::default() };
    if asked.is_empty() {
        return verdict;
    }
    let instances = count(asked.len(), "instance");
    verdict.seen = Some(format!("none of {} known to break, in {instances}", BROKEN.len()));
    for broken in &BROKEN {
        let mut parties = Vec::new();
        let mut seen = Vec::new();
        for (instance, settings) in &asked {
            let places = (broken.is_there)(instance, settings);
            if !places.is_empty() {
                parties.push(instance.spec.name.to_string());
                seen.extend(places.into_iter().map(|place| format!("{}: {place}", instance.spec.name)));
            }
        }
        if !parties.is_empty() {
            verdict.findings.push(fault(parties, broken.what, seen, broken.hint));
        }
    }
    verdict
}

/// gunicorn's control socket: where its runtime directory is, else in the home directory, of which instances have one.
pub fn control_sockets(evidence: &Evidence<'_>) -> Verdict {
    let sockets: Vec<_> = evidence.instances.iter().filter_map(|i| Some((control_socket(i)?, i, ()))).collect();
    if sockets.is_empty() {
        return Verdict::seen("nobody runs a server that has one");
    }
    let mut verdict = Verdict::seen(format!("{} of gunicorn, each in its lane", count(sockets.len(), "socket")));
    // Guests of a lane take it from each other too, so that lanes do not matter here.
    let mut by_socket: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (socket, instance, ()) in &sockets {
        by_socket.entry(socket.clone()).or_default().push(instance.spec.name.to_string());
    }
    let lanes = shared(sockets.into_iter());
    for (socket, parties) in by_socket.into_iter().filter(|(_, parties)| parties.len() > 1) {
        let what = format!(
            "{} have one control socket of gunicorn: the first that stops takes it from the others",
            and(&parties)
        );
        let seen = vec![format!("each of them binds {socket}")];
        let hint = "add --no-control-socket to the command, or take XDG_RUNTIME_DIR out of `environment`: laneway gives each its own";
        let is_between_lanes = lanes.iter().any(|(_, holders)| names(holders) == parties);
        let make = if is_between_lanes { fault } else { risk };
        verdict.findings.push(make(parties, what, seen, hint.to_owned()));
    }
    verdict
}

fn control_socket(instance: &Instance<'_>) -> Option<String> {
    let command = &instance.spec.command;
    let words: Vec<&str> = command.iter().flat_map(|word| word.split_whitespace()).collect();
    if !words.iter().any(|word| word.rsplit('/').next().is_some_and(|program| program.starts_with("gunicorn"))) {
        return None;
    }
    if words.contains(&"--no-control-socket") {
        return None;
    }
    let given = words.iter().position(|word| *word == "--control-socket").and_then(|at| words.get(at + 1).copied());
    if let Some(own) = given.or_else(|| words.iter().find_map(|word| word.strip_prefix("--control-socket="))) {
        return Some(instance.spec.working_dir.join(own).display().to_string());
    }
    let real = instance.processes.first().and_then(|process| process.environment.as_ref());
    let environment = real.unwrap_or(&instance.spec.environment);
    let directory = environment.get("XDG_RUNTIME_DIR").cloned();
    let directory = directory.or_else(|| Some(format!("{}/.gunicorn", environment.get("HOME")?)))?;
    Some(format!("{directory}/gunicorn.ctl"))
}
