//! The declared keys as a JSON Schema of `instances.yaml`, for editors: `laneway schema`.
//!
//! It takes whatever the loader takes, and refuses what a schema can know to be wrong; the tests hold it against the loader.
//! Draft 7, which every editor knows. Several types share one schema where a keyword is about one type only (`minimum`
//! says nothing about texts), since editors explain that better than a choice of schemas.

use serde_json::{Map, Value, json};

use super::keys::{FILE, INSTANCE, Key, POLICIES, PRESET, PROFILE, Takes, Unset};
use super::node::{self, Node, Scalar, Style};
use super::parse::{Start, parse};
use super::problem::Collector;
use super::verbs::RESERVED_VERBS;
use crate::model::Signal;

/// Where a `${VARIABLE}` stands there is no telling what comes of it.
const VARIABLE: &str = r"\$";
const NAME: &str = "^[a-z0-9][a-z0-9_-]{0,31}$";
const NO_NAME: &str = "must be a name: 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or digit";
const VARIABLE_NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const ASSIGNMENT: &str = r"^[A-Za-z_][A-Za-z0-9_]*(=|$)|\$";
const FILLED: &str = r"\S";
const DURATION: &str = concat!(
    r"^\s*([0-9][0-9\s.]*(ns|nsec|nanos|us|µs|usec|ms|msec|millis|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?",
    r"|d|days?|w|wks?|weeks?|M|months?|y|yrs?|years?)\s*)+$|\$"
);
const SIZE: &str = r"^[0-9]+([bB]|[kKmMgG]([iI]?[bB])?)?$|\$";
const STATUS: &str = r"^\s*[1-5][0-9]{2}\s*(-\s*[1-5][0-9]{2}\s*)?$|\$";
const URL_PATH: &str = r"^[/{]\S*$|\$";
const HEADER_NAME: &str = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";
const HEADER_VALUE: &str = r"^[^\x00-\x1f\x7f-\x9f]*$|\$";
const ADDRESS: &str = r"^(localhost|\[?[0-9]{1,3}(\.[0-9]{1,3}){3}\]?|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?)$|\$";
const ATTEMPTS: &str = r"^on-failure:[1-9][0-9]*$|\$";

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let mut root = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "instances.yaml",
        "description": concat!("The instances of one app, for laneway ", env!("CARGO_PKG_VERSION"), "."),
    });
    extend(&mut root, object(&FILE));
    extend(&mut root, json!({"type": "object", "definitions": {"instance": object(&INSTANCE)}}));
    root
}

/// What `takes` takes, in words; Markdown.
pub fn words(takes: &Takes) -> String {
    let code = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match takes {
        Takes::Later => String::new(),
        Takes::Map(_) | Takes::Headers => "map".to_owned(),
        Takes::Text(word) | Takes::Name(word) | Takes::Duration(word) => (*word).to_owned(),
        Takes::Names | Takes::VariableNames => "list of names".to_owned(),
        Takes::OneOf(words) => code(words),
        Takes::Boolean => "true, false".to_owned(),
        Takes::True => "`true`".to_owned(),
        Takes::Whole(least, most) => format!("{least} to {most}"),
        Takes::Size => "size, from `4k`".to_owned(),
        Takes::Address => "address".to_owned(),
        Takes::Version => "`1`".to_owned(),
        Takes::Status => "`204`, `200-299`".to_owned(),
        Takes::UrlPath => "path".to_owned(),
        Takes::Restart => code(&["no", "on-failure", "on-failure:N", "always", "unless-stopped"]),
        Takes::Signal => "signal".to_owned(),
        Takes::Command => "list of texts".to_owned(),
        Takes::Test => "command".to_owned(),
        Takes::Commands => "list of commands".to_owned(),
        Takes::Environment => "map or list of `KEY=value`".to_owned(),
        Takes::EnvFiles(_) => "path, `{path, required}`, or a list".to_owned(),
        Takes::Dependencies(_) => "list, or map to `{condition}`".to_owned(),
        Takes::Brake(_) => "map or `off`".to_owned(),
        Takes::Instance => "instance".to_owned(),
        Takes::Instances => "map of instances".to_owned(),
        Takes::Presets => "map of presets".to_owned(),
        Takes::Profiles => "map of profiles".to_owned(),
    }
}

fn extend(to: &mut Value, from: Value) {
    if let (Value::Object(to), Value::Object(from)) = (to, from) {
        to.extend(from);
    }
}

/// A map with these keys and no others; `x-*` is the user's own.
fn object(keys: &[Key]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().filter(|key| key.is_of_now()).map(|key| (key.name.to_owned(), property(key))).collect();
    json!({
        "type": ["object", "null"],
        "properties": properties,
        "patternProperties": {"^x-": {"description": "Yours; laneway ignores it."}},
        "additionalProperties": false,
    })
}

