//! From a user's files to settings: find, read, parse, fill in variables, layer, read the keys. All problems of all steps at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::model::InstanceName;

use super::disk;
use super::dotenv;
use super::fleet;
use super::interpolate::{Variables, interpolate};
use super::layers::{Document, layer};
use super::near::nearest;
use super::node::{Entry, Map, Node, Scalar, Style, Value};
use super::parse::{Start, parse};
use super::problem::{Collector, Fault, Place, Problems};
use super::reader::{join, printable};
use super::settings::Settings;

/// Faults that are reported of one text; finding the position of each reads it from its beginning.
const MAX_PER_TEXT: usize = 20;

/// What the settings are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `-f`: the first is the base, the others lie over it. None = looked for upwards of `directory`.
    pub files: Vec<PathBuf>,
    /// Absolute: what `files` are relative to, and where the search begins.
    pub directory: PathBuf,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set path.to.key=VALUE`, values in YAML.
    pub set: Vec<String>,
    /// The caller's environment.
    pub environment: BTreeMap<String, String>,
}

/// The settings, if nothing is wrong with them.
///
/// # Errors
/// Everything that is wrong.
pub fn load(source: &Source) -> Result<Settings, Problems> {
    match read(source) {
        (Some(settings), problems) if problems.is_empty() => Ok(settings),
        (_, problems) => Err(problems),
    }
}

/// The file that `source` begins with, without reading it.
#[must_use]
pub fn base_file(source: &Source) -> Option<PathBuf> {
    let file = match source.files.first() {
        Some(file) => source.directory.join(file),
        None => disk::find(&source.directory).ok()?,
    };
    Some(tidy(&file))
}

/// The settings as far as they can be read, and everything that is wrong, so that `plan` can add what it finds.
#[must_use]
pub fn read(source: &Source) -> (Option<Settings>, Problems) {
    let mut collector = Collector::default();
    let paths = if source.files.is_empty() {
        match disk::find(&source.directory) {
            Ok(path) => vec![path],
            Err(fault) => {
                collector.report_file("", fault);
                return (None, collector.finish());
            }
        }
    } else {
        source.files.iter().map(|file| source.directory.join(file)).collect()
    };
    let Some(first) = paths.first().cloned() else { return (None, collector.finish()) };
    let root = first.parent().map_or_else(|| source.directory.clone(), Path::to_path_buf);
    let dotenv = dotenv_of(&root, source, &mut collector);
    let used = RefCell::new(BTreeMap::new());
    let lookup = |name: &str| {
        let value = source.environment.get(name).or_else(|| dotenv.get(name)).cloned();
        used.borrow_mut().insert(name.to_owned(), value.clone());
        value
    };

    let mut documents = Vec::new();
    for path in &paths {
        documents.extend(document(path, source, &mut collector));
    }
    for set in &source.set {
        documents.extend(set_document(set, &mut collector));
    }
    // Half of the layers would only give faults that are none.
    let is_complete = documents.len() == paths.len() + source.set.len();
    for document in &mut documents {
        fill_in(&mut document.root, "", &lookup, &collector);
    }
    let profile = source.profile.as_deref();
    let layered = if is_complete { layer(documents, profile, &collector) } else { None };
    let read = layered.and_then(|layered| {
        let fleet = fleet::read(&layered, profile, &lookup, &collector)?;
        Some((fleet, layered.parts))
    });
    let Some((fleet, parts)) = read else { return (None, collector.finish()) };
    let state_dir = root.join(fleet.state_dir.as_deref().unwrap_or(".laneway"));
    let sources = Arc::new(collector.sources.clone());
    let settings = Settings {
        project: fleet.name.map_or_else(|| project_name(&root), |name| name.to_string()),
        namespace: fleet.namespace,
        file: tidy(&first),
        root: tidy(&root),
        state_dir: tidy(&state_dir),
        profile: source.profile.clone(),
        restart_brake: fleet.restart_brake,
        presets: fleet.presets,
        profiles: fleet.profiles,
        instances: fleet.instances,
        variables: used.into_inner(),
        parts,
        sources,
    };
    (Some(settings), collector.finish())
}

/// A variable of an `env_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvEntry {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The line where it stands.
    pub line: usize,
}

