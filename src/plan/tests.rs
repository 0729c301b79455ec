//! Plans from whole files: the sample's facts, and everything that must be refused.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::slice;

use super::spec::{CacheBackend, Database, DatabaseSetup, HealthTest, OwnStep};
use super::{
    Callers, Change, Claim, Foreign, Plan, claims, diff, foreign_collisions, heirs, merge, resolve, select, start_order,
};
use crate::config::Source;
use crate::config::scratch::Scratch;
use crate::model::{InstanceId, InstanceName};

fn sample(profile: Option<&str>) -> Plan {
    let source = Source {
        directory: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        profile: profile.map(str::to_owned),
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned()), ("OTHER".to_owned(), "x".to_owned())]),
        ..Source::default()
    };
    resolve(&source).unwrap_or_else(|problems| panic!("{problems}"))
}

fn plan_in(scratch: &Scratch) -> Plan {
    let plan = resolve(&scratch.source()).unwrap_or_else(|problems| panic!("{problems}"));
    scratch.fits_schema();
    plan
}

fn plan(text: &str) -> Plan {
    plan_in(&Scratch::with(text))
}

fn problems_in(scratch: &Scratch) -> String {
    resolve(&scratch.source()).map_or_else(|problems| scratch.shown(&problems.to_string()), |_| "fine".to_owned())
}

/// The problems of two instances, `a` and `b`, of which these things are said.
fn clash(a: &str, b: &str) -> String {
    problems_in(&Scratch::with(&format!("defaults: {{command: [x]}}\ninstances:\n  a: {{{a}}}\n  b: {{{b}}}\n")))
}

/// Many lines as one text.
fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().concat()
}

