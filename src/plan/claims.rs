//! What each lane claims for itself, and that no two claim the same: within a fleet, and against the user's other fleets.
//!
//! A claim is a chain of parts, and two overlap when one chain begins with the other: `[/srv, var]` and `[/srv, var, tmp]`,
//! `[redis://h:6379/0, a]` and `[redis://h:6379/0, a, b]`. So one sorted pass finds equal and nested ones alike.
//! Sharing that `lane:` says is none: a guest claims only its port and its name.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Collector, Fault, Instance, Settings};
use crate::model::{InstanceId, InstanceName};

use super::paths::{Disk, inode};
use super::spec::{CacheBackend, Database, DatabaseSetup, Facts, Plan, Spec};

/// One thing that an instance has for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// What it is.
    pub kind: Kind,
    /// The thing, from the general to the special.
    pub chain: Vec<String>,
    /// Whose it is.
    pub instance: String,
    /// Which key decides over it, such as `cookies.session`.
    pub key: String,
}

/// What can be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A port on an address.
    Port,
    /// A database on a server.
    Database,
    /// A role of a server that laneway makes for a lane.
    Role,
    /// A file's identity on the disk, which two names may share.
    Inode,
    /// A file or directory.
    Path,
    /// A cookie; cookies ignore ports, so it is one space for the whole machine.
    Cookie,
    /// What keys begin with on a Redis server.
    RedisPrefix,
    /// What keys begin with elsewhere.
    LocalPrefix,
    /// The name itself, `-` and `_` being one.
    Name,
}

impl Kind {
    /// Whether two fleets of one machine can meet in it.
    fn is_global(self) -> bool {
        !matches!(self, Self::Name | Self::LocalPrefix)
    }
}

/// Another fleet of the same machine, as it registered itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// The folder of its file.
    pub folder: PathBuf,
    /// What it claims.
    pub claims: Vec<Claim>,
}

/// Two claims to the same thing, one of them another fleet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// Ours.
    pub mine: Claim,
    /// The other's.
    pub theirs: Claim,
    /// The other's folder.
    pub folder: PathBuf,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mine, theirs, folder } = self;
        let owner = format!("`{}` of {}", theirs.instance, folder.display());
        let what = mine.against(theirs, &owner);
        write!(f, "instances.{}.{}: {what}", mine.instance, mine.key)?;
        write!(f, "\n  hint: {}", mine.hint(true))
    }
}

impl Claim {
    /// The thing in words.
    #[must_use]
    pub fn shown(&self) -> String {
        let last = self.chain.last().map_or("", String::as_str);
        match self.kind {
            Kind::Port => format!("port {}", self.chain.first().map_or("", String::as_str)),
            Kind::Database => format!("the database {}", self.chain.join("/")),
            Kind::Role => format!("the role {}", self.chain.join("/")),
            Kind::Inode => "this database file, under another name,".to_owned(),
            Kind::Path => format!("the path {}", self.path().display()),
            Kind::Cookie => format!("the cookie {last}"),
            Kind::RedisPrefix | Kind::LocalPrefix => {
                format!("the prefix {}", self.chain.get(1..).unwrap_or_default().join(":"))
            }
            Kind::Name => format!("the name {last}"),
        }
    }

    /// How it meets `other`, which is `owner`'s.
    #[must_use]
    pub fn against(&self, other: &Self, owner: &str) -> String {
        let is_chain = !matches!(self.kind, Kind::Port | Kind::Inode);
        if self.chain == other.chain || !is_chain {
            format!("{} belongs to {owner} already", self.shown())
        } else if self.chain.len() > other.chain.len() {
            format!("{} lies in {}, which belongs to {owner}", self.shown(), other.shown())
        } else {
            format!("{} holds {}, which belongs to {owner}", self.shown(), other.shown())
        }
    }

    fn path(&self) -> PathBuf {
        self.chain.iter().collect()
    }

    /// What to do when it meets one of the same fleet, or of another one.
    #[must_use]
    pub fn hint(&self, is_foreign: bool) -> String {
        match self.kind {
            Kind::Port => "give each instance a port of its own".to_owned(),
            Kind::Name => "`-` and `_` become one in many places; choose names that differ in more".to_owned(),
            _ if is_foreign => "give one of the two fleets a `namespace:`, or this instance another name".to_owned(),
            _ => "take it out to get the instance's own, put `{lane}` into it, or say `lane:` to share".to_owned(),
        }
    }
}

/// Everything that the instances of `plan` claim. Looks paths up on the disk.
#[must_use]
pub fn claims(plan: &Plan) -> Vec<Claim> {
    let mut disk = Disk::default();
    plan.ids().flat_map(|id| claims_of(plan.spec(id), &mut disk)).collect()
}

/// Every two claims to the same by two instances of `plan`, of those that [`claims`] gave.
#[must_use]
pub fn collisions(claims: &[Claim]) -> Vec<(Claim, Claim)> {
    let references: Vec<&Claim> = claims.iter().collect();
    let owner = |index: usize| claims.get(index).map(|claim| &claim.instance);
    let met = overlaps(&references, &|a, b| owner(a) != owner(b));
    met.into_iter().filter_map(|(a, b)| Some((claims.get(a)?.clone(), claims.get(b)?.clone()))).collect()
}