/// The same for a long form that says nothing without its needed keys.
fn long_form(keys: &[Key]) -> Value {
    let needed: Vec<&str> = keys.iter().filter(|key| matches!(key.unset, Unset::Needed)).map(|key| key.name).collect();
    let mut form = object(keys);
    extend(&mut form, json!({"required": needed}));
    form
}

fn property(key: &Key) -> Value {
    let (default, said) = match key.unset {
        Unset::Value(default) => (Some(yaml(default)), format!(". Default: `{default}`")),
        Unset::Formula(default) => (Some(json!(default)), format!(". Default: `{default}`")),
        Unset::Words("none") | Unset::Needed => (None, String::new()),
        Unset::Words(words) => (None, format!(". Default: {words}")),
    };
    let about = format!("{}{said}", key.about);
    let plain = |text: &str| text.replace('`', "");
    let mut property = json!({"title": plain(&words(&key.takes)), "description": plain(&about)});
    if about.contains('`') {
        extend(&mut property, json!({"markdownDescription": about}));
    }
    if let Some(default) = default {
        extend(&mut property, json!({"default": default}));
    }
    extend(&mut property, takes(&key.takes));
    property
}

#[expect(clippy::too_many_lines, reason = "one short arm for each kind of value")]
fn takes(takes: &Takes) -> Value {
    const TEXT: [&str; 3] = ["string", "number", "boolean"];
    let text = |pattern: &str| json!({"type": TEXT, "pattern": pattern});
    let name = || {
        let mut name = text(&format!("{NAME}|{VARIABLE}"));
        extend(&mut name, json!({"errorMessage": NO_NAME}));
        name
    };
    let names = || json!({"minItems": 1, "uniqueItems": true, "items": name()});
    let command = json!({"type": "array", "minItems": 1, "items": {"type": TEXT}});
    let mut schema = match takes {
        Takes::Later => json!(false),
        Takes::Map(keys) => object(keys),
        Takes::Text(_) => text(FILLED),
        Takes::Name(_) => name(),
        Takes::OneOf(words) => json!({"anyOf": [{"enum": words}, variable()]}),
        Takes::Version => json!({"anyOf": [{"enum": [1, "1"]}, variable()]}),
        Takes::Boolean => typed(&["boolean", "string"], VARIABLE, "true or false, without quotes"),
        Takes::True => json!({"anyOf": [{"enum": [true]}, variable()]}),
        Takes::Whole(least, most) => {
            let mut whole = typed(&["integer", "string"], VARIABLE, "a whole number, without quotes");
            extend(&mut whole, json!({"minimum": least, "maximum": most}));
            whole
        }
        Takes::Duration(_) => with_examples(
            typed(&["string"], DURATION, "a duration, such as 500ms, 5s, 1m30s or 1h"),
            &json!(["5s", "1m30s"]),
        ),
        Takes::Size => {
            let mut size = typed(&["integer", "string"], SIZE, "a size, such as 512k, 10m or 1g");
            extend(&mut size, json!({"minimum": 4096}));
            with_examples(size, &json!(["512k", "10m"]))
        }
        Takes::Address => with_examples(
            typed(&["string"], ADDRESS, "an address in digits, such as 127.0.0.1, 0.0.0.0 or ::1"),
            &json!(["127.0.0.1", "0.0.0.0", "::1"]),
        ),
        Takes::Status => {
            let mut status =
                typed(&["integer", "string"], STATUS, "a status, such as 204, or a range, such as 200-299");
            extend(&mut status, json!({"minimum": 100, "maximum": 599}));
            with_examples(status, &json!([204, "200-299"]))
        }
        Takes::UrlPath => {
            with_examples(typed(&["string"], URL_PATH, "a path without a host, such as /health/"), &json!(["/health/"]))
        }
        Takes::Headers => json!({
            "type": "object",
            "propertyNames": {"pattern": HEADER_NAME},
            "additionalProperties": text(HEADER_VALUE),
            "examples": [{"Host": "shop.example"}],
        }),
        Takes::Restart => json!({"anyOf": [
            {"enum": POLICIES.map(|(word, _)| word)},
            typed(&["string"], ATTEMPTS, "no, on-failure, on-failure:N, always or unless-stopped"),
            // YAML 1.1 reads `no` as false.
            {"enum": [false, "off", "No", "NO"], "doNotSuggest": true},
            variable(),
        ]}),
        Takes::Signal => {
            let mut signal = typed(&["integer", "string"], &signals(), "a signal, such as SIGTERM, SIGINT or SIGQUIT");
            extend(&mut signal, json!({"minimum": 1, "maximum": 31}));
            with_examples(signal, &json!(["SIGTERM", "SIGINT", "SIGQUIT"]))
        }
        Takes::Command => with_examples(command, &json!([["gunicorn", "shop.wsgi", "--bind", "{host}:{port}"]])),
        Takes::Test => with_examples(command, &json!([["CMD-SHELL", "test -e ready"]])),
        Takes::Commands => json!({
            "type": "array",
            "items": command,
            "examples": [[[".venv/bin/python", "manage.py", "migrate", "--noinput"]]],
        }),
        Takes::Environment => json!({
            "type": ["object", "array"],
            "propertyNames": {"pattern": VARIABLE_NAME},
            "additionalProperties": {"type": ["string", "number", "null"]},
            "items": {"type": ["string", "boolean"], "pattern": ASSIGNMENT},
            "uniqueItems": true,
            "examples": [{"DEBUG": "1"}],
        }),
        Takes::EnvFiles(keys) => {
            let mut file = long_form(keys);
            extend(&mut file, json!({"type": ["string", "number", "boolean", "object"], "pattern": FILLED}));
            let mut files = file.clone();
            extend(&mut files, json!({"type": ["string", "number", "boolean", "object", "array"], "items": file}));
            files
        }
        Takes::VariableNames => json!({
            "type": "array",
            "items": {"type": ["string", "boolean"], "pattern": format!("{VARIABLE_NAME}|{VARIABLE}")},
        }),
        Takes::Names => {
            let mut list = json!({"type": "array"});
            extend(&mut list, names());
            return list;
        }
        Takes::Dependencies(keys) => json!({
            "type": ["array", "object"],
            "uniqueItems": true,
            "items": name(),
            "propertyNames": named(&json!(false)),
            "additionalProperties": object(keys),
        }),
        Takes::Brake(keys) => {
            let mut brake = object(keys);
            let scalar = json!({
                "type": ["object", "string", "boolean"],
                "pattern": format!("^(off|false)$|{VARIABLE}"),
                "patternErrorMessage": "must be a map such as {starts: 10, per: 1s}, or off",
                "not": {"const": true},
            });
            extend(&mut brake, scalar);
            brake
        }
        // Beside `$ref` draft 7 allows nothing.
        Takes::Instance => return json!({"allOf": [instance()]}),
        Takes::Instances => json!({
            "type": "object",
            // Its log would have the name of the access log.
            "propertyNames": named(&json!({"const": "access"})),
            "additionalProperties": instance(),
        }),
        Takes::Presets => {
            let mut preset = long_form(&PRESET);
            extend(&mut preset, json!({"type": ["array", "object"]}));
            extend(&mut preset, names());
            json!({
                "type": "object",
                "propertyNames": named(&json!({"enum": RESERVED_VERBS.as_slice()})),
                "additionalProperties": preset,
            })
        }
        Takes::Profiles => json!({
            "type": "object",
            "propertyNames": named(&json!(false)),
            "additionalProperties": object(&PROFILE),
        }),
    };
    allow_null(&mut schema);
    schema
}

