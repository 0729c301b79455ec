//! YAML text to a tree of [`Node`]s: anchors, aliases and `<<` resolved, duplicate keys collected, depth and size bounded.
//!
//! The only file that knows the YAML crate. It uses the crate's events, not its serde side, which stops at the first fault
//! and forgets where keys stand.

use std::collections::HashMap;

use serde_yaml::granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, StrInput, options};

use super::node::{Entry, Map, Node, Scalar, Style, Value};
use super::problem::{Collector, Fault, Place};
use super::reader::{join, printable};

/// Values in one document once its aliases are filled in; far above what 2000 instances need.
const MAX_NODES: usize = 100_000;
/// Maps and lists inside each other.
const MAX_DEPTH: usize = 32;

/// Where in its source a document starts: not at the first byte for the value of a `--set`.
#[derive(Clone, Copy, Default)]
pub struct Start {
    /// The source.
    pub file: u32,
    /// Bytes before the document.
    pub bytes: u32,
    /// Characters before the document, in its first line.
    pub columns: u32,
}

/// The one document in `text`; `None` when it is empty or was reported as unreadable.
pub fn parse(text: &str, start: Start, collector: &Collector) -> Option<Node> {
    let options = options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { parser, start, collector, nodes: 0, path: Vec::new(), anchors: HashMap::new() };
    match composer.document() {
        Ok(node) => node,
        Err(stop) => {
            composer.report(stop.place, "", stop.fault);
            None
        }
    }
}

/// Why the rest of a document cannot be read.
struct Stop {
    place: Place,
    fault: Fault,
}

struct Composer<'a> {
    parser: Parser<'a, StrInput<'a>>,
    start: Start,
    collector: &'a Collector,
    nodes: usize,
    /// The keys and positions from the root to here.
    path: Vec<String>,
    /// Finished anchors, with how deep and how large they are.
    anchors: HashMap<usize, Anchor>,
}

#[derive(Clone)]
struct Anchor {
    node: Node,
    height: usize,
    count: usize,
}