/// Compares with `snapshots/NAME.snap`.
fn holds(name: &str, text: &str) {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn the_sample_gives_three_lanes_by_the_formulas() {
    let plan = sample(None);
    let mut shown = String::new();
    for spec in &plan.specs {
        writeln!(shown, "{}\n  {}\n  in {}", spec.name, spec.command.join(" "), spec.working_dir.display()).unwrap();
        for command in &spec.pre_start {
            writeln!(shown, "  first {}", command.join(" ")).unwrap();
        }
        for (name, value) in spec.variables() {
            writeln!(shown, "  {name}={value}").unwrap();
        }
    }
    holds("the_sample_gives_three_lanes_by_the_formulas", &shown.replace(env!("CARGO_MANIFEST_DIR"), "[here]"));
    assert_eq!(plan.presets.keys().collect::<Vec<_>>(), ["start-chat", "start-dev"]);
}

#[test]
fn the_samples_dev_profile_caches_nothing_and_reloads() {
    for spec in sample(Some("dev")).specs {
        assert_eq!(spec.facts.cache.backend, CacheBackend::Dummy);
        assert!(!spec.command.contains(&"--noreload".to_owned()));
    }
}

#[test]
fn two_of_anything_are_one_too_many() {
    let cases = [
        ("port: 8000", "port: 8000"),
        ("port: 8000, host: 0.0.0.0", "port: 8000"),
        ("port: 8000", "port: 8000, host: \"::\""),
        ("port: 8000, host: 127.0.0.2", "port: 8000"),
        ("database: {path: db.sqlite3}", "database: {path: ./x/../db.sqlite3}"),
        ("database: {path: \"{state_dir}/b/db.sqlite3\"}", ""),
        ("cookies: {session: sid}", "cookies: {session: sid}"),
        ("cookies: {session: sid}", "cookies: {csrf: sid}"),
        ("cookies: {session: sid, csrf: sid}", ""),
        ("cache: {prefix: p}", "cache: {prefix: p}"),
        (
            "cache: {backend: redis, url: \"redis://u:p@localhost\", prefix: p}",
            "cache: {backend: redis+locmem, url: \"redis://127.0.0.1:6379/0\", prefix: \"p:b\"}",
        ),
        (
            "cache: {backend: redis, url: \"redis://localhost/0\", prefix: p}",
            "cache: {backend: redis, url: \"redis://localhost/1\", prefix: p}",
        ),
        (
            "cache: {backend: redis, url: \"redis://localhost/0\", prefix: p}",
            "channels: {url: \"redis://localhost\", prefix: p}",
        ),
        ("cache: {backend: file, location: tmp/cache}", "cache: {backend: file, location: tmp/cache/b}"),
        ("channels: {prefix: p}", "channels: {prefix: p}"),
        ("static_root: static", "static_root: static/"),
        ("media_root: files", "static_root: files/static"),
        ("media_root: .laneway/b/media", ""),
        ("media_root: .laneway", ""),
        ("secret: {file: key}", "secret: {file: key}"),
        (
            "database: {engine: postgres, url: \"postgres://u:secret@DB/shop\"}",
            "database: {engine: postgres, url: \"postgresql://v@db:5432\", name: shop}",
        ),
        ("port: 8000", "lane: a, port: 8000"),
        ("", "lane: a"),
    ];
    let mut shown = String::new();
    for (a, b) in cases {
        let problems = clash(a, b);
        assert!(!problems.contains("secret@"), "passwords are never shown: {problems}");
        writeln!(shown, "--- a: {a}\n    b: {b}\n{problems}\n").unwrap();
    }
    holds("two_of_anything_are_one_too_many", &shown);
}

#[test]
fn names_that_differ_in_dash_and_underscore_only_are_one() {
    let text = "defaults: {command: [x]}\ninstances: {chat-main: {}, chat_main: {}}\n";
    holds("names_that_differ_in_dash_and_underscore_only_are_one", &problems_in(&Scratch::with(text)));
}

#[test]
fn one_database_under_two_names_is_found() {
    let text = "defaults: {command: [x]}\ninstances:\n  a: {database: {path: data/db.sqlite3}}\n  b: {database: {path: OTHER}}\n";
    for (other, kind) in [("link.sqlite3", "symlink"), ("folder/db.sqlite3", "symlink"), ("hard.sqlite3", "hard link")]
    {
        let scratch = Scratch::with(&text.replace("OTHER", other));
        let file = scratch.write("data/db.sqlite3", "");
        let path = scratch.path();
        match other {
            "link.sqlite3" => symlink(&file, path.join(other)).unwrap(),
            "folder/db.sqlite3" => symlink(path.join("data"), path.join("folder")).unwrap(),
            _ => std::fs::hard_link(&file, path.join(other)).unwrap(),
        }
        let problems = problems_in(&scratch);
        assert!(problems.contains("instances.yaml:4:24: instances.b.database.path: "), "{kind}: {problems}");
        assert!(problems.contains("belongs to `a` already (instances.yaml:3:24)"), "{kind}: {problems}");
        assert_eq!(problems.matches("already").count(), 1, "{kind} is said once: {problems}");
    }
}

#[test]
fn a_folder_that_does_not_exist_yet_is_followed_through_its_symlink() {
    let scratch =
        Scratch::with("defaults: {command: [x]}\ninstances: {a: {media_root: real/m}, b: {media_root: link/m}}\n");
    std::fs::create_dir(scratch.path().join("real")).unwrap();
    symlink(scratch.path().join("real"), scratch.path().join("link")).unwrap();
    assert!(problems_in(&scratch).contains("instances.b.media_root"), "{}", problems_in(&scratch));
}

#[test]
fn nothing_goes_round_the_check_of_the_facts() {
    let scratch = Scratch::with(concat!(
        "instances:\n",
        "  web:\n",
        "    command: [x]\n",
        "    env_file: [web.env, missing.env, {path: absent.env, required: false}]\n",
        "    inherit_env: [PATH, CHANNELS_URL]\n",
        "    environment:\n",
        "      DATABASE_URL: sqlite:///x\n",
        "      SESSION_COOKIE_NAME: sid\n",
        "      PORT: 1\n",
        "      SECRET_KEY: x\n",
        "      INSTANCE_NAME: x\n",
        "      LANEWAY_RUN: x\n",
        "      PYTHONUNBUFFERED: 0\n",
    ));
    scratch.write("web.env", "GOOD=1\nCSRF_COOKIE_NAME=x\n");
    holds("nothing_goes_round_the_check_of_the_facts", &problems_in(&scratch));
}

#[test]
fn placeholders_that_mean_nothing_are_refused_where_they_stand() {
    let scratch = Scratch::with(concat!(
        "instances:\n",
        "  web:\n",
        "    command: [serve, \"{prot}\", \"{hots}:{port}\"]\n",
        "    environment: {A: \"{unknown}\", B: '{\"json\": {\"stays\": 1}}', C: \"{{port}\"}\n",
        "    cache: {prefix: \"{lane} x\"}\n",
        "    cookies: {session: \"a b\"}\n",
        "    channels: {prefix: \"p:\"}\n",
    ));
    holds("placeholders_that_mean_nothing_are_refused_where_they_stand", &problems_in(&scratch));
}

#[test]
fn placeholders_are_filled_in_everywhere() {
    let plan = plan(concat!(
        "name: shop\nnamespace: blue\n",
        "instances:\n",
        "  web:\n",
        "    host: \"::1\"\n    port: 8000\n    working_dir: \"apps/{instance}\"\n",
        "    command: [bin/serve, \"{host}:{port}\", \"--host={host}\", \"{lane}\", \"{{x}\"]\n",
        "    environment: {A: \"{project}-{port}\", J: '{\"a\": 1}'}\n",
        "    healthcheck: {path: \"/{instance}\", headers: {Host: \"{instance}.test\"}}\n",
        "    media_root: \"media/{lane}\"\n",
    ));
    let spec = plan.specs.first().unwrap();
    assert_eq!(spec.command.get(1..).unwrap(), ["[::1]:8000", "--host=::1", "blue_web", "{x}"]);
    assert!(spec.command.first().unwrap().ends_with("/project/apps/web/bin/serve"));
    assert_eq!(spec.environment.get("A").unwrap(), "shop-8000");
    assert_eq!(spec.environment.get("J").unwrap(), "{\"a\": 1}");
    assert!(spec.facts.media_root.ends_with("project/media/blue_web"));
    assert_eq!(spec.facts.session_cookie, "sessionid_blue_web");
    assert_eq!(spec.facts.cache.prefix, "shop_blue_web");
    let Some(HealthTest::Http { path, headers, .. }) = spec.healthcheck.as_ref().map(|h| h.test.clone()) else {
        panic!("a check by path")
    };
    assert_eq!((path.as_str(), headers.get("Host").unwrap().as_str()), ("/web", "web.test"));
}

#[test]
fn a_guest_lives_in_its_hosts_lane_with_its_own_port_and_log() {
    let plan = plan(concat!(
        "name: shop\ndefaults: {command: [x]}\n",
        "instances:\n",
        "  web: {port: 1, cache: {timeout: 9s}, cookies: {session: sid}, media_root: \"m/{instance}\"}\n",
        "  worker: {lane: web, framework: django}\n",
    ));
    let [web, worker] = plan.specs.as_slice() else { panic!("two instances") };
    assert_eq!(worker.facts.database, web.facts.database);
    assert_eq!(worker.facts.cache, web.facts.cache);
    assert_eq!(worker.facts.media_root, web.facts.media_root);
    assert_eq!(worker.facts.secret_file, web.facts.secret_file);
    assert_eq!((worker.facts.port, &worker.facts.lane), (None, &web.name));
    assert_ne!(worker.facts.access_log, web.facts.access_log);
    assert_ne!(worker.log_file(), web.log_file());
    assert!(worker.log_file().ends_with(".laneway/web/log/worker.log"));
    assert_eq!(worker.variables().get("INSTANCE_NAME").unwrap(), "worker");
    assert_eq!(worker.variables().get("SESSION_COOKIE_NAME").unwrap(), "sid");
}

#[test]
fn a_guest_leaves_the_preparing_of_the_lane_to_its_owner() {
    let plan = plan(concat!(
        "name: shop\ndefaults: {command: [x], pre_start: [[migrate]]}\n",
        "instances:\n  web: {port: 1}\n  worker: {lane: web}\n  beat: {lane: web, pre_start: [[wait]]}\n",
    ));
    let steps: Vec<_> = plan.specs.iter().map(|spec| spec.pre_start.concat()).collect();
    assert_eq!(steps, [vec!["migrate"], vec![], vec!["wait"]]);
}

#[test]
fn a_postgres_url_gets_its_database() {
    let database = |settings: &str| {
        let plan = plan(&format!(
            "name: shop\ninstances: {{web: {{command: [x], database: {{engine: postgres, {settings}}}}}}}"
        ));
        match plan.specs.into_iter().next().unwrap().facts.database {
            Database::Postgres { url, name, application_name } => (url, name, application_name),
            Database::Sqlite { .. } => panic!("postgres"),
        }
    };
    let (url, name, application_name) = database("url: \"postgresql://u:p@h:5433?sslmode=require\"");
    assert_eq!(url, "postgres://u:p@h:5433/shop_erp_web?sslmode=require");
    assert_eq!((name.as_str(), application_name.as_str()), ("shop_erp_web", "shop_web"));
    assert_eq!(database("url: \"postgres://h/own\"").0, "postgres://h/own");
    assert_eq!(database("url: \"postgres://h\", name: \"{project}_x\"").1, "shop_x");
    let wrong = |settings: &str| clash(&format!("database: {{engine: postgres, {settings}}}"), "");
    assert!(wrong("name: x").contains("database.url: is missing"));
    assert!(wrong("url: mysql://h").contains("begins with postgres://"));
    assert!(wrong("url: \"postgres://h/a\", name: b").contains("keep one of the two"));
    assert!(wrong(&format!("url: \"postgres://h\", name: {}", "n".repeat(64))).contains("longer than 63 bytes"));
}

#[test]
fn a_database_that_laneway_makes_has_a_role_of_its_own() {
    let made = |settings: &str| {
        let text =
            format!("name: shop\ninstances: {{web: {{command: [x], database: {{engine: postgres, {settings}}}}}}}");
        let spec = plan(&text).specs.into_iter().next().unwrap();
        let Database::Postgres { url, .. } = &spec.facts.database else { panic!("postgres") };
        assert_eq!(spec.variables()["DATABASE_URL"], *url);
        assert!(!spec.variables().values().any(|value| value.contains("geheim")), "the administrator stays at home");
        let Some(DatabaseSetup::Create { role, .. }) = &spec.database_setup else { panic!("a role") };
        assert_eq!(spec.pre_start, [["laneway", "db", "create", "web"].map(str::to_owned).to_vec()]);
        (url.clone(), role.clone())
    };
    let admin = "create: true, admin_url: \"postgres://me:geheim@h:5433/postgres?sslmode=disable\"";
    let both = |url: &str, role: &str| (url.to_owned(), role.to_owned());
    assert_eq!(made(admin), both("postgres://shop_erp_web@h:5433/shop_erp_web", "shop_erp_web"));
    assert_eq!(made(&format!("{admin}, name: own")), both("postgres://own@h:5433/own", "own"));
    let url = format!("{admin}, url: \"postgres://web@other/d?sslmode=disable\"");
    assert_eq!(made(&url), both("postgres://web@other/d?sslmode=disable", "web"));
    let wrong = |settings: &str| clash(&format!("database: {{engine: postgres, {settings}}}"), "");
    assert!(wrong("create: true").contains("database.admin_url: is missing"));
    assert!(wrong("create: true, admin_url: \"redis://h\"").contains("no URL of a PostgreSQL server"));
    assert!(wrong("create: true, admin_url: \"postgres:///d?host=/run\"").contains("names no host to take"));
    assert!(wrong(&format!("{admin}, url: \"postgres://a:b@h\"")).contains("has a password"));
    assert!(wrong(&format!("{admin}, url: \"postgres://me@h\"")).contains("cannot be the lane's own role"));
    assert!(wrong(&format!("{admin}, name: a b")).contains("does not fit into a URL"));
    assert!(wrong("url: \"postgres://h\", max_connections: 3").contains("add `create: true`"));
    // Two lanes of one role would share all that it owns.
    let (a, b) = ("postgres://one@h/a", "postgres://one@h:5432/b");
    let lane = |url: &str| {
        format!("database: {{engine: postgres, create: true, admin_url: \"postgres://me@h\", url: \"{url}\"}}")
    };
    assert!(clash(&lane(a), &lane(b)).contains("the role h:5432/one belongs to `a` already"));
}

#[test]
fn a_file_begins_as_a_copy_of_another() {
    let spec = plan("instances: {web: {command: [x], database: {template: ./form.sqlite3}}}").specs.remove(0);
    assert_eq!(spec.own_steps(), [OwnStep::Database]);
    let Some(DatabaseSetup::Copy { template }) = spec.database_setup else { panic!("a copy") };
    assert!(template.is_absolute() && template.ends_with("form.sqlite3"));
    assert!(clash("database: {path: x, template: ./x}", "").contains("is the lane's own database"));
    assert!(clash("database: {create: true}", "").contains("has no effect on sqlite"));
}

#[test]
fn circles_are_named_whole_and_the_order_follows_the_dependencies() {
    let text = concat!(
        "defaults: {command: [x]}\n",
        "instances:\n",
        "  a: {depends_on: [b]}\n",
        "  b: {depends_on: [c]}\n",
        "  c: {depends_on: [a, d]}\n",
        "  d: {depends_on: [d]}\n",
    );
    holds("circles_are_named_whole", &problems_in(&Scratch::with(text)));
    let plan = plan("defaults: {command: [x]}\ninstances: {a: {depends_on: [c]}, b: {}, c: {depends_on: [d]}, d: {}}");
    let order: Vec<&str> = start_order(&plan).into_iter().map(|id| plan.spec(id).name.as_str()).collect();
    assert_eq!(order, ["d", "c", "a", "b"]);
}

#[test]
fn problems_of_both_rooms_come_together() {
    let problems = clash("port: 8000, cache: {ttl: 1}", "port: 8000, prot: 1");
    assert!(
        problems.contains("cache.ttl") && problems.contains("b.prot") && problems.contains("port 8000"),
        "{problems}"
    );
}

#[test]
fn two_fleets_on_one_machine_meet_only_in_what_is_the_machines() {
    let text = "name: shop\ninstances: {web: {command: [x], port: 8000, media_root: /srv/laneway-test/media}}\n";
    let (mine, other) = (Scratch::with(text), Scratch::with(text));
    let theirs = claims(&plan_in(&other));
    let written = serde_json::to_string(&theirs).unwrap();
    let theirs: Vec<Claim> = serde_json::from_str(&written).unwrap();
    let foreign = Foreign { folder: PathBuf::from("/home/other/shop"), claims: theirs };
    let shown: Vec<String> = foreign_collisions(&claims(&plan_in(&mine)), slice::from_ref(&foreign))
        .iter()
        .map(ToString::to_string)
        .collect();
    holds("two_fleets_on_one_machine_meet_only_in_what_is_the_machines", &shown.join("\n"));

    let apart = Scratch::with("name: shop\nnamespace: blue\ninstances: {web: {command: [x], port: 8001}}\n");
    assert_eq!(foreign_collisions(&claims(&plan_in(&apart)), slice::from_ref(&foreign)), []);
}

#[test]
fn a_thousand_instances_are_checked_in_one_pass() {
    let many = lines((0..1000).map(|n| format!("  i{n}: {{port: {}}}\n", 10_000 + n)));
    let text = format!("defaults: {{command: [x]}}\ninstances:\n{many}");
    assert_eq!(plan(&text).specs.len(), 1000);
    let same = format!(
        "defaults: {{command: [x], port: 8000, cookies: {{session: sid}}, media_root: m}}\ninstances:\n{}",
        lines((0..1000).map(|n| format!("  i{n}: {{}}\n")))
    );
    let problems = resolve(&Scratch::with(&same).source()).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems}");
}

