//! Takes typed values out of a map, key by key; reports wrong and unknown keys with their paths; notes where each value stands.
//!
//! Knows maps and places, no key of ours: `fleet`, `instance` and `health` name those.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::near::did_you_mean;
use super::node::{Entry, Map, Node, Value};
use super::problem::{Collector, Fault, Place};

/// A stretch of the file that is read together, such as one instance: what its paths begin with, and where its values stand.
pub struct Scope<'a> {
    collector: &'a Collector,
    base: String,
    origins: RefCell<BTreeMap<String, Place>>,
}

impl<'a> Scope<'a> {
    /// A scope whose paths begin with `base`.
    pub fn new(collector: &'a Collector, base: impl Into<String>) -> Self {
        Self { collector, base: base.into(), origins: RefCell::default() }
    }

    /// Reports `fault` of the value at `place`, whose path inside the scope is `path`.
    pub fn report(&self, place: Place, path: &str, fault: Fault) {
        self.collector.report(place, &join(&self.base, path), fault);
    }

    /// Where each value that was taken stands, by its path inside the scope.
    pub fn into_origins(self) -> BTreeMap<String, Place> {
        self.origins.into_inner()
    }
}

/// A path and a key below it.
pub fn join(path: &str, key: &str) -> String {
    let is_joined = path.is_empty() || key.is_empty() || key.starts_with('[');
    if is_joined { format!("{path}{key}") } else { format!("{path}.{key}") }
}

/// The keys of one map. What is not asked for by [`Keys::finish`] is unknown.
pub struct Keys<'a> {
    scope: &'a Scope<'a>,
    map: &'a Map,
    place: Place,
    path: String,
    known: Vec<&'static str>,
    later: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    /// The keys of `node`, which must be a map.
    pub fn open(scope: &'a Scope<'a>, node: &'a Node, path: &str) -> Option<Self> {
        let Some(map) = node.as_map() else {
            if !node.is_null() {
                scope.report(node.place, path, Fault::new(format!("must be a map, this is {}", node.kind())));
            }
            return None;
        };
        Some(Self { scope, map, place: node.place, path: path.to_owned(), known: Vec::new(), later: Vec::new() })
    }

    /// Where the map stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The entry of `key`, unless it is absent or null.
    pub fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.known.push(key);
        let entry = self.map.entry(key).filter(|entry| !entry.value.is_null())?;
        self.scope.origins.borrow_mut().insert(join(&self.path, key), entry.value.place);
        Some(entry)
    }

    /// The value of `key` as `read` takes it; what `read` refuses is reported and absent.
    pub fn take<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, Fault>) -> Option<T> {
        let entry = self.entry(key)?;
        match read(&entry.value) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.report(entry.value.place, key, fault);
                None
            }
        }
    }

    /// The map below `key`.
    pub fn open_key(&mut self, key: &'static str) -> Option<Keys<'a>> {
        let entry = self.entry(key)?;
        Keys::open(self.scope, &entry.value, &join(&self.path, key))
    }

    /// The map `node`, which stands at `path` below this one.
    pub fn nested(&self, node: &'a Node, path: &str) -> Option<Keys<'a>> {
        Keys::open(self.scope, node, &join(&self.path, path))
    }

    /// Notes where the value at `path` below this map stands.
    pub fn note(&self, path: &str, place: Place) {
        self.scope.origins.borrow_mut().insert(join(&self.path, path), place);
    }

    /// The list below `key`, each item as `read` takes it; every refused item is reported and left out.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        read: impl Fn(&Node) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let entry = self.entry(key)?;
        self.items(&entry.value, key, hint, read)
    }

    /// The same for a list in a list.
    pub fn items<T>(
        &self,
        node: &Node,
        key: &str,
        hint: &str,
        read: impl Fn(&Node) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = &node.value else {
            self.report(node.place, key, Fault::new(format!("must be a list, this is {}", node.kind())).hint(hint));
            return None;
        };
        let mut taken = Vec::new();
        for (index, item) in items.iter().enumerate() {
            self.note(&format!("{key}[{index}]"), item.place);
            match read(item) {
                Ok(value) => taken.push(value),
                Err(fault) => self.report(item.place, &format!("{key}[{index}]"), fault),
            }
        }
        Some(taken)
    }

    /// Reports `fault` of `key`, or of the map itself when `key` is empty.
    pub fn report(&self, place: Place, key: &str, fault: Fault) {
        self.scope.report(place, &join(&self.path, key), fault);
    }

    /// Reports a key that is known, but not in this version.
    pub fn refuse_later(&mut self, key: &'static str) {
        self.later.push(key);
        if let Some(entry) = self.map.entry(key) {
            let fault = Fault::new("is not supported by this version of laneway").hint("take the key out");
            self.report(entry.place, key, fault);
        }
    }

    /// Reports every key that was never asked for; `x-*` keys are the user's own.
    pub fn finish(self) {
        for entry in self.map.iter() {
            let key = entry.key.as_str();
            if self.known.contains(&key) || self.later.contains(&key) || key.starts_with("x-") {
                continue;
            }
            let fault = Fault { what: "is no key that is known here".to_owned(), hint: self.hint(key) };
            self.report(entry.place, &printable(key), fault);
        }
    }

    fn hint(&self, key: &str) -> Option<String> {
        did_you_mean(key, self.known.iter().copied()).or_else(|| {
            let mut known = self.known.clone();
            known.sort_unstable();
            known.dedup();
            (known.len() <= 8).then(|| format!("known are {}", known.join(", ")))
        })
    }
}

/// A key as a message shows it: escaped and not endless.
pub fn printable(text: &str) -> String {
    let escaped: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().count() > 60 { format!("{escaped}...") } else { escaped }
}
