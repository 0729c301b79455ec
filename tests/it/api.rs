//! The API over the socket: every route, what it refuses, and that `openapi.json` tells the truth about all of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Fleet, PATIENCE, wait_until};

const TWO: &str = "a: {port: $0}\nb: {port: $1}\ntop:presets: {both: [a, b], one: [b]}";

fn document() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control/openapi.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What is wrong with `value` by a schema of the document. As much of JSON Schema as the document uses.
fn faults(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(path) = schema["$ref"].as_str() {
        let target = document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} leads nowhere"));
        return faults(document, target, value, at, found);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        single => single.as_str().into_iter().collect(),
    };
    let fits = kinds.contains(&kind) || kind == "integer" && kinds.contains(&"number");
    if !fits {
        found.push(format!("{at} is {kind}, said to be {kinds:?}"));
    }
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.contains(value)) {
        found.push(format!("{at} is {value}, said to be one of {words:?}"));
    }
    for (bound, is_beyond) in [
        ("minimum", value.as_f64() < schema["minimum"].as_f64()),
        ("maximum", value.as_f64() > schema["maximum"].as_f64()),
    ] {
        if value.is_number() && schema[bound].is_number() && is_beyond {
            found.push(format!("{at} is {value}, beyond its {bound}"));
        }
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        faults(document, &schema["items"], item, &format!("{at}[{number}]"), found);
    }
    if let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, item) in object {
            match properties.get(name) {
                Some(schema) => faults(document, schema, item, &format!("{at}.{name}"), found),
                None => found.push(format!("{at}.{name} is not in the document")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                found.push(format!("{at}.{name} is missing"));
            }
        }
    }
}

/// Holds an answer to what the document says of this operation.
#[track_caller]
fn as_said(method: &str, path: &str, status: u16, body: &Value) {
    let document = document();
    let answer = &document["paths"][path][method]["responses"][status.to_string()];
    assert!(!answer.is_null(), "{method} {path}: the document knows no {status}");
    let mut found = Vec::new();
    faults(&document, &answer["content"]["application/json"]["schema"], body, path, &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A request whose answer must have this status and be as the document says.
#[track_caller]
fn asked(fleet: &Fleet, method: &str, path: &str, route: &str, body: &str, wanted: u16) -> Value {
    let (status, answer) = fleet.api_json(method, path, body);
    assert_eq!(status, wanted, "{answer}");
    as_said(&method.to_lowercase(), route, status, &answer);
    answer
}

#[track_caller]
fn post(fleet: &Fleet, path: &str, body: &str, wanted: u16) -> Value {
    asked(fleet, "POST", path, path, body, wanted)
}

#[test]
fn the_document_and_the_server_know_the_same_routes() {
    let server = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control/server.rs")).unwrap();
    let routes: BTreeSet<(String, String)> = server
        .split(".route(")
        .skip(1)
        .map(|rest| {
            let path = rest.split('"').nth(1).unwrap().to_owned();
            let method = rest.split(',').nth(1).unwrap().trim().split('(').next().unwrap().to_owned();
            (path, method)
        })
        .collect();
    let document = document();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())))
        .collect();
    assert_eq!(routes, described);
    assert!(routes.len() >= 8);
}

#[test]
fn everything_in_the_document_is_described_and_used() {
    let document = document();
    let text = document.to_string();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(text.contains(&format!("\"#/components/schemas/{name}\"")), "nobody refers to {name}");
        assert!(schema["description"].is_string(), "{name}");
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string() || property["$ref"].is_string(), "{name}.{key}");
        }
    }
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn status_is_as_the_document_says_in_every_phase() {
    let fleet = Fleet::new(concat!(
        "a: {port: $0}\nb: {port: $1}\n",
        "waits: {port: $2, command: [/nowhere/x]}\n",
        "fails: {port: $3, restart: \"no\", environment: {PUPPET: exit0}}\n",
        "backs-off: {port: $4, environment: {PUPPET: exit0}, restart_policy: {delay: 60s, max_delay: 60s}}\n",
        "starts: {port: $5, environment: {PUPPET: never-listen}}\n",
        "done: {command: [\"true\"], healthcheck: {disable: true}}\n",
        "works: {command: [sleep, \"1000\"], healthcheck: {disable: true}}\n",
        "ends: {port: $6, stop_grace_period: 60s, environment: {PUPPET: ignore-term}}",
    ));
    fleet.run(&["up", "-d"]);
    for (name, phase) in
        [("a", "running"), ("fails", "failed"), ("backs-off", "backoff"), ("done", "completed"), ("ends", "running")]
    {
        fleet.wait_for_phase(name, phase);
    }
    fleet.run(&["stop", "b"]).expect(0);
    let stop = fleet.spawn(&["stop", "ends"]);
    fleet.wait_for_phase("ends", "stopping");
    let status = asked(&fleet, "GET", "/v1/status", "/v1/status", "", 200);
    let phases: BTreeSet<_> =
        status["instances"].as_array().unwrap().iter().map(|i| i["phase"].as_str().unwrap()).collect();
    assert_eq!(phases.len(), 8, "{phases:?}");
    fleet.run(&["down", "--now"]).expect(0);
    stop.wait().expect(0);
}

#[test]
fn one_instance_by_name_or_a_word_that_means_one() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let get =
        |name: &str, wanted| asked(&fleet, "GET", &format!("/v1/instances/{name}"), "/v1/instances/{name}", "", wanted);
    assert_eq!(get("a", 200)["name"], "a");
    assert_eq!(get("one", 200)["name"], "b");
    assert_eq!(get("b*", 200)["name"], "b");
    assert_eq!(get("both", 404)["hint"], "name one instance");
    let problem = get("aa", 404);
    assert!(
        problem["error"].as_str().unwrap().contains("`aa`") && problem["hint"].as_str().unwrap().contains("`a`"),
        "{problem}"
    );
    get("%2e%2e%2fetc", 404);
    get("%ff", 400);
}

