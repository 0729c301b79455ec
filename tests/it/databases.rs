//! The databases of lanes: made, looked at, saved, put back, dropped; on real files and a real PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Attached, Fleet, PATIENCE, get, wait_until};
use crate::postgres_server::{self, Postgres};

/// Puppets named by project, each with a database of its own that laneway makes.
fn served(postgres: &Postgres, project: &str, instances: &str, database: &str) -> Fleet {
    let admin = postgres.admin_url();
    let mut fleet = Fleet::raw(&format!(
        "name: {project}\ndefaults:\n  command: [python3, -IS, $puppet]\n  \
         healthcheck: {{path: /health/, interval: 200ms, start_interval: 20ms, timeout: 500ms, retries: 2}}\n  \
         stop_grace_period: 500ms\n  restart_policy: {{delay: 100ms, max_delay: 400ms}}\n  \
         database: {{engine: postgres, create: true, admin_url: \"${{PGADMIN_URL}}\"{database}}}\ninstances:\n{instances}"
    ));
    fleet.set("PGADMIN_URL", &admin);
    fleet.set("PATH", &format!("{}:/usr/local/bin:/usr/bin:/bin", postgres_server::folder().display()));
    fleet
}

/// The URL by which a lane's processes reach their database.
fn url_of(fleet: &Fleet, name: &str) -> String {
    let environment = fleet.run(&["env", "--reveal", "--format", "json", name]).expect(0).out;
    let environment: Value = serde_json::from_str(&environment).unwrap();
    environment["DATABASE_URL"].as_str().unwrap().to_owned()
}

/// `db status --json`, by lane.
fn status(fleet: &Fleet, name: &str) -> Value {
    let all = fleet.run(&["db", "status", "--json"]).out;
    let all: Value = serde_json::from_str(&all).unwrap_or_else(|error| panic!("{error}: {all}"));
    all.as_array().unwrap().iter().find(|status| status["lane"] == name).cloned().unwrap()
}

fn sqlite(path: &Path, statement: &str) -> String {
    let script = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],isolation_level=None)\n\
                  for row in c.execute(sys.argv[2]): print(*row, sep='|')";
    let output = std::process::Command::new("python3").args(["-IS", "-c", script]).arg(path).arg(statement).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{statement}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_start_makes_a_role_and_a_database_for_each_lane_and_neighbours_stay_out() {
    let postgres = Postgres::shared();
    let fleet = served(&postgres, "made", "  a: {port: $0}\n  b: {port: $1}\n", ", max_connections: 3");
    fleet.up();
    let roles =
        "SELECT rolname, rolconnlimit, rolsuper, rolcreatedb FROM pg_roles WHERE rolname LIKE 'made%' ORDER BY 1";
    assert_eq!(postgres.sql(roles), "made_erp_a|3|f|f\nmade_erp_b|3|f|f");
    let owners = "SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE datname LIKE 'made%' ORDER BY 1";
    assert_eq!(postgres.sql(owners), "made_erp_a|made_erp_a\nmade_erp_b|made_erp_b");
    let (a, b) = (url_of(&fleet, "a"), url_of(&fleet, "b"));
    assert_eq!(
        postgres.ask(&a, "CREATE TABLE t (x int); INSERT INTO t VALUES (1); SELECT x FROM t"),
        Ok("1".to_owned())
    );
    let stranger = b.strip_suffix("b").map(|url| format!("{url}a")).unwrap();
    assert_ne!(stranger, b);
    let refused = postgres.ask(&stranger, "SELECT 1").unwrap_err();
    assert!(refused.contains("permission denied for database"), "{refused}");
    // The fourth session of a role that may have three.
    let sessions: Vec<_> = (0..3).map(|_| postgres.session(&a)).collect();
    let full = wait_until(PATIENCE, || {
        postgres.ask(&a, "SELECT 1").is_err_and(|error| error.contains("too many connections for role"))
    });
    assert!(full);
    assert_eq!(postgres.ask(&b, "SELECT 1"), Ok("1".to_owned()), "a neighbour is not touched");
    let found = status(&fleet, "a");
    assert_eq!((&found["condition"], &found["server"]["connections"]), (&"unreachable".into(), &3.into()), "{found}");
    fleet.run(&["restart", "a", "--wait"]).expect(0);
    for mut session in sessions {
        drop(session.stdin.take());
        session.wait().unwrap();
    }
    // The server ends a session a moment after its client.
    assert!(wait_until(PATIENCE, || status(&fleet, "a")["server"]["connections"] == 0));
    fleet.run(&["db", "status"]).expect(0).shows(&["a     postgres  good", "0 of 3", "made_erp_a@127.0.0.1:"]);
    fleet.run(&["down"]).expect(0);
}

