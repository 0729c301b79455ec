//! The declared keys as a JSON Schema of `instances.yaml`, for editors: `laneway schema`.
//!
//! It takes whatever the loader takes, and refuses what a schema can know to be wrong; the tests hold it against the loader.
//! Draft 7, which every editor knows. Several types share one schema where a keyword is about one type only (`minimum`
//! says nothing about texts), since editors explain that better than a choice of schemas.

use serde_json::{Map, Value};

use super::keys::{FILE, INSTANCE, Key, PRESET, PROFILE, Takes, Unset};
use super::node::{self, Node, Scalar, Style};
use super::parse::{Start, parse};
use super::problem::Collector;
use super::verbs::RESERVED_VERBS;
use crate::model::Signal;

/// The schemas of all kinds of values, as far as no declaration has a part in them. As text they are a third of what the
/// code would be that makes them.
const SHAPES: &str = include_str!("shapes.json");

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let shapes: Map<String, Value> = serde_json::from_str(SHAPES).unwrap_or_default();
    let maker = Maker { shapes };
    let mut definitions = maker.shape("definitions");
    set(&mut definitions, "instance", maker.object(&INSTANCE));
    let mut root = Value::Object(Map::new());
    set(&mut root, "$schema", "http://json-schema.org/draft-07/schema#");
    set(&mut root, "title", "instances.yaml");
    set(&mut root, "description", concat!("The instances of one app, for laneway ", env!("CARGO_PKG_VERSION"), "."));
    extend(&mut root, maker.object(&FILE));
    set(&mut root, "type", "object");
    set(&mut root, "definitions", definitions);
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
        Takes::SomeOf(words) => format!("list of {}", code(words)),
        Takes::Texts(word) => format!("list of {word}s"),
        Takes::Wholes(least, most) => format!("list of {least} to {most}"),
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

struct Maker {
    shapes: Map<String, Value>,
}

impl Maker {
    fn shape(&self, name: &str) -> Value {
        self.shapes.get(name).cloned().unwrap_or_default()
    }

    /// A map with these keys and no others; `x-*` is the user's own.
    fn object(&self, keys: &[Key]) -> Value {
        let mut object = self.shape("object");
        let properties = keys.iter().filter(|key| key.is_of_now());
        let properties: Map<_, _> = properties.map(|key| (key.name.to_owned(), self.property(key))).collect();
        set(&mut object, "properties", properties);
        object
    }

    /// The same for a long form, which says nothing without its needed keys; `shape` says what else may stand there.
    fn long_form(&self, keys: &[Key], shape: &str) -> Value {
        let needed = keys.iter().filter(|key| matches!(key.unset, Unset::Needed));
        let needed: Vec<_> = needed.map(|key| Value::from(key.name)).collect();
        let mut form = self.object(keys);
        set(&mut form, "required", needed);
        extend(&mut form, self.shape(shape));
        form
    }

    fn property(&self, key: &Key) -> Value {
        let (default, said) = match key.unset {
            Unset::Value(default) => (yaml(default), format!(". Default: `{default}`")),
            Unset::Formula(default) => (Value::from(default), format!(". Default: `{default}`")),
            Unset::Words("none") | Unset::Needed => (Value::Null, String::new()),
            Unset::Words(words) => (Value::Null, format!(". Default: {words}")),
        };
        let about = format!("{}{said}", key.about);
        let plain = |text: &str| text.replace('`', "");
        let mut property = Value::Object(Map::new());
        set(&mut property, "title", plain(&words(&key.takes)));
        set(&mut property, "description", plain(&about));
        if about.contains('`') {
            set(&mut property, "markdownDescription", about);
        }
        if !default.is_null() {
            set(&mut property, "default", default);
        }
        extend(&mut property, self.takes(&key.takes));
        property
    }