#[test]
fn start_stop_and_restart_are_answered_after_their_effect() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let outcome = post(&fleet, "/v1/stop", r#"{"instances": ["a"]}"#, 200);
    assert_eq!((&outcome["done"], &outcome["instances"][0]["phase"]), (&json!(true), &json!("stopped")));
    assert_eq!(outcome["instances"].as_array().unwrap().len(), 1);
    let outcome =
        post(&fleet, "/v1/start", r#"{"instances": ["both"], "wait": "healthy", "timeout_seconds": 10}"#, 200);
    assert_eq!(outcome["instances"][0]["health"], "healthy");
    let before = fleet.pid("b");
    let outcome = post(&fleet, "/v1/restart", r#"{"instances": ["b"]}"#, 200);
    assert_ne!(outcome["instances"][0]["pid"], json!(before));
    // Nothing said means all.
    assert_eq!(post(&fleet, "/v1/stop", "", 200)["instances"].as_array().unwrap().len(), 2);
    assert_eq!(post(&fleet, "/v1/start", "{}", 200)["instances"].as_array().unwrap().len(), 2);
}

#[test]
fn a_wish_that_fails_says_whom_for_and_why() {
    let fleet = Fleet::new("a: {port: $0}\nb: {port: $1, command: [/nowhere/x]}");
    fleet.run(&["up", "-d", "a"]).expect(0);
    let outcome = post(&fleet, "/v1/start", r#"{"wait": "healthy"}"#, 200);
    assert_eq!(outcome["done"], false);
    assert_eq!(outcome["troubles"][0]["name"], "b");
    assert!(outcome["troubles"][0]["what"].as_str().unwrap().contains("/nowhere/x"));
}

#[test]
fn down_is_answered_and_then_everything_is_gone() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let outcome = post(&fleet, "/v1/down", r#"{"now": true}"#, 200);
    assert_eq!(outcome["done"], true);
    assert!(wait_until(PATIENCE, || fleet.processes().is_empty()), "{:?}", fleet.processes());
}

#[test]
fn events_begin_with_the_status_and_go_on_with_changes() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let mut events = fleet.events();
    let (kind, status) = events.next().unwrap();
    assert_eq!(kind, "status");
    as_said("get", "/v1/status", 200, &status);
    assert_eq!(status["instances"].as_array().unwrap().len(), 2);
    fleet.run(&["stop", "a"]).expect(0);
    let (kind, change) = events.next().unwrap();
    assert_eq!((kind.as_str(), &change["name"]), ("instance", &json!("a")));
    as_said("get", "/v1/instances/{name}", 200, &change);
    fleet.run(&["down"]).expect(0);
    // They end with the supervisor, and `b` was told of before.
    let rest: Vec<_> = events.collect();
    assert!(rest.iter().any(|(_, change)| change["name"] == "b" && change["phase"] == "stopped"), "{rest:?}");
}

#[test]
fn what_is_not_understood_is_refused() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    for (path, body) in [
        ("/v1/start", r#"{"instance": ["a"]}"#),
        ("/v1/start", r#"{"instances": "a"}"#),
        ("/v1/start", r#"{"wait": "forever"}"#),
        ("/v1/start", r#"{"timeout_seconds": -1}"#),
        ("/v1/start", r#"{"timeout_seconds": 1e300}"#),
        ("/v1/start", r#"{"command": ["rm"]}"#),
        ("/v1/stop", r#"{"now": true}"#),
        ("/v1/down", r#"{"NOW": true}"#),
        ("/v1/down", "now"),
        ("/v1/restart", "{"),
        ("/v1/stop", "[]]"),
    ] {
        let problem = post(&fleet, path, body, 400);
        assert!(problem["error"].as_str().unwrap().len() > 10, "{path} {body}: {problem}");
    }
    for path in ["/v1/start", "/v1/stop", "/v1/restart"] {
        let problem = post(&fleet, path, r#"{"instances": ["bb"]}"#, 404);
        assert!(problem["hint"].as_str().unwrap().contains("`b`"), "{problem}");
    }
    fleet.run(&["status"]).expect(0);
}

#[test]
fn wrong_methods_and_routes_are_told_the_right_ones() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    for (method, path, wanted) in [
        ("GET", "/v1/start", 405),
        ("POST", "/v1/status", 405),
        ("DELETE", "/v1/instances/a", 405),
        ("GET", "/v1/nowhere", 404),
        ("GET", "/", 404),
        ("GET", "/v1/instances/", 404),
    ] {
        let (status, problem) = fleet.api_json(method, path, "");
        assert_eq!(status, wanted, "{method} {path}: {problem}");
        assert!(problem["error"].is_string() && problem["hint"].is_string(), "{method} {path}: {problem}");
    }
    fleet.run(&["status"]).expect(0);
}

#[test]
fn an_oversized_body_is_refused() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let body = format!(r#"{{"instances": ["{}"]}}"#, "a".repeat(70_000));
    post(&fleet, "/v1/start", &body, 413);
    fleet.run(&["status"]).expect(0);
}

#[test]
fn curl_can_talk_to_the_socket() {
    let fleet = Fleet::new(TWO);
    fleet.up();
    let mut curl = Command::new("curl");
    let socket = fleet.state(".run/control.sock");
    curl.args(["-sS", "--unix-socket", socket.to_str().unwrap(), "http://laneway/v1/openapi.json"]);
    let said = fleet.run_command(fleet.clean(curl)).expect(0).out;
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), document());
}