#[test]
fn nobody_but_laneway_gets_the_administrator_and_no_password_is_shown() {
    let postgres = Postgres::shared();
    let fleet = served(&postgres, "quiet", "  a: {port: $0}\n", "");
    fleet.up();
    let url = url_of(&fleet, "a");
    let (_, after) = url.split_once("quiet_erp_a:").unwrap();
    let (password, _) = after.split_once('@').unwrap();
    assert_eq!(password.len(), 64);
    let file = fleet.state("a/secrets/database_password");
    assert_eq!(fs::read_to_string(&file).unwrap(), password);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let pid = fleet.pid("a");
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.contains(&format!("DATABASE_URL={url}")), "{environment}");
    assert!(environment.contains("PGAPPNAME=quiet_a"));
    let admin = "geheim-der-tests";
    assert!(!environment.contains(admin) && !environment.contains("LANEWAY_SPEC"));
    let mut shown = String::new();
    for words in [
        &["env", "a"][..],
        &["config"],
        &["config", "--json"],
        &["config", "--explain", "a"],
        &["status", "--json"],
        &["why", "a"],
        &["db", "status", "--json"],
        &["logs", "a"],
        &["audit", "--json"],
        &["check", "--json"],
    ] {
        let output = fleet.run(words);
        shown += &output.out;
        shown += &output.err;
    }
    assert!(shown.contains("postgres://quiet_erp_a:***@127.0.0.1:"), "{shown}");
    assert!(shown.contains("postgres://keeper:***@127.0.0.1:"), "{shown}");
    assert!(!shown.contains(password) && !shown.contains(admin), "{shown}");
    // The server keeps every statement, and no password is in one.
    let log = postgres.log();
    assert!(log.contains("CREATE ROLE \"quiet_erp_a\"") && log.contains("SCRAM-SHA-256$"));
    assert!(!log.contains(password));
    fleet.run(&["down"]).expect(0);
}

#[test]
fn two_that_start_at_once_make_it_once() {
    let postgres = Postgres::shared();
    let fleet = served(&postgres, "twice", "  a: {port: $0}\n  worker: {lane: a, healthcheck: {disable: true}}\n", "");
    let at_once: Vec<Attached> = (0..4).map(|_| fleet.spawn(&["db", "create", "a"])).collect();
    let outputs: Vec<_> = at_once.into_iter().map(|create| create.wait().expect(0).out).collect();
    let made = outputs.iter().filter(|out| out.contains("made the role")).count();
    assert_eq!(made, 1, "{outputs:?}");
    fleet.run(&["db", "drop", "a", "--yes-drop", "a"]).expect(0);
    // The lane's owner and its guest, in one start.
    fleet.run(&["up", "-d", "--wait"]).expect(0);
    let log = fs::read_to_string(fleet.state("a/log/a.log")).unwrap()
        + &fs::read_to_string(fleet.state("a/log/worker.log")).unwrap();
    assert_eq!(log.matches("made the database").count(), 1, "{log}");
    fleet.run(&["db", "status"]).expect(0).says(&["worker has the database of a"]);
    fleet.run(&["down"]).expect(0);
}

