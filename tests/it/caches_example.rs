//! The two seed documents on the real Django example: their lines about caches as printed, and the fault that they are
//! about, cured in each of the ways that they name.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::example::{ByHand, DJANGO_PATIENCE, chat, python, walk, walk_at};
use crate::harness::{Fleet, PATIENCE, get, port, wait_until};
use crate::postgres_server::Postgres;
use crate::redis_server::Redis;

const NAMES: [&str; 3] = ["chat_main", "chat_api", "chat_websocket"];
const LOCMEM: &str = "cache: {backend: locmem, timeout: 1h}";
const NONE: &str = "Henüz ürün bulunmuyor";
/// Printed in the second seed.
const CHECK_MULTI_SERVER_CACHE: &str = "
from django.core.cache import cache
def check_multi_server_cache():
    for instance in ['chat_main', 'chat_api', 'chat_websocket']:
        cache_key = f'health_check_{instance}'
        status = cache.get(cache_key)
        print(f\"Instance {instance}: {status}\")
check_multi_server_cache()
";

/// The sample fleet, with another cache where it says LocMem.
fn chat_with(cache: &str) -> Fleet {
    let fleet = chat();
    let yaml = fleet.text();
    assert!(yaml.contains(LOCMEM), "the sample fleet caches elsewhere");
    fleet.write(&yaml.replace(LOCMEM, cache));
    fleet
}

fn start(fleet: &Fleet) {
    fleet.run(&["start-chat", "-d", "--wait", "--wait-timeout", DJANGO_PATIENCE]).expect(0);
}

/// `manage.py` in the lane of an instance.
fn manage(fleet: &Fleet, instance: &str, words: &[&str]) -> String {
    let arguments: Vec<&str> =
        ["exec", instance, "--", ".venv/bin/python", "manage.py"].iter().chain(words).copied().collect();
    fleet.run(&arguments).expect(0).out
}

#[test]
fn the_seeds_lines_about_redis_work_as_printed() {
    let redis = Redis::start();
    let fleet = chat_with(&format!("cache: {{backend: redis, url: \"{}\", timeout: 1h}}", redis.url()));
    start(&fleet);
    redis.cli(&["set", "other_chat_main:1:x", "another project's"]);
    let visit = || {
        NAMES.iter().enumerate().for_each(|(number, name)| drop(walk(&fleet, number, name, &["login", "list:Lamba"])));
    };
    visit();
    let keys_of = |name: &str| redis.cli(&["--scan", "--pattern", &format!("context7_{name}:*")]);
    for name in NAMES {
        let keys = keys_of(name);
        assert!(keys.contains("product_list") && keys.contains("sessions"), "{keys}");
        assert!(keys.lines().all(|key| key.starts_with(&format!("context7_{name}:1:"))), "{keys}");
    }
    // Every instance's state is in every instance's cache, as Django reads it.
    for name in NAMES {
        let mut said = String::new();
        let is_told = wait_until(PATIENCE, || {
            said = manage(&fleet, name, &["shell", "-c", CHECK_MULTI_SERVER_CACHE]);
            NAMES.iter().all(|of| said.contains(&format!("Instance {of}: healthy")))
        });
        assert!(is_told, "{said}");
    }
    let status = fleet.run(&["cache", "status", "--json"]).expect(0).out;
    let status: Value = serde_json::from_str(&status).unwrap();
    for (instance, timeout) in status["instances"].as_array().unwrap().iter().zip([3600, 1800, 300]) {
        assert_eq!(
            (&instance["count"]["cached"], &instance["count"]["session_keys"]),
            (&1.into(), &1.into()),
            "{instance}"
        );
        assert_eq!((&instance["count"]["live_sessions"], &instance["timeout_seconds"]), (&1.into(), &timeout.into()));
    }
    // By hand, with the server said once in the shell.
    let by_hand = |line: &str| {
        let mut command = python(&fleet);
        let line = format!("export CACHE_BACKEND=redis CACHE_URL={}\nPATH=$PWD/.venv/bin:$PATH\n{line}", redis.url());
        let folder = command.get_current_dir().unwrap().to_owned();
        command = fleet.clean(Command::new("sh"));
        command.current_dir(folder).args(["-c", &line]);
        fleet.run_command(command).expect(0).out
    };
    let has_list = |name: &str| keys_of(name).contains("product_list");
    let said = by_hand("DJANGO_SERVER_INSTANCE=chat_main python manage.py clear_cache --type=all");
    assert!(said.contains("chat_main: cleared all"), "{said}");
    assert_eq!(NAMES.map(has_list), [false, true, true]);
    visit();
    by_hand(
        "for instance in chat_main chat_api chat_websocket; do\n\
         DJANGO_SERVER_INSTANCE=$instance python manage.py clear_cache --type=all\ndone",
    );
    assert_eq!(NAMES.map(has_list), [false; 3]);
    visit();
    fleet
        .run(&["cache", "clear", "chat_api", "--type", "session", "-y"])
        .expect(0)
        .shows(&["1 in the database", "ended"]);
    assert_eq!(NAMES.map(|name| keys_of(name).contains("sessions")), [true, false, true]);
    fleet.run(&["cache", "clear", "--all", "-y"]).expect(0);
    assert_eq!(NAMES.map(has_list), [false; 3]);
    visit();
    let all = format!("redis-cli -p {0} --scan --pattern \"context7_*\" | xargs redis-cli -p {0} del", redis.port());
    by_hand(&all);
    assert_eq!(NAMES.map(has_list), [false; 3]);
    assert_eq!(redis.cli(&["get", "other_chat_main:1:x"]), "another project's");
    visit();
    fleet.run(&["down"]).expect(0);
}

#[test]
fn stores_of_every_kind_show_the_truth_once_they_are_cleared() {
    let fleet = chat();
    let yaml = fleet.text().replace("seed_demo]", "seed_demo, --no-products]");
    let main = format!("chat_main: {{port: {}", fleet.port(0));
    let yaml = yaml.replace(&format!("{main}}}"), &format!("{main}, cache: {{backend: file}}}}"));
    let yaml = yaml.replace("cache: {timeout: 30m}", "cache: {backend: database, timeout: 30m}");
    fleet.write(&yaml);
    start(&fleet);
    let see = |what: &str| {
        NAMES.iter().enumerate().for_each(|(number, name)| drop(walk(&fleet, number, name, &["login", what])));
    };
    let none = format!("list:{NONE}");
    see(&none);
    for name in NAMES {
        manage(&fleet, name, &["seed_demo"]);
    }
    // The fault of the first seed: six are there, and the page says none.
    see(&none);
    fleet.run(&["cache", "status"]).expect(0).shows(&[
        "file",
        "cache_chat_main",
        "database",
        "cache_chat_api",
        "locmem",
    ]);
    let before = fleet.pid("chat_websocket");
    fleet.run(&["cache", "clear", "--all", "--type", "django", "--dry-run"]).expect(0);
    see(&none);
    let cleared = fleet.run(&["cache", "clear", "--all", "--type", "django", "-y"]).expect(0);
    cleared.shows(&["chat_api: gone: 1 key", "chat_websocket: restarted, which emptied the memory"]);
    assert_ne!(fleet.pid("chat_websocket"), before);
    see("list:6");
    // Sessions: the rows of all that have logged in, and their copies.
    let ended = fleet.run(&["cache", "clear", "chat_api", "--type", "session", "-y"]).expect(0);
    ended.shows(&["0 keys, 4 sessions in the cache, 4 in the database", "ended, logins among them: 4"]);
    assert!(
        manage(
            &fleet,
            "chat_api",
            &[
                "shell",
                "-c",
                "from django.contrib.sessions.models import Session; print('left:', Session.objects.count())"
            ]
        )
        .contains("left: 0")
    );
    let static_root = fleet.folder().join("var/chat_main/staticfiles_chat_main");
    fleet.run(&["cache", "clear", "chat_main", "--type", "static", "-y"]).expect(0).shows(&["files in", "(0 before)"]);
    assert!(static_root.join("chat/style.css").exists());
    std::fs::write(static_root.join("stale.css"), "old").unwrap();
    fleet.run(&["cache", "clear", "chat_main", "--type", "static", "-y"]).expect(0);
    assert!(static_root.join("chat/style.css").exists() && !static_root.join("stale.css").exists());
    let left = crate::harness::names_in(static_root.parent().unwrap());
    assert!(!left.iter().any(|name| name.contains(".new")), "{left:?}");
    fleet.run(&["down"]).expect(0);
}

#[test]
fn a_cache_table_in_a_database_of_postgresql_is_looked_into_and_cleared() {
    let postgres = Postgres::shared();
    let mut fleet = chat();
    fleet.set("PGADMIN_URL", &postgres.admin_url());
    let yaml = fleet.text().replace("name: context7", "name: table");
    let yaml = yaml.replace(LOCMEM, "cache: {backend: database, timeout: 1h}").replace(
        "database: {engine: sqlite}",
        "database: {engine: postgres, create: true, admin_url: \"${PGADMIN_URL}\"}",
    );
    fleet.write(&yaml);
    // Without its table, and without its database.
    fleet.run(&["cache", "status", "chat_main"]).expect(1).says(&["chat_main:", "hint"]);
    let up = fleet.run(&["up", "-d", "chat_main", "chat_api", "--wait", "--wait-timeout", DJANGO_PATIENCE]);
    assert_eq!(up.code, 0, "{}", fleet.log("chat_main"));
    for (number, name) in NAMES.iter().enumerate().take(2) {
        walk(&fleet, number, name, &["login", "list:6"]);
    }
    let found = |name: &str| {
        let status = fleet.run(&["cache", "status", "--json", name]).expect(0).out;
        let status: Value = serde_json::from_str(&status).unwrap();
        let count = &status["instances"][0]["count"];
        assert!(status["instances"][0]["bytes"].is_u64(), "{status}");
        ["cached", "session_keys", "session_rows"].map(|what| count[what].as_u64().unwrap())
    };
    assert_eq!(["chat_main", "chat_api"].map(found), [[1, 1, 1]; 2]);
    // What another prefix has in the same table stays.
    let cached = "from django.core.cache import cache; cache.key_prefix = 'stranger'; cache.set('x', 1)";
    manage(&fleet, "chat_main", &["shell", "-c", cached]);
    assert_eq!(found("chat_main"), [1, 1, 1]);
    let clear = |kind: &str| fleet.run(&["cache", "clear", "chat_main", "--type", kind, "-y"]).expect(0);
    clear("django").shows(&["chat_main: gone: 1 key"]);
    assert_eq!(["chat_main", "chat_api"].map(found), [[0, 1, 1], [1, 1, 1]]);
    clear("session").shows(&["1 session", "1 in the database"]);
    assert_eq!(["chat_main", "chat_api"].map(found), [[0, 0, 0], [1, 1, 1]]);
    let stranger = "from django.core.cache import cache; cache.key_prefix = 'stranger'; print('kept', cache.get('x'))";
    assert!(manage(&fleet, "chat_main", &["shell", "-c", stranger]).contains("kept 1"));
    walk(&fleet, 0, "chat_main", &["login", "list:6"]);
    fleet.run(&["down"]).expect(0);
}

/// Each way clears a list that has become wrong, `tries` times. The list is wrong by turns: it shows none where there are
/// six, and six where there are none.
fn every_way_clears(tries: usize) {
    let redis = Redis::start();
    let fleet = chat();
    let on_redis = format!("cache: {{backend: redis, url: \"{}\", timeout: 30m}}", redis.url());
    let yaml = fleet.text().replace("cache: {timeout: 30m}", &on_redis);
    fleet.write(&yaml.replace("seed_demo]", "seed_demo, --no-products]"));
    start(&fleet);
    // Who shows six; each way goes on where the one before ended.
    let full = RefCell::new(BTreeSet::new());
    let none = format!("list:{NONE}");
    let way = |name: &str, number: usize, instance: &'static str, clear: &dyn Fn(&[&str])| {
        let mut shown = if full.borrow().contains(instance) { "list:6" } else { none.as_str() };
        walk(&fleet, number, instance, &["login", shown]);
        let mut cleared = 0;
        for _ in 0..tries {
            let (next, change) = match shown {
                "list:6" => (none.as_str(), "from chat.models import Product; Product.objects.all().delete()"),
                _ => ("list:6", "from django.core.management import call_command; call_command('seed_demo')"),
            };
            manage(&fleet, instance, &["shell", "-c", change]);
            walk(&fleet, number, instance, &["login", shown]);
            clear(&["login", next]);
            shown = next;
            cleared += 1;
        }
        if shown == "list:6" {
            full.borrow_mut().insert(instance)
        } else {
            full.borrow_mut().remove(instance)
        };
        println!("{name}: {cleared} of {tries}");
    };
    way("the page", 0, "chat_main", &|steps| {
        let steps: Vec<&str> = ["login", "clear:all"].iter().chain(steps).copied().collect();
        drop(walk(&fleet, 0, "chat_main", &steps));
    });
    way("the command", 1, "chat_api", &|steps| {
        manage(&fleet, "chat_api", &["clear_cache", "--type=all"]);
        walk(&fleet, 1, "chat_api", steps);
    });
    way("by hand: clearsessions, collectstatic, restart", 0, "chat_main", &|steps| {
        manage(&fleet, "chat_main", &["clearsessions"]);
        manage(&fleet, "chat_main", &["collectstatic", "--clear", "--noinput"]);
        fleet.run(&["restart", "chat_main", "--wait", "--wait-timeout", DJANGO_PATIENCE]).expect(0);
        walk(&fleet, 0, "chat_main", steps);
    });
    way("another port", 0, "chat_main", &|steps| {
        let other = port();
        let address = format!("127.0.0.1:{other}");
        let words = ["exec", "chat_main", "--", ".venv/bin/python", "manage.py", "runserver", &address, "--noreload"];
        let mut server = fleet.command(&words);
        server.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        let server = ByHand(server.spawn().unwrap());
        assert!(wait_until(PATIENCE, || get(other, "/health/").is_some()), "nobody answers at {address}");
        walk_at(&fleet, other, "chat_main", steps);
        drop(server);
        // The first port still shows what it has cached; the next try begins there, with what it caches anew.
        fleet.run(&["cache", "clear", "chat_main", "--type", "django", "-y"]).expect(0);
        walk(&fleet, 0, "chat_main", steps);
    });
    way("laneway cache clear", 0, "chat_main", &|steps| {
        fleet.run(&["cache", "clear", "chat_main", "-y"]).expect(0);
        walk(&fleet, 0, "chat_main", steps);
    });
    fleet.run(&["down"]).expect(0);
}

#[test]
fn each_way_of_the_seeds_clears() {
    every_way_clears(1);
}

#[test]
#[ignore = "some minutes: cargo test --test it -- --ignored --nocapture each_way_of_the_seeds_clears_twenty"]
fn each_way_of_the_seeds_clears_twenty_times_of_twenty() {
    every_way_clears(20);
}
