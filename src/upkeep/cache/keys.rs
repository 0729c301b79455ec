//! Caches on a Redis server. Lanes on the same database are looked at in one walk over their common prefix.

use std::collections::HashMap;
use std::time::Duration;

use super::{Cleared, Count, Kind, Lane, ServerFacts, Status, Told, Trouble};
use crate::plan::spec::CacheBackend;
use crate::runtime::clock::Clock;
use crate::services::django::{self, Key};
use crate::services::redis::{Connection, Error, Server};

/// How long connecting, and each answer, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Keys of a lane whose size is asked for; the order of a walk is as good as a draw.
const SAMPLE: usize = 50;
/// Buckets of a lane: what is cached, sessions that live in the cache, copies of rows.
const BUCKETS: usize = 3;

/// A database of a server, asked as one user, and the lanes on it.
pub struct Group {
    server: Server,
    lanes: Vec<usize>,
}

/// The databases that `lanes` lean on; `fail` hears of a URL that cannot be used.
fn groups(lanes: &[Lane<'_>], mut fail: impl FnMut(usize, Error)) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, lane) in lanes.iter().enumerate() {
        if !matches!(lane.backend(), CacheBackend::Redis | CacheBackend::RedisLocmem) {
            continue;
        }
        match Server::parse(lane.owner.facts.cache.own_url().unwrap_or_default()) {
            Err(error) => fail(index, error),
            Ok(server) => match groups.iter_mut().find(|group| group.server == server) {
                Some(group) => group.lanes.push(index),
                None => groups.push(Group { server, lanes: vec![index] }),
            },
        }
    }
    groups
}

/// Whose key it is, and which.
struct Owners<'a> {
    by_prefix: HashMap<&'a [u8], usize>,
    lanes: &'a [Lane<'a>],
    /// What all their keys begin with.
    start: String,
}

impl<'a> Owners<'a> {
    fn new(lanes: &'a [Lane<'a>], group: &Group) -> Self {
        let prefix = |index: &usize| lanes.get(*index).map(|lane| lane.owner.facts.cache.prefix.as_str());
        let by_prefix = group.lanes.iter().filter_map(|index| Some((prefix(index)?.as_bytes(), *index))).collect();
        let mut starts = group.lanes.iter().filter_map(prefix).map(|prefix| format!("{prefix}:"));
        let first = starts.next().unwrap_or_default();
        let start = starts.fold(first, |start, other| common(&start, &other).to_owned());
        Self { by_prefix, lanes, start }
    }

    fn of(&self, key: &[u8]) -> Option<(usize, Key)> {
        let colons = key.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
        let owned = |at: usize| Some((*self.by_prefix.get(key.get(..at)?)?, key.get(at + 1..)?));
        let (index, rest) = colons.into_iter().find_map(owned)?;
        Some((index, django::key(rest, self.lanes.get(index)?.is_django())))
    }
}

/// What both begin with.
fn common<'a>(one: &'a str, other: &str) -> &'a str {
    let length: usize =
        one.chars().zip(other.chars()).take_while(|(one, other)| one == other).map(|(one, _)| one.len_utf8()).sum();
    one.get(..length).unwrap_or_default()
}

