//! What is taken, and what comes of it.

use std::time::Duration;

use super::{first, holds, lines, said, settings, web};
use crate::config::scratch::Scratch;
use crate::config::{CacheBackend, Condition, RestartPolicy, Source, TestSettings, load};

#[test]
fn environment_values_that_look_like_booleans_need_quotes() {
    let booleans = ["NO", "no", "yes", "on", "off", "y", "n", "true", "False"];
    for text in booleans {
        let problems = Scratch::with(&web(&format!("environment: {{A: {text}}}"))).problems();
        assert!(problems.contains(&format!("hint: write \"{text}\"")), "{text}: {problems}");
        let quoted = first(&web(&format!("environment: {{A: \"{text}\"}}")));
        assert_eq!(quoted.environment.get("A").map(String::as_str), Some(text));
    }
    let numbers = first(&web("environment: {A: 1, B: 0123, C: 1.10, D: 1e3, E: 22:22, F: nope}"));
    let values: Vec<&str> = numbers.environment.values().map(String::as_str).collect();
    assert_eq!(values, ["1", "0123", "1.10", "1e3", "22:22", "nope"]);
    holds(
        "environment_values_that_look_like_booleans_need_quotes",
        &said([web("environment: {DEBUG: NO, GOOD: \"NO\"}")]),
    );
}

#[test]
fn an_environment_value_of_nothing_is_taken_from_the_caller() {
    for environment in ["{CALLER: , ABSENT: ~, EMPTY: \"\"}", "[CALLER, ABSENT, EMPTY=]"] {
        let environment = first(&web(&format!("environment: {environment}"))).environment;
        let pairs: Vec<(&str, &str)> = environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("CALLER", "from the caller"), ("EMPTY", "")]);
    }
}

#[test]
fn variables_are_filled_in_from_the_caller_and_then_from_dotenv() {
    let scratch =
        Scratch::with(&web("port: ${PORT}\nenvironment: {A: \"${CALLER}\", B: \"$$X ${NONE:-d}\", C: \"${BRACES}\"}"));
    scratch.write(".env", "PORT=8000 # the port\nCALLER=from the file\nBRACES='{port}'\n");
    let settings = scratch.load().unwrap_or_else(|problems| panic!("{problems}"));
    let instance = settings.instances.first().unwrap();
    assert_eq!(instance.port, Some(8000));
    let values: Vec<&str> = instance.environment.values().map(String::as_str).collect();
    assert_eq!(values, ["from the caller", "$X d", "{{port}"]);
    let used: Vec<&str> = settings.variables.keys().map(String::as_str).collect();
    assert_eq!(used, ["BRACES", "CALLER", "NONE", "PORT"]);
}

#[test]
fn anchors_and_merge_keys_work_as_in_compose() {
    let instances = settings(concat!(
        "x-base: &base {command: [serve], stop_grace_period: 3s, environment: {A: a}}\n",
        "x-more: &more {port: 1, stop_grace_period: 4s}\n",
        "instances:\n",
        "  one: {<<: *base, port: 2}\n",
        "  two: {<<: [*more, *base]}\n",
        "  three: *base\n",
    ))
    .instances;
    let seen: Vec<(Option<u16>, u64)> = instances.iter().map(|i| (i.port, i.stop_grace_period.as_secs())).collect();
    assert_eq!(seen, [(Some(2), 3), (Some(1), 4), (None, 3)]);
}

#[test]
fn two_thousand_instances_are_fine() {
    let many = lines((0..2000).map(|n| format!("  i{n}: {{port: {}}}\n", 10_000 + n)));
    assert_eq!(settings(&format!("defaults: {{command: [x]}}\ninstances:\n{many}")).instances.len(), 2000);
}

#[test]
fn layers_lie_as_the_rule_says() {
    let scratch = Scratch::with(concat!(
        "defaults: {command: [x], port: 1, cache: {timeout: 1s, backend: file}, environment: [A=base, B=base]}\n",
        "instances: {web: {}, api: {port: 3}}\n",
        "profiles:\n",
        "  dev:\n",
        "    defaults: {port: 2, cache: {timeout: 2s}}\n",
        "    instances: {api: {port: 4, environment: {B: profile}}}\n",
    ));
    scratch
        .write("over.yaml", "defaults: {port: 5}\ninstances: {web: {cache: {timeout: 6s}}, api: {stop_signal: INT}}\n");
    let ports = |source: &Source| {
        let settings = load(source).unwrap_or_else(|problems| panic!("{problems}"));
        let all: Vec<(Option<u16>, u64)> =
            settings.instances.iter().map(|i| (i.port, i.cache.timeout.as_secs())).collect();
        (all, settings)
    };
    let mut source = scratch.source();
    assert_eq!(ports(&source).0, [(Some(1), 1), (Some(3), 1)]);
    source.profile = Some("dev".to_owned());
    let (all, settings) = ports(&source);
    assert_eq!(all, [(Some(2), 2), (Some(4), 2)]);
    let api = settings.instances.get(1).unwrap();
    assert_eq!(api.cache.backend, CacheBackend::File);
    assert_eq!(api.environment.values().collect::<Vec<_>>(), ["base", "profile"]);
    source.files = vec!["instances.yaml".into(), "over.yaml".into()];
    assert_eq!(ports(&source).0, [(Some(5), 6), (Some(4), 2)]);
    source.set = vec!["instances.api.port=9".to_owned(), "instances.web.port=~".to_owned()];
    let (all, settings) = ports(&source);
    assert_eq!(all, [(None, 6), (Some(9), 2)]);
    assert_eq!(settings.sources.name(settings.instances.get(1).unwrap().origin("port")), "--set instances.api.port");
}

