//! The doctor against faults made by hand, one at a time: each is found, with both sides; where there is none, none is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use laneway::services::redis::Server;
use serde_json::Value;

use crate::example::chat;
use crate::harness::{DEFAULTS, Fleet, PATIENCE, Stranger, get, wait_until};
use crate::postgres_server::Postgres;
use crate::redis_server::Redis;

/// `doctor --json`, with its exit code held to what it says.
#[track_caller]
fn doctor(fleet: &Fleet, arguments: &[&str]) -> Value {
    let output = fleet.run(&[&["doctor", "--json"], arguments].concat());
    let report: Value = serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(output.code, i32::from(report["found"] != 0), "{report:#}");
    report
}

/// All findings: the check, its severity, both sides.
fn findings(report: &Value) -> Vec<(String, String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap();
    let of_check = |check: &Value| {
        let id = text(&check["id"]);
        let all = check["findings"].as_array().unwrap().clone();
        all.into_iter().map(move |finding| {
            let names = finding["instances"].as_array().unwrap().iter().map(text).collect();
            assert!(!text(&finding["hint"]).is_empty() && !finding["evidence"].as_array().unwrap().is_empty());
            (id.clone(), text(&finding["severity"]), names)
        })
    };
    checks.iter().flat_map(of_check).collect()
}

#[track_caller]
fn finds(report: &Value, expected: &[(&str, &str, &[&str])]) {
    let mut found = findings(report);
    found.sort();
    let mut expected: Vec<_> = expected
        .iter()
        .map(|(check, severity, names)| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            ((*check).to_owned(), (*severity).to_owned(), names)
        })
        .collect();
    expected.sort();
    assert_eq!(found, expected, "{report:#}");
}

/// What came of a check.
fn outcome<'a>(report: &'a Value, id: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id}"))["outcome"].as_str().unwrap()
}

#[test]
fn isolated_servers_are_found_isolated() {
    let fleet = Fleet::new(
        "a: {port: $0, environment: {PUPPET: \"writes=.laneway/a/db_a.sqlite3 cookie=session_a\"}}\n\
         b: {port: $1, environment: {PUPPET: \"writes=.laneway/b/db_b.sqlite3 cookie=session_b\"}}\n\
         c: {port: $2}",
    );
    let report = doctor(&fleet, &[]);
    finds(&report, &[]);
    assert_eq!((report["live"].as_bool(), outcome(&report, "secrets")), (Some(false), "skipped"));
    assert!(!fleet.state("").exists(), "a doctor makes nothing");
    fleet.up();
    let report = doctor(&fleet, &[]);
    finds(&report, &[]);
    assert_eq!(report["live"], true);
    for id in ["claims", "folders", "secrets", "ports", "environment", "files", "database", "cookies", "drift"] {
        assert_eq!(outcome(&report, id), "passed", "{id}: {report:#}");
    }
    assert_eq!(outcome(&report, "settings"), "skipped");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["id"] != "enforcement"), "nobody asked for it");
    // Own servers are no strangers, even where nobody looks at what they do.
    finds(&doctor(&fleet, &["--static"]), &[]);
    fleet.run(&["doctor"]).expect(0).shows(&["3 instances examined", "ok  claims", "nothing found"]);
    fleet.run(&["doctor", "nobody"]).expect(2).says(&["nobody"]);
    fleet.run(&["doctor", "--nonsense"]).expect(2);
}

#[test]
fn a_broken_file_is_a_usage_error_at_rest_and_a_drift_while_it_runs() {
    let fleet = Fleet::new("a: {port: $0}");
    fleet.up();
    let good = fleet.text();
    fleet.write("instances: {a: [}");
    finds(&doctor(&fleet, &[]), &[("drift", "risk", &[])]);
    fleet.write(&good.replace("period: 500ms", "period: 700ms"));
    finds(&doctor(&fleet, &[]), &[("drift", "risk", &["a"])]);
    fleet.write("instances: {a: [}");
    fleet.run(&["doctor", "--static"]).expect(2).says(&["instances.yaml:1"]);
}

