//! The Redis servers of the fleet: what their keys begin with, who is connected, and which keys change.
//!
//! Never MONITOR, which a busy server cannot afford and which shows values.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use crate::doctor::evidence::{Process, Store, StoreClient, StoreContent};
use crate::plan::spec::Spec;
use crate::plan::{Foreign, Kind};
use crate::runtime::processes::command_line;
use crate::runtime::{processes, sockets};
use crate::services::redis::{Changes, Client, Connection, Error, Reply, Server};

/// How long connecting and an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most keys that are looked at: about a tenth of a second's work.
const MOST: usize = 100_000;

/// Hears which keys of one server change.
pub type Listener = Changes;

/// The servers that the plan names, each with those that use it, and with a URL that opens it.
fn servers<'a>(specs: &[&'a Spec]) -> Vec<(String, Result<Server, String>, Vec<&'a Spec>)> {
    let mut found: Vec<(String, Result<Server, String>, Vec<&Spec>)> = Vec::new();
    for spec in specs {
        for url in [&spec.facts.cache.url, &spec.facts.channels_url].into_iter().flatten() {
            let server = Server::parse(url).map(|server| match spec.facts.cache.own_url().map(Server::parse) {
                // Whoever looks at everything is the administrator, where there is one.
                Some(Ok(own)) => server.by_the_login_of(own),
                _ => server,
            });
            let server = server.map_err(|error| error.to_string());
            let name = server.as_ref().map_or_else(Clone::clone, ToString::to_string);
            let known = found.iter_mut().find(|(other_name, other, _)| match (other, &server) {
                (Ok(other), Ok(server)) => other.is_same_database(server),
                _ => *other_name == name,
            });
            match known {
                Some((.., users)) => {
                    if users.last().is_none_or(|last| last.name != spec.name) {
                        users.push(spec);
                    }
                }
                None => found.push((name, server, vec![spec])),
            }
        }
    }
    found
}

/// Listens to the servers of those that run; one that cannot be listened to is told of by `look`.
pub fn listen(specs: &[&Spec], found: &[Vec<Process>]) -> Vec<Listener> {
    if found.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let open = |server: &Server| server.open(PATIENCE)?.changes();
    servers(specs).iter().filter_map(|(_, server, _)| open(server.as_ref().ok()?).ok()).collect()
}

/// Which keys changed, and whether all were thrown away. What laneway itself publishes of each instance is left out.
pub fn take(listener: &mut Listener) -> (Vec<String>, bool) {
    let Ok(changed) = listener.take() else { return (Vec::new(), false) };
    let keys = changed.keys.into_iter().map(|key| String::from_utf8_lossy(&key).into_owned());
    (keys.filter(|key| !key.contains(":health_check_")).collect(), changed.all)
}

/// Whether a key is one of the lane of `spec`: of its cache, its channels or its task queue.
pub fn is_of(key: &str, spec: &Spec) -> bool {
    [&spec.facts.cache.prefix, &spec.facts.channels_prefix].into_iter().any(|prefix| begins(key, prefix))
}