#[test]
fn another_terminal_is_no_difference_but_a_variable_of_the_file_is() {
    let source = |text: &str, path: &str| {
        let scratch = Scratch::with(text);
        let mut source = scratch.source();
        source.environment.insert("PATH".to_owned(), path.to_owned());
        let plan = resolve(&source).unwrap();
        let there = plan.state_dir.parent().unwrap().display().to_string();
        serde_json::from_str::<Plan>(&serde_json::to_string(&plan).unwrap().replace(&there, "/here")).unwrap()
    };
    let file = "name: shop\ninstances: {a: {command: [x]}}\n";
    let here = source(file, "/bin");
    assert_eq!(diff(&here, &source(file, "/usr/bin"), Callers::Two), []);
    let own = source("name: shop\ninstances: {a: {command: [x], environment: {PATH: /opt}}}\n", "/bin");
    let shown: Vec<String> = diff(&here, &own, Callers::Two).iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["a differs in environment.PATH"]);
}

#[test]
fn a_difference_names_the_parts_and_never_the_values() {
    let before = plan(concat!(
        "name: shop\ndefaults: {command: [x]}\n",
        "instances:\n",
        "  gone: {}\n",
        "  same: {depends_on: [web]}\n",
        "  web: {port: 1, environment: {TOKEN: hunter2, KEPT: 1}}\n",
    ));
    assert_eq!(diff(&before, &before, Callers::Two), []);
    let mut after = plan(concat!(
        "name: shop\ndefaults: {command: [x]}\nrestart_brake: off\n",
        "instances:\n",
        "  web: {port: 2, environment: {TOKEN: hunter3, KEPT: 1, MORE: 1}, stop_grace_period: 1s, healthcheck: {interval: 1s}}\n",
        "  same: {depends_on: [web]}\n",
        "  new: {}\n",
    ));
    // The two files lie in two folders; as one file they would not.
    let there = after.state_dir.parent().unwrap().display().to_string();
    let here = before.state_dir.parent().unwrap().display().to_string();
    after = serde_json::from_str(&serde_json::to_string(&after).unwrap().replace(&there, &here)).unwrap();
    let shown: Vec<String> = diff(&before, &after, Callers::Two).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "restart_brake differs",
            "web differs in environment.MORE, environment.TOKEN, facts.port, healthcheck.interval, stop_grace_period",
            "new is new",
            "gone is gone",
        ]
    );
}