#[test]
fn a_fleet_of_several_files_and_values_has_not_drifted_from_one_of_them() {
    let fleet = Fleet::new("a: {port: $0}");
    fs::write(fleet.folder().join("more.yaml"), "instances: {a: {cache: {timeout: 9s}}}\n").unwrap();
    let (files, set) = (["-f", "instances.yaml", "-f", "more.yaml"], "instances.a.environment={MORE: yes-please}");
    fleet.run(&[files.as_slice(), &["--set", set, "up", "-d", "--wait"]].concat()).expect(0);
    finds(&doctor(&fleet, &[]), &[]);
    fs::write(fleet.folder().join("more.yaml"), "instances: {a: {cache: {timeout: 8s}}}\n").unwrap();
    finds(&doctor(&fleet, &[]), &[("drift", "risk", &["a"])]);
}

#[test]
fn ports_that_are_not_as_planned_are_found() {
    let fleet =
        Fleet::new("a: {port: $0, environment: {PUPPET: listen=$3}, healthcheck: {disable: true}}\nb: {port: $1}");
    let stranger = Stranger::listening("127.0.0.1", fleet.port(0), "");
    finds(&doctor(&fleet, &[]), &[("ports", "fault", &["a"])]);
    fleet.run(&["doctor"]).expect(1).shows(&[&format!("pid {}", stranger.id()), "hint: end pid"]);
    drop(stranger);
    fleet.run(&["up", "-d", "--wait"]).expect(0);
    assert!(wait_until(PATIENCE, || get(fleet.port(3), "/health/").is_some()));
    finds(&doctor(&fleet, &[]), &[("ports", "fault", &["a"]), ("ports", "risk", &["a"])]);
    finds(&doctor(&fleet, &["b"]), &[]);
    // One takes the other's port, beside its own.
    fleet.run(&["stop", "a"]).expect(0);
    fleet.ask("b", &format!("/listen?{}", fleet.port(0)));
    finds(&doctor(&fleet, &[]), &[("ports", "fault", &["a", "b"])]);
}

#[test]
fn what_is_written_where_it_should_not_be_is_found() {
    let fleet = Fleet::new(
        "a: {port: $0, environment: {PUPPET: writes=.laneway/b/media_b/from_a}}\n\
         b: {port: $1}\n\
         c: {port: $2, environment: {PUPPET: writes=shared.txt}}\n\
         d: {port: $3, environment: {PUPPET: writes=shared.txt}}\n\
         e: {port: $4, environment: {PUPPET: writes=common.sqlite3}}\n\
         f: {port: $5, environment: {PUPPET: writes=./common.sqlite3}}\n\
         g: {port: $6, environment: {PUPPET: writes=own.sqlite3}}\n\
         h: {port: $7, environment: {PUPPET: writes=.laneway/b/db_b.sqlite3}}\n\
         i: {port: $8, environment: {PUPPET: status=503}, healthcheck: {expect_status: 503}}",
    );
    fleet.up();
    let expected: &[(&str, &str, &[&str])] = &[
        ("files", "fault", &["a", "b"]),
        ("files", "fault", &["c", "d"]),
        ("database", "fault", &["e", "f"]),
        ("database", "risk", &["g"]),
        ("database", "fault", &["h", "b"]),
        // What cannot write has no isolation to show.
        ("database", "fault", &["i"]),
    ];
    finds(&doctor(&fleet, &[]), expected);
    finds(&doctor(&fleet, &["f"]), &[("database", "fault", &["e", "f"])]);
    // A descriptor that stays open is seen without asking for anything.
    fleet.ask("b", &format!("/open?{}", fleet.state("g/media_g/kept").display()));
    finds(&doctor(&fleet, &[]), &[expected, &[("files", "fault", &["b", "g"])]].concat());
}

#[test]
fn a_neighbour_that_writes_all_the_time_accuses_nobody() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}\nc: {port: $2, healthcheck: {disable: true}}");
    fleet.up();
    let path = fleet.state("b/media_b/busy");
    fs::write(&path, "x").unwrap();
    let (busy, over) = mpsc::channel::<()>();
    let neighbour = thread::spawn(move || {
        while over.try_recv() == Err(TryRecvError::Empty) {
            fs::write(&path, "y").unwrap();
        }
    });
    let report = doctor(&fleet, &[]);
    drop(busy);
    neighbour.join().unwrap();
    finds(&report, &[]);
}