/// As frameworks join them: `prefix:...`, and the queue's own name.
pub fn begins(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// What a key begins with, up to the first `:`. Django puts one even before a key without prefix.
pub fn start(key: &str) -> String {
    key.split(':').next().unwrap_or_default().to_owned()
}

/// What other fleets' keys begin with.
pub fn prefixes(others: &[Foreign]) -> Vec<String> {
    let claims = others.iter().flat_map(|other| &other.claims).filter(|claim| claim.kind == Kind::RedisPrefix);
    claims.map(|claim| claim.chain.get(1..).unwrap_or_default().join(":")).collect()
}

/// What is in the servers, and who is there.
pub fn look(specs: &[&Spec], found: &[Vec<Process>]) -> Vec<Store> {
    let stores = servers(specs).into_iter().map(|(name, server, users)| {
        let content = server.and_then(|server| {
            let said = |error: Error| {
                let hint = error.fault.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{error}{hint}")
            };
            let mut connection = server.open(PATIENCE).map_err(said)?;
            let mut content = keys(&mut connection, specs).map_err(said)?;
            content.clients = clients(&mut connection, specs, found).map_err(said)?;
            Ok(content)
        });
        let users = users.into_iter().map(|spec| spec.name.to_string()).collect();
        Store { server: name, users, content }
    });
    stores.collect()
}

/// What the keys begin with: a lane's prefix, whole, else what stands before the first `:`.
fn keys(connection: &mut Connection, specs: &[&Spec]) -> Result<StoreContent, Error> {
    let mut content = StoreContent::default();
    let prefixes = specs.iter().flat_map(|spec| [&spec.facts.cache.prefix, &spec.facts.channels_prefix]);
    let prefixes: BTreeSet<&String> = prefixes.collect();
    let mut cursor = "0".to_owned();
    while content.looked_at < MOST {
        let step = connection.command(&[b"SCAN", cursor.as_bytes(), b"COUNT", b"1000"])?;
        let [next, keys] = step.items() else { break };
        for key in keys.items().iter().filter_map(Reply::text) {
            content.looked_at += 1;
            let prefix = prefixes.iter().find(|prefix| begins(&key, prefix));
            let start = prefix.map_or_else(|| start(&key), ToString::to_string);
            let counted = content.starts.entry(start).or_insert_with(|| (0, key));
            counted.0 += 1;
        }
        cursor = next.text().unwrap_or_default();
        if cursor == "0" || cursor.is_empty() {
            content.is_whole = true;
            break;
        }
    }
    Ok(content)
}

/// Who is connected to this database, but for this connection.
fn clients(connection: &mut Connection, specs: &[&Spec], found: &[Vec<Process>]) -> Result<Vec<StoreClient>, Error> {
    let me = connection.command(&[b"CLIENT", b"ID"])?.text().unwrap_or_default();
    let all = connection.clients()?;
    let database = all.iter().find(|client| client.field("id") == me).map(|client| client.field("db").to_owned());
    let sockets: HashMap<SocketAddr, u64> = sockets::connected()
        .unwrap_or_default()
        .into_iter()
        .map(|end| (canonical(end.address), u64::from(end.inode)))
        .collect();
    let mut holders: HashMap<u64, (usize, u32)> = HashMap::new();
    for (at, processes) in found.iter().enumerate() {
        for process in processes {
            holders.extend(process.sockets.iter().map(|socket| (*socket, (at, process.pid))));
        }
    }
    let mut strangers: BTreeMap<u64, Option<u32>> = BTreeMap::new();
    let here = |client: &&Client| client.field("id") != me && Some(client.field("db")) == database.as_deref();
    let mut clients: Vec<StoreClient> = all
        .iter()
        .filter(here)
        .map(|client| {
            let socket = client.field("addr").parse().ok().and_then(|address| sockets.get(&canonical(address)));
            let holder = socket.and_then(|socket| holders.get(socket));
            let pid = match (holder, socket) {
                (Some((_, pid)), _) => Some(*pid),
                (None, Some(socket)) => *strangers
                    .entry(*socket)
                    .or_insert_with(|| processes::socket_holder(u32::try_from(*socket).unwrap_or(0))),
                (None, None) => None,
            };
            let instance = holder.and_then(|(at, _)| specs.get(*at)).map(|spec| spec.name.to_string());
            let user = match client.field("user") {
                "" | "default" => String::new(),
                user => format!(" as {user}"),
            };
            let from = pid.map_or_else(|| client.field("addr").to_owned(), command_line);
            StoreClient { instance, pid, who: format!("{from}{user}"), last: client.field("cmd").to_owned() }
        })
        .collect();
    // The connections of this very process are no news.
    clients.retain(|client| client.pid != Some(std::process::id()));
    clients.sort();
    clients.dedup();
    Ok(clients)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_framework_ends_it() {
        for (key, prefix, expected) in [
            ("context7_chat:1:x", "context7_chat", true),
            ("context7_chat_main:1:x", "context7_chat", false),
            ("context7_chat", "context7_chat", true),
            ("a:b:1:x", "a:b", true),
        ] {
            assert_eq!(begins(key, prefix), expected, "{key} {prefix}");
        }
        assert_eq!((start(":1:x").as_str(), start("plain").as_str()), ("", "plain"));
    }
}
