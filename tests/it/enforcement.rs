//! Enforced isolation: what an instance tries against its neighbour, with it and without. A server that was broken into is
//! played by the puppet, which the true binary starts.

use std::fmt::Write as _;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use laneway::services::redis::Server;
use serde_json::Value;

use crate::example::{chat, health, walk};
use crate::harness::{DEFAULTS, Fleet, PATIENCE, wait_until};
use crate::postgres_server::Postgres;
use crate::redis_server::Redis;

const DENIED: &str = "Permission denied";

/// Two instances, with what the file says of their isolation.
fn two(isolation: &str) -> Fleet {
    let fleet = Fleet::raw(&format!("{DEFAULTS}{isolation}\ninstances: {{a: {{port: $0}}, b: {{port: $1}}}}\n"));
    fs::write(fleet.folder().join("settings.py"), "DEBUG = False\n").unwrap();
    fleet
}

fn attempt(fleet: &Fleet, what: &str, on: impl std::fmt::Display) -> String {
    let mut escaped = String::new();
    for byte in format!("{what}:{on}").bytes() {
        write!(escaped, "%{byte:02X}").unwrap();
    }
    fleet.ask("a", &format!("/try?{escaped}"))
}

fn files_of_b(fleet: &Fleet) -> [(&'static str, String); 8] {
    let path = |path: &Path| path.display().to_string();
    let database = fleet.state("b/db_b.sqlite3");
    fs::write(&database, "its rows").unwrap();
    [
        ("write", path(&database)),
        ("truncate", path(&database)),
        ("rename", path(&database)),
        ("delete", path(&fleet.state("b/secrets/secret_key"))),
        ("write", path(&fleet.state("b/new"))),
        ("write", path(&fleet.folder().join("settings.py"))),
        ("write", path(&fleet.state(".run/records"))),
        ("truncate", path(&fleet.state("audit.jsonl"))),
    ]
}

#[test]
fn an_instance_reaches_no_neighbour_when_it_is_enforced_and_all_of_it_when_it_is_not() {
    for is_enforced in [true, false] {
        let fleet = two(if is_enforced { "  isolation: {enforce: [files, network], connect: []}" } else { "" });
        fleet.up();
        // Nothing of the server's own life is disturbed.
        let own = fleet.state("a/own").display().to_string();
        let lane = [("write", own.clone()), ("delete", own), ("write", "/dev/null".to_owned())];
        for (what, on) in lane.into_iter().chain([("connect", fleet.port(0).to_string())]) {
            assert_eq!(attempt(&fleet, what, &on), "done", "{what} {on}");
        }
        fleet.ask("a", "/access?a+line");
        let expected = if is_enforced { DENIED } else { "done" };
        for (what, on) in [("bind", fleet.port(2)), ("connect", fleet.port(1))] {
            assert_eq!(attempt(&fleet, what, on), expected, "{what} {on}");
        }
        let hidden = format!("laneway-{}", fleet.port(3));
        let address = SocketAddr::from_abstract_name(&hidden).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        for (what, on) in [("signal", fleet.pid("b").to_string()), ("abstract", hidden)] {
            let expected = if is_enforced { "Operation not permitted" } else { "done" };
            assert_eq!(attempt(&fleet, what, &on), expected, "{what} {on}");
        }
        // Whatever it starts is held to the same.
        let child = attempt(&fleet, "child", format!("echo x 2>&1 > {}", fleet.state("b/child").display()));
        assert_eq!(child.contains("ermission denied"), is_enforced, "{child}");
        for (what, on) in files_of_b(&fleet) {
            assert_eq!(attempt(&fleet, what, &on), expected, "{what} {on}");
        }
        // Laneway's own door does not help it out; what it asked stands in the audit.
        let socket = fleet.state(".run/control.sock");
        let answer = attempt(&fleet, "ask", format!("{} /v1/stop {{\"instances\": [\"b\"]}}", socket.display()));
        assert_eq!(answer, if is_enforced { "403" } else { "200" });
        let phase = if is_enforced { "running" } else { "stopped" };
        assert_eq!(fleet.instance("b")["phase"], phase);
        if is_enforced {
            fleet.run(&["audit"]).expect(0).shows(&["refused"]);
            assert_eq!(fleet.instance("a")["enforced"], serde_json::json!(["files", "network"]));
            fleet.run(&["why", "a"]).expect(0).shows(&["isolation enforced: files, network"]);
        }
    }
}

#[test]
fn what_the_kernel_does_not_hinder_is_as_the_page_says() {
    let fleet = two("  isolation: {enforce: [files, network]}");
    fleet.up();
    assert_eq!(attempt(&fleet, "udp", fleet.port(2)), "done");
    assert_eq!(attempt(&fleet, "connect", fleet.port(1)), "done", "without `connect` it may go everywhere");
    assert_eq!(attempt(&fleet, "read", fleet.state("b/secrets/secret_key").display()), "done");
}

#[test]
fn a_narrow_reader_reads_its_lane_the_project_and_the_system() {
    let fleet = two("  isolation: {enforce: [files], read: narrow, also_read: [shared]}");
    fs::create_dir(fleet.folder().join("shared")).unwrap();
    fs::write(fleet.folder().join("shared/model"), "").unwrap();
    let elsewhere = fleet.folder().parent().unwrap().join("home/diary");
    fs::write(&elsewhere, "").unwrap();
    let puppet = Path::new(crate::harness::PUPPET).parent().unwrap();
    fleet.write(&fleet.text().replace("[shared]", &format!("[shared, {}]", puppet.display())));
    fleet.up();
    let shown = |path: &Path| path.display().to_string();
    for path in ["settings.py", "instances.yaml", "shared/model", ".laneway/a/secrets/secret_key"] {
        assert_eq!(attempt(&fleet, "read", shown(&fleet.folder().join(path))), "done", "{path}");
    }
    let private =
        [fleet.state("b/secrets/secret_key"), fleet.state(".run/plan.json"), fleet.state("audit.jsonl"), elsewhere];
    for path in private {
        assert_eq!(attempt(&fleet, "read", shown(&path)), DENIED, "{}", path.display());
    }
    assert_eq!(attempt(&fleet, "list", shown(&fleet.state(""))), DENIED);
    // A process that has neither its lane's rules nor its environment would be a way out.
    fleet.run(&["exec", "a", "--", "cat", &shown(&fleet.state("b/secrets/secret_key"))]).expect(1).says(&[DENIED]);
    fleet.run(&["exec", "a", "--", "python3", "-c", "import ssl, socket, sqlite3, json"]).expect(0);
}

#[test]
fn commands_before_the_start_and_command_checks_live_under_the_same_rules() {
    let fleet = Fleet::raw(&format!(
        "{DEFAULTS}  isolation: {{enforce: [files]}}\ninstances:\n  a:\n    port: $0\n    \
         pre_start: [[sh, -c, \"echo x > pre_start_was_here; echo done > {{state}}/own\"]]\n    \
         healthcheck: {{test: [sh, -c, \"! touch check_was_here && touch {{state}}/check\"], start_interval: 20ms}}\n"
    ));
    let failed = fleet.run(&["up", "-d", "--wait"]);
    // `echo` was refused, and the shell went on.
    failed.expect(0);
    assert!(fleet.state("a/own").exists() && fleet.state("a/check").exists());
    assert!(fleet.log("a").contains("ermission denied"), "{}", fleet.log("a"));
    for name in ["pre_start_was_here", "check_was_here"] {
        assert!(!fleet.folder().join(name).exists(), "{name}");
    }
    fleet.run(&["exec", "a", "--", "touch", "exec_was_here"]).expect(1).says(&[DENIED]);
}

/// Ends well where each of `OTHERS` may not be written.
const MANAGE: &str = "
import os, sys
if sys.argv[1] == 'collectstatic':
    open(os.path.join(os.environ['STATIC_ROOT'], 'style.css'), 'w').write('x')
if sys.argv[1] != 'check':
    for path in os.environ['OTHERS'].split(':'):
        try:
            open(path, 'a').close()
        except PermissionError:
            continue
        sys.exit(path + ' was written')
";

#[test]
fn commands_that_laneway_runs_in_a_lane_live_under_the_same_rules() {
    for is_enforced in [true, false] {
        let isolation = if is_enforced { "isolation: {enforce: [files]}" } else { "restart: no" };
        let fleet = Fleet::raw(&format!(
            "{DEFAULTS}  {isolation}\n  framework: django\n  static_root: \"served/{{lane}}\"\n  \
             pre_start: [[python3, manage.py, check]]\n  environment: {{OTHERS: \"served/b/theirs:served/new\"}}\n\
             instances: {{a: {{port: $0}}, b: {{port: $1}}}}\n"
        ));
        fs::write(fleet.folder().join("manage.py"), MANAGE).unwrap();
        fs::create_dir_all(fleet.folder().join("served/b")).unwrap();
        let code = i32::from(!is_enforced);
        fleet.run(&["db", "migrate", "a"]).expect(code);
        let cleared = fleet.run(&["cache", "clear", "a", "--type", "static", "-y", "--json"]).expect(code);
        let told: Value = serde_json::from_str(&cleared.out).unwrap();
        let lane = &told["lanes"][0];
        assert_eq!((told["done"].as_bool(), lane["lane"].as_str()), (Some(is_enforced), Some("a")), "{told:#}");
        assert_eq!((lane["after"].as_u64(), lane["trouble"].is_null()), (Some(u64::from(is_enforced)), is_enforced));
        assert_eq!(fleet.folder().join("served/a/style.css").exists(), is_enforced);
        assert_eq!(fleet.folder().join("served/b/theirs").exists(), !is_enforced);
    }
}

#[test]
fn a_kernel_without_landlock_is_refused_unless_the_file_says_otherwise() {
    let mut fleet = two("  isolation: {enforce: [files, network]}");
    fleet.set("LANEWAY_TEST_OLD_KERNEL", "1");
    let words = ["files cannot be enforced", "this kernel has none", "on_missing: warn"];
    fleet.run(&["check"]).expect(1).says(&words);
    fleet.run(&["up", "-d"]).expect(1).says(&words);
    fleet.write(&fleet.text().replace("network]}", "network], on_missing: warn}"));
    fleet.run(&["check"]).expect(0);
    fleet.up();
    fleet.run(&["status"]).expect(0).says(&["a: isolation: files is not enforced"]);
    assert_eq!(fleet.instance("a")["enforced"], serde_json::json!([]));
    assert_eq!(attempt(&fleet, "write", fleet.state("b/new").display()), "done");
}

#[test]
fn a_lane_that_another_one_may_write_is_refused_by_the_plan() {
    let check = |isolation: &str, words: &[&str]| {
        let fleet = Fleet::raw(&format!(
            "{DEFAULTS}  isolation: {isolation}\ninstances:\n  a: {{port: $0, database: {{path: data/a.sqlite3}}}}\n  \
             b: {{port: $1, database: {{path: data/b.sqlite3}}}}\n"
        ));
        fleet.run(&["check"]).expect(if words.is_empty() { 0 } else { 2 }).says(words);
    };
    check("{}", &[]);
    check(
        "{enforce: [files]}",
        &["data would be writable, and `b`'s database lies there", "`database.path` needs a folder"],
    );
    check("{enforce: [network], also_write: [x]}", &["has no effect: `files` is not enforced"]);
    check("{enforce: [redis]}", &["names redis, and its cache is not on Redis"]);
    check("{enforce: [postgres]}", &["names postgres, and its database is not on PostgreSQL"]);
    check("{enforce: [file]}", &["known are files, network, redis, postgres"]);
}

#[test]
fn a_lane_has_a_user_of_its_own_on_redis_who_reaches_no_other_keys() {
    let mut redis = Redis::with(&["--requirepass", "verwalter"]);
    let port = redis.port();
    let mut fleet = two(&format!(
        "  cache: {{backend: redis, url: \"redis://127.0.0.1:{port}/0\", admin_url: \"${{REDIS_ADMIN}}\"}}\n  \
         channels: {{url: \"redis://127.0.0.1:{port}/1\"}}\n  isolation: {{enforce: [redis]}}"
    ));
    let admin = format!("redis://:verwalter@127.0.0.1:{port}/0");
    fleet.set("REDIS_ADMIN", &admin);
    fleet.up();
    let url = fleet.ask_self("a")["environment"]["CACHE_URL"].as_str().unwrap().to_owned();
    assert!(url.starts_with("redis://it_a:") && url.ends_with(&format!("@127.0.0.1:{port}/0")), "{url}");
    let patience = std::time::Duration::from_secs(5);
    let open = |url: &str| Server::parse(url).unwrap().open(patience);
    let ask = |url: &str, words: &str| {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        open(url).and_then(|mut connection| connection.command(&words)).map_err(|error| error.said)
    };
    for words in ["SET it_a:1:x mine", "GET it_a:1:x", "UNLINK it_a:1:x", "PUBLISH it_a:asgi x", "SCAN 0"] {
        assert!(ask(&url, words).is_ok(), "{words}: {:?}", ask(&url, words));
    }
    ask(&admin, "SET it_b:1:x theirs").unwrap();
    let refused = [
        "GET it_b:1:x",
        "SET it_b:1:x mine",
        "UNLINK it_b:1:x",
        "PUBLISH it_b:asgi x",
        "FLUSHDB",
        "FLUSHALL",
        "KEYS *",
        "CONFIG GET dir",
        "ACL LIST",
        "SHUTDOWN",
        "EVAL return(redis.call('get',KEYS[1])) 1 it_b:1:x",
    ];
    for words in refused {
        assert!(ask(&url, words).is_err_and(|said| said.contains("NOPERM")), "{words}");
    }
    assert_eq!(ask(&admin, "GET it_b:1:x").unwrap().text().as_deref(), Some("theirs"));
    // Without the user of its own, all of it works: that is what is kept from it.
    assert!(ask(&admin, "FLUSHDB").is_ok());
    // Nobody sees the password, or the administrator's.
    for words in [&["env", "a"][..], &["status", "--json"], &["audit", "--json"], &["config"]] {
        let output = fleet.run(words).expect(0);
        let password = url.split(':').nth(2).unwrap().split('@').next().unwrap();
        assert!(![password, "verwalter"].iter().any(|secret| output.out.contains(secret)), "{words:?}: {}", output.out);
    }
    // A server that was restarted has forgotten its users, and learns them again without a restart of anybody.
    let before = fleet.pid("a");
    redis.crash();
    redis.come_back();
    assert!(wait_until(PATIENCE, || ask(&url, "GET it_a:1:x").is_ok()), "{}", fleet.own_log());
    assert_eq!(fleet.pid("a"), before);
    fleet.run(&["isolate", "b"]).expect(0).shows(&["b: redis://127.0.0.1", "user it_b reaches it_b:* only"]);
    fleet.run(&["down"]).expect(0);
    // Where everybody is let in without a name, a user of one's own keeps nobody from anything.
    ask(&admin, "CONFIG SET requirepass ").ok();
    let open_door = Redis::start();
    fleet.set("REDIS_ADMIN", &open_door.url());
    fleet.run(&["isolate"]).expect(1).says(&["anybody who connects without a name", "requirepass"]);
}

#[test]
fn a_lane_has_a_role_of_its_own_on_postgresql_who_reaches_no_other_database() {
    let postgres = Postgres::shared();
    let mut fleet = two(
        "  database: {engine: postgres, admin_url: \"${PG_ADMIN}\", create: true, max_connections: 5, name: \"enf_{lane}\"}\n  \
         isolation: {enforce: [postgres]}",
    );
    fleet.set("PG_ADMIN", &postgres.admin_url());
    fleet.up();
    let url = fleet.ask_self("a")["environment"]["DATABASE_URL"].as_str().unwrap().to_owned();
    assert!(postgres.ask(&url, "SELECT 1").is_ok(), "{url}");
    let (server, _) = url.rsplit_once('/').unwrap();
    let refused = postgres.ask(&format!("{server}/enf_b"), "SELECT 1").unwrap_err();
    assert!(refused.contains("CONNECT privilege"), "{refused}");
    fleet.run(&["isolate"]).expect(0).shows(&["a: ", "b: ", "a role of its own, no superuser, with a limit"]);
    // What somebody changed by hand is found, with the statement that mends it.
    for (change, back, words) in [
        (
            "GRANT CONNECT ON DATABASE enf_a TO PUBLIC",
            "REVOKE CONNECT, TEMPORARY ON DATABASE enf_a FROM PUBLIC",
            ["every role of the server may connect", "REVOKE CONNECT, TEMPORARY ON DATABASE \"enf_a\" FROM PUBLIC"],
        ),
        (
            "ALTER ROLE enf_a CONNECTION LIMIT -1",
            "ALTER ROLE enf_a CONNECTION LIMIT 5",
            ["may open every session", "CONNECTION LIMIT 20"],
        ),
        ("ALTER ROLE enf_a SUPERUSER", "ALTER ROLE enf_a NOSUPERUSER", ["is a superuser", "a role of the lane's own"]),
    ] {
        postgres.sql(change);
        fleet.run(&["isolate", "a"]).expect(1).says(&words);
        postgres.sql(back);
    }
    fleet.run(&["isolate", "a"]).expect(0);
    fleet.run(&["down"]).expect(0);
    let shared = "{engine: postgres, url: \"postgres://one:x@127.0.0.1\"}";
    fleet.write(&format!(
        "{DEFAULTS}  isolation: {{enforce: [postgres]}}\n  database: {shared}\ninstances: {{a: {{port: $0}}, b: {{port: $1}}}}\n"
    ));
    fleet.run(&["check"]).expect(2).says(&["has the role `one`, which is `a`'s"]);
}

#[test]
fn the_example_lives_as_before_under_enforced_files_and_network() {
    let fleet = chat();
    let yaml = fleet.text().replace(
        "  database: {engine: sqlite}",
        "  database: {engine: sqlite}\n  isolation: {enforce: [files, network], read: narrow, connect: []}",
    );
    fleet.write(&yaml);
    fleet.run(&["start-chat", "-d", "--wait", "--wait-timeout", "60s"]).expect(0);
    for (number, name) in ["chat_main", "chat_api", "chat_websocket"].into_iter().enumerate() {
        let health: Value = health(&fleet, number).unwrap();
        assert_eq!(health["instance"], name);
        assert_eq!(fleet.instance(name)["enforced"], serde_json::json!(["files", "network"]));
    }
    walk(&fleet, 0, "chat_main", &["login", "list:6", "upload", "clear:django"]);
    fleet.run(&["exec", "chat_main", "--", ".venv/bin/python", "manage.py", "collectstatic", "--noinput"]).expect(0);
    let over = fleet.folder().join("var/chat_api/db_chat_api.sqlite3");
    let write = format!("open({:?}, 'a')", over.display().to_string());
    fleet.run(&["exec", "chat_main", "--", ".venv/bin/python", "-c", &write]).expect(1).says(&[DENIED]);
}