#[test]
fn cookies_of_one_name_are_found() {
    let fleet = Fleet::new(
        "a: {port: $0, environment: {PUPPET: cookie=sessionid}}\n\
         b: {port: $1, environment: {PUPPET: cookie=sessionid}}\n\
         c: {port: $2, environment: {PUPPET: cookie=theirs}}\n\
         d: {port: $3, host: 127.0.0.2, environment: {PUPPET: cookie=theirs}}",
    );
    fleet.up();
    // What comes from another address is another one to a browser.
    finds(&doctor(&fleet, &[]), &[("cookies", "fault", &["a", "b"])]);
}

#[test]
fn an_environment_that_is_not_the_planned_one_is_found_and_no_value_shown() {
    let fleet = Fleet::new(
        "a: {port: $0}\n\
         b: {port: $1, command: [env, -u, CSRF_COOKIE_NAME, CACHE_KEY_PREFIX=it_a, API_TOKEN=hush, python3, -IS, $puppet], \
              environment: {API_TOKEN: geheim}}",
    );
    fleet.up();
    let report = doctor(&fleet, &[]);
    finds(&report, &[("environment", "fault", &["b", "a"])]);
    let text = report.to_string();
    for words in ["CACHE_KEY_PREFIX is a's", "CSRF_COOKIE_NAME is missing", "API_TOKEN is not what the plan gives"] {
        assert!(text.contains(words), "{words}: {report:#}");
    }
    assert!(!text.contains("hush") && !text.contains("geheim"), "{report:#}");
}

#[test]
fn secrets_that_are_shared_weak_or_open_are_found_and_not_shown() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}\nc: {port: $2}\nd: {port: $3}");
    fleet.up();
    let path = |name: &str| fleet.state(&format!("{name}/secrets/secret_key"));
    let secret = fs::read_to_string(path("a")).unwrap();
    fs::write(path("b"), &secret).unwrap();
    fs::write(path("c"), "x".repeat(60)).unwrap();
    fs::set_permissions(path("d"), fs::Permissions::from_mode(0o644)).unwrap();
    let fixed: &[(&str, &str, &[&str])] =
        &[("secrets", "fault", &["a", "b"]), ("secrets", "fault", &["c"]), ("secrets", "fault", &["d"])];
    finds(&doctor(&fleet, &["--static"]), fixed);
    let report = doctor(&fleet, &[]);
    // And b and c run with those that were there before.
    finds(&report, &[fixed, &[("drift", "risk", &["b", "c"])]].concat());
    assert!(!report.to_string().contains(secret.trim()));
}

#[test]
fn places_that_two_lanes_share_on_the_disk_are_found() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1}");
    fleet.up();
    // From such a file nothing would start, and each of the two says it.
    let expected: &[(&str, &str, &[&str])] =
        &[("claims", "fault", &["a", "b"]), ("folders", "fault", &["a", "b"]), ("drift", "risk", &[])];
    let media = fleet.state("b/media_b");
    fs::remove_dir(&media).unwrap();
    symlink(fleet.state("a/media_a"), &media).unwrap();
    finds(&doctor(&fleet, &[]), expected);
    fleet.run(&["doctor", "--static"]).expect(2).says(&["instances.b.media_root", "belongs to `a`"]);
    fs::remove_file(&media).unwrap();
    fs::write(fleet.state("a/db_a.sqlite3"), "x").unwrap();
    fs::hard_link(fleet.state("a/db_a.sqlite3"), fleet.state("b/db_b.sqlite3")).unwrap();
    finds(&doctor(&fleet, &[]), expected);
}

#[test]
fn another_fleet_that_claims_the_same_is_found() {
    let first = Fleet::new("a: {port: $0, cookies: {session: mine}}");
    first.up();
    let mut second = Fleet::new("b: {port: $0, cookies: {session: mine}}");
    second.beside(&first);
    let owner = format!("a of {}", first.folder().display());
    finds(&doctor(&second, &[]), &[("claims", "fault", &["b", &owner])]);
}