/// `~` sets every key back.
fn allow_null(schema: &mut Value) {
    match schema.get_mut("type") {
        Some(Value::Array(types)) if !types.contains(&json!("null")) => types.push(json!("null")),
        Some(one @ Value::String(_)) => *one = json!([one.take(), "null"]),
        _ => {}
    }
}

fn instance() -> Value {
    json!({"$ref": "#/definitions/instance"})
}

/// The keys of a map whose keys are names; `taken` are those that mean something else.
fn named(taken: &Value) -> Value {
    json!({"pattern": NAME, "errorMessage": NO_NAME, "not": taken})
}

fn variable() -> Value {
    json!({"type": ["string", "null"], "pattern": VARIABLE, "doNotSuggest": true})
}

/// Texts of a form; the message is what editors say of others.
fn typed(types: &[&str], pattern: &str, message: &str) -> Value {
    json!({"type": types, "pattern": pattern, "errorMessage": format!("must be {message}")})
}

fn with_examples(mut schema: Value, examples: &Value) -> Value {
    extend(&mut schema, json!({"examples": examples}));
    schema
}

/// Every spelling of every signal.
fn signals() -> String {
    let any_case = |name: &str| {
        name.chars().fold(String::new(), |pattern, c| match c {
            c if c.is_ascii_alphabetic() => format!("{pattern}[{c}{}]", c.to_ascii_lowercase()),
            c => format!("{pattern}{c}"),
        })
    };
    let names = (1..=31).map(|number| Signal::from_number(number).to_string());
    let names: Vec<String> = names.map(|name| any_case(name.trim_start_matches("SIG"))).collect();
    format!(r"^\s*([sS][iI][gG])?({}|\+?0*([1-9]|[12][0-9]|3[01]))\s*$|{VARIABLE}", names.join("|"))
}

/// A value of YAML as an editor hands it to the schema.
fn yaml(text: &str) -> Value {
    let node = parse(text, Start::default(), &Collector::default());
    node.as_ref().map_or(Value::Null, json)
}

/// The same of a value that has been read.
pub fn json(node: &Node) -> Value {
    match &node.value {
        node::Value::Scalar(_) if node.is_null() => Value::Null,
        node::Value::Scalar(Scalar { text, style: Style::Plain }) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        node::Value::Scalar(scalar) => json!(scalar.text),
        node::Value::List(items) => items.iter().map(json).collect(),
        node::Value::Map(map) => {
            Value::Object(map.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect())
        }
    }
}
