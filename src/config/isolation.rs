//! Reads the keys of `isolation`: what the system keeps an instance from.
//!
//! Knows which keys need which; whether this kernel can enforce them is found out where it is asked.

use super::instance::Part;
use super::keys::{ENFORCED, MISSING, READS};
use super::problem::Fault;
use super::reader::Keys;
use super::settings::{CacheBackend, Enforced, Engine, Instance, IsolationSettings};
use super::value;

/// The keys of `isolation` of `instance`, whose other keys have been read.
pub fn read(mut keys: Keys<'_>, instance: &Instance, part: Part) -> IsolationSettings {
    let enforce = keys.list("enforce", "such as [files, network]", |node| value::one_of(node, &ENFORCED));
    let narrow_reads = keys.take("read", |node| value::one_of(node, &READS));
    let also_read = keys.list("also_read", "such as [/srv/models]", value::filled_text);
    let also_write = keys.list("also_write", "such as [/srv/exports/{lane}]", value::filled_text);
    let connect = keys.list("connect", "such as [5432, 6379]", value::port);
    let may_be_missing = keys.take("on_missing", |node| value::one_of(node, &MISSING));
    let mut enforce = enforce.unwrap_or_default();
    enforce.sort_unstable();
    enforce.dedup();
    let settings = IsolationSettings {
        enforce,
        narrow_reads: narrow_reads.unwrap_or_default(),
        also_read: also_read.unwrap_or_default(),
        also_write: also_write.unwrap_or_default(),
        connect,
        may_be_missing: may_be_missing.unwrap_or_default(),
    };
    if part == Part::Whole {
        check(&mut keys, &settings, instance);
    }
    keys.finish();
    settings
}

/// What would have no effect is said.
fn check(keys: &mut Keys<'_>, settings: &IsolationSettings, instance: &Instance) {
    let has = |what| settings.enforce.contains(&what);
    let needs = [
        ("read", "files", settings.narrow_reads && !has(Enforced::Files)),
        ("also_write", "files", !settings.also_write.is_empty() && !has(Enforced::Files)),
        ("connect", "network", settings.connect.is_some() && !has(Enforced::Network)),
    ];
    for (key, part, _) in needs.into_iter().filter(|(.., is_wrong)| *is_wrong) {
        if let Some(entry) = keys.entry(key) {
            let fault = Fault::new(format!("has no effect: `{part}` is not enforced"));
            keys.report(entry.place, key, fault.hint(format!("add {part} to `enforce`")));
        }
    }
    if !(settings.narrow_reads || settings.also_read.is_empty())
        && let Some(entry) = keys.entry("also_read")
    {
        let fault = Fault::new("has no effect: everything may be read");
        keys.report(entry.place, "also_read", fault.hint("add `read: narrow`"));
    }
    // A guest has what its lane has, which its owner says.
    if instance.lane.is_some() {
        return;
    }
    let on_redis = matches!(instance.cache.backend, CacheBackend::Redis | CacheBackend::RedisLocmem);
    if on_redis && has(Enforced::Redis) && instance.cache.admin_url.is_none() {
        let fault = Fault::new("names redis, and somebody has to make its user there");
        let hint =
            "add `cache: {admin_url: ...}`, such as \"${REDIS_ADMIN_URL}\": the URL of a user who may ACL SETUSER";
        if let Some(entry) = keys.entry("enforce") {
            keys.report(entry.place, "enforce", fault.hint(hint));
        }
    }
    let lacks = [
        (Enforced::Redis, !on_redis, "its cache is not on Redis", "`cache: {backend: redis, ...}`"),
        (
            Enforced::Postgres,
            instance.database.engine != Engine::Postgres,
            "its database is not on PostgreSQL",
            "`database: {engine: postgres, ...}`",
        ),
    ];
    for (what, is_wrong, why, hint) in lacks {
        if is_wrong
            && has(what)
            && let Some(entry) = keys.entry("enforce")
        {
            let fault = Fault::new(format!("names {what}, and {why}"));
            keys.report(entry.place, "enforce", fault.hint(format!("take it out, or say {hint}")));
        }
    }
}