#[test]
fn control_sockets_of_gunicorn_that_are_one_are_found() {
    let gunicorn = "command: [gunicorn, app:app], environment: {XDG_RUNTIME_DIR: /tmp}";
    let fleet = Fleet::new(&format!(
        "a: {{port: $0, {gunicorn}}}\nb: {{port: $1, {gunicorn}}}\nc: {{port: $2, command: [gunicorn, app:app]}}\n\
         d: {{port: $3, command: [gunicorn, --no-control-socket, app:app]}}"
    ));
    finds(&doctor(&fleet, &[]), &[("control-sockets", "fault", &["a", "b"])]);
}

const THREE: &[&str] = &["chat_main", "chat_api", "chat_websocket"];

/// The example up and running; what else the settings say is laid over them, and `restart` takes it over.
struct Example {
    fleet: Fleet,
    settings: String,
}

impl Example {
    fn up(profile: &str) -> Self {
        let fleet = chat();
        if !profile.is_empty() {
            fleet.write(&format!("{}{profile}", fleet.text()));
        }
        let profile: &[&str] = if profile.is_empty() { &[] } else { &["--profile", "test"] };
        fleet.run(&[&["up", "-d"], profile].concat()).expect(0);
        // Several of these may start at once on two cores.
        let is_healthy = || {
            let status = fleet.ask_status();
            status["instances"].as_array().is_some_and(|all| all.iter().all(|instance| instance["health"] == "healthy"))
        };
        assert!(wait_until(Duration::from_mins(2), is_healthy), "{}", fleet.own_log());
        let settings = fs::read_to_string(Self::path(&fleet)).unwrap();
        Self { fleet, settings }
    }

    fn path(fleet: &Fleet) -> std::path::PathBuf {
        fleet.folder().join("examples/django_chat/dashboard_project/multi_server_settings.py")
    }

    /// The same settings with `python` behind them.
    fn set(&self, python: &str) {
        fs::write(Self::path(&self.fleet), format!("{}\n{python}\n", self.settings)).unwrap();
    }

    fn restart(&self) {
        self.fleet.run(&["restart", "--wait", "chat_*"]).expect(0);
    }
}