#[test]
fn gunicorns_of_one_home_do_not_meet_in_their_control_socket() {
    let plan = plan(concat!(
        "defaults: {command: [.venv/bin/gunicorn, app:wsgi]}\n",
        "instances:\n  a: {}\n  b: {environment: {XDG_RUNTIME_DIR: /run/own}}\n  c: {lane: a}\n  d: {command: [x]}\n",
    ));
    let seen: Vec<Option<&String>> = plan.specs.iter().map(|spec| spec.environment.get("XDG_RUNTIME_DIR")).collect();
    let [Some(a), Some(b), None, None] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(a.ends_with(".laneway/a/tmp"), "{a}");
    assert_eq!(*b, "/run/own");
}

#[test]
fn nothing_private_lies_where_files_are_served_from() {
    assert!(clash("media_root: \"{state}\"", "").contains("a.media_root: holds the secret"));
    assert!(
        clash("static_root: data, database: {path: data/db.sqlite3}", "").contains("a.static_root: holds the database")
    );
    assert!(clash("static_root: files/static, media_root: files", "").contains("collectstatic --clear"));
    assert_eq!(clash("static_root: files-a/static, media_root: files-a/media", ""), "fine");
}

/// Plans of one file at one place, as a reload meets them.
fn edits(texts: &[&str]) -> Vec<Plan> {
    let scratch = Scratch::new();
    let plans = texts.iter().map(|text| {
        scratch.write("instances.yaml", format!("name: shop\ndefaults: {{command: [x]}}\ninstances:\n{text}"));
        plan_in(&scratch)
    });
    plans.collect()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.ids().map(|id| plan.spec(id).name.as_str()).collect()
}

