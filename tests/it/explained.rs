//! What the file says, told to people and to editors: `config`, `config --explain`, `schema`.

use serde_json::Value;

use crate::harness::Fleet;

const FILE: &str = concat!(
    "name: shop\n",
    "x-base: &base {restart: \"on-failure:4\"}\n",
    "defaults:\n",
    "  command: [serve, --password, \"${TEST_PASSWORD:-topsecret}\"]\n",
    "  env_file: more.env\n",
    "  environment: {DEBUG: \"1\", API_TOKEN: topsecret, PLAIN: \"x${TEST_PASSWORD:-topsecret}\"}\n",
    "  healthcheck: {path: /up, headers: {Host: h, Authorization: topsecret}}\n",
    "instances:\n",
    "  web:\n",
    "    <<: *base\n",
    "    port: $0\n",
    "    cache: {timeout: 30m}\n",
    "    depends_on: {db: {condition: service_healthy}}\n",
    "  db:\n",
    "    port: $1\n",
    "    database: {engine: postgres, url: \"postgres://u:topsecret@h/x?password=${TEST_PASSWORD:-topsecret}\"}\n",
    "  worker: {lane: web, healthcheck: {disable: true}}\n",
    "profiles:\n",
    "  dev:\n",
    "    defaults: {cache: {backend: dummy}}\n",
    "    instances: {web: {stop_signal: INT}}\n",
    "presets: {start-shop: [web, db]}\n",
);

fn shop() -> Fleet {
    let fleet = Fleet::raw(FILE);
    std::fs::write(fleet.folder().join("more.env"), "A=1\nFROM_FILE=x\nMORE_SECRET=topsecret\n").unwrap();
    std::fs::write(fleet.folder().join("over.yaml"), "instances:\n  web: {stop_grace_period: 3s}\n").unwrap();
    fleet
}

const LAYERS: [&str; 10] = [
    "-f",
    "instances.yaml",
    "-f",
    "over.yaml",
    "--profile",
    "dev",
    "--set",
    "instances.web.restart_policy.delay=2s",
    "config",
    "--explain",
];

