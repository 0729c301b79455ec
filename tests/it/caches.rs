//! Caches on real servers: looked into, cleared, and told about health, and nobody else's key is touched.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use laneway::services::redis::{Fault, Reply, Server};
use serde_json::{Value, json};

use crate::harness::{Fleet, PATIENCE, timed, wait_until};
use crate::redis_server::Redis;

const SOON: Duration = Duration::from_millis(300);

#[test]
fn a_prefix_is_removed_and_nothing_that_only_looks_like_it() {
    let redis = Redis::start();
    redis.fill("p_chat:1:", 2500);
    redis.fill("p_chat_main:1:", 700);
    redis.cli(&["set", "p_chat", "no prefix"]);
    redis.cli(&["set", "pXchat:1:x", "not a wildcard"]);
    let mut connection = redis.open();
    let mut last = 0;
    let bucket = |key: &[u8]| if key.ends_with(b"77") { None } else { Some(usize::from(key.ends_with(b"8"))) };
    let gone = connection.remove("p_chat:", bucket, |progress| last = progress.removed).unwrap();
    assert_eq!((gone.get(&0), gone.get(&1), last), (Some(&2225), Some(&250), 2475));
    let mut seen = 0;
    connection.walk("p_chat:", |_| seen += 1).unwrap();
    assert_eq!(seen, 25);
    assert_eq!(connection.key_count().unwrap(), 25 + 700 + 2);
    let info = connection.info().unwrap();
    assert_eq!((info.keys, info.max_memory), (727, None));
    assert!(info.used_memory > 0 && info.version.starts_with(|c: char| c.is_ascii_digit()), "{info:?}");
    assert!(connection.memory_of(b"pXchat:1:x").unwrap().is_some_and(|size| size > 20));
    assert_eq!(connection.memory_of(b"none").unwrap(), None);
    assert!(connection.clients().unwrap().iter().any(|client| client.field("cmd") == "client|list"));
    assert_eq!(redis.keys().first().map(String::as_str), Some("pXchat:1:x"));
    let over_socket = Server::parse(&redis.socket_url()).unwrap().open(SOON).unwrap().key_count();
    assert_eq!(over_socket, Ok(727));
}

#[test]
fn trouble_with_a_server_is_told_apart() {
    let mut redis =
        Redis::with(&["--requirepass", "geheim", "--maxmemory", "100kb", "--maxmemory-policy", "noeviction"]);
    let fault = |url: &str, act: fn(&mut laneway::services::redis::Connection) -> bool| {
        let failed = match Server::parse(url).unwrap().open(SOON) {
            Err(error) => error,
            Ok(mut connection) => {
                assert!(!act(&mut connection));
                connection.set(b"k", b"v", SOON).unwrap_err()
            }
        };
        assert!(!failed.to_string().contains("geheim") && failed.to_string().starts_with("redis://"), "{failed}");
        failed.fault
    };
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}/0", redis.port());
    let (right, wrong, none) = (at(":geheim@"), at(":geheimer@"), at(""));
    assert_eq!(fault(&wrong, |_| false), Fault::Login);
    assert_eq!(fault(&none, |_| false), Fault::Login);
    assert_eq!(fault(&at(":geheim@").replace("/0", "/99"), |_| false), Fault::Other);
    assert_eq!(fault(&right, |connection| connection.ping().is_err()), Fault::Full, "an empty server needs more");
    redis.hang();
    assert_eq!(fault(&right, |_| false), Fault::Slow);
    redis.go_on();
    redis.crash();
    assert_eq!(fault(&right, |_| false), Fault::Unreachable);
    redis.come_back();
    assert!(Server::parse(&right).unwrap().open(SOON).unwrap().ping().is_ok());
}

