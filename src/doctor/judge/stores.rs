//! Redis: each lane's keys under its own prefix, and no keys that nobody's prefix explains.

use std::collections::BTreeMap;

use super::{Verdict, and, count, fault, names, reasons, risk, shared};
use crate::doctor::evidence::{Evidence, Instance, StoreContent};

/// How many starts of keys are named.
const NAMED: usize = 5;

/// What instances write when they are asked, and what lies there.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    if evidence.stores.is_empty() {
        return Verdict { unseen: vec!["no instance is planned with Redis".to_owned()], ..Verdict::default() };
    }
    let mut verdict = Verdict::default();
    let mut looked_at = 0;
    let told = written(evidence, &mut verdict);
    for store in &evidence.stores {
        match &store.content {
            Ok(content) => {
                looked_at += content.looked_at;
                if !content.is_whole {
                    verdict.unseen.push(format!("{}: the keys after the first {}", store.server, content.looked_at));
                }
                strangers(&store.server, content, evidence, &told, &mut verdict);
            }
            Err(why) => {
                let what = format!("the Redis of {} cannot be looked at", and(&store.users));
                verdict.findings.push(fault(store.users.clone(), what, vec![why.clone()], "laneway cache status"));
            }
        }
    }
    if evidence.stores.iter().any(|store| store.content.is_ok()) {
        verdict.seen = Some(format!("{}, all under the prefix of a lane", count(looked_at, "key")));
    }
    let why = evidence.instances.iter().filter_map(|i| Some((i, i.write.why_not()?)));
    verdict.unseen.extend(reasons(why));
    verdict
}

/// The prefixes of all lanes, each with its instance.
fn prefixes<'a>(evidence: &'a Evidence<'_>) -> impl Iterator<Item = (&'a str, &'a Instance<'a>)> {
    let owners = evidence.instances.iter().filter(|instance| instance.spec.facts.lane == instance.spec.name);
    owners.flat_map(|instance| {
        let facts = &instance.spec.facts;
        [(facts.cache.prefix.as_str(), instance), (facts.channels_prefix.as_str(), instance)]
    })
}

fn begins(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn start(key: &str) -> &str {
    key.split(':').next().unwrap_or_default()
}

/// Keys that an instance alone changed when it was asked for a write, and that are not its own. Returns the starts of those
/// that are nobody's.
fn written(evidence: &Evidence<'_>, verdict: &mut Verdict) -> Vec<String> {
    let mut at_neighbours: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut nobodys: Vec<(String, &Instance<'_>, String)> = Vec::new();
    for instance in &evidence.instances {
        let Some(write) = instance.write.got() else { continue };
        let name = instance.spec.name.to_string();
        if write.flushed {
            let what = format!("all keys of Redis were thrown away while {name} was asked for a write");
            let seen = format!("{name}: FLUSHDB or FLUSHALL during {}", write.page);
            let hint = "let it clear its own prefix: cache.clear() of Django is FLUSHDB; laneway cache clear is not";
            verdict.findings.push(fault(vec![name.clone()], what, vec![seen], hint));
        }
        for key in &write.keys {
            let owners: Vec<_> = prefixes(evidence).filter(|(prefix, _)| begins(key, prefix)).collect();
            if owners.iter().any(|(_, owner)| owner.spec.facts.lane == instance.spec.facts.lane) {
                continue;
            }
            let seen = format!("{name}: {key} changed when it was asked for {}", write.page);
            match owners.first() {
                Some((_, owner)) => {
                    at_neighbours.entry((name.clone(), owner.spec.name.to_string())).or_default().push(seen);
                }
                None => nobodys.push((start(key).to_owned(), instance, seen)),
            }
        }
    }
    let hint = "in the settings: \"KEY_PREFIX\": os.environ[\"CACHE_KEY_PREFIX\"]";
    for ((name, owner), seen) in at_neighbours {
        let what = format!("{name} writes keys of {owner}");
        verdict.findings.push(fault(vec![name, owner], what, seen.into_iter().take(2).collect(), hint));
    }
    let mut told = Vec::new();
    for (start, holders) in shared(nobodys.iter().map(|(start, instance, seen)| (start.clone(), *instance, seen))) {
        let parties = names(&holders);
        let mut seen: Vec<String> = Vec::new();
        for name in &parties {
            let of_one = holders.iter().find(|(instance, _)| instance.spec.name.as_str() == name);
            seen.extend(of_one.map(|(_, seen)| (*seen).clone()));
        }
        let what = format!("{} write under one prefix, \"{start}\"", and(&parties));
        verdict.findings.push(fault(parties, what, seen, hint));
        told.push(start);
    }
    for (start, instance, seen) in nobodys {
        if !told.contains(&start) {
            let name = instance.spec.name.to_string();
            let what = format!("{name} writes keys outside of its prefix, under \"{start}\"");
            verdict.findings.push(risk(vec![name], what, vec![seen], hint));
            told.push(start);
        }
    }
    told
}

/// Keys that no known prefix explains, and who could have written them.
fn strangers(server: &str, content: &StoreContent, evidence: &Evidence<'_>, told: &[String], verdict: &mut Verdict) {
    let known: Vec<&str> = prefixes(evidence)
        .map(|(prefix, _)| prefix)
        .chain(evidence.foreign_prefixes.iter().map(String::as_str))
        .collect();
    let is_known = |key_start: &str, example: &str| {
        told.iter().any(|told| told == key_start) || known.iter().any(|prefix| begins(example, prefix))
    };
    let strange: Vec<_> = content.starts.iter().filter(|(start, (_, example))| !is_known(start, example)).collect();
    if strange.is_empty() {
        return;
    }
    let number: usize = strange.iter().map(|(_, (number, _))| number).sum();
    let mut parties: Vec<String> = Vec::new();
    let mut seen: Vec<String> = strange
        .iter()
        .take(NAMED)
        .map(|(start, (number, _))| format!("{} under \"{start}\"", count(*number, "key")))
        .collect();
    // Whose settings say so is a writer; else whoever is connected may be one.
    for (start, _) in &strange {
        let writers = evidence.instances.iter().filter(|instance| {
            let caches = instance.settings.got().map(|settings| settings.caches.values());
            caches.into_iter().flatten().any(|cache| {
                cache.backend.to_ascii_lowercase().contains("redis") && self::start(&cache.key_prefix) == start.as_str()
            })
        });
        for writer in writers.filter(|writer| writer.phase.as_deref() == Some("running")) {
            let name = writer.spec.name.to_string();
            seen.push(format!("{name}: its settings have the KEY_PREFIX \"{start}\""));
            if !parties.contains(&name) {
                parties.push(name);
            }
        }
    }
    for client in &content.clients {
        let who = match (&client.instance, client.pid) {
            (Some(instance), Some(pid)) => format!("pid {pid} of {instance} ({})", client.who),
            (_, Some(pid)) => format!("pid {pid} ({})", client.who),
            _ => client.who.clone(),
        };
        seen.push(format!("connected: {who}, last command {}", client.last));
    }
    if content.clients.is_empty() {
        seen.push("nobody is connected now".to_owned());
    }
    let what = format!("{} in {server} belong to no lane", count(number, "key"));
    let hint = "who shares a database with others is lost at their FLUSHDB: give the fleet a number of its own \
                (redis://.../1), or let the writers use their prefix";
    verdict.findings.push(risk(parties, what, seen, hint));
}