#[test]
fn a_server_that_is_down_disturbs_nobody_else_and_all_mends_itself() {
    let postgres = Postgres::start();
    let fleet = served(
        &postgres,
        "down",
        "  a: {port: $0}\n  b: {port: $1, database: {engine: sqlite, create: ~, admin_url: ~}}\n",
        "",
    );
    postgres.crash();
    let failed = fleet.run(&["up", "-d", "--wait", "--wait-timeout", "15"]).expect(1);
    failed.says(&["a: backoff: pre_start `laneway db create a` failed", "laneway db create a"]);
    fleet.wait_for_health("b", "healthy");
    fleet.run(&["logs", "a"]).expect(0).shows(&[
        "laneway: PostgreSQL keeper@127.0.0.1:",
        "connection refused",
        "hint: ",
    ]);
    let found = status(&fleet, "a");
    assert_eq!(found["condition"], "unreachable", "{found}");
    let before = fleet.pid("b");
    postgres.come_back();
    fleet.wait_for_health("a", "healthy");
    assert_eq!(fleet.pid("b"), before);
    // What is there stays when the server goes again, and nobody is restarted for it.
    let url = url_of(&fleet, "a");
    postgres.ask(&url, "CREATE TABLE t AS SELECT 7 AS x").unwrap();
    let before = fleet.pid("a");
    postgres.crash();
    fleet.run(&["db", "backup", "a"]).expect(1).says(&["a: pg_dump of down_erp_a@127.0.0.1:"]);
    fleet.run(&["db", "restore", "a"]).expect(1).says(&["there is no backup of a"]);
    fleet.run(&["db", "status"]).expect(1).says(&["connection refused"]);
    postgres.come_back();
    assert_eq!(postgres.ask(&url, "SELECT x FROM t"), Ok("7".to_owned()));
    assert_eq!(fleet.pid("a"), before);
    fleet.run(&["down"]).expect(0);
}

#[test]
fn wrong_passwords_are_said_and_the_lanes_own_is_mended() {
    let postgres = Postgres::shared();
    let mut fleet = served(&postgres, "wrong", "  a: {port: $0}\n", "");
    fleet.set("PGADMIN_URL", &postgres.url("keeper", "falsch", "postgres"));
    let refused = fleet.run(&["db", "create"]).expect(1);
    refused.says(&["a: PostgreSQL keeper@127.0.0.1:", "password authentication failed", "hint: `database.admin_url`:"]);
    fleet.set("PGADMIN_URL", &postgres.admin_url());
    fleet.run(&["db", "create"]).expect(0).shows(&["made the role wrong_erp_a", "made the database wrong_erp_a"]);
    fleet.run(&["db", "create"]).expect(0).shows(&["a: all is there"]);
    postgres.sql("ALTER ROLE wrong_erp_a PASSWORD 'anders'");
    fleet.run(&["db", "status"]).expect(1).says(&["a: PostgreSQL wrong_erp_a@", "password authentication failed"]);
    fleet.run(&["db", "create"]).expect(0).shows(&["gave the role wrong_erp_a its password back"]);
    fleet.run(&["db", "status"]).expect(0);
    postgres.sql("CREATE ROLE weak LOGIN PASSWORD 'weak'");
    let mut other = served(&postgres, "wronger", "  a: {port: $0}\n", "");
    other.set("PGADMIN_URL", &postgres.url("weak", "weak", "postgres"));
    let refused = other.run(&["db", "create"]).expect(1);
    refused.says(&["permission denied", "the administrator needs CREATEROLE and CREATEDB"]);
    fleet.run(&["db", "drop", "a", "--yes-drop", "a"]).expect(0).shows(&["the database wrong_erp_a is gone"]);
    assert!(!fleet.state("a/secrets/database_password").exists());
    fleet.run(&["db", "drop", "a", "--yes-drop", "a"]).expect(1).says(&["this lane has no role and no database"]);
    fleet.run(&["db", "status"]).expect(1).says(&["the database is not there yet", "laneway db create a"]);
}

#[test]
fn a_role_that_is_there_is_not_taken_over_unasked() {
    let postgres = Postgres::shared();
    let fleet = served(&postgres, "theirs", "  a: {port: $0}\n", "");
    postgres.sql("CREATE ROLE theirs_erp_a LOGIN PASSWORD 'x'");
    let refused = fleet.run(&["db", "create"]).expect(1);
    refused.says(&["the role theirs_erp_a of PostgreSQL", "was not made by laneway", "laneway db create --adopt a"]);
    fleet.run(&["db", "create", "--adopt", "a"]).expect(0).shows(&["made the database theirs_erp_a"]);
    // Another folder with the same names: on one machine claims keep them apart, over one server the password does.
    let mut other = served(&postgres, "theirs", "  a: {port: $0}\n", "");
    let refused = other.run(&["db", "create"]).expect(1);
    refused.says(&["belongs to the lane a of ", fleet.folder().to_str().unwrap()]);
    other.run(&["db", "drop", "a", "--yes-drop", "a"]).expect(1).says(&["is not this lane's"]);
    other.beside(&fleet);
    postgres.sql("DROP DATABASE theirs_erp_a; ");
    postgres.sql("CREATE DATABASE theirs_erp_a");
    fleet.run(&["db", "create"]).expect(1).says(&[
        "the database theirs_erp_a",
        "belongs to postgres",
        "ALTER DATABASE",
    ]);
    postgres.sql("DROP DATABASE theirs_erp_a");
    postgres.sql("ALTER ROLE theirs_erp_a SUPERUSER");
    fleet.run(&["db", "create"]).expect(1).says(&["may do everything"]);
    postgres.sql("DROP ROLE theirs_erp_a");
}