#[test]
fn every_value_says_where_it_comes_from() {
    let fleet = shop();
    let said = fleet.run(&[&LAYERS[..], &["web"]].concat()).expect(0).out;
    assert!(said.starts_with("web\n  command "), "{said}");
    let line = |key: &str| {
        let found = said.lines().find(|line| line.split_whitespace().next() == Some(key));
        found.unwrap_or_else(|| panic!("no {key} in {said}")).split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    for (key, expected) in [
        ("port", format!("{} instances.yaml:11", fleet.port(0)).as_str()),
        ("cache.timeout", "30m instances.yaml:12"),
        ("cache.backend", "dummy instances.yaml:20 (defaults of the profile dev)"),
        ("stop_signal", "SIGINT instances.yaml:21 (profile dev)"),
        ("healthcheck.path", "/up instances.yaml:7 (defaults)"),
        ("restart", "on-failure instances.yaml:2"),
        ("restart_policy.max_attempts", "4 instances.yaml:2"),
        ("restart_policy.delay", "2s --set instances.web.restart_policy.delay"),
        ("stop_grace_period", "3s over.yaml:2"),
        ("depends_on.db", "service_healthy instances.yaml:13"),
        ("cache.prefix", "shop_web from the name: {project}_{lane}"),
        ("logging.max_size", "10m default"),
        ("environment.DEBUG", "1 instances.yaml:6 (defaults)"),
        ("environment.CACHE_KEY_PREFIX", "shop_web from cache.prefix"),
    ] {
        assert_eq!(line(key), expected, "{said}");
    }
    assert!(line("environment.FROM_FILE").ends_with("/more.env:2"), "{said}");
    assert!(line("environment.PATH").ends_with("from the caller (inherit_env)"), "{said}");
    // One column for the values, one for where they come from.
    let columns: Vec<_> = said.lines().filter_map(|line| line.strip_suffix("  default")).map(str::len).collect();
    assert!(columns.len() > 10 && columns.iter().all(|at| *at == columns[0]), "{said}");
    // What a guest has of the lane, the owner says.
    fleet.run(&["config", "--explain", "worker"]).expect(0).shows(&["30m", "instances.yaml:12", "instances.yaml:17"]);
    // A preset is its instances.
    let both = fleet.run(&["config", "--explain", "start-shop"]).expect(0).out;
    assert!(both.starts_with("web\n") && both.contains("\n\ndb\n") && !both.contains("worker\n"), "{both}");
}

#[test]
fn an_explanation_is_there_for_programs_too() {
    let fleet = shop();
    let json: Value = serde_json::from_str(&fleet.run(&[&LAYERS[..], &["--json"]].concat()).expect(0).out).unwrap();
    let web = &json["instances"]["web"];
    let origin = serde_json::json!({
        "from": "file", "file": "instances.yaml", "line": 20, "part": "defaults of the profile dev",
    });
    assert_eq!(web["cache.backend"], serde_json::json!({"value": "dummy", "origin": origin}));
    assert_eq!(web["port"]["value"], fleet.port(0));
    assert_eq!(web["cookies.csrf"]["origin"]["formula"], "csrftoken_{lane}");
    assert_eq!(web["restart_policy.delay"]["origin"]["path"], "instances.web.restart_policy.delay");
    assert_eq!(json["instances"].as_object().unwrap().keys().collect::<Vec<_>>(), ["web", "db", "worker"]);
}

#[test]
fn an_explanation_tells_no_secret() {
    let fleet = shop();
    for words in [&["config", "--explain"][..], &["config", "--explain", "--json"]] {
        let output = fleet.run(words).expect(0);
        assert!(!output.out.contains("topsecret"), "{}", output.out);
        assert!(output.out.matches("(secret)").count() >= 15, "{}", output.out);
    }
    // What stands beside a secret is told.
    fleet.run(&["config", "--explain", "web"]).expect(0).shows(&["[serve, --password, (secret)]", "headers.Host"]);
    fleet.run(&["config", "--explain", "--reveal"]).expect(2).says(&["--reveal"]);
}

#[test]
fn what_is_explained_must_be_there() {
    let fleet = shop();
    fleet.run(&["config", "--explain", "wbe"]).expect(2).says(&["`wbe`", "did you mean `web`?"]);
    fleet.run(&["config", "wbe"]).expect(2).says(&["did you mean `web`?"]);
    fleet.write("instances: {web: {prot: 1}}\n");
    fleet.run(&["config", "--explain"]).expect(2).says(&["did you mean `port`?"]);
}

#[test]
fn what_runs_is_explained_with_its_profile_and_a_change_of_the_file_is_said() {
    let fleet = Fleet::new("a: {port: $0}\ntop:profiles: {slow: {instances: {a: {stop_grace_period: 7s}}}}");
    fleet.run(&["--profile", "slow", "up", "-d", "--wait"]).expect(0);
    let output = fleet.run(&["config", "--explain"]).expect(0).shows(&["7s", "(profile slow)"]);
    assert!(!output.err.contains("what runs is different"), "{}", output.err);
    fleet.write(&fleet.text().replace("grace_period: 7s", "grace_period: 8s"));
    fleet.run(&["config", "--explain"]).expect(0).shows(&["8s"]).says(&["what runs is different", "laneway apply"]);
    fleet.run(&["down"]).expect(0);
}

#[test]
fn dependencies_are_named_in_the_plan() {
    let fleet = shop();
    let plan: Value = serde_json::from_str(&fleet.run(&["config", "--json", "web"]).expect(0).out).unwrap();
    let condition = serde_json::json!({"db": {"condition": "service_healthy"}});
    assert_eq!(plan["instances"]["web"]["depends_on"], condition);
    assert_eq!(plan["instances"].as_object().unwrap().len(), 1);
}

#[test]
fn the_schema_needs_no_file() {
    let fleet = Fleet::raw("");
    std::fs::remove_file(fleet.file()).unwrap();
    let schema: Value = serde_json::from_str(&fleet.run(&["schema"]).expect(0).out).unwrap();
    assert_eq!(schema, laneway::config::schema());
    fleet.run(&["schema", "more"]).expect(2);
}
