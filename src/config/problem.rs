//! What is wrong with a user's files: where, what, why, and a hint; all of it collected before anything is said.
//!
//! Knows positions and texts, no YAML and no key. Every pass of `config` and `plan` reports into a [`Collector`].

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// A message is cut after so many characters.
const LONGEST_MESSAGE: usize = 1000;

/// A stretch of one source. Ordered as it is read: by file, line, column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which source, in the order of loading.
    pub file: u32,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// First byte.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
}

/// The texts that places point into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    name: String,
    text: String,
}

impl Sources {
    /// Adds a text under the name that messages show; the result goes into [`Place::file`].
    pub fn add(&mut self, name: String, text: String) -> u32 {
        self.0.push(Source { name: legible(name), text });
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    /// The name of the file that `place` is in.
    #[must_use]
    pub fn name(&self, place: Place) -> &str {
        self.0.get(place.file as usize).map_or("", |source| &source.name)
    }

    /// The whole text of the file that `place` is in.
    #[must_use]
    pub fn text(&self, place: Place) -> &str {
        self.0.get(place.file as usize).map_or("", |source| &source.text)
    }

    /// The text that `place` covers.
    #[must_use]
    pub fn slice(&self, place: Place) -> &str {
        self.text(place).get(place.start as usize..place.end as usize).unwrap_or("")
    }

    /// The place of `length` bytes, `offset` bytes after the start of `place`.
    #[must_use]
    pub fn within(&self, place: Place, offset: usize, length: usize) -> Place {
        let start = place.start as usize + offset;
        let (mut line, mut column) = (place.line, place.column);
        for c in self.text(place).get(place.start as usize..start).unwrap_or("").chars() {
            if c == '\n' {
                line += 1;
                column = 1;
            } else {
                column += 1;
            }
        }
        let byte = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Place { file: place.file, line, column, start: byte(start), end: byte(start + length) }
    }
}

/// What is wrong with a value, before it is known where that value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong and why, in lower case and the present tense.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault without a hint.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// A fault that was reported already where it arose, so that nobody hears of its consequences.
    #[must_use]
    pub fn reported() -> Self {
        Self::new("")
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as messages show it; empty when it is about no file.
    pub file: String,
    /// From 1; 0 when it is about the whole file.
    pub line: u32,
    /// From 1; 0 when it is about the whole file.
    pub column: u32,
    /// Such as `instances.chat_api.port`; empty when it is about no key.
    pub path: String,
    /// What is wrong and why.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What the excerpt underlines.
    pub place: Option<Place>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        } else if !self.file.is_empty() {
            write!(f, "{}: ", self.file)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the files, with the texts to show it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    pub(super) sources: Arc<Sources>,
}

impl Problems {
    /// Each problem once, by position.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// These and those, by position. Both speak of the same sources, of which `other` may have seen more.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut list = self.list;
        list.extend(other.list);
        Self::sorted(list, other.sources)
    }

    fn sorted(mut list: Vec<Problem>, sources: Arc<Sources>) -> Self {
        // A value of `defaults` is read once by itself and once in each instance; its first report has the path as written.
        list.sort_by(|a, b| (a.place, &a.what).cmp(&(b.place, &b.what)));
        list.dedup_by(|a, b| a.place == b.place && a.what == b.what && (a.place.is_some() || a.file == b.file));
        Self { list, sources }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What messages quote from a file must not steer the terminal that shows it, and must have an end.
fn legible(text: String) -> String {
    let steers =
        |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.len() <= LONGEST_MESSAGE && !text.contains(steers) {
        return text;
    }
    let mut legible = String::new();
    for c in text.chars().take(LONGEST_MESSAGE) {
        if steers(c) { legible.extend(c.escape_default()) } else { legible.push(c) }
    }
    if text.chars().count() > LONGEST_MESSAGE { legible + "..." } else { legible }
}

/// Where the passes report to.
#[derive(Debug, Default)]
pub struct Collector {
    /// The texts loaded so far.
    pub sources: Sources,
    list: RefCell<Vec<Problem>>,
}

impl Collector {
    /// A collector over texts that are loaded already.
    #[must_use]
    pub fn over(sources: &Sources) -> Self {
        Self { sources: sources.clone(), list: RefCell::default() }
    }

    /// Reports `fault` of the value at `place`, whose key path is `path`.
    pub fn report(&self, place: Place, path: &str, fault: Fault) {
        if fault == Fault::reported() {
            return;
        }
        self.list.borrow_mut().push(Problem {
            file: self.sources.name(place).to_owned(),
            line: place.line,
            column: place.column,
            path: legible(path.to_owned()),
            what: legible(fault.what),
            hint: fault.hint.map(legible),
            place: Some(place),
        });
    }

    /// Reports `fault` of a whole file, or of no file when `file` is empty.
    pub fn report_file(&self, file: &str, fault: Fault) {
        self.list.borrow_mut().push(Problem {
            file: legible(file.to_owned()),
            line: 0,
            column: 0,
            path: String::new(),
            what: legible(fault.what),
            hint: fault.hint.map(legible),
            place: None,
        });
    }

    /// How much was reported so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.borrow().len()
    }

    /// All reports, each once, by position.
    #[must_use]
    pub fn finish(self) -> Problems {
        Problems::sorted(self.list.into_inner(), Arc::new(self.sources))
    }
}