#[test]
fn the_example_is_isolated_and_each_isolation_that_is_taken_away_is_found() {
    let example = Example::up("");
    let fleet = &example.fleet;
    let report = doctor(fleet, &[]);
    finds(&report, &[]);
    for check in report["checks"].as_array().unwrap().iter().filter(|check| check["id"] != "redis") {
        assert!(check["outcome"] == "passed" || check["id"] == "sessions", "{check:#}");
    }
    // What only the settings say needs no server: they are asked as they would be loaded now.
    for (python, check) in [
        ("STATIC_ROOT = '/tmp/lw-one-static'", "settings"),
        ("MEDIA_ROOT = '/tmp/lw-one-media'", "settings"),
        ("FILE_UPLOAD_TEMP_DIR = '/tmp'", "settings"),
        ("import tempfile; tempfile.tempdir = '/tmp'", "settings"),
        ("CACHES['default'] = {'BACKEND': BACKENDS_FILE, 'LOCATION': '/tmp/lw-one-cache'}", "settings"),
        ("DATABASES['default']['NAME'] = BASE_DIR / 'one.sqlite3'", "settings"),
        ("CSRF_COOKIE_NAME = 'csrftoken'", "settings"),
        ("SECRET_KEY = 'a secret that everybody who reads this file knows, long enough'", "secrets"),
        (
            "CACHES['default'] = {'BACKEND': REDIS, 'LOCATION': 'redis://h', 'KEY_PREFIX': INSTANCE_NAME, \
          'OPTIONS': {'CLIENT_CLASS': 'django_redis.client.DefaultClient'}}",
            "options",
        ),
        ("DATABASES['default'] = {'ENGINE': PG, 'NAME': INSTANCE_NAME, 'OPTIONS': {'MAX_CONNS': 20}}", "options"),
        ("DATABASES['default'] = {'ENGINE': PG, 'NAME': INSTANCE_NAME, 'CONN_MAX_AGE': 60}", "options"),
    ] {
        let names = "BACKENDS_FILE = 'django.core.cache.backends.filebased.FileBasedCache'\n\
                     REDIS = 'django.core.cache.backends.redis.RedisCache'\nPG = 'django.db.backends.postgresql'\n";
        example.set(&format!("{names}{python}"));
        let mut expected = vec![(check, "fault", THREE)];
        if python.contains("PG") {
            expected.push(("settings", "risk", THREE));
        }
        finds(&doctor(fleet, &["--static"]), &expected);
    }
    example.set("raise ValueError('no settings today')");
    finds(&doctor(fleet, &["--static"]), &[("settings", "risk", THREE)]);
    fleet.run(&["doctor", "--static"]).expect(1).shows(&["ValueError: no settings today"]);
    example.set("");

    // What servers do. The migrations are done, and a restart need not do them again.
    fleet.write(&fleet.text().replace("  pre_start:", "  x-pre_start:"));
    fleet.run(&["apply"]).expect(0);
    let migrate = |path: &str| {
        let mut command = crate::example::python(fleet);
        command.args(["manage.py", "migrate", "--noinput"]).env("DATABASE_NAME", path);
        fleet.run_command(command).expect(0);
    };
    let one = fleet.folder().join("examples/django_chat/one.sqlite3");
    migrate(one.to_str().unwrap());
    example.set("DATABASES['default']['NAME'] = BASE_DIR / 'one.sqlite3'");
    example.restart();
    finds(&doctor(fleet, &[]), &[("database", "fault", THREE), ("settings", "fault", THREE)]);
    example.set("SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = 'sessionid', 'csrftoken'");
    example.restart();
    let cookies = ("cookies", "fault", THREE);
    finds(&doctor(fleet, &[]), &[cookies, cookies, ("settings", "fault", THREE), ("settings", "fault", THREE)]);
    // A wrapper around one that sends its temporary files elsewhere, and one that writes its neighbour's database.
    example.set("");
    let other = "environment: {DJANGO_SETTINGS_MODULE: dashboard_project.multi_server_settings, OTHER: chat_main}";
    example.set(
        "if os.environ.get('OTHER'): DATABASES['default']['NAME'] = \
         DATABASES['default']['NAME'].replace(INSTANCE_NAME, os.environ['OTHER'])",
    );
    let wrapped = "command: [env, TMPDIR=/tmp, .venv/bin/python, manage.py, runserver, \"{host}:{port}\", --noreload]";
    fleet.write(
        &fleet
            .text()
            .replace("cache: {timeout: 30m}", &format!("cache: {{timeout: 30m}}, {other}"))
            .replace("cache: {timeout: 5m}", &format!("cache: {{timeout: 5m}}, {wrapped}")),
    );
    fleet.run(&["apply", "--wait"]).expect(0);
    fleet.run(&["restart", "--wait", "chat_main"]).expect(0);
    finds(
        &doctor(fleet, &[]),
        &[
            ("database", "fault", &["chat_main", "chat_api"]),
            ("settings", "fault", &["chat_main", "chat_api"]),
            ("environment", "fault", &["chat_websocket"]),
            ("settings", "risk", &["chat_websocket"]),
        ],
    );
}

#[test]
fn keys_in_redis_that_are_nobodys_or_a_neighbours_are_found() {
    let redis = Redis::start();
    let url = redis.url();
    let example = Example::up(&format!(
        "  test: {{defaults: {{cache: {{backend: redis, url: \"{url}\"}}, channels: {{url: \"{url}\"}}}}}}\n"
    ));
    let fleet = &example.fleet;
    let report = doctor(fleet, &[]);
    finds(&report, &[]);
    assert_eq!(outcome(&report, "redis"), "passed");
    redis.cli(&["set", "strange:1:key", "x"]);
    finds(&doctor(fleet, &[]), &[("redis", "risk", &[])]);
    redis.cli(&["del", "strange:1:key"]);
    fleet.write(&fleet.text().replace("  pre_start:", "  x-pre_start:"));
    fleet.run(&["apply"]).expect(0);
    example.set("CACHES['default']['KEY_PREFIX'] = 'context7'");
    example.restart();
    finds(&doctor(fleet, &[]), &[("redis", "fault", THREE), ("settings", "fault", THREE)]);
    example.set("CACHES['default']['KEY_PREFIX'] = 'context7_chat_main'");
    example.restart();
    let written: &[(&str, &str, &[&str])] = &[
        ("redis", "fault", &["chat_api", "chat_main"]),
        ("redis", "fault", &["chat_websocket", "chat_main"]),
        ("settings", "fault", THREE),
    ];
    finds(&doctor(fleet, &[]), written);
    finds(&doctor(fleet, &["--static"]), &[("settings", "fault", THREE)]);
    drop(redis);
    finds(&doctor(fleet, &[]), &[("redis", "fault", THREE), ("settings", "fault", THREE)]);
}

