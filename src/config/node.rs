//! A YAML document as a tree in which every key and every value knows its place.
//!
//! Knows no YAML crate and no key of ours; made by `parse`, filled by `interpolate`, layered by `merge`, read by `reader`.

use std::collections::HashMap;

use super::problem::Place;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// The three kinds of value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text; what it means depends on the key and on how it is written.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map with text keys.
    Map(Map),
}

/// A text and how it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Without quotes, escapes resolved.
    pub text: String,
    /// How it is written.
    pub style: Style,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In quotes, as a block, or tagged `!!str`.
    Quoted,
    /// From a variable, so that its quotes say nothing about its type.
    Filled,
    /// From a variable that could not be had, which was reported.
    Broken,
}

/// A map that keeps the order of its keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A map without entries.
    pub fn empty_map(place: Place) -> Self {
        Self { place, value: Value::Map(Map::default()) }
    }

    /// A text in quotes.
    pub fn text(place: Place, text: impl Into<String>) -> Self {
        Self { place, value: Value::Scalar(Scalar { text: text.into(), style: Style::Quoted }) }
    }

    /// Whether it is written as nothing, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(Scalar { text, style: Style::Plain })
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The map that it is.
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            Value::List(_) | Value::Scalar(_) => None,
        }
    }

    /// How many values it holds, itself among them.
    pub fn count(&self) -> usize {
        match &self.value {
            Value::Scalar(_) => 1,
            Value::List(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Value::Map(map) => 1 + map.iter().map(|entry| entry.value.count()).sum::<usize>(),
        }
    }

    /// How a message quotes it: what came out of a variable may be a secret.
    pub fn shown(&self) -> String {
        match &self.value {
            Value::Scalar(Scalar { style: Style::Filled, .. }) => "${...}".to_owned(),
            Value::Scalar(scalar) => scalar.text.clone(),
            Value::List(_) | Value::Map(_) => self.kind().to_owned(),
        }
    }

    /// What it is, in words, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

impl Map {
    /// The entry of `key`.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(*self.index.get(key)?)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        Some(&self.entry(key)?.value)
    }

    /// Sets an entry; one of the same key keeps its position in the order.
    pub fn insert(&mut self, entry: Entry) {
        if let Some(old) = self.index.get(&entry.key).and_then(|index| self.entries.get_mut(*index)) {
            *old = entry;
        } else {
            self.index.insert(entry.key.clone(), self.entries.len());
            self.entries.push(entry);
        }
    }

    /// Takes away the entries whose key `unwanted` names.
    pub fn remove(&mut self, unwanted: &[&str]) {
        let entries = std::mem::take(&mut self.entries);
        self.index.clear();
        for entry in entries {
            if !unwanted.contains(&entry.key.as_str()) {
                self.insert(entry);
            }
        }
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The value of `key`, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let index = *self.index.get(key)?;
        self.entries.get_mut(index).map(|entry| &mut entry.value)
    }

    /// All keys and values in order, the values to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Node)> {
        self.entries.iter_mut().map(|entry| (entry.key.as_str(), &mut entry.value))
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
