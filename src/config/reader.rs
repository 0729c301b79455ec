//! Takes typed values out of a map, key by key; reports wrong and unknown keys with their paths; notes where each value stands.
//!
//! Knows maps and places, no key of ours: `keys` declares those, `fleet`, `instance` and `health` ask for them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::keys::{Key, find};
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

/// The keys of one map. What is not declared is unknown, and what is declared must be asked for before [`Keys::finish`].
pub struct Keys<'a> {
    scope: &'a Scope<'a>,
    map: &'a Map,
    place: Place,
    path: String,
    declared: &'static [Key],
    asked: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    /// The keys of `node`, which must be a map, as `declared`.
    pub fn open(scope: &'a Scope<'a>, node: &'a Node, path: &str, declared: &'static [Key]) -> Option<Self> {
        let Some(map) = node.as_map() else {
            if !node.is_null() {
                scope.report(node.place, path, Fault::new(format!("must be a map, this is {}", node.kind())));
            }
            return None;
        };
        Some(Self { scope, map, place: node.place, path: path.to_owned(), declared, asked: Vec::new() })
    }

    /// Where the map stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The entry of `key`, unless it is absent or null.
    pub fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        debug_assert!(find(self.declared, key).is_some_and(Key::is_of_now), "{key} is not declared in {}", self.path);
        self.asked.push(key);
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
        let declared = find(self.declared, key).map_or(&[][..], |key| key.takes.below());
        Keys::open(self.scope, &entry.value, &join(&self.path, key), declared)
    }

    /// The map `node`, which stands at `path` below this one and has the keys `declared`.
    pub fn nested(&self, node: &'a Node, path: &str, declared: &'static [Key]) -> Option<Keys<'a>> {
        Keys::open(self.scope, node, &join(&self.path, path), declared)
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

    /// Reports every key that is unknown, or of a later version; `x-*` keys are the user's own.
    pub fn finish(self) {
        debug_assert!(
            self.declared.iter().all(|key| !key.is_of_now() || self.asked.contains(&key.name)),
            "not all keys of `{}` are read",
            self.path
        );
        for entry in self.map.iter() {
            let name = entry.key.as_str();
            let fault = match find(self.declared, name) {
                None if name.starts_with("x-") => continue,
                None => Fault { what: "is no key that is known here".to_owned(), hint: self.hint(name) },
                Some(key) if key.is_of_now() => continue,
                Some(_) => Fault::new("is not supported by this version of laneway").hint("take the key out"),
            };
            self.report(entry.place, &printable(name), fault);
        }
    }

    fn hint(&self, name: &str) -> Option<String> {
        let known = || self.declared.iter().filter(|key| key.is_of_now()).map(|key| key.name);
        did_you_mean(name, known()).or_else(|| {
            let mut known: Vec<&str> = known().collect();
            known.sort_unstable();
            (known.len() <= 8).then(|| format!("known are {}", known.join(", ")))
        })
    }
}

/// A key as a message shows it: escaped and not endless.
pub fn printable(text: &str) -> String {
    let escaped: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().count() > 60 { format!("{escaped}...") } else { escaped }
}