#[test]
fn sessions_in_a_neighbours_database_are_found() {
    let postgres = Postgres::start();
    for name in ["own_erp_a", "own_erp_b", "elsewhere"] {
        postgres.sql(&format!("CREATE DATABASE {name}"));
    }
    let server = postgres.superuser_url().strip_suffix("/postgres").unwrap().to_owned();
    let mut fleet = Fleet::raw(&format!(
        "{}  database: {{engine: postgres, url: \"${{SERVER}}\"}}\ninstances:\n  a: {{port: $0}}\n  b: {{port: $1}}\n",
        DEFAULTS.replace("name: it", "name: own")
    ));
    fleet.set("SERVER", &server);
    fleet.up();
    let session = |database: &str, name: &str| {
        let running = postgres.session(&format!("{server}/{database}?application_name={name}"));
        let asked = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        assert!(wait_until(PATIENCE, || postgres.sql(&asked) != "0"), "{name} never connected");
        running
    };
    let end = |mut running: Child| {
        drop(running.stdin.take());
        running.wait().unwrap();
    };
    let report = doctor(&fleet, &[]);
    finds(&report, &[]);
    assert_eq!(outcome(&report, "sessions"), "skipped");
    let good = [session("own_erp_a", "own_a"), session("own_erp_b", "own_b")];
    let report = doctor(&fleet, &[]);
    finds(&report, &[]);
    assert_eq!(outcome(&report, "sessions"), "passed");
    let bad = session("own_erp_a", "own_b");
    finds(&doctor(&fleet, &[]), &[("sessions", "fault", &["b", "a"])]);
    finds(&doctor(&fleet, &["b"]), &[("sessions", "fault", &["b", "a"])]);
    end(bad);
    let bad = [session("elsewhere", "own_a"), session("own_erp_b", "psql_of_somebody")];
    finds(&doctor(&fleet, &[]), &[("sessions", "fault", &["a"]), ("sessions", "risk", &["b"])]);
    good.into_iter().chain(bad).for_each(end);
    postgres.crash();
    finds(&doctor(&fleet, &[]), &[("sessions", "fault", &["a", "b"])]);
    assert!(!doctor(&fleet, &[]).to_string().contains("geheim"));
    postgres.come_back();
}

/// The one finding of a report, in one text.
#[track_caller]
fn only_finding(report: &Value) -> String {
    assert_eq!(report["found"], 1, "{report:#}");
    let found = report["checks"].as_array().unwrap().iter().find(|check| check["outcome"] == "found").unwrap();
    found["findings"][0].to_string()
}

#[test]
fn a_kernel_that_cannot_enforce_is_a_risk_where_the_file_lets_it_pass() {
    let isolation = "  isolation: {enforce: [files, network], on_missing: warn}";
    let mut fleet = Fleet::raw(&format!("{DEFAULTS}{isolation}\ninstances: {{a: {{port: $0}}, b: {{port: $1}}}}\n"));
    let report = doctor(&fleet, &[]);
    finds(&report, &[]);
    assert_eq!(outcome(&report, "enforcement"), "passed");
    fleet.up();
    let report = doctor(&fleet, &[]);
    finds(&report, &[]);
    let shown = ["ok  enforcement", "2 instances held to what `isolation` asks: files, network"];
    fleet.run(&["doctor"]).expect(0).shows(&shown);
    fleet.run(&["down"]).expect(0);
    fleet.set("LANEWAY_TEST_OLD_KERNEL", "1");
    let lacking = [("enforcement", "risk", &["a", "b"][..]); 2];
    finds(&doctor(&fleet, &["--static"]), &lacking);
    fleet.up();
    finds(&doctor(&fleet, &[]), &lacking);
    let words = ["files cannot be enforced for a and b", "it needs Landlock of Linux 6.2", "hint: a newer kernel"];
    fleet.run(&["doctor"]).expect(1).shows(&words);
    fleet.write(&fleet.text().replace(", on_missing: warn", ""));
    let refused = [("enforcement", "fault", &["a", "b"][..]); 2];
    fleet.run(&["down"]).expect(0);
    finds(&doctor(&fleet, &[]), &refused);
}