    fn takes(&self, takes: &Takes) -> Value {
        match takes {
            Takes::Later => Value::Bool(false),
            Takes::Map(keys) => self.object(keys),
            Takes::Text(_) => self.shape("text"),
            Takes::Name(_) => self.shape("name"),
            Takes::Names => self.shape("names"),
            Takes::OneOf(words) => self.one_of(words.iter().map(|word| Value::from(*word)).collect()),
            Takes::Version => self.one_of(vec![Value::from(1), Value::from("1")]),
            Takes::True => self.one_of(vec![Value::from(true)]),
            Takes::Boolean => self.shape("boolean"),
            Takes::Whole(least, most) => {
                let mut whole = self.shape("whole");
                set(&mut whole, "minimum", *least);
                set(&mut whole, "maximum", *most);
                whole
            }
            Takes::Duration(_) => self.shape("duration"),
            Takes::Size => self.shape("size"),
            Takes::Address => self.shape("address"),
            Takes::Status => self.shape("status"),
            Takes::UrlPath => self.shape("url_path"),
            Takes::Headers => self.shape("headers"),
            Takes::Restart => self.shape("restart"),
            Takes::Signal => {
                let mut signal = self.shape("signal");
                set(&mut signal, "pattern", signals());
                signal
            }
            Takes::Command => self.shape("command"),
            Takes::Test => self.shape("test"),
            Takes::Commands => self.shape("commands"),
            Takes::SomeOf(words) => self.list(self.one_of(words.iter().map(|word| Value::from(*word)).collect())),
            Takes::Texts(_) => self.list(self.item("text")),
            Takes::Wholes(least, most) => {
                let mut whole = self.item("whole");
                set(&mut whole, "minimum", *least);
                set(&mut whole, "maximum", *most);
                self.list(whole)
            }
            Takes::Environment => self.shape("environment"),
            Takes::EnvFiles(keys) => {
                let mut files = self.long_form(keys, "env_file");
                let file = files.clone();
                extend(&mut files, self.shape("env_files"));
                set(&mut files, "items", file);
                files
            }
            Takes::VariableNames => self.shape("variable_names"),
            Takes::Dependencies(keys) => {
                let mut dependencies = self.shape("dependencies");
                set(&mut dependencies, "additionalProperties", self.object(keys));
                dependencies
            }
            Takes::Brake(keys) => {
                let mut brake = self.object(keys);
                extend(&mut brake, self.shape("brake"));
                brake
            }
            Takes::Instance => self.shape("instance"),
            Takes::Instances => self.shape("instances"),
            Takes::Presets => {
                let mut verbs = Value::Object(Map::new());
                set(&mut verbs, "enum", RESERVED_VERBS.map(Value::from).to_vec());
                let mut names =
                    self.shapes.get("definitions").and_then(|all| all.get("key")).cloned().unwrap_or_default();
                set(&mut names, "not", verbs);
                let mut presets = self.shape("presets");
                set(&mut presets, "propertyNames", names);
                set(&mut presets, "additionalProperties", self.long_form(&PRESET, "preset"));
                presets
            }
            Takes::Profiles => {
                let mut profiles = self.shape("profiles");
                set(&mut profiles, "additionalProperties", self.object(&PROFILE));
                profiles
            }
        }
    }

    /// A list of such items.
    fn list(&self, item: Value) -> Value {
        let mut list = self.shape("list");
        set(&mut list, "items", item);
        list
    }

    /// A shape that stands in a list, where nothing can be left out.
    fn item(&self, name: &str) -> Value {
        let mut item = self.shape(name);
        if let Some(types) = item.get_mut("type").and_then(Value::as_array_mut) {
            types.retain(|kind| kind != "null");
        }
        item
    }

    /// One of these values, or what a variable comes to.
    fn one_of(&self, values: Vec<Value>) -> Value {
        let mut choice = Value::Object(Map::new());
        set(&mut choice, "enum", values);
        let mut either = Value::Object(Map::new());
        set(&mut either, "anyOf", vec![choice, self.shape("variable")]);
        either
    }
}

fn set(schema: &mut Value, key: &str, value: impl Into<Value>) {
    if let Value::Object(schema) = schema {
        schema.insert(key.to_owned(), value.into());
    }
}

fn extend(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
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
    format!(r"^\s*([sS][iI][gG])?({}|\+?0*([1-9]|[12][0-9]|3[01]))\s*$|\$", names.join("|"))
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
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()))
        }
        node::Value::Scalar(scalar) => Value::from(scalar.text.as_str()),
        node::Value::List(items) => items.iter().map(json).collect(),
        node::Value::Map(map) => {
            Value::Object(map.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect())
        }
    }
}