/// Who of `new` takes over what another one, of `holders`, has in `old`: each heir with the holder. Looks paths up on the
/// disk.
#[must_use]
pub fn heirs(old: &Plan, holders: &[InstanceId], new: &Plan) -> Vec<(InstanceName, InstanceName)> {
    let mut disk = Disk::default();
    let before = holders.iter().map(|id| (false, old.spec(*id)));
    let after = new.ids().map(|id| (true, new.spec(id)));
    let mut all = Vec::new();
    for (is_new, spec) in before.chain(after) {
        all.extend(claims_of(spec, &mut disk).into_iter().map(|claim| (is_new, &spec.name, claim)));
    }
    let references: Vec<&Claim> = all.iter().map(|(_, _, claim)| claim).collect();
    let are_apart = |a: usize, b: usize| match (all.get(a), all.get(b)) {
        (Some((a_is_new, a, _)), Some((b_is_new, b, _))) => a_is_new != b_is_new && a != b,
        _ => false,
    };
    let met = overlaps(&references, &are_apart).into_iter().filter_map(|(a, b)| {
        let ((a_is_new, a, _), (_, b, _)) = (all.get(a)?, all.get(b)?);
        let (heir, holder) = if *a_is_new { (a, b) } else { (b, a) };
        Some(((*heir).clone(), (*holder).clone()))
    });
    met.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Where `mine` meets what `others` claim. The caller leaves out what its own folder registered before.
#[must_use]
pub fn foreign_collisions(mine: &[Claim], others: &[Foreign]) -> Vec<Collision> {
    others.iter().flat_map(|other| collisions_with(mine, other)).collect()
}

fn collisions_with(mine: &[Claim], other: &Foreign) -> Vec<Collision> {
    let all: Vec<&Claim> = mine.iter().chain(&other.claims).collect();
    let is_mine = |index: usize| index < mine.len();
    let met = overlaps(&all, &|a, b| is_mine(a) != is_mine(b));
    let mut seen = BTreeSet::new();
    let collisions = met.into_iter().filter_map(|(a, b)| {
        let (mine, theirs) = if is_mine(a) { (a, b) } else { (b, a) };
        let (mine, theirs) = (*all.get(mine)?, *all.get(theirs)?);
        let is_new = seen.insert((&mine.instance, &mine.key, &theirs.instance));
        (mine.kind.is_global() && is_new).then(|| Collision {
            mine: mine.clone(),
            theirs: theirs.clone(),
            folder: other.folder.clone(),
        })
    });
    collisions.collect()
}

/// Reports every two instances of `plan` that claim the same, at the later one. Returns all claims.
pub(super) fn check(settings: &Settings, plan: &Plan, collector: &Collector) -> Vec<Claim> {
    let mut disk = Disk::default();
    let mut all = Vec::new();
    let mut owners = Vec::new();
    for (index, spec) in plan.specs.iter().enumerate() {
        for claim in claims_of(spec, &mut disk) {
            all.push(claim);
            owners.push(index);
        }
    }
    let references: Vec<&Claim> = all.iter().collect();
    let met = overlaps(&references, &|a, b| owners.get(a) != owners.get(b));
    let mut seen = BTreeSet::new();
    for (a, b) in met {
        let instance = |index: usize| owners.get(index).and_then(|owner| settings.instances.get(*owner));
        let party = |index: usize| all.get(index).zip(instance(index));
        let (Some(a_side), Some(b_side)) = (party(a), party(b)) else { continue };
        let (first, second) = if owners.get(a) <= owners.get(b) { (a_side, b_side) } else { (b_side, a_side) };
        // What is derived from a name is not to blame when something written by hand meets it.
        let is_written = |(claim, instance): (&Claim, &Instance)| instance.origins.contains_key(&claim.key);
        let (first, second) = if is_written(first) && !is_written(second) { (second, first) } else { (first, second) };
        let ((first_claim, first), (claim, second)) = (first, second);
        if !seen.insert((&first.name, &second.name, claim.key.clone())) {
            continue;
        }
        let place = first.origin(&first_claim.key);
        let where_first = format!("{}:{}:{}", collector.sources.name(place), place.line, place.column);
        let what = format!("{} ({where_first})", claim.against(first_claim, &format!("`{}`", first.name)));
        let path = format!("instances.{}.{}", second.name, claim.key);
        let fault = Fault::new(what).hint(claim.hint(false));
        collector.report(second.origin(&claim.key), path.trim_end_matches('.'), fault);
    }
    all
}

fn claims_of(spec: &Spec, disk: &mut Disk) -> Vec<Claim> {
    let facts = &spec.facts;
    let mut claims = Vec::new();
    let mut add = |kind: Kind, chain: Vec<String>, key: &str| {
        claims.push(Claim { kind, chain, instance: spec.name.to_string(), key: key.to_owned() });
    };
    if let Some(port) = facts.port {
        add(Kind::Port, port_chain(facts.host, port), "port");
    }
    add(Kind::Name, vec![spec.name.as_str().replace('-', "_")], "");
    // A guest shares what belongs to the lane, and the owner claims it.
    if facts.lane != spec.name {
        return claims;
    }
    add(Kind::Cookie, vec![facts.session_cookie.clone()], "cookies.session");
    add(Kind::Cookie, vec![facts.csrf_cookie.clone()], "cookies.csrf");
    add_database(spec, disk, &mut add);
    add_prefixes(facts, &mut add);
    let paths = [
        (&facts.state, "state_dir"),
        (&facts.static_root, "static_root"),
        (&facts.media_root, "media_root"),
        (&facts.secret_file, "secret.file"),
    ];
    for (path, key) in paths {
        add(Kind::Path, chain_of(&disk.canonical(path)), key);
    }
    if facts.cache.backend == CacheBackend::File {
        add(Kind::Path, chain_of(&disk.canonical(Path::new(&facts.cache.location))), "cache.location");
    }
    claims
}

fn add_database(spec: &Spec, disk: &mut Disk, add: &mut impl FnMut(Kind, Vec<String>, &str)) {
    match &spec.facts.database {
        Database::Sqlite { path } => {
            add(Kind::Path, chain_of(&disk.canonical(path)), "database.path");
            if let Some(inode) = inode(path) {
                add(Kind::Inode, vec![inode], "database.path");
            }
        }
        Database::Postgres { url, name, .. } => {
            add(Kind::Database, vec![server(url, 5432), name.clone()], "database.url");
            // Who made no roles may let several lanes use one.
            if let Some(DatabaseSetup::Create { role, .. }) = &spec.database_setup {
                add(Kind::Role, vec![server(url, 5432), role.clone()], "database.url");
            }
        }
    }
}

fn add_prefixes(facts: &Facts, add: &mut impl FnMut(Kind, Vec<String>, &str)) {
    let chain =
        |server: String, prefix: &str| [server].into_iter().chain(prefix.split(':').map(str::to_owned)).collect();
    let cache = &facts.cache;
    match &cache.url {
        Some(url) => add(Kind::RedisPrefix, chain(server(url, 6379), &cache.prefix), "cache.prefix"),
        None => add(Kind::LocalPrefix, chain("cache".to_owned(), &cache.prefix), "cache.prefix"),
    }
    match &facts.channels_url {
        Some(url) => add(Kind::RedisPrefix, chain(server(url, 6379), &facts.channels_prefix), "channels.prefix"),
        None => add(Kind::LocalPrefix, chain("channels".to_owned(), &facts.channels_prefix), "channels.prefix"),
    }
}

/// A wildcard is every address, so its chain is the beginning of every other.
fn port_chain(host: IpAddr, port: u16) -> Vec<String> {
    if host.is_unspecified() { vec![port.to_string()] } else { vec![port.to_string(), host.to_string()] }
}

fn chain_of(path: &Path) -> Vec<String> {
    path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
}

/// The server of a URL without user and password: `host:port`, for Redis with its number, for a socket its path.
pub(super) fn server(url: &str, default_port: u16) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    if scheme == "unix" {
        let number = query.split('&').find_map(|pair| pair.strip_prefix("db=")).unwrap_or("0");
        return format!("{address}/{number}");
    }
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let (host, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, port.to_owned())
        }
        _ => (host, default_port.to_string()),
    };
    let host = match host.to_ascii_lowercase().as_str() {
        "" | "localhost" | "[::1]" => "127.0.0.1".to_owned(),
        host => host.to_owned(),
    };
    if scheme.starts_with("redis") {
        let number = if path.is_empty() { "0" } else { path };
        return format!("{host}:{port}/{number}");
    }
    format!("{host}:{port}")
}