#[test]
fn a_template_is_copied_and_belongs_to_the_lane() {
    let postgres = Postgres::shared();
    postgres.sql("CREATE DATABASE forme OWNER keeper");
    let keeper = postgres.admin_url().replace("/postgres", "/forme");
    let statements = "CREATE TYPE mood AS ENUM ('good'); CREATE SCHEMA s; CREATE TABLE s.t (id serial PRIMARY KEY, m mood); \
                      INSERT INTO s.t (m) VALUES ('good'); CREATE VIEW v AS SELECT * FROM s.t; \
                      CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
                      CREATE TABLE g (id int GENERATED ALWAYS AS IDENTITY)";
    postgres.ask(&keeper, statements).unwrap();
    let fleet = served(&postgres, "copied", "  a: {port: $0}\n", ", template: forme");
    let busy = postgres.session(&keeper);
    let in_use = wait_until(PATIENCE, || postgres.sql("SELECT 1 FROM pg_stat_activity WHERE datname = 'forme'") == "1");
    assert!(in_use);
    let refused = fleet.run(&["db", "create"]).expect(1);
    refused.says(&["is being accessed by other users", "nobody may be connected to `database.template`"]);
    let mut busy = busy;
    drop(busy.stdin.take());
    busy.wait().unwrap();
    fleet.run(&["db", "create"]).expect(0).shows(&["made the database copied_erp_a from forme"]);
    let own = url_of(&fleet, "a");
    let changes = "ALTER TABLE s.t ADD y int; INSERT INTO s.t (m) VALUES ('good'); ALTER TABLE g ADD y int; DROP VIEW v; \
                   DROP FUNCTION f(); ALTER TYPE mood ADD VALUE 'bad'; SELECT count(*) FROM s.t";
    assert_eq!(postgres.ask(&own, changes), Ok("2".to_owned()));
    let missing = served(&postgres, "nocopy", "  a: {port: $0}\n", ", template: nirgends");
    missing.run(&["db", "create"]).expect(1).says(&["template database \"nirgends\" does not exist"]);
    // The role is there; the rest follows once it can.
    missing.write(&missing.text().replace("nirgends", "forme"));
    missing.run(&["db", "create"]).expect(0).shows(&["made the database nocopy_erp_a from forme"]);
}

