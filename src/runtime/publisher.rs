//! How every instance is, told to the apps themselves: `health_check_<instance>` in the cache of every instance that runs
//! on Django and caches on a Redis server, so that `cache.get("health_check_chat_api")` works in each of them. The values
//! end by themselves soon after nobody renews them.
//!
//! A thread of its own talks to the servers, since one that is dead or slow must not hold up the supervisor, which only
//! leaves word. The thread is made when the first such instance is there; where there is none, nothing ever wakes up. A
//! server in trouble is spoken of once, and once more when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::clock::Clock;
use super::threads::in_thread;
use crate::model::InstanceName;
use crate::plan::Plan;
use crate::plan::spec::Framework;
use crate::services::django::{HEALTH_CHECK, Value, full_key, packed};
use crate::services::redis::{Connection, Error, Server};

/// How long a value lasts that nobody renews.
const LIFETIME: Duration = Duration::from_secs(30);
/// How often all are renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// For connecting, and for each answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// With more values than these, each instance is told of itself alone.
const MANY: usize = 10_000;

/// Takes word of how instances are.
#[derive(Debug, Default)]
pub struct Publisher {
    board: Arc<Board>,
    is_started: bool,
}

#[derive(Debug, Default)]
struct Board {
    news: Mutex<News>,
    are_there: Condvar,
}

/// What the thread has not seen yet, and what it always needs.
#[derive(Debug, Default)]
struct News {
    places: Vec<Place>,
    states: BTreeMap<InstanceName, String>,
    /// Whose state is new.
    changed: BTreeSet<InstanceName>,
}

/// A database of a server, and the prefixes on it with those who own them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    server: Server,
    prefixes: Vec<(InstanceName, String)>,
}

impl Publisher {
    /// Follows `plan` from now on.
    pub fn follow(&mut self, plan: &Plan) {
        let places = places(plan);
        let names: BTreeSet<_> = plan.ids().map(|id| plan.spec(id).name.clone()).collect();
        let has_places = !places.is_empty();
        self.leave(|news| {
            news.states.retain(|name, _| names.contains(name));
            if news.places != places {
                news.changed = news.states.keys().cloned().collect();
                news.places = places;
            }
        });
        if has_places && !self.is_started {
            let board = Arc::clone(&self.board);
            match in_thread("publisher", move || publish(&board)) {
                Ok(()) => self.is_started = true,
                Err(error) => warn!("no thread publishes health in caches: {error}"),
            }
        }
    }

    /// How an instance is now, in a word.
    pub fn tell(&self, name: &InstanceName, state: String) {
        self.leave(|news| {
            if news.states.get(name) != Some(&state) {
                news.states.insert(name.clone(), state);
                news.changed.insert(name.clone());
            }
        });
    }

    fn leave(&self, word: impl FnOnce(&mut News)) {
        let mut news = self.board.news.lock().unwrap_or_else(PoisonError::into_inner);
        word(&mut news);
        let is_worth_it = !news.changed.is_empty() && !news.places.is_empty();
        drop(news);
        if is_worth_it {
            self.board.are_there.notify_one();
        }
    }
}

/// Where the states of `plan` are published. A URL that cannot be used is `cache status`'s and the doctor's to say.
fn places(plan: &Plan) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for spec in plan.ids().map(|id| plan.spec(id)) {
        let facts = &spec.facts;
        let is_owner = facts.lane == spec.name;
        let Some(url) = facts.cache.url.as_deref().filter(|_| is_owner && facts.framework == Framework::Django) else {
            continue;
        };
        let Ok(server) = Server::parse(url) else { continue };
        let prefix = (spec.name.clone(), facts.cache.prefix.clone());
        match places.iter_mut().find(|place| place.server == server) {
            Some(place) => place.prefixes.push(prefix),
            None => places.push(Place { server, prefixes: vec![prefix] }),
        }
    }
    places
}

/// The thread's work: it never ends before the process does.
fn publish(board: &Board) {
    let clock = Clock::start();
    let mut renewal = clock.now();
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let (places, states, changed) = {
            let mut news = board.news.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = loop {
                let left = renewal.since(clock.now());
                if news.places.is_empty() {
                    news = board.are_there.wait(news).unwrap_or_else(PoisonError::into_inner);
                } else if left.is_zero() || !news.changed.is_empty() {
                    break left.is_zero();
                } else {
                    news = board.are_there.wait_timeout(news, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            };
            let changed = std::mem::take(&mut news.changed);
            let changed = if is_due { None } else { Some(changed) };
            (news.places.clone(), news.states.clone(), changed)
        };
        if changed.is_none() {
            renewal = clock.now() + RENEWAL;
        }
        lines.retain(|line| places.iter().any(|place| place.server == line.server));
        for place in &places {
            let index = lines.iter().position(|line| line.server == place.server).unwrap_or_else(|| {
                lines.push(Line { server: place.server.clone(), connection: None, is_down: false, missed: true });
                lines.len() - 1
            });
            if let Some(line) = lines.get_mut(index) {
                line.bring(place, &states, changed.as_ref());
            }
        }
    }
}

/// What stands in the cache of one lane, or of all of them, of the states of `whom`; `None` = of everybody.
fn values(
    place: &Place,
    states: &BTreeMap<InstanceName, String>,
    whom: Option<&BTreeSet<InstanceName>>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let is_many = place.prefixes.len() * states.len() > MANY;
    let told = states.iter().filter(|(name, _)| whom.is_none_or(|whom| whom.contains(*name)));
    told.flat_map(|(name, state)| {
        let value = packed(&Value::Text(state.clone()));
        let prefixes = place.prefixes.iter().filter(move |(owner, _)| !is_many || owner == name);
        let key = move |prefix: &str| full_key(prefix, &format!("{HEALTH_CHECK}{name}")).into_bytes();
        prefixes.map(move |(_, prefix)| (key(prefix), value.clone()))
    })
    .collect()
}

/// The way to one server.
struct Line {
    server: Server,
    connection: Option<Connection>,
    is_down: bool,
    /// It lacks something that was news.
    missed: bool,
}

impl Line {
    /// Brings what has `changed` (`None` = all). A server that is down is tried when all is due, not at each change.
    fn bring(
        &mut self,
        place: &Place,
        states: &BTreeMap<InstanceName, String>,
        changed: Option<&BTreeSet<InstanceName>>,
    ) {
        if self.is_down && changed.is_some() {
            return;
        }
        let values = values(place, states, changed.filter(|_| !self.missed));
        let was_open = self.connection.is_some();
        // One that the server closed meanwhile is no trouble.
        let brought = self.set(&values).or_else(|error| if was_open { self.set(&values) } else { Err(error) });
        match brought {
            Ok(()) => {
                if self.is_down {
                    info!("{}: health is published there again", self.server);
                }
                (self.is_down, self.missed) = (false, false);
            }
            Err(error) => {
                if !self.is_down {
                    let again = RENEWAL.as_secs();
                    warn!(
                        "{error}: health is not published there; tried again every {again} s, and said when it works"
                    );
                }
                (self.is_down, self.missed) = (true, true);
            }
        }
    }

    fn set(&mut self, values: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.server.open(PATIENCE)?,
        };
        connection.set_all(values, LIFETIME)?;
        self.connection = Some(connection);
        Ok(())
    }
}