#[test]
fn who_stays_keeps_its_place_and_the_file_keeps_its_order() {
    let plans = edits(&[
        "  a: {}\n  b: {depends_on: [a]}\n  c: {depends_on: [b]}\n",
        "  d: {depends_on: [c]}\n  c: {}\n  a: {}\n",
        "  e: {}\n  c: {depends_on: [e]}\n  b: {}\n",
    ]);
    let first = merge(&plans[0], plans[1].clone(), |_| false);
    assert_eq!(names(&first), ["d", "c", "a"]);
    assert_eq!(first.order, [InstanceId(3), InstanceId(2), InstanceId(0)]);
    assert_eq!(first.retired().collect::<Vec<_>>(), [InstanceId(1)]);
    let dependency = first.spec(InstanceId(3)).depends_on[0].on;
    assert_eq!(first.spec(dependency).name.as_str(), "c");
    assert_eq!(first.spec(InstanceId(1)).depends_on.len(), 1, "b still ends before a");
    assert_eq!((first.find("b"), first.revision), (None, 1));
    assert_eq!(select(&first, &["b".to_owned()]).unwrap_err().word, "b");
    let all = select(&first, &["?".to_owned()]).unwrap();
    assert_eq!(all, first.order, "in the order of the file");

    // b comes back to its own place, and e gets a new one: those of a and d were not retired before.
    let second = merge(&first, plans[2].clone(), |_| true);
    assert_eq!(second.order, [InstanceId(4), InstanceId(2), InstanceId(1)]);
    assert_eq!(second.spec(InstanceId(2)).depends_on[0].on, InstanceId(4));

    // Whoever comes back finds its place.
    let third = merge(&second, plans[1].clone(), |_| true);
    assert_eq!(third.order, [InstanceId(3), InstanceId(2), InstanceId(0)]);
    assert_eq!(third.specs.len(), 5);
}

