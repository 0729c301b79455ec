//! The schema against the loader, both ways, and against every file that is known to be right.
//!
//! Whatever `Scratch` loads goes through [`refusal`] too, so each file of the other tests is an example here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

use super::{holds, lines};
use crate::config::keys::{FILE, INSTANCE, Key, PRESET, Takes, Unset, find};
use crate::config::parse::{Start, parse};
use crate::config::problem::Collector;
use crate::config::schema::{json, schema};
use crate::config::scratch::Scratch;
use crate::plan::{Plan, resolve};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// Values to try at every key, right somewhere and wrong elsewhere.
const VALUES: [&str; 100] = [
    "~",
    "true",
    "false",
    "\"true\"",
    "yes",
    "no",
    "No",
    "off",
    "0",
    "1",
    "-1",
    "3.5",
    "80",
    "0x50",
    "080",
    "8000.5",
    "+80",
    "\"80\"",
    "\"1\"",
    "2",
    "\"\"",
    "\" \"",
    "x",
    "X",
    "a b",
    "a-b_c",
    "-a",
    "şube",
    "access",
    "status",
    "1e3",
    ".5",
    "5s",
    "0s",
    "1m30s",
    "500ms",
    "\"2 hours 5min\"",
    "1.5h",
    "9months",
    "soon",
    "5 parsecs",
    "4m",
    "6m",
    "400d",
    "10m",
    "512k",
    "4k",
    "3k",
    "1.5m",
    "1GiB",
    "\"5000\"",
    "4095",
    "4096",
    "204",
    "099",
    "600",
    "200-299",
    "299-200",
    "\"200 - 204\"",
    "/health/",
    "health",
    "\"/a b\"",
    "http://h/",
    "\"{port}\"",
    "{port}",
    "on-failure:3",
    "on-failure:0",
    "on-failure:many",
    "SIGTERM",
    "term",
    "Sigint",
    "SIG9",
    "SIGNOPE",
    "15",
    "99",
    "127.0.0.1",
    "::1",
    "\"[::1]\"",
    "localhost",
    "example.org",
    "1.2.3.4.5",
    "[]",
    "[x]",
    "[x, x]",
    "[1, true]",
    "[~]",
    "[[x], [y, 1]]",
    "[[]]",
    "{}",
    "{x: 1}",
    "{X: y, Z: }",
    "{X: true}",
    "{x: {}}",
    "[A=1, B]",
    "[1A=2]",
    "{path: f, required: false}",
    "{required: true}",
    "[{path: f}, g]",
    "{x: {condition: service_healthy}}",
    "{x: {condition: soon}}",
];
/// Values that variables take part in: what comes of them decides, which a schema cannot know.
const VARIABLES: [&str; 8] = [
    "${CALLER}",
    "\"${CALLER}\"",
    "${NUMBER}",
    "${TRUE}",
    "${WORD}",
    "[\"${WORD}\"]",
    "{x: \"${WORD}\"}",
    "[\"${WORD}=1\"]",
];

/// Why the schema refuses this YAML, if it does.
pub fn refusal(text: &str) -> Option<String> {
    refusal_by("", text)
}

/// The same by the part of the schema that `fragment` points at.
fn refusal_by(fragment: &str, text: &str) -> Option<String> {
    static COMPILED: OnceLock<(Schemas, SchemaIndex, SchemaIndex)> = OnceLock::new();
    let (schemas, whole, instance) = COMPILED.get_or_init(|| {
        let mut schemas = Schemas::new();
        let mut compiler = Compiler::new();
        compiler.add_resource("file:///schema.json", schema()).unwrap();
        let whole = compiler.compile("file:///schema.json", &mut schemas).unwrap();
        let instance = compiler.compile("file:///schema.json#/definitions/instance", &mut schemas).unwrap();
        (schemas, whole, instance)
    });
    let node = parse(text, Start::default(), &Collector::default())?;
    let index = if fragment.is_empty() { whole } else { instance };
    schemas.validate(&json(&node), *index).err().map(|error| format!("{error:#}"))
}

/// Each key of a map and of the maps in it, by its path.
fn leaves(keys: &'static [Key], path: &str, found: &mut Vec<(String, &'static Key)>) {
    for key in keys.iter().filter(|key| key.is_of_now()) {
        let path = format!("{path}{}", key.name);
        match key.takes {
            Takes::Map(below) => leaves(below, &format!("{path}."), found),
            _ => found.push((path, key)),
        }
    }
}

fn instance_keys() -> Vec<(String, &'static Key)> {
    let mut found = Vec::new();
    leaves(&INSTANCE, "", &mut found);
    found
}

