//! The sessions in the lanes' databases on PostgreSQL servers. Most are shorter than a request, so they are looked at over
//! and over while the instances are asked for writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::doctor::evidence::{DatabaseServer, Process, Session};
use crate::plan::spec::{Database, DatabaseSetup, Spec};
use crate::runtime::clock::pause;
use crate::runtime::processes::{self, command_line};
use crate::runtime::{lane, sockets};
use crate::services::postgres::{Server, Session as Seen};

/// How long connecting and a question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(2);

/// The servers, each with a URL that opens it and those that use it: the administrator's where there is one, since others
/// are not shown everything.
fn servers<'a>(specs: &[&'a Spec]) -> BTreeMap<String, (Option<String>, Vec<&'a Spec>)> {
    let mut found: BTreeMap<String, (Option<String>, Vec<&Spec>)> = BTreeMap::new();
    for spec in specs {
        let Database::Postgres { url, .. } = &spec.facts.database else { continue };
        let (open, users) = found.entry(address(url)).or_default();
        users.push(spec);
        match &spec.database_setup {
            Some(DatabaseSetup::Create { admin_url, .. }) => *open = Some(admin_url.clone()),
            // Only where the password is there already: a doctor makes none.
            Some(DatabaseSetup::Copy { .. }) | None if open.is_none() => {
                *open = lane::database_url(spec).ok().flatten();
            }
            Some(DatabaseSetup::Copy { .. }) | None => {}
        }
    }
    found
}

/// Host and port of a URL, for people and for telling servers apart.
fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = rest.split(['/', '?']).next().unwrap_or_default();
    place.rsplit_once('@').map_or(place, |(_, address)| address).to_owned()
}

/// Looks until `is_over`, once at least.
pub fn watch(specs: &[&Spec], found: &[Vec<Process>], is_over: &AtomicBool) -> Vec<DatabaseServer> {
    let mut servers: Vec<_> = servers(specs)
        .into_iter()
        .map(|(name, (url, users))| {
            let opened = url.ok_or_else(|| "its lanes have no login yet".to_owned());
            let opened = opened
                .and_then(|url| Server::connect(&url, "laneway doctor", PATIENCE).map_err(|error| error.to_string()));
            (name, users, opened, BTreeSet::new())
        })
        .collect();
    loop {
        let is_last = is_over.load(Ordering::Acquire);
        for (_, users, opened, seen) in &mut servers {
            let Ok(server) = opened else { continue };
            match server.sessions() {
                Ok(sessions) => seen.extend(here(sessions, users).into_iter().map(key)),
                Err(error) => *opened = Err(error.to_string()),
            }
        }
        if is_last || servers.is_empty() {
            break;
        }
        pause(PAUSE);
    }
    let holders = Holders::look(found);
    let told = servers.into_iter().map(|(server, users, opened, seen)| DatabaseServer {
        server,
        users: users.iter().map(|spec| spec.name.to_string()).collect(),
        sessions: opened.map(|_| sessions(seen, &holders, specs)),
    });
    told.collect()
}

/// Database, role, what the client calls itself, and where it is.
type Key = (String, String, Option<String>, Option<String>);

fn key(session: Seen) -> Key {
    (session.database, session.role, session.application_name, session.client)
}

/// Sessions that are some lane's business: in its database, or by its role. Laneway's own are not.
fn here(sessions: Vec<Seen>, users: &[&Spec]) -> Vec<Seen> {
    let is_ours = |session: &Seen| {
        users.iter().any(|spec| match &spec.facts.database {
            Database::Postgres { name, url, application_name } => {
                *name == session.database
                    || role(url) == session.role
                    || session.application_name.as_ref() == Some(application_name)
            }
            Database::Sqlite { .. } => false,
        })
    };
    let is_own = |session: &Seen| session.application_name.as_ref().is_some_and(|name| name.starts_with("laneway"));
    sessions.into_iter().filter(|session| is_ours(session) && !is_own(session)).collect()
}

/// The user of a URL.
pub fn role(url: &str) -> &str {
    let login = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map_or("", |(login, _)| login);
    login.split(':').next().unwrap_or_default()
}

/// Who holds which end of a connection.
struct Holders {
    sockets: HashMap<SocketAddr, u64>,
    instances: HashMap<u64, (usize, u32)>,
}

impl Holders {
    fn look(found: &[Vec<Process>]) -> Self {
        let ends = sockets::connected().unwrap_or_default();
        let sockets = ends.into_iter().map(|end| (end.address, u64::from(end.inode))).collect();
        let mut instances = HashMap::new();
        for (at, process) in found.iter().enumerate().flat_map(|(at, all)| all.iter().map(move |process| (at, process)))
        {
            // Anew: it may have connected since.
            let held = processes::descriptors(process.pid).sockets;
            instances.extend(held.into_iter().map(|socket| (socket, (at, process.pid))));
        }
        Self { sockets, instances }
    }
}

fn sessions(seen: BTreeSet<Key>, holders: &Holders, specs: &[&Spec]) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for (database, role, application_name, client) in seen {
        let socket = client.as_ref().and_then(|client| holders.sockets.get(&client.parse().ok()?));
        let holder = socket.and_then(|socket| holders.instances.get(socket));
        let instance = holder.and_then(|(at, _)| specs.get(*at)).map(|spec| spec.name.to_string());
        let who = match (holder, &client) {
            (Some((_, pid)), _) => format!("pid {pid} ({})", command_line(*pid)),
            (None, Some(client)) => format!("a client at {client}"),
            (None, None) => "a client".to_owned(),
        };
        // A session for each request is one and the same to us.
        let is_known = |known: &Session| {
            known.database == database && known.role == role && known.application_name == application_name
        };
        match sessions.iter_mut().find(|known| is_known(known)) {
            Some(known) if known.instance.is_none() && instance.is_some() => {
                (known.instance, known.who) = (instance, who);
            }
            Some(known) if known.instance == instance || instance.is_none() => {}
            _ => sessions.push(Session { database, role, application_name, instance, who }),
        }
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_without_their_password() {
        let url = "postgres://context7_erp_a:geheim@127.0.0.1:5432/context7_erp_a?x=y";
        assert_eq!((address(url).as_str(), role(url)), ("127.0.0.1:5432", "context7_erp_a"));
        assert_eq!((address("postgres://h/x").as_str(), role("postgres://h/x")), ("h", ""));
    }
}