impl<'a> Composer<'a> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        let mut documents = 0;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let fault = Fault::new("a second document starts here, one file holds one")
                            .hint("put it into a file of its own and give both with -f");
                        return Err(Stop { place: self.place(span), fault });
                    }
                }
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span, 1)?.0),
            }
        }
        Ok(root)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Stop> {
        self.parser.next_event().transpose().map_err(|error| self.unreadable(&error))
    }

    /// The node that begins with `event`, and its height.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<(Node, usize), Stop> {
        let place = self.place(span);
        self.grow(1, place)?;
        if depth > MAX_DEPTH {
            return Err(Stop { place, fault: too_deep() });
        }
        let (node, height, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref().map(ToString::to_string);
                let style = self.style(style, tag.as_deref(), place);
                (Node { place, value: Value::Scalar(Scalar { text: text.into_owned(), style }) }, 1, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref().map(ToString::to_string).as_deref(), place);
                let (items, height) = self.list(depth)?;
                (Node { place, value: Value::List(items) }, height, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref().map(ToString::to_string).as_deref(), place);
                let (map, height) = self.map(depth)?;
                // The crate places a block map at its first key already, a flow map at its brace.
                (Node { place, value: Value::Map(map) }, height, anchor)
            }
            Event::Alias(id) => return self.alias(id, place, depth),
            // Comments are switched off, and every other event is no node.
            _ => return Err(Stop { place, fault: Fault::new("a value is missing here") }),
        };
        if anchor > 0 {
            let count = node.count();
            self.anchors.insert(anchor, Anchor { node: node.clone(), height, count });
        }
        Ok((node, height))
    }

    fn alias(&mut self, id: usize, place: Place, depth: usize) -> Result<(Node, usize), Stop> {
        let Some(anchor) = self.anchors.get(&id) else {
            let fault = Fault::new("this alias stands inside its own anchor, so it never ends");
            return Err(Stop { place, fault });
        };
        let (height, count) = (anchor.height, anchor.count);
        if depth + height > MAX_DEPTH + 1 {
            return Err(Stop { place, fault: too_deep() });
        }
        // Counted before it is copied: a bomb costs nothing.
        self.grow(count, place)?;
        let node = self.anchors.get(&id).map(|anchor| anchor.node.clone());
        node.map(|node| (node, height)).ok_or_else(|| Stop { place, fault: too_deep() })
    }

    fn list(&mut self, depth: usize) -> Result<(Vec<Node>, usize), Stop> {
        let mut items = Vec::new();
        let mut height = 0;
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            self.path.push(format!("[{}]", items.len()));
            let (item, item_height) = self.node(event, span, depth + 1)?;
            self.path.pop();
            height = height.max(item_height);
            items.push(item);
        }
        Ok((items, height + 1))
    }

    fn map(&mut self, depth: usize) -> Result<(Map, usize), Stop> {
        let mut map = Map::default();
        let mut merged = Vec::new();
        let mut height = 0;
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let (key, _) = self.node(event, span, depth + 1)?;
            let place = key.place;
            let Some((event, span)) = self.next()? else { break };
            self.path.push(match &key.value {
                Value::Scalar(key) => printable(&key.text),
                Value::List(_) | Value::Map(_) => "?".to_owned(),
            });
            let (value, value_height) = self.node(event, span, depth + 1)?;
            self.path.pop();
            height = height.max(value_height);
            match key.value {
                Value::Scalar(key) if plain && key.text == "<<" => merged.push((place, value)),
                Value::Scalar(key) => self.add(&mut map, Entry { key: key.text, place, value }),
                Value::List(_) | Value::Map(_) => {
                    self.report(place, "", Fault::new("a key is a text, this one is a list or a map"));
                }
            }
        }
        for (place, value) in merged {
            self.merge(&mut map, place, value)?;
        }
        Ok((map, height + 1))
    }

    fn add(&self, map: &mut Map, entry: Entry) {
        match map.entry(&entry.key) {
            Some(first) => {
                let what = format!("`{}` stands twice in this map, first in line {}", entry.key, first.place.line);
                self.report(entry.place, &printable(&entry.key), Fault::new(what).hint("keep one of the two"));
            }
            None => map.insert(entry),
        }
    }

    /// `<<: *base` and `<<: [*first, *second]`: what the map has itself wins, then the first that has it.
    fn merge(&mut self, map: &mut Map, place: Place, value: Node) -> Result<(), Stop> {
        let bases = match value.value {
            Value::List(items) => items,
            Value::Map(_) | Value::Scalar(_) => vec![value],
        };
        for base in bases {
            let Value::Map(base) = base.value else {
                let fault = Fault::new("`<<` takes a map or a list of maps").hint("such as `<<: *anchor`");
                self.report(place, "<<", fault);
                continue;
            };
            self.grow(base.len(), place)?;
            for entry in base.iter().filter(|entry| map.get(&entry.key).is_none()).cloned().collect::<Vec<_>>() {
                map.insert(entry);
            }
        }
        Ok(())
    }

    fn grow(&mut self, count: usize, place: Place) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(count);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let fault = Fault::new(format!("with its aliases filled in, the file has more than {MAX_NODES} values"));
        Err(Stop { place, fault: fault.hint("aliases of aliases multiply; write fewer of them") })
    }

    fn style(&self, style: ScalarStyle, tag: Option<&str>, place: Place) -> Style {
        match tag {
            Some("!" | "tag:yaml.org,2002:str" | "!!str") => return Style::Quoted,
            tag => self.refuse_tag(tag, place),
        }
        if style == ScalarStyle::Plain { Style::Plain } else { Style::Quoted }
    }

    fn refuse_tag(&self, tag: Option<&str>, place: Place) {
        if let Some(tag) = tag.filter(|tag| !tag.starts_with("tag:yaml.org,2002:") && !tag.starts_with("!!")) {
            self.report(place, "", Fault::new(format!("the tag `{tag}` means nothing here")));
        }
    }

    fn report(&self, place: Place, key: &str, fault: Fault) {
        let path = self.path.iter().map(String::as_str).chain([key]).fold(String::new(), |path, key| join(&path, key));
        self.collector.report(place, &path, fault);
    }

    fn place(&self, span: Span) -> Place {
        let byte = |offset: Option<usize>| number(offset.unwrap_or(0)).saturating_add(self.start.bytes);
        let start = byte(span.start.byte_offset());
        let end = byte(span.end.byte_offset()).max(start);
        let line = number(span.start.line());
        let shift = if line <= 1 { self.start.columns } else { 0 };
        Place { file: self.start.file, line: line.max(1), column: number(span.start.col()) + 1 + shift, start, end }
    }

    fn unreadable(&self, error: &ScanError) -> Stop {
        let place = self.place(Span::empty(*error.marker()));
        let fault = match error.kind() {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInPlainScalar => {
                Fault::new("a tab stands where YAML wants spaces").hint("indent with spaces")
            }
            ErrorKind::UnclosedQuotedScalar => Fault::new("a quote is opened here and never closed"),
            ErrorKind::UnclosedFlowCollection { open } => {
                Fault::new(format!("`{open}` is opened here and never closed"))
            }
            ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
                Fault::new(format!("`{open}` is closed by `{close}`"))
            }
            ErrorKind::RecursionLimitExceeded => too_deep(),
            ErrorKind::UnknownAnchor => {
                Fault::new("this alias has no anchor above it").hint("anchors are written `&name`, aliases `*name`")
            }
            ErrorKind::ExpectedFlowMappingSeparator => Fault::new("a map in braces goes on here without `,` or `}`")
                .hint("close the brace, or quote a value that holds braces: \"${VAR}\""),
            ErrorKind::ExpectedFlowSequenceSeparator => {
                Fault::new("a list in brackets goes on here without `,` or `]`")
                    .hint("close the bracket, or quote a value that holds braces: \"{port}\"")
            }
            ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => {
                Fault::new("this line is not indented like those above it").hint("keys of one map begin in one column")
            }
            ErrorKind::MappingValueNotAllowed => {
                Fault::new("a `:` stands where no key can be").hint("a value that holds `: ` needs quotes")
            }
            _ => Fault::new(format!("this is no YAML: {}", error.info())),
        };
        Stop { place, fault }
    }
}

fn too_deep() -> Fault {
    Fault::new(format!("maps and lists are nested more than {MAX_DEPTH} deep here"))
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX - 1)
}