#[test]
fn a_served_database_is_saved_and_put_back() {
    let postgres = Postgres::shared();
    let fleet = served(&postgres, "saved", "  a: {port: $0}\n", "");
    fleet.up();
    let url = url_of(&fleet, "a");
    postgres.ask(&url, "CREATE TABLE t AS SELECT generate_series(1, 500) AS x").unwrap();
    let saved = fleet.run(&["db", "backup", "a", "--keep", "2"]).expect(0);
    saved.shows(&["a: saved ", "/a/backup/a-", ".dump ("]);
    let backups = status(&fleet, "a")["backups"].as_array().unwrap().clone();
    let path = PathBuf::from(backups[0]["path"].as_str().unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    postgres.ask(&url, "DELETE FROM t; CREATE TABLE later (x int)").unwrap();
    fleet.run(&["db", "restore", "a"]).expect(1).says(&["a runs", "laneway stop a; or --while-running"]);
    fleet.run(&["stop", "a"]).expect(0);
    let restored = fleet.run(&["db", "restore", "a"]).expect(0);
    restored.shows(&["a: holds now what ", "a: what it held is in ", "before-restore.dump"]);
    assert_eq!(postgres.ask(&url, "SELECT count(*) FROM t"), Ok("500".to_owned()));
    assert!(postgres.ask(&url, "SELECT 1 FROM later").is_err(), "what came later is gone");
    // What was dropped with everything that the role owned did not open its database.
    assert_eq!(
        postgres.sql("SELECT datacl FROM pg_database WHERE datname = 'saved_erp_a'"),
        "{saved_erp_a=CTc/saved_erp_a}"
    );
    // A file that is none leaves everything as it is.
    fs::write(fleet.folder().join("x.dump"), "no dump").unwrap();
    fleet.run(&["db", "restore", "a", "--from", "x.dump"]).expect(1).says(&["pg_restore"]);
    assert_eq!(postgres.ask(&url, "SELECT count(*) FROM t"), Ok("500".to_owned()));
    fleet
        .run(&["db", "restore", "a", "--from", "y.dump"])
        .expect(1)
        .says(&["no such file and no such backup", "there are a-"]);
    // Without the programs.
    let mut without = served(&postgres, "saved", "  a: {port: $0}\n", "");
    without.set("PATH", "/nowhere");
    let path = fleet.state("a/secrets");
    fs::create_dir_all(without.state("a/secrets")).unwrap();
    fs::copy(path.join("database_password"), without.state("a/secrets/database_password")).unwrap();
    without.run(&["db", "backup"]).expect(1).says(&["pg_dump is not there", "apt-get install postgresql-client"]);
    fleet.run(&["down"]).expect(0);
    fleet.run(&["audit"]).expect(0).shows(&["db create", "db backup", "db restore"]);
}

#[test]
fn a_file_is_made_of_a_template_looked_at_saved_and_put_back() {
    let fleet = Fleet::new("a: {port: $0, database: {template: form.sqlite3}}");
    fleet.run(&["db", "create"]).expect(1).says(&["form.sqlite3: is not there", "`database.template` names it"]);
    let form = fleet.folder().join("form.sqlite3");
    sqlite(&form, "CREATE TABLE t AS SELECT 1 AS x");
    let missing = status(&fleet, "a");
    assert_eq!(missing["condition"], "missing", "{missing}");
    fleet.up();
    fleet.run(&["logs", "a"]).expect(0).shows(&["laneway: made ", "db_a.sqlite3 from "]);
    let file = fleet.state("a/db_a.sqlite3");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(sqlite(&file, "SELECT count(*) FROM t"), "1");
    sqlite(&file, "INSERT INTO t VALUES (2)");
    fleet.run(&["db", "create"]).expect(0).shows(&["a: all is there"]);
    assert_eq!(sqlite(&file, "SELECT count(*) FROM t"), "2", "what is there is not replaced");
    let found = status(&fleet, "a");
    assert_eq!(found["tables"], 1, "{found}");
    assert_eq!(found["file"]["journal_mode"], "delete");
    assert_eq!(found["file"]["faults"], Value::Array(Vec::new()));
    for _ in 0..3 {
        fleet.run(&["db", "backup", "--keep", "2"]).expect(0).shows(&["a: saved "]);
    }
    assert_eq!(status(&fleet, "a")["backups"].as_array().unwrap().len(), 2);
    sqlite(&file, "DELETE FROM t");
    fleet.run(&["db", "restore", "a"]).expect(1).says(&["a runs"]);
    fleet.run(&["db", "restore", "a", "--while-running"]).expect(0);
    assert_eq!(sqlite(&file, "SELECT count(*) FROM t"), "2");
    // The older state was saved before, and is now the newest.
    fleet.run(&["stop", "a"]).expect(0);
    fleet.run(&["db", "restore", "a"]).expect(0).shows(&["before-restore.sqlite3"]);
    assert_eq!(sqlite(&file, "SELECT count(*) FROM t"), "0");
    fleet.run(&["down"]).expect(0);
}

#[test]
fn a_broken_file_is_found_kept_and_replaced() {
    let fleet = Fleet::new("a: {port: $0}");
    let file = fleet.state("a/db_a.sqlite3");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    sqlite(&file, "CREATE TABLE t (x); ");
    sqlite(
        &file,
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 5000) INSERT INTO t SELECT x FROM n",
    );
    fleet.run(&["db", "backup"]).expect(0);
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len() - 8192;
    bytes[8192..end].fill(0x5a);
    fs::write(&file, &bytes).unwrap();
    fleet.run(&["db", "status"]).expect(1).shows(&["damaged"]).says(&["laneway db restore a"]);
    fleet.run(&["db", "backup"]).expect(1).says(&["damaged"]);
    let restored = fleet.run(&["db", "restore", "a"]).expect(0);
    restored.shows(&["a: what it held is in ", ".broken"]);
    assert_eq!(sqlite(&file, "SELECT count(*) FROM t"), "5000");
    let kept = fs::read_dir(file.parent().unwrap()).unwrap().flatten().map(|entry| entry.path());
    let kept = kept.into_iter().find(|path| path.to_string_lossy().ends_with(".broken")).unwrap();
    assert_eq!(fs::read(kept).unwrap(), bytes);
    fs::write(fleet.folder().join("text"), "x".repeat(9000)).unwrap();
    fleet.run(&["db", "restore", "a", "--from", "text"]).expect(1).says(&["is no SQLite database"]);
    fleet.run(&["db", "status"]).expect(0);
}