#[test]
fn a_user_of_redis_with_other_rules_than_its_own_is_found() {
    let redis = Redis::with(&["--requirepass", "verwalter"]);
    let port = redis.port();
    let mut fleet = Fleet::raw(&format!(
        "{DEFAULTS}  cache: {{backend: redis, url: \"redis://127.0.0.1:{port}/0\", admin_url: \"${{REDIS_ADMIN}}\"}}\n  \
         channels: {{url: \"redis://127.0.0.1:{port}/1\"}}\n  isolation: {{enforce: [redis]}}\n\
         instances: {{a: {{port: $0}}, b: {{port: $1}}}}\n"
    ));
    let admin = format!("redis://:verwalter@127.0.0.1:{port}/0");
    fleet.set("REDIS_ADMIN", &admin);
    fleet.up();
    let report = doctor(&fleet, &[]);
    finds(&report, &[]);
    assert_eq!(outcome(&report, "enforcement"), "passed");
    let mut admin = Server::parse(&admin).unwrap().open(PATIENCE).unwrap();
    for (rule, seen) in [
        ("~it_b:*", "has more than its rules: ~it_b:*"),
        ("+flushdb", "has more than its rules: +flushdb"),
        ("-get", "lacks of its rules: +get"),
        (">second", "a second password"),
        ("nopass", "nopass"),
    ] {
        admin.command(&[b"ACL", b"SETUSER", b"it_a", rule.as_bytes()]).unwrap();
        let report = doctor(&fleet, &[]);
        finds(&report, &[("enforcement", "fault", &["a"])]);
        let text = only_finding(&report);
        assert!(text.contains(seen) && text.contains("laneway isolate") && !text.contains("verwalter"), "{text}");
        fleet.run(&["isolate", "a"]).expect(0);
        finds(&doctor(&fleet, &[]), &[]);
    }
}

#[test]
fn a_role_of_postgresql_that_may_more_than_it_should_is_found() {
    let postgres = Postgres::shared();
    let mut fleet = Fleet::raw(&format!(
        "{DEFAULTS}  database: {{engine: postgres, admin_url: \"${{PG_ADMIN}}\", create: true, max_connections: 5, \
         name: \"doc_{{lane}}\"}}\n  isolation: {{enforce: [postgres]}}\ninstances: {{a: {{port: $0}}, b: {{port: $1}}}}\n"
    ));
    fleet.set("PG_ADMIN", &postgres.admin_url());
    fleet.up();
    let report = doctor(&fleet, &[]);
    finds(&report, &[]);
    assert_eq!(outcome(&report, "enforcement"), "passed");
    for (change, back, seen) in [
        ("ALTER ROLE doc_a CONNECTION LIMIT -1", "ALTER ROLE doc_a CONNECTION LIMIT 5", "every session"),
        ("ALTER ROLE doc_a SUPERUSER", "ALTER ROLE doc_a NOSUPERUSER", "is a superuser"),
        (
            "GRANT CONNECT ON DATABASE doc_a TO PUBLIC",
            "REVOKE CONNECT, TEMPORARY ON DATABASE doc_a FROM PUBLIC",
            "every role of the server may connect",
        ),
        (
            "ALTER DATABASE doc_a OWNER TO keeper; GRANT CONNECT ON DATABASE doc_a TO doc_a",
            "ALTER DATABASE doc_a OWNER TO doc_a",
            "belongs to the role",
        ),
    ] {
        postgres.sql(change);
        let report = doctor(&fleet, &[]);
        finds(&report, &[("enforcement", "fault", &["a"])]);
        let text = only_finding(&report);
        assert!(text.contains(seen), "{text}");
        postgres.sql(back);
    }
    finds(&doctor(&fleet, &[]), &[]);
    assert_eq!(findings(&doctor(&fleet, &["--static"])), []);
}

const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/browser.py");