/// The port of a URL; none where it is a socket's path.
pub(super) fn port_of(url: &str, default_port: u16) -> Option<u16> {
    let server = server(url, default_port);
    server.split('/').next()?.rsplit_once(':')?.1.parse().ok()
}

/// Pairs of overlapping claims that `apart` says are two parties': each claim is paired with the first that it meets.
fn overlaps(claims: &[&Claim], apart: &dyn Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let mut sorted: Vec<usize> = (0..claims.len()).collect();
    let key = |index: usize| claims.get(index).map(|claim| (claim.kind, &claim.chain));
    sorted.sort_by(|a, b| key(*a).cmp(&key(*b)).then(a.cmp(b)));
    let begins = |short: usize, long: usize| match (claims.get(short), claims.get(long)) {
        (Some(short), Some(long)) => short.kind == long.kind && long.chain.starts_with(&short.chain),
        _ => false,
    };
    let mut met = Vec::new();
    // Those that the next one may lie below: each begins the one after it.
    let mut above: Vec<usize> = Vec::new();
    for index in sorted {
        while above.last().is_some_and(|last| !begins(*last, index)) {
            above.pop();
        }
        if let Some(other) = above.iter().find(|other| apart(**other, index)) {
            met.push((*other, index));
        }
        above.push(index);
    }
    met
}