#[test]
fn a_free_place_is_given_to_the_first_new_name() {
    let plans = edits(&["  a: {depends_on: [b]}\n  b: {}\n", "  c: {}\n", "  d: {}\n  c: {}\n"]);
    let without = merge(&plans[0], plans[1].clone(), |_| false);
    let taken = merge(&without, plans[2].clone(), |id| id == InstanceId(1));
    assert_eq!(taken.order, [InstanceId(1), InstanceId(2)]);
    assert_eq!(taken.spec(InstanceId(0)).depends_on, [], "a never waited for d");
    assert_eq!(claims(&taken).iter().filter(|claim| claim.instance == "a").count(), 0);
    assert_eq!(diff(&taken, &plans[2], Callers::One), [], "it is what the file says");
}

#[test]
fn who_takes_over_what_another_one_has_is_named() {
    let plans = edits(&[
        "  a: {port: 8001}\n  b: {port: 8002}\n  c: {port: 8003, media_root: m}\n",
        "  a: {port: 8002}\n  b: {port: 8001}\n  c: {port: 8003}\n  d: {port: 8004, media_root: m/inner}\n",
    ]);
    let all: Vec<_> = plans[0].ids().collect();
    let shown = |pairs: Vec<(InstanceName, InstanceName)>| {
        lines(pairs.into_iter().map(|(heir, holder)| format!("{heir} of {holder}; ")))
    };
    assert_eq!(shown(heirs(&plans[0], &all, &plans[1])), "a of b; b of a; d of c; ");
    assert_eq!(shown(heirs(&plans[0], &all[1..], &plans[1])), "a of b; d of c; ");
}