/// In how many of `rounds` a login on the first instance did not survive a visit to the others.
fn lost_logins(fleet: &Fleet, rounds: u32) -> u32 {
    let password = fleet.folder().join("var/chat_main/secrets/staff_password");
    // A few at a time: a login takes long on purpose, and no command of a test takes longer than its patience.
    let parts = (0..rounds.div_ceil(5)).map(|part| (rounds - part * 5).min(5));
    let lost = parts.map(|part| {
        let mut command = crate::example::python(fleet);
        command.args([BROWSER, &part.to_string()]).arg(&password);
        command.args((0..3).map(|number| format!("http://127.0.0.1:{}", fleet.port(number))));
        fleet.run_command(command).expect(0).out.trim().parse::<u32>().unwrap()
    });
    lost.sum()
}

/// Runs `python` in each lane at the same time, and gives what each prints.
fn in_each_lane(fleet: &Fleet, python: &str) -> Vec<String> {
    let started: Vec<_> = THREE
        .iter()
        .map(|name| {
            fleet.spawn(&["exec", name, "--", ".venv/bin/python", "manage.py", "shell", "-v", "0", "-c", python])
        })
        .collect();
    started.into_iter().map(|run| run.wait().expect(0).out).collect()
}

/// Every file beneath, with its content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(
                tree(&entry.path()).into_iter().map(|(path, text)| (Path::new(&entry.file_name()).join(path), text)),
            );
        } else {
            found.insert(PathBuf::from(entry.file_name()), fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// `LANEWAY_TEST_ROUNDS=100` for figures.
#[test]
fn what_the_doctor_says_is_what_a_browser_sees() {
    let rounds: u32 = std::env::var("LANEWAY_TEST_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let redis = Redis::start();
    let cache = format!("{{backend: redis, url: \"{}\"}}", redis.url());
    let example = Example::up(&format!("  test: {{defaults: {{cache: {cache}}}}}\n"));
    let fleet = &example.fleet;
    finds(&doctor(fleet, &[]), &[]);
    assert_eq!(lost_logins(fleet, rounds), 0, "of {rounds}");

    // All three write at once: nobody waits for a lock that another one holds.
    let asked = rounds * 10;
    let refused: u32 = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let good = |answer: Option<(u16, String)>| answer.is_some_and(|(status, _)| status == 200);
                let write = move || (0..asked).filter(|_| !good(get(fleet.port(number), "/health/?write=1"))).count();
                scope.spawn(write)
            })
            .collect();
        writers.into_iter().map(|writer| u32::try_from(writer.join().unwrap()).unwrap()).sum()
    });
    assert_eq!(refused, 0, "of {asked} for each of three");

    // The same hundred names in each: what comes back is one's own.
    let python = "from django.core.cache import cache; from django.conf import settings; import time; \
                  mine = settings.INSTANCE_NAME; [cache.set(f'key-{n}', mine) for n in range(100)]; time.sleep(0.5); \
                  print(sum(cache.get(f'key-{n}') != mine for n in range(100)))";
    assert_eq!(in_each_lane(fleet, python).iter().map(|lost| lost.trim()).collect::<Vec<_>>(), ["0"; 3]);

    // Each collects into its own folder: 130 files and more with those of the admin site.
    example.set("INSTALLED_APPS.append('django.contrib.admin')");
    let collect = "from django.core.management import call_command; \
                   call_command('collectstatic', interactive=False, clear=True, verbosity=0)";
    for _ in 0..rounds.div_ceil(10) {
        in_each_lane(fleet, collect);
        let trees: Vec<_> =
            THREE.iter().map(|name| tree(&fleet.state(&format!("{name}/staticfiles_{name}")))).collect();
        assert!(trees[0].len() > 100 && trees[0] == trees[1] && trees[1] == trees[2], "{:?}", trees[0].keys());
    }
    finds(&doctor(fleet, &[]), &[]);

    // The same without names of their own for the cookies: every login is lost, and the doctor says so.
    fleet.write(&fleet.text().replace("  pre_start:", "  x-pre_start:"));
    fleet.run(&["apply"]).expect(0);
    example.set("SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = 'sessionid', 'csrftoken'");
    example.restart();
    assert_eq!(lost_logins(fleet, rounds), rounds);
    assert_eq!(outcome(&doctor(fleet, &[]), "cookies"), "found");
}