#[test]
fn programs_are_told_what_goes_and_what_went() {
    let redis = Redis::start();
    let fleet = Fleet::new(&format!(
        "a: {{port: $0, cache: {{backend: redis+locmem, url: \"{}\"}}}}\nb: {{port: $1, lane: a}}",
        redis.url()
    ));
    fleet.run(&["up", "-d", "--wait", "a"]).expect(0);
    redis.fill("it_a:1:", 30);
    let told = |arguments: &[&str]| -> Value {
        let output = fleet.run(&[&["cache", "clear", "a", "--type", "django", "--json"], arguments].concat()).expect(0);
        serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let expected = |is_dry: bool| {
        json!({
            "project": "it", "type": "django", "dry_run": is_dry, "done": !is_dry,
            "lanes": [{
                "lane": "a", "backend": "redis+locmem",
                "count": {"cached": 30, "session_keys": 0, "session_rows": 0, "live_sessions": 0},
                "processes": [{"name": "a", "by": "restart", "done": !is_dry}],
                "notes": [], "trouble": null,
            }],
        })
    };
    assert_eq!(told(&["--dry-run"]), expected(true));
    assert_eq!(redis.keys().iter().filter(|key| key.starts_with("it_a:1:")).count(), 30);
    assert_eq!(told(&["-y"]), expected(false));
    fleet.run(&["cache", "clear", "a", "--json"]).expect(2).says(&["no terminal to ask at"]);
    drop(redis);
    let failed = fleet.run(&["cache", "clear", "a", "-y", "--json"]).expect(1);
    let failed: Value = serde_json::from_str(&failed.out).unwrap();
    assert!(failed["done"] == false && failed["lanes"][0]["trouble"]["what"].is_string(), "{failed:#}");
}

/// Two instances on one server, one whose name begins like the other's.
fn fleet_on(redis: &Redis) -> Fleet {
    let cache = format!("cache: {{backend: redis, url: \"{}\", timeout: 1h}}", redis.url());
    Fleet::new(&format!(
        "chat: {{port: $0, framework: django, {cache}}}\nchat_main: {{port: $1, framework: django, {cache}}}\n\
         worker: {{command: [sleep, \"1000\"], healthcheck: {{disable: true}}, lane: chat}}"
    ))
}

#[test]
fn one_instance_is_cleared_and_its_neighbours_and_strangers_keep_theirs() {
    let redis = Redis::start();
    let fleet = fleet_on(&redis);
    redis.fill("it_chat:1:", 3000);
    redis.fill("it_chat:1:django.contrib.sessions.cache", 4);
    redis.fill("it_chat:1:django.contrib.sessions.cached_db", 2);
    redis.fill("it_chat_main:1:", 5);
    redis.cli(&["mset", "it_chat:group:lobby", "channels", "other_chat:1:x", "1", "it_chat:1:health_check_chat", "1"]);
    let shown = fleet.run(&["cache", "status"]).expect(0).shows(&["3,000", "1h", " ms", "Redis 7", "chat's lane"]).out;
    assert!(shown.lines().any(|line| line.starts_with("chat_main") && line.contains(" 5 ")), "{shown}");
    let status = fleet.run(&["cache", "status", "--json", "chat"]).expect(0).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let chat = &status["instances"][0];
    assert_eq!((&chat["count"]["cached"], &chat["count"]["live_sessions"]), (&3000.into(), &4.into()));
    assert!(chat["bytes"].as_u64().is_some_and(|bytes| bytes > 300_000), "{chat}");
    assert_eq!((&chat["timeout_seconds"], &chat["reachable"]), (&3600.into(), &true.into()));
    // Nobody is asked, so nothing is done.
    fleet.run(&["cache", "clear", "chat"]).expect(2).says(&["no terminal", "-y", "--dry-run"]);
    fleet.run(&["cache", "clear", "chat", "--dry-run"]).expect(0).shows(&["3,000 keys", "6 sessions", "end", ": 4"]);
    let before = redis.keys().len();
    assert_eq!(before, 3000 + 6 + 5 + 3);
    fleet
        .run(&["cache", "clear", "chat", "worker", "--type", "django", "-y"])
        .expect(0)
        .shows(&["gone: 3,000 keys"])
        .says(&["worker lives in chat's lane"]);
    assert_eq!(redis.keys().len(), before - 3000);
    fleet.run(&["cache", "clear", "chat", "--type", "session", "-y"]).expect(0).shows(&["6 sessions", "ended", ": 4"]);
    assert_eq!(
        redis.keys(),
        ["it_chat:1:health_check_chat", "it_chat:group:lobby"]
            .map(str::to_owned)
            .into_iter()
            .chain((0..5).map(|number| format!("it_chat_main:1:{number}")))
            .chain(["other_chat:1:x".to_owned()])
            .collect::<Vec<_>>()
    );
    fleet.run(&["cache", "clear", "--all", "-y"]).expect(0).shows(&["chat: gone: 0 keys", "chat_main: gone: 5 keys"]);
    assert_eq!(redis.keys().len(), 3);
    fleet.run(&["audit"]).expect(0).shows(&["cache clear", "type django", "chat: 3,000 keys"]);
}

#[test]
fn a_question_is_asked_on_a_terminal_and_no_is_no() {
    let redis = Redis::start();
    let fleet = fleet_on(&redis);
    redis.fill("it_chat:1:", 7);
    for (answer, code, left) in [(&b"n\r"[..], 1, 7), (b"y\r", 0, 0)] {
        let clear = fleet.spawn_on_terminal(&["cache", "clear", "chat"]);
        clear.wait_for("Go on? [y/N]");
        clear.type_in(answer);
        clear.wait().expect(code).says(&["7 keys"]);
        assert_eq!(redis.keys().len(), left);
    }
}

#[test]
fn a_server_in_trouble_is_named_and_disturbs_no_other_lane() {
    let (redis, other) = (Redis::with(&["--requirepass", "geheim"]), Redis::start());
    let fleet = Fleet::new(&format!(
        "locked: {{port: $0, cache: {{backend: redis, url: \"redis://:falsch@127.0.0.1:{}/0\"}}}}\n\
         fine: {{port: $1, cache: {{backend: redis, url: \"{}\"}}}}\n\
         gone: {{port: $2, cache: {{backend: redis, url: \"redis://127.0.0.1:1/0\"}}}}",
        redis.port(),
        other.url()
    ));
    other.fill("it_fine:", 3);
    let status =
        fleet.run(&["cache", "status"]).expect(1).says(&["locked: redis://", "WRONGPASS", "gone:", "refused", "hint"]);
    assert!(!status.err.contains("falsch"), "{}", status.err);
    let clear = fleet.run(&["cache", "clear", "--all", "-y"]).expect(1).shows(&["fine: gone: 3 keys"]);
    assert!(clear.err.contains("locked:") && clear.err.contains("gone:"), "{}", clear.err);
    assert_eq!(other.keys().len(), 0);
}

#[test]
fn files_of_the_cache_go_and_nothing_else_in_or_behind_the_folder() {
    let fleet = Fleet::new(
        "a: {port: $0, cache: {backend: file}}\nb: {port: $1, cache: {backend: file}}\nd: {port: $2, cache: {backend: dummy}}",
    );
    let folder = |name: &str| fleet.state(&format!("{name}/cache_{name}"));
    for name in ["a", "b"] {
        fs::create_dir_all(folder(name)).unwrap();
        for file in ["1.djcache", "2.djcache", "notes.txt"] {
            fs::write(folder(name).join(file), "x").unwrap();
        }
    }
    let outside = fleet.folder().join("outside.djcache");
    fs::write(&outside, "x").unwrap();
    std::os::unix::fs::symlink(&outside, folder("a").join("3.djcache")).unwrap();
    fleet.run(&["cache", "status"]).expect(0).shows(&["cache_a", "2 B", "dummy"]);
    fleet.run(&["cache", "clear", "a", "d", "-y"]).expect(0).shows(&["a: gone: 2 keys", "d: gone: 0 keys"]);
    assert_eq!(crate::harness::names_in(&folder("a")), ["3.djcache", "notes.txt"]);
    assert_eq!(crate::harness::names_in(&folder("b")).len(), 3);
    assert!(outside.exists());
    fs::rename(folder("b"), folder("b").with_extension("aside")).unwrap();
    std::os::unix::fs::symlink(folder("b").with_extension("aside"), folder("b")).unwrap();
    fleet.run(&["cache", "clear", "b", "-y"]).expect(1).says(&["no folder", "cache.location"]);
}

#[test]
fn memory_of_processes_is_emptied_as_the_file_says_or_by_restarts_one_at_a_time() {
    let fleet = Fleet::new(
        "asked: {port: $0, cache: {backend: locmem, clear: {path: /say?cleared}}}\n\
         told: {port: $1, cache: {backend: locmem, clear: {command: [sh, -c, \"echo $$CACHE_CLEAR_TYPE > told\"]}}}\n\
         one: {port: $2}\ntwo: {port: $3}\nlast: {port: $4}\n\
         wrong: {port: $5, cache: {clear: {path: /nowhere}}}",
    );
    let clear = ["cache", "clear", "--all", "--type", "django", "-y"];
    fleet.run(&clear).expect(0).shows(&["one: does not run, so nothing is cached"]);
    fleet.up();
    let pids = ["asked", "told", "one", "two"].map(|name| fleet.pid(name));
    fleet
        .run(&["cache", "clear", "--all", "--dry-run"])
        .expect(0)
        .shows(&["one: the memory of its process, by a restart"]);
    let cleared =
        fleet.run(&clear).expect(1).shows(&["asked: emptied", "POST /say?cleared answered 200", "one: restarted"]);
    cleared.says(&["wrong: POST http", "/nowhere answered 404", "hint"]);
    let now = ["asked", "told", "one", "two"].map(|name| fleet.pid(name));
    assert_eq!(pids.map(|pid| now.contains(&pid)), [true, true, false, false]);
    assert_eq!(fs::read_to_string(fleet.folder().join("told")).unwrap().trim(), "django");
    // The second of three does not come back: the third keeps what it has.
    let healthy = fleet.text();
    let last = fleet.pid("last");
    fleet.write(
        &healthy.replace("two: {port: ", "two: {restart: no, healthcheck: {path: /nowhere, start_period: 0s}, port: "),
    );
    fleet.run(&["apply"]).expect(0);
    let names = ["cache", "clear", "one", "two", "last", "--type", "django", "-y"];
    fleet
        .run(&names)
        .expect(1)
        .shows(&["one: restarted"])
        .says(&["two did not come back", "not restarted, so not cleared: last"]);
    assert_eq!(fleet.pid("last"), last);
    fleet.run(&["down"]).expect(0);
}

/// How Django would read `health_check_<of>` in the cache with this prefix, by the bytes of the pickle.
fn published(redis: &Redis, prefix: &str, of: &str) -> String {
    let bytes = redis.cli(&["get", &format!("{prefix}:1:health_check_{of}")]);
    bytes.chars().filter(|c| c.is_ascii_alphabetic() || *c == '-').collect::<String>().replacen('X', "", 1)
}

#[test]
fn health_stands_in_every_instances_cache_and_a_dead_redis_is_said_once() {
    let mut redis = Redis::start();
    let cache = format!("framework: django, cache: {{backend: redis, url: \"{}\"}}", redis.url());
    let fleet = Fleet::new(&format!(
        "a: {{port: $0, {cache}}}\nb: {{port: $1, {cache}}}\nplain: {{port: $2, cache: {{backend: redis, url: \"{}\"}}}}",
        redis.url()
    ));
    fleet.up();
    let all_are = |state: &str, of: &str| ["it_a", "it_b"].iter().all(|prefix| published(&redis, prefix, of) == state);
    assert!(wait_until(PATIENCE, || ["a", "b", "plain"].iter().all(|of| all_are("healthy", of))), "{:?}", redis.keys());
    let ttl: i64 = redis.cli(&["pttl", "it_a:1:health_check_b"]).parse().unwrap();
    assert!((1..=30_000).contains(&ttl), "{ttl}");
    assert!(!redis.keys().iter().any(|key| key.starts_with("it_plain")), "who is no Django cannot read it");
    fleet.run(&["stop", "b"]).expect(0);
    assert!(wait_until(PATIENCE, || all_are("stopped", "b")));
    redis.crash();
    let count = |words: &str| fleet.own_log().matches(words).count();
    assert!(wait_until(PATIENCE, || count("health is not published there") == 1), "{}", fleet.own_log());
    // Nobody waits for it meanwhile.
    fleet.run(&["start", "b", "--wait"]).expect(0);
    redis.come_back();
    assert!(wait_until(PATIENCE, || count("published there again") == 1), "{}", fleet.own_log());
    assert!(["a", "b"].iter().all(|of| ["it_a", "it_b"].iter().all(|p| published(&redis, p, of) == "healthy")));
    assert_eq!(count("health is not published there"), 1);
    fleet.run(&["down"]).expect(0);
}

#[test]
fn a_full_server_is_said_clearly_disturbs_nobody_and_can_be_cleared() {
    let (redis, other) = (Redis::with(&["--maxmemory-policy", "noeviction"]), Redis::start());
    let django = |port: &str, redis: &Redis| {
        format!("{{port: {port}, framework: django, cache: {{backend: redis, url: \"{}\"}}}}", redis.url())
    };
    let (a, b, apart) = (django("$0", &redis), django("$1", &redis), django("$2", &other));
    let fleet = Fleet::new(&format!("a: {a}\nb: {b}\napart: {apart}"));
    fleet.up();
    assert!(wait_until(PATIENCE, || published(&redis, "it_b", "a") == "healthy"), "{:?}", redis.keys());
    fleet.run(&["cache", "status"]).expect(0);
    let names = ["a", "b", "apart"];
    let before = names.map(|name| fleet.pid(name));
    redis.fill("it_a:1:", 20_000);
    redis.cli(&["config", "set", "maxmemory", "2500kb"]);
    let refused = redis.open().set(b"it_b:1:new", b"x", SOON).unwrap_err();
    assert_eq!(refused.fault, Fault::Full, "{refused}");
    fleet.run(&["cache", "status"]).expect(1).shows(&["20,000", "(noeviction)"]).says(&[
        "is full",
        "maxmemory",
        "hint",
    ]);
    let shown = fleet.run(&["cache", "status", "--json"]).expect(1).out;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let is_full = |number: usize| &shown["instances"][number]["server"]["is_full"];
    assert_eq!((is_full(0), is_full(1), is_full(2)), (&true.into(), &true.into(), &false.into()));
    fleet.run(&["cache", "status", "apart"]).expect(0);
    // Its refusal is said once, with the server's words; a start goes on as ever.
    fleet.run(&["restart", "b", "--wait"]).expect(0);
    let said = || fleet.own_log().lines().filter(|line| line.contains("health is not published there")).count();
    assert!(wait_until(PATIENCE, || said() == 1), "{}", fleet.own_log());
    assert!(fleet.own_log().contains("OOM command not allowed"), "{}", fleet.own_log());
    for name in names {
        fleet.wait_for_health(name, "healthy");
    }
    assert!(wait_until(PATIENCE, || published(&other, "it_apart", "b") == "healthy"), "{:?}", other.keys());
    assert_eq!([fleet.pid("a"), fleet.pid("apart")], [before[0], before[2]]);
    fleet.run(&["cache", "clear", "a", "--type", "django", "-y"]).expect(0).shows(&["a: gone: 20,000 keys"]);
    assert!(wait_until(PATIENCE, || fleet.own_log().contains("published there again")), "{}", fleet.own_log());
    fleet.run(&["cache", "status"]).expect(0);
    assert_eq!(said(), 1);
    fleet.run(&["down"]).expect(0);
}

#[test]
fn where_nobody_caches_on_a_server_no_thread_waits_to_publish() {
    let redis = Redis::start();
    let fleet = Fleet::new("a: {port: $0, framework: django}");
    fleet.up();
    let threads = || {
        let tasks = format!("/proc/{}/task", fleet.status()["supervisor_pid"]);
        let names = crate::harness::names_in(std::path::Path::new(&tasks)).into_iter();
        names.map(|id| fs::read_to_string(format!("{tasks}/{id}/comm")).unwrap_or_default()).collect::<String>()
    };
    assert!(!threads().contains("publisher"), "{}", threads());
    let yaml =
        fleet.text().replace("django}", &format!("django, cache: {{backend: redis, url: \"{}\"}}}}", redis.url()));
    fleet.write(&yaml);
    fleet.run(&["apply", "--wait"]).expect(0);
    assert!(wait_until(PATIENCE, || published(&redis, "it_a", "a") == "healthy"), "{:?}", redis.keys());
    assert!(threads().contains("publisher"), "{}", threads());
    fleet.run(&["down"]).expect(0);
}

/// Clears `mine` keys among `others` of a neighbour, who reads all the time; says how long it took, and how long the
/// neighbour waited at most. `LANEWAY` names another binary, built for speed.
fn clear_among(mine: usize, others: usize) -> (Duration, Duration) {
    let redis = Redis::start();
    let fleet = fleet_on(&redis);
    redis.fill("it_chat:1:", mine);
    redis.fill("it_chat_main:1:", others);
    let is_over = AtomicBool::new(false);
    let figures = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            let (mut connection, mut slowest, mut count) = (redis.open(), Duration::ZERO, 0_u64);
            while !is_over.load(Ordering::Relaxed) {
                let (took, found) = timed(|| connection.command(&[b"GET", b"it_chat_main:1:0"]).unwrap());
                assert!(matches!(found, Reply::Bytes(_)));
                (slowest, count) = (slowest.max(took), count + 1);
            }
            (slowest, count)
        });
        let mut command = fleet.command(&["cache", "clear", "chat", "--type", "django", "-y"]);
        if let Some(binary) = std::env::var_os("LANEWAY") {
            let mut other = fleet.clean(std::process::Command::new(binary));
            other.args(command.get_args());
            command = other;
        }
        let (took, cleared) = timed(|| fleet.run_command(command));
        is_over.store(true, Ordering::Relaxed);
        let (slowest, count) = neighbour.join().unwrap();
        cleared.expect(0);
        assert!(count > 0);
        (took, slowest)
    });
    assert_eq!(redis.cli(&["dbsize"]), others.to_string());
    figures
}

#[test]
fn many_keys_go_and_a_neighbour_goes_on_reading() {
    clear_among(20_000, 80_000);
}

#[test]
#[ignore = "takes a gigabyte and a minute: cargo test --test it -- --ignored --nocapture a_million_keys"]
fn a_million_keys() {
    for (mine, others) in [(100_000, 900_000), (1_000_000, 1)] {
        let (took, slowest) = clear_among(mine, others);
        println!("{mine} among {}: cleared in {took:?}, the neighbour's slowest GET {slowest:?}", mine + others);
    }
}