#[test]
fn only_what_goes_into_the_process_needs_a_restart() {
    let parts = [
        ("environment: {X: '1'}", true),
        ("port: 8001", true),
        ("command: [y]", true),
        ("working_dir: w", true),
        ("pre_start: [[y]]", true),
        ("inherit_env: [CALLER]", true),
        ("media_root: m", true),
        ("pre_start_timeout: 1m", false),
        ("healthcheck: {test: [y]}", false),
        ("restart: always", false),
        ("stop_signal: SIGINT", false),
        ("stop_grace_period: 1s", false),
        ("logging: {max_size: 1MiB}", false),
        ("cache: {clear: {command: [y]}}", false),
        ("cache: {timeout: 9s}", true),
    ];
    for (part, restarts) in parts {
        let plans = edits(&["  a: {}\n", &format!("  a: {{{part}}}\n")]);
        let changes = diff(&plans[0], &plans[1], Callers::One);
        let [Change::Changed { restarts: said, parts, .. }] = changes.as_slice() else { panic!("{part}: {changes:?}") };
        assert_eq!(*said, restarts, "{part}: {parts:?}");
    }
}

#[test]
fn every_key_of_an_instance_is_explained() {
    fn leaves(properties: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        for (name, property) in properties.as_object().unwrap() {
            match property.get("properties").filter(|_| !["env_file", "depends_on"].contains(&name.as_str())) {
                Some(below) => leaves(below, &format!("{path}{name}."), found),
                None => found.push(format!("{path}{name}")),
            }
        }
    }
    let scratch = Scratch::with(concat!(
        "defaults: {command: [x], restart: \"on-failure:3\", pre_start: [[m]], env_file: f, environment: {A: b}}\n",
        "instances:\n",
        "  a: {port: 1, healthcheck: {path: /, headers: {H: h}, body: b}, channels: {url: \"redis://h\"},\n",
        "    cache: {clear: {path: /clear/, headers: {H: h}}}}\n",
        "  b: {port: 2, cache: {clear: {command: [c]}}, depends_on: [a], database: {engine: postgres, url: \"postgres://h\", \
           create: true, admin_url: \"postgres://a@h\", max_connections: 9, template: t}}\n",
        "  c: {healthcheck: {test: [t]}, cache: {backend: redis, url: \"redis://h\", admin_url: \"redis://a:b@h\"},\n",
        "    isolation: {enforce: [files, network, redis], read: narrow, also_read: [r], also_write: [w], connect: [9]}}\n",
        "  d: {healthcheck: {disable: true}}\n",
    ));
    scratch.write("f", "");
    let (plan, settings) = (plan_in(&scratch), scratch.load().unwrap());
    let mut told = String::new();
    for id in plan.ids() {
        for explained in super::explain(&settings, &plan, plan.spec(id), &BTreeMap::new(), &|_| false, "") {
            writeln!(told, "{}.", explained.key.replace('[', ".")).unwrap();
        }
    }
    let mut keys = Vec::new();
    leaves(&crate::config::schema()["definitions"]["instance"]["properties"], "", &mut keys);
    assert!(keys.len() > 50, "{keys:?}");
    // Without a check there is nothing but that.
    let missing: Vec<&String> = keys
        .iter()
        .filter(|key| *key != "healthcheck.disable" && !told.lines().any(|line| line.starts_with(&format!("{key}."))))
        .collect();
    assert_eq!(missing, [""; 0]);
}