/// `a.b: value` as maps in braces, `beside` standing beside it.
fn nested(path: &str, beside: &str, value: &str) -> String {
    match path.split_once('.') {
        Some((first, rest)) => format!("{first}: {{{}}}", nested(rest, beside, value)),
        None => format!("{beside}{path}: {value}"),
    }
}

/// A file in which a value stands, where nothing but the value itself decides.
type File = fn(&str, &str) -> String;

/// Every place of a value, with a file around it.
fn places() -> Vec<(String, &'static Key, File)> {
    let in_layer: File = |path, value| {
        format!("instances: {{x: {{command: [x]}}}}\nprofiles: {{p: {{defaults: {{{}}}}}}}\n", nested(path, "", value))
    };
    let in_file: File = |path, value| match path {
        "instances" | "presets" => format!("{path}: {value}\ninstances: {{x: {{command: [x]}}}}\n"),
        _ => format!("instances: {{x: {{command: [x]}}}}\n{path}: {value}\n"),
    };
    let in_preset: File = |path, value| match path {
        "instances" => format!("instances: {{x: {{command: [x]}}}}\npresets: {{p: {{{path}: {value}}}}}\n"),
        _ => format!(
            "instances: {{x: {{command: [x]}}}}\npresets: {{p: {{instances: [x], {path}: {value}}}}}\nprofiles: {{x: }}\n"
        ),
    };
    let in_brake: File =
        |path, value| format!("instances: {{x: {{command: [x]}}}}\nrestart_brake: {{{path}: {value}}}\n");
    let in_env_file: File = |path, value| match path {
        "path" => in_layer_of(&format!("env_file: {{path: {value}}}")),
        _ => in_layer_of(&format!("env_file: [{{path: f, {path}: {value}}}]")),
    };
    let in_dependency: File = |path, value| in_layer_of(&format!("depends_on: {{x: {{{path}: {value}}}}}"));
    let mut places: Vec<_> = instance_keys().into_iter().map(|(path, key)| (path, key, in_layer)).collect();
    places.extend(FILE.iter().filter(|key| key.name != "instances").map(|key| (key.name.to_owned(), key, in_file)));
    places.extend(PRESET.iter().map(|key| (key.name.to_owned(), key, in_preset)));
    for (owner, file) in [("env_file", in_env_file), ("depends_on", in_dependency)] {
        let below = find(&INSTANCE, owner).unwrap().takes.below();
        places.extend(below.iter().map(|key| (key.name.to_owned(), key, file)));
    }
    let brake = find(&FILE, "restart_brake").unwrap().takes.below();
    places.extend(brake.iter().map(|key| (key.name.to_owned(), key, in_brake)));
    places
}

fn in_layer_of(keys: &str) -> String {
    format!("instances: {{x: {{command: [x]}}}}\nprofiles: {{p: {{defaults: {{{keys}}}}}}}\n")
}

/// The values to try at one key: all of the above, its own words, and what lies at its borders.
fn candidates(key: &Key) -> Vec<String> {
    let mut values: Vec<String> = VALUES.iter().chain(&VARIABLES).map(|value| (*value).to_owned()).collect();
    match key.takes {
        Takes::OneOf(words) => values.extend(words.iter().map(|word| (*word).to_owned())),
        Takes::Whole(least, most) => values.extend([least - 1, least, most, most + 1].map(|number| number.to_string())),
        _ => {}
    }
    values
}

#[test]
fn the_schema_takes_what_the_loader_takes_and_says_what_it_cannot_know() {
    let scratch = Scratch::new();
    scratch.write(".env", "NUMBER=80\nTRUE=true\nWORD=x\n");
    let (mut unknowable, mut tried) = (BTreeSet::new(), 0);
    for (path, key, file) in places() {
        let mut is_taken = false;
        for value in candidates(key) {
            let text = file(&path, &value);
            scratch.write("instances.yaml", &text);
            let loaded = scratch.load_only();
            let refusal = refusal(&text);
            tried += 1;
            match (loaded, refusal) {
                (Ok(_), None) => is_taken |= value != "~",
                (Ok(_), Some(refusal)) => panic!("the loader takes it, and the schema does not:\n{text}\n{refusal}"),
                // Which profiles there are says another part of the file.
                (Err(_), None) if !value.contains("${") && path != "profile" => {
                    unknowable.insert(format!("{}: {value}\n", super::super::schema::words(&key.takes)));
                }
                (Err(_), _) => {}
            }
        }
        assert!(is_taken, "no value was right for {path}");
    }
    assert!(tried > 6000, "{tried}");
    holds("what_a_schema_cannot_know", &lines(unknowable.into_iter()));
}