#[test]
fn a_database_is_dropped_by_who_types_its_name() {
    let fleet = Fleet::new("a: {port: $0}\nworker: {lane: a, healthcheck: {disable: true}}");
    let file = fleet.state("a/db_a.sqlite3");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    sqlite(&file, "CREATE TABLE t (x)");
    fleet.run(&["db", "backup"]).expect(0);
    fleet.run(&["db", "drop", "a"]).expect(1).says(&["nobody is there to confirm", "--yes-drop a"]);
    fleet.run(&["db", "drop", "a", "--yes-drop", "b"]).expect(2).says(&["--yes-drop b names none of them"]);
    fleet.up();
    fleet.run(&["db", "drop", "a", "--yes-drop", "a"]).expect(1).says(&["a, worker runs", "laneway stop a worker"]);
    fleet.run(&["down"]).expect(0);
    let asked = fleet.spawn_on_terminal(&["db", "drop", "worker"]);
    asked.wait_for("Type a to go on: ");
    asked.type_in(b"b\r");
    assert_eq!(asked.wait().code, 1);
    assert!(file.exists());
    let asked = fleet.spawn_on_terminal(&["db", "drop", "worker"]);
    asked.wait_for("Type a to go on: ");
    asked.type_in(b"a\r");
    assert_eq!(asked.wait().code, 0);
    assert!(!file.exists());
    assert_eq!(status(&fleet, "a")["backups"].as_array().unwrap().len(), 1, "backups stay");
    fleet.run(&["db", "drop", "a", "--yes-drop", "a"]).expect(1).says(&["is not there"]);
    fleet.run(&["audit"]).expect(0).shows(&["db drop (", "db_a.sqlite3)"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_said() {
    let fleet = Fleet::new("a: {port: $0, database: {path: data/own.sqlite3, template: form.sqlite3}}\nb: {port: $1}");
    sqlite(&fleet.folder().join("form.sqlite3"), "CREATE TABLE t (x)");
    let data = fleet.folder().join("data");
    fs::create_dir(&data).unwrap();
    if nix::unistd::getuid().is_root() {
        // Root may write everywhere.
        fleet.run_as_nobody(&["check"]).expect(0);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o555)).unwrap();
        let failed = fleet.run_as_nobody(&["up", "-d", "--wait", "--wait-timeout", "15"]).expect(1);
        failed.says(&["a: backoff: pre_start `laneway db create a` failed", "laneway db create a"]);
        fleet.run_as_nobody(&["logs", "a"]).expect(0).shows(&["data/own.new-", "ermission denied"]);
        fleet.run_as_nobody(&["status", "b"]).expect(0).shows(&["healthy"]);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        fleet.wait_for_health("a", "healthy");
        fleet.run_as_nobody(&["down"]).expect(0);
    }
}

#[test]
fn what_is_not_djangos_is_migrated_by_its_owner() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1, framework: django, command: [python3, manage.py, runserver]}");
    fleet
        .run(&["db", "migrate", "a"])
        .expect(1)
        .says(&["laneway knows how to migrate Django only", "laneway exec a -- "]);
    let manage = "import os, sys\nprint('migrates', os.environ['DATABASE_NAME'], *sys.argv[1:])\n";
    fs::write(fleet.folder().join("manage.py"), manage).unwrap();
    let output = fleet.run(&["db", "migrate", "b"]).expect(0);
    output.shows(&["migrates ", "/b/db_b.sqlite3 migrate --noinput"]).says(&["b: python3 manage.py migrate --noinput"]);
    fs::write(fleet.folder().join("manage.py"), "import sys\nsys.exit(3)").unwrap();
    fleet
        .run(&["db", "migrate", "b"])
        .expect(1)
        .says(&["`python3 manage.py migrate --noinput` failed: exit status: 3"]);
    assert!(get(fleet.port(0), "/").is_none(), "nothing was started");
}