/// The variables of an `env_file`; `lookup` is what `${VAR}` in it may name.
///
/// # Errors
/// Why the file cannot be taken: its own faults are given with their lines.
pub fn read_env_file(path: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<EnvEntry>, Vec<Fault>> {
    let text = disk::read_text(path).map_err(|fault| vec![fault])?;
    let (assignments, bad) = dotenv::parse(&text, lookup);
    let line_of = |at: usize| text.get(..at).unwrap_or("").matches('\n').count() + 1;
    if bad.is_empty() {
        let entry = |a: dotenv::Assignment| Some(EnvEntry { name: a.key, value: a.value?, line: line_of(a.at) });
        return Ok(assignments.into_iter().filter_map(entry).collect());
    }
    let numbered = |bad: dotenv::Bad| Fault {
        what: format!("line {}: {}", line_of(bad.at), bad.fault.what),
        hint: bad.fault.hint,
    };
    Err(bad.into_iter().take(MAX_PER_TEXT).map(numbered).collect())
}

/// `.env` beside the first file; there need not be one.
fn dotenv_of(root: &Path, source: &Source, collector: &mut Collector) -> BTreeMap<String, String> {
    let path = root.join(".env");
    if !path.exists() {
        return BTreeMap::new();
    }
    let shown = shown(&path, &source.directory);
    let text = match disk::read_text(&path) {
        Ok(text) => text,
        Err(fault) => {
            collector.report_file(&shown, fault);
            return BTreeMap::new();
        }
    };
    let (assignments, bad) = dotenv::parse(&text, &|name| source.environment.get(name).cloned());
    let file = collector.sources.add(shown, text);
    let start = Place { file, line: 1, column: 1, start: 0, end: 0 };
    for bad in bad.into_iter().take(MAX_PER_TEXT) {
        let first = collector.sources.text(start).get(bad.at..).and_then(|rest| rest.chars().next());
        let length = first.map_or(0, char::len_utf8);
        collector.report(collector.sources.within(start, bad.at, length), "", bad.fault);
    }
    assignments.into_iter().filter_map(|a| Some((a.key, a.value?))).collect()
}

fn document(path: &Path, source: &Source, collector: &mut Collector) -> Option<Document> {
    let shown = shown(path, &source.directory);
    let text = match disk::read_text(path) {
        Ok(text) => text,
        Err(fault) => {
            collector.report_file(&shown, fault);
            return None;
        }
    };
    let file = collector.sources.add(shown.clone(), text.clone());
    let before = collector.count();
    match parse(&text, Start { file, ..Start::default() }, collector) {
        Some(root) if root.as_map().is_some() => Some(Document { root, is_set: false }),
        Some(root) if !root.is_null() => {
            let fault = Fault::new(format!("the file must be a map, this is {}", root.kind()));
            collector.report(root.place, "", fault.hint(disk::MINIMAL));
            None
        }
        // A document that cannot be read was reported.
        None if collector.count() > before => None,
        _ => {
            collector.report_file(&shown, Fault::new("is empty").hint(disk::MINIMAL));
            None
        }
    }
}

/// `--set instances.chat_api.port=9000` as a document of one path.
fn set_document(set: &str, collector: &mut Collector) -> Option<Document> {
    let file = collector.sources.add(format!("--set {}", set.split('=').next().unwrap_or(set)), set.to_owned());
    let whole = collector.sources.within(Place { file, line: 1, column: 1, start: 0, end: 0 }, 0, set.len());
    let path = set.split_once('=').filter(|(path, _)| path.split('.').all(|key| !key.is_empty()));
    let Some((path, value)) = path else {
        let fault = Fault::new("must have the form path.to.key=VALUE");
        collector.report(whole, "", fault.hint("such as --set instances.chat_api.port=9000"));
        return None;
    };
    let at = path.len() + 1;
    let columns = u32::try_from(path.chars().count() + 1).unwrap_or(u32::MAX);
    let start = Start { file, bytes: u32::try_from(at).unwrap_or(u32::MAX), columns };
    let before = collector.count();
    let value = parse(value, start, collector);
    if collector.count() > before {
        return None;
    }
    let null = Node { place: whole, value: Value::Scalar(Scalar { text: String::new(), style: Style::Plain }) };
    let mut end = path.len();
    let root = path.rsplit('.').fold(value.unwrap_or(null), |value, key| {
        let place = collector.sources.within(whole, end - key.len(), key.len());
        end = (end - key.len()).saturating_sub(1);
        let mut map = Map::default();
        map.insert(Entry { key: key.to_owned(), place, value });
        Node { place, value: Value::Map(map) }
    });
    Some(Document { root, is_set: true })
}

/// Fills the variables of every value in; keys stay as they are, as in Compose.
fn fill_in(node: &mut Node, path: &str, lookup: &dyn Fn(&str) -> Option<String>, collector: &Collector) {
    let place = node.place;
    match &mut node.value {
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill_in(item, &format!("{path}[{index}]"), lookup, collector);
            }
        }
        Value::Map(map) => {
            for (key, value) in map.iter_mut() {
                fill_in(value, &join(path, &printable(key)), lookup, collector);
            }
        }
        Value::Scalar(scalar) if scalar.text.contains('$') => {
            let (text, bad) = interpolate(&scalar.text, &Variables { lookup, escape_braces: true });
            let style = if bad.is_empty() { Style::Filled } else { Style::Broken };
            for bad in bad.into_iter().take(MAX_PER_TEXT) {
                let place = in_source(place, &scalar.text, bad.at, bad.length, collector);
                collector.report(place, path, bad.fault);
            }
            *scalar = Scalar { text, style };
        }
        Value::Scalar(_) => {}
    }
}

/// Where byte `at` of a scalar's text stands in the file: quotes and escapes shift it, so the dollars are counted.
fn in_source(place: Place, text: &str, at: usize, length: usize, collector: &Collector) -> Place {
    let dollars = text.get(..at).unwrap_or("").matches('$').count();
    let written = collector.sources.slice(place);
    match written.match_indices('$').nth(dollars) {
        Some((offset, _)) => collector.sources.within(place, offset, length),
        None => place,
    }
}

/// The folder's name made legal.
fn project_name(root: &Path) -> String {
    let folder = tidy(root);
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match InstanceName::parse(&name) {
        Ok(name) => name.to_string(),
        Err(error) => error.nearest.unwrap_or_else(|| "laneway".to_owned()),
    }
}

/// Absolute, without `.` and, by the letters alone, without `..`. Every path of a plan is tidied once, before anything uses
/// or compares it, so a symlink before a `..` cannot mean one thing here and another there.
#[must_use]
pub fn tidy(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut tidy = PathBuf::with_capacity(path.as_os_str().len());
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => tidy.push(component),
        }
    }
    tidy
}

/// A path as messages show it.
fn shown(path: &Path, directory: &Path) -> String {
    path.strip_prefix(directory).unwrap_or(path).display().to_string()
}

/// The nearest of some names, for messages of the rooms above.
#[must_use]
pub fn nearest_name<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(word, known)
}