#[test]
fn keys_that_the_loader_does_not_know_are_refused_by_the_schema_too() {
    let mut maps = vec![(String::new(), "instances: {x: {command: [x]}}\nKEY: {}\n".to_owned())];
    maps.push(("instance".to_owned(), in_layer_of("KEY: 1")));
    for key in INSTANCE.iter().filter(|key| matches!(key.takes, Takes::Map(_))) {
        maps.push((key.name.to_owned(), in_layer_of(&format!("{}: {{KEY: 1}}", key.name))));
    }
    maps.push(("env_file".to_owned(), in_layer_of("env_file: {path: f, KEY: 1}")));
    maps.push(("depends_on".to_owned(), in_layer_of("depends_on: {x: {KEY: 1}}")));
    maps.push(("profile".to_owned(), "instances: {x: {command: [x]}}\nprofiles: {p: {KEY: 1}}\n".to_owned()));
    let preset = "instances: {x: {command: [x]}}\npresets: {p: {instances: [x], KEY: 1}}\n";
    maps.push(("preset".to_owned(), preset.to_owned()));
    maps.push(("brake".to_owned(), "instances: {x: {command: [x]}}\nrestart_brake: {KEY: 1}\n".to_owned()));
    for (name, text) in maps {
        for (word, is_fine) in [("unheard_of", false), ("xyz", false), ("x-mine", true)] {
            let text = text.replace("KEY", word);
            let loaded = Scratch::with(&text).load_only();
            assert_eq!(loaded.is_ok(), is_fine, "{name}: {loaded:?}");
            assert_eq!(refusal(&text).is_none(), is_fine, "{name}: {:?}", refusal(&text));
        }
    }
    let mut later = 0;
    for (path, keys) in
        [("", &INSTANCE[..])].into_iter().chain(INSTANCE.iter().map(|key| (key.name, key.takes.below())))
    {
        for key in keys.iter().filter(|key| !key.is_of_now()) {
            let own = format!("{}: 1", key.name);
            let text = in_layer_of(&if path.is_empty() { own } else { format!("{path}: {{{own}}}") });
            assert!(Scratch::with(&text).problems().contains("is not supported by this version"), "{text}");
            assert!(refusal(&text).is_some(), "{text}");
            later += 1;
        }
    }
    assert_eq!(later, 3);
}

#[test]
fn what_people_get_wrong_is_refused_by_the_schema_too() {
    for text in [
        "just text",
        "[a, list]",
        "name: a\ninstances: 5\n",
        "instance: {a: {command: [x]}}\n",
        "version: 2\n",
        "instances: {Bad: {}}\n",
        "instances: {access: {}}\n",
        "instances: {web: 5}\n",
        "instances: {web: {command: serve}}\n",
        "instances: {web: {command: []}}\n",
        "instances: {web: {command: [serve, {port: }]}}\n",
        "instances: {web: {pre_start: [migrate]}}\n",
        "instances: {web: {port: \"8000\"}}\n",
        "instances: {web: {port: 65536}}\n",
        "instances: {web: {environment: {DEBUG: true}}}\n",
        "instances: {web: {environment: {1A: x}}}\n",
        "instances: {web: {stop_grace_period: 10}}\n",
        "instances: {web: {stop_signal: SIGTREM}}\n",
        "instances: {web: {healthcheck: {path: health}}}\n",
        "instances: {web: {healthcheck: {tcp: false}}}\n",
        "instances: {web: {healthcheck: {headers: {Host: }}}}\n",
        "instances: {web: {restart: never}}\n",
        "instances: {web: {depends_on: web}}\n",
        "instances: {web: {host: example.org}}\n",
        "presets: {status: [web]}\n",
        "presets: {all: []}\n",
        "presets: {all: {profile: dev}}\n",
        "presets: {all: [a, a]}\n",
        "restart_brake: on\n",
    ] {
        assert!(Scratch::with(text).load_only().is_err(), "the loader takes {text}");
        assert!(refusal(text).is_some(), "the schema takes {text}");
    }
}

/// What has to stand beside a key for it to have an effect.
fn beside(path: &str) -> &'static str {
    match path {
        "database.name" => "engine: postgres, url: \"postgres://h\", ",
        "healthcheck.expect_status" | "healthcheck.scheme" => "path: /, ",
        _ => "",
    }
}