pub fn survey(lanes: &[Lane<'_>], found: &mut [Status], clock: &Clock, told: Told<'_>) {
    let groups = groups(lanes, |index, error| {
        if let Some(status) = found.get_mut(index) {
            status.place.clone_from(&error.server);
            (status.reachable, status.trouble) = (Some(false), Some(error.into()));
        }
    });
    for group in groups {
        let looked = look(lanes, &group, clock, told);
        for index in &group.lanes {
            let Some(status) = found.get_mut(*index) else { continue };
            status.place = group.server.to_string();
            match &looked {
                Ok(looked) => {
                    status.reachable = Some(true);
                    status.answer_ms = Some(looked.answer.as_secs_f64() * 1000.0);
                    status.server.clone_from(&looked.server);
                    let seen = looked.lanes.get(index).copied().unwrap_or_default();
                    status.count = Some(seen.count);
                    let keys = seen.count.cached + seen.count.session_keys;
                    status.bytes = match seen.sampled {
                        0 if keys > 0 => None,
                        sampled => Some(seen.bytes.saturating_mul(keys) / sampled.max(1)),
                    };
                }
                Err(error) => (status.reachable, status.trouble) = (Some(false), Some(error.clone().into())),
            }
        }
    }
}

struct Looked {
    answer: Duration,
    server: Option<ServerFacts>,
    lanes: HashMap<usize, Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    count: Count,
    sampled: u64,
    bytes: u64,
}

fn look(lanes: &[Lane<'_>], group: &Group, clock: &Clock, told: Told<'_>) -> Result<Looked, Error> {
    let mut connection = group.server.open(PATIENCE)?;
    let before = clock.now();
    connection.ping()?;
    let answer = clock.now().since(before);
    // A user who may not ask for these loses nothing else.
    let server = connection.info().ok().map(|info| ServerFacts { is_full: info.is_full(), info });
    let total = connection.key_count().unwrap_or_default();
    let owners = Owners::new(lanes, group);
    let mut seen: HashMap<usize, Seen> = HashMap::new();
    let mut sample: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
    let see = |key: &[u8]| {
        let Some((index, kind)) = owners.of(key) else { return };
        let count = &mut seen.entry(index).or_default().count;
        match kind {
            Key::Cached => count.cached += 1,
            Key::Session => {
                (count.session_keys, count.live_sessions) = (count.session_keys + 1, count.live_sessions + 1);
            }
            Key::SessionCopy => count.session_keys += 1,
            Key::Health | Key::Foreign => return,
        }
        let sample = sample.entry(index).or_default();
        if sample.len() < SAMPLE {
            sample.push(key.to_vec());
        }
    };
    connection.walk_and_tell(&owners.start, see, |progress| told(progress, total))?;
    for (index, keys) in sample {
        let seen = seen.entry(index).or_default();
        for key in keys {
            if let Ok(Some(bytes)) = connection.memory_of(&key) {
                (seen.sampled, seen.bytes) = (seen.sampled + 1, seen.bytes + bytes);
            }
        }
    }
    Ok(Looked { answer, server, lanes: seen })
}

/// Connects to every server before anything is removed anywhere.
pub fn connect(lanes: &[Lane<'_>], all: &mut [Cleared]) -> Vec<(Group, Connection)> {
    let mut fail = |index: usize, error: Error| {
        if let Some(cleared) = all.get_mut(index) {
            cleared.trouble = Some(error.into());
        }
    };
    let groups = groups(lanes, &mut fail);
    let open = |group: Group| match group.server.open(PATIENCE).and_then(|mut c| c.ping().map(|()| c)) {
        Ok(connection) => Some((group, connection)),
        Err(error) => {
            group.lanes.iter().for_each(|index| fail(*index, error.clone()));
            None
        }
    };
    groups.into_iter().filter_map(open).collect()
}

/// Removes the keys of `kind`.
pub fn clear(lanes: &[Lane<'_>], servers: Vec<(Group, Connection)>, kind: Kind, all: &mut [Cleared], told: Told<'_>) {
    for (group, mut connection) in servers {
        let owners = Owners::new(lanes, &group);
        let total = connection.key_count().unwrap_or_default();
        // One that failed meanwhile, over its rows, keeps its keys too.
        let failed: Vec<bool> = all.iter().map(|cleared| cleared.trouble.is_some()).collect();
        let pick = |key: &[u8]| {
            let (index, which) = owners.of(key).filter(|(index, _)| failed.get(*index) == Some(&false))?;
            let bucket = match which {
                Key::Cached if kind.takes_cached() => 0,
                Key::Session if kind.takes_sessions() => 1,
                Key::SessionCopy if kind.takes_sessions() => 2,
                _ => return None,
            };
            Some(index * BUCKETS + bucket)
        };
        match connection.remove(&owners.start, pick, |progress| told(progress, total)) {
            Ok(gone) => {
                for (bucket, count) in gone {
                    let Some(cleared) = all.get_mut(bucket / BUCKETS) else { continue };
                    match bucket % BUCKETS {
                        0 => cleared.gone.cached += count,
                        1 => {
                            cleared.gone.session_keys += count;
                            cleared.gone.live_sessions += count;
                        }
                        _ => cleared.gone.session_keys += count,
                    }
                }
            }
            Err(error) => {
                for index in &group.lanes {
                    let Some(cleared) = all.get_mut(*index) else { continue };
                    let Trouble { what, hint } = error.clone().into();
                    cleared.trouble.get_or_insert(Trouble { what: format!("{what}; some keys may be left"), hint });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_begin_with_ends_between_letters() {
        assert_eq!(common("context7_chat_main:", "context7_chat_api:"), "context7_chat_");
        assert_eq!(common("şa:", "şb:"), "ş");
        assert_eq!(common("sa", "şa"), "");
        assert_eq!(common("a:", "a:"), "a:");
    }
}