#[test]
fn a_layer_that_asks_another_health_question_replaces_the_first() {
    let instances = settings(concat!(
        "defaults: {command: [x], healthcheck: {path: /health/, expect_status: 204, interval: 7s}}\n",
        "instances:\n",
        "  web: {port: 1}\n",
        "  tcp: {port: 2, healthcheck: {tcp: true}}\n",
        "  worker: {healthcheck: {test: [CMD-SHELL, exit 0]}}\n",
        "  quiet: {healthcheck: {disable: true}}\n",
    ))
    .instances;
    let tests: Vec<Option<TestSettings>> =
        instances.iter().map(|i| i.healthcheck.as_ref().map(|h| h.test.clone())).collect();
    assert!(
        matches!(&tests[0], Some(TestSettings::Http { path, expect_status: (204, 204), .. }) if path == "/health/")
    );
    assert_eq!(tests[1], Some(TestSettings::Tcp));
    let shell = ["/bin/sh", "-c", "exit 0"].map(str::to_owned).to_vec();
    assert_eq!(tests[2], Some(TestSettings::Command(shell)));
    assert_eq!(tests[3], None);
    assert_eq!(instances[2].healthcheck.as_ref().unwrap().interval, Duration::from_secs(7));
}

#[test]
fn what_is_not_written_has_its_default() {
    let without_port = first(&web(""));
    assert_eq!(without_port.healthcheck, None);
    let instance = first(&web("port: 8000"));
    assert_eq!(instance.healthcheck.as_ref().map(|health| &health.test), Some(&TestSettings::Tcp));
    holds("what_is_not_written_has_its_default", &format!("{instance:#?}"));
}

#[test]
fn every_key_is_taken() {
    let text = concat!(
        "version: 1\nname: shop\nnamespace: blue\nstate_dir: state\nrestart_brake: {starts: 3, per: 5s}\n",
        "instances:\n",
        "  web:\n",
        "    framework: django\n    working_dir: app\n    command: [serve, \"{port}\"]\n",
        "    environment: {A: 1}\n    env_file: [a.env, {path: b.env, required: false}]\n    inherit_env: [PATH]\n",
        "    host: 0.0.0.0\n    port: 8000\n",
        "    database: {engine: postgres, url: \"postgres://u@h\", name: shop, path: x}\n",
        "    cache: {backend: redis+locmem, url: \"redis://h\", prefix: p, location: l, timeout: 1m,\n",
        "      clear: {path: /cache/clear/, headers: {Authorization: Bearer x}}}\n",
        "    cookies: {session: s, csrf: c}\n    static_root: static\n    media_root: media\n",
        "    secret: {file: key, env: false}\n    channels: {url: \"redis://h/1\", prefix: ch}\n",
        "    logging: {max_size: 1m, max_files: 2, compress: true}\n",
        "    healthcheck: {path: /up, scheme: http, expect_status: 200-399, headers: {Host: x}, body: ok, interval: 1s,\n",
        "      timeout: 1s, retries: 2, start_period: 3s, start_interval: 100ms, on_unhealthy: none, disable: false}\n",
        "    restart: on-failure:4\n    restart_policy: {delay: 2s, max_delay: 20s, window: 30s}\n",
        "    stop_signal: SIGINT\n    stop_grace_period: 5s\n",
        "    depends_on: {api: {condition: service_healthy}}\n",
        "    pre_start: [[migrate]]\n    pre_start_timeout: 1m\n",
        "  api: {command: [x], restart: no, depends_on: [worker]}\n",
        "  worker: {command: [x], lane: api, restart: always}\n",
    );
    let settings = settings(text);
    let [web, api, worker] = settings.instances.as_slice() else { panic!("three instances") };
    assert_eq!(api.restart.policy, RestartPolicy::No);
    assert_eq!(worker.restart.policy, RestartPolicy::Always);
    assert_eq!(web.depends_on.first().map(|dependency| dependency.condition), Some(Condition::ServiceHealthy));
    assert_eq!(web.origin("cache.timeout").line, 17);
    let mut web = web.clone();
    web.origins.clear();
    holds(
        "every_key_is_taken",
        &format!("{:#?}", (&settings.project, &settings.namespace, settings.restart_brake, web)),
    );
}

#[test]
fn layers_are_not_blamed_for_what_another_layer_says() {
    let text = concat!(
        "defaults: {command: [x], database: {engine: postgres}, cache: {backend: redis}, restart_policy: {delay: 10ms}}\n",
        "instances:\n",
        "  web: {database: {url: \"postgres://h\"}, cache: {url: \"redis://h\"}}\n",
        "profiles:\n",
        "  dev: {instances: {web: {database: {url: \"postgres://i\"}, restart_policy: {max_delay: 20ms}}}}\n",
    );
    assert_eq!(Scratch::with(text).problems(), "fine");
}