fn plan(text: &str) -> Plan {
    let scratch = Scratch::with(text);
    scratch.write("f", "");
    let mut plan = resolve(&scratch.source()).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    // Each text has a folder of its own.
    let here = scratch.path().display().to_string();
    let moved = serde_json::to_string(&plan).unwrap().replace(&here, "/here");
    plan = serde_json::from_str(&moved).unwrap();
    plan
}

#[test]
fn what_is_said_to_be_a_default_is_the_same_as_nothing() {
    let written = |key: &Key| match key.unset {
        Unset::Value(yaml) => Some(yaml.to_owned()),
        Unset::Formula(template) => Some(format!("\"{template}\"")),
        Unset::Words(_) | Unset::Needed => None,
    };
    let file = |keys: &str, rest: &str| {
        format!(
            "name: shop\n{rest}instances: {{web: {{port: 8000, command: [bin/serve], {keys}}}, api: {{command: [x]}}}}\n"
        )
    };
    let mut same = 0;
    let mut check = |with: String, without: String| {
        assert_eq!(plan(&with), plan(&without), "{with}");
        same += 1;
    };
    for (path, key) in instance_keys() {
        let Some(value) = written(key) else { continue };
        let beside = beside(&path);
        check(file(&nested(&path, beside, &value), ""), file(&nested(&path, beside, "~"), ""));
    }
    for key in FILE.iter().filter(|key| key.name != "name") {
        let Some(value) = written(key) else { continue };
        check(file("", &format!("{}: {value}\n", key.name)), file("", ""));
    }
    for (long, keys) in [
        ("env_file: [{path: f, KEY}]", find(&INSTANCE, "env_file").unwrap().takes.below()),
        ("depends_on: {api: {KEY}}", find(&INSTANCE, "depends_on").unwrap().takes.below()),
    ] {
        for key in keys {
            let Some(value) = written(key) else { continue };
            let with = long.replace("KEY", &format!("{}: {value}", key.name));
            check(file(&with, ""), file(&long.replace(", KEY", "").replace("KEY", ""), ""));
        }
    }
    for key in find(&FILE, "restart_brake").unwrap().takes.below() {
        let Some(value) = written(key) else { continue };
        check(file("", &format!("restart_brake: {{{}: {value}}}\n", key.name)), file("", ""));
    }
    assert!(same >= 44, "{same}");
}

#[test]
fn every_example_in_the_documents_fits_the_schema() {
    let documents = [
        "README.md",
        "README.tr.md",
        "docs/configuration.md",
        "docs/django.md",
        "docs/operations.md",
        "docs/quick-start.md",
        "docs/architecture.md",
        "CHANGELOG.md",
    ];
    let mut examples = vec![fs::read_to_string(Path::new(REPOSITORY).join("instances.yaml")).unwrap()];
    for document in documents {
        let text = fs::read_to_string(Path::new(REPOSITORY).join(document)).unwrap();
        let blocks = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
        examples.extend(blocks);
    }
    assert!(examples.len() > 8, "{}", examples.len());
    for example in examples {
        let is_whole = example.lines().any(|line| FILE.iter().any(|key| line.starts_with(&format!("{}:", key.name))));
        let refusal = refusal_by(if is_whole { "" } else { "instance" }, &example);
        assert_eq!(refusal, None, "{example}");
    }
}

#[test]
fn what_fuzzing_found_to_be_right_fits_the_schema() {
    let corpus = Path::new(REPOSITORY).join("fuzz/corpus/config");
    let mut taken = 0;
    for entry in fs::read_dir(corpus).unwrap().map(Result::unwrap) {
        let Ok(text) = String::from_utf8(fs::read(entry.path()).unwrap()) else { continue };
        let text = text.split("\n=====\n").next().unwrap();
        taken += usize::from(Scratch::with(text).load().is_ok());
    }
    assert!(taken > 0);
}

/// Every key below explains itself.
fn each(value: &Value, path: &str, count: &mut usize) {
    if let Some(properties) = value.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            *count += 1;
            for word in ["title", "description"] {
                assert!(property[word].as_str().is_some_and(|text| !text.is_empty()), "{path}.{name} has no {word}");
            }
            let has_shape = ["type", "anyOf", "allOf"].iter().any(|word| property.get(word).is_some());
            assert!(has_shape, "{path}.{name} takes anything");
            each(property, &format!("{path}.{name}"), count);
        }
    }
    if let Some(more) = value.get("additionalProperties") {
        each(more, path, count);
    }
}

#[test]
fn the_schema_is_one_that_editors_understand() {
    let schema = schema();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let mut count = 0;
    each(&schema, "", &mut count);
    each(&schema["definitions"]["instance"], "", &mut count);
    assert!(count > 75, "{count}");
}
