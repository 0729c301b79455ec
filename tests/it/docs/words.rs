//! What stands in the text of pages: links, the names of files, and every verb and flag of laneway, also in code.
//! The verbs and flags are those of the binary's own help; none is listed here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::page::{Kind, Page};
use super::{REPOSITORY, has_ending};
use crate::harness::Fleet;

/// Flags of other programs that pages speak of alone.
const OF_OTHERS: [&str; 6] = ["--access-log", "--access-logfile", "--features", "--kills", "--noreload", "--pool"];

/// Every relative link leads to a file, and every anchor to a heading.
pub fn links(pages: &[Page]) {
    let mut broken = Vec::new();
    for page in pages {
        for target in
            page.prose.iter().flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next())
        {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { PathBuf::from(&page.path) } else { beside(&page.path, file) };
            let exists = Path::new(REPOSITORY).join(&path).exists() || file.is_empty();
            let headings = || {
                let known = pages.iter().find(|other| Path::new(&other.path) == path);
                known.map_or_else(|| headings(&Page::read(path.to_str().unwrap())), headings)
            };
            if !exists || !(anchor.is_empty() || headings().contains(anchor)) {
                broken.push(format!("{}: {target}", page.path));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

fn beside(page: &str, file: &str) -> PathBuf {
    let mut path = PathBuf::from(page);
    path.pop();
    for part in Path::new(file) {
        if part == ".." {
            path.pop();
        } else {
            path.push(part);
        }
    }
    path
}

/// The anchors of a page, as GitHub makes them.
fn headings(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in page.prose.iter().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let number = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(number).find(|one| !anchors.contains(one));
        anchors.extend(free);
    }
    anchors
}

/// Source files and files of the repository that are named in code exist.
pub fn files(pages: &[Page]) {
    let mut all = Vec::new();
    for folder in ["src", "tests", "scripts", "examples", "docs", "fuzz/src", "benches"] {
        walk(&Path::new(REPOSITORY).join(folder), &mut all);
    }
    let mut missing = Vec::new();
    for page in pages.iter().filter(|page| page.path != "CHANGELOG.md") {
        for (line, code) in page.code() {
            let is_source = has_ending(&code, "rs") && !code.contains(['{', ' ', '*']);
            let first = code.split([' ', '#']).next().unwrap_or_default();
            let is_ours = ["scripts/", "examples/", "docs/", "tests/", "src/"].iter().any(|top| first.starts_with(top));
            let known = |name: &str| all.iter().any(|path| path.ends_with(name.trim_end_matches('/')));
            if (is_source || is_ours) && !known(first) {
                missing.push(format!("{}:{line}: {code}", page.path));
            }
        }
    }
    assert!(missing.is_empty(), "files that are not there:\n{}", missing.join("\n"));
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    found.push(folder.to_owned());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with(".venv") {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The help of laneway, asked for once per verb.
struct Help {
    fleet: Fleet,
    main: String,
    verbs: BTreeMap<String, Option<String>>,
}

impl Help {
    fn new() -> Self {
        // The sample fleet's presets are verbs too.
        let fleet = Fleet::raw(&std::fs::read_to_string(Path::new(REPOSITORY).join("instances.yaml")).unwrap());
        let main = fleet.run(&["--help"]).expect(0).out;
        let mut help = Self { fleet, main, verbs: BTreeMap::new() };
        // Verbs stand two spaces from the margin; what is said of them is further in.
        let lines: Vec<_> =
            help.main.lines().skip_while(|line| !line.starts_with("Usage:")).skip(1).map(str::to_owned).collect();
        for line in lines.iter().take_while(|line| !line.starts_with("Presets")) {
            if let Some(verb) =
                line.strip_prefix("  ").and_then(|line| line.split(' ').next()).filter(|v| !v.is_empty())
            {
                help.of(verb);
            }
        }
        assert!(help.verbs.len() > 5, "the help has changed its looks: {}", help.main);
        help
    }

    /// The help of a verb or of a preset; `None` if it is neither.
    fn of(&mut self, verb: &str) -> Option<&str> {
        if !self.verbs.contains_key(verb) {
            // `cache clear` is a verb of two words.
            let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
            let is_word = verb.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == ' ')
                && verb.starts_with(char::is_alphabetic);
            let help = is_word.then(|| self.fleet.run(&words)).filter(|help| help.code == 0).map(|help| help.out);
            // Any word may be the preset of some file; those of the sample fleet exist.
            let is_preset = |help: &String| help.contains(&format!("the preset `{verb}`"));
            let known = help.filter(|help| !is_preset(help) || self.fleet.text().contains(&format!("  {verb}:")));
            self.verbs.insert(verb.to_owned(), known);
        }
        self.verbs.get(verb).and_then(Option::as_deref)
    }
}

/// Whether a help knows a flag, and whether that takes a value.
fn takes(help: &str, flag: &str) -> Option<bool> {
    for line in help.lines().filter(|line| line.trim_start().starts_with('-')) {
        let words: Vec<_> = line.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
        let flags = words.iter().take_while(|word| word.starts_with('-')).count();
        if words.iter().take(flags).any(|word| *word == flag) {
            return Some(words.get(flags).is_some_and(|word| word.starts_with(['<', '['])));
        }
    }
    None
}

/// Every verb of laneway that is named exists, and every flag beside it.
pub fn verbs_and_flags(pages: &[Page]) {
    let mut help = Help::new();
    let mut faults = Vec::new();
    for page in pages {
        for block in page.blocks.iter().filter(|block| block.kind.is_command() || block.kind == Kind::Hidden) {
            // Of a transcript what is typed, not what is printed.
            let typed = |line: &&str| block.kind != Kind::Console || line.starts_with("$ ");
            for line in block.text.lines().filter(typed) {
                faults.extend(commands(&mut help, line).map(|fault| format!("{}: {fault}: {line}", block.place())));
            }
        }
        for (line, code) in page.code() {
            let fault = commands(&mut help, &code).or_else(|| alone(&mut help, &code));
            faults.extend(fault.map(|fault| format!("{}:{line}: {fault}: {code}", page.path)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The commands of laneway in a line.
fn commands(help: &mut Help, line: &str) -> Option<String> {
    let line = line.split(" # ").next().unwrap_or_default();
    let mut pieces = line.split(['|', ';', '&', '(', ')']);
    pieces.find_map(|piece| {
        let words: Vec<_> = piece.split_whitespace().collect();
        // A word of the shell may stand before it, such as `$` or `sudo`; it is no argument of another program.
        let at = words.iter().position(|word| word.rsplit('/').next() == Some("laneway"))?;
        let is_program =
            words.iter().take(at).all(|word| ["$", "sudo", "time", "exec", "!"].contains(word) || word.contains('='));
        is_program.then(|| command(help, words.get(at + 1..).unwrap_or_default())).flatten()
    })
}

/// One command, without the word `laneway`.
fn command(help: &mut Help, words: &[&str]) -> Option<String> {
    let mut text = help.main.clone();
    let (mut has_verb, mut is_said) = (None, false);
    let mut words = words.iter().map(|word| word.trim_matches(['"', '\'', ',', '[', ']']));
    while let Some(word) = words.next() {
        if word == "--" || word.starts_with(['<', '>', '#']) || word == "..." {
            break;
        }
        if let Some(flag) = word.split('=').next().filter(|flag| flag.len() > 1 && flag.starts_with('-')) {
            match takes(&text, flag) {
                None => return Some(format!("there is no flag {flag}")),
                Some(true) if !word.contains('=') => drop(words.next()),
                Some(_) => {}
            }
        } else if let Some(first) = has_verb.take().filter(|_| text.contains("\nCommands:\n")) {
            match help.of(&format!("{first} {word}")) {
                None => return Some(format!("there is no verb {first} {word}")),
                Some(own) => own.clone_into(&mut text),
            }
        } else if !is_said {
            // VERB and NAME stand for something.
            if word.chars().any(|c| c.is_ascii_uppercase() || c == '{') {
                break;
            }
            (has_verb, is_said) = (Some(word), true);
            match help.of(word) {
                None => return Some(format!("there is no verb {word}")),
                Some(own) => own.clone_into(&mut text),
            }
        }
    }
    None
}

/// Code that leaves `laneway` away: `down --now`, `--wait`. Long flags only: `kill -9` is also a word of the shell.
fn alone(help: &mut Help, code: &str) -> Option<String> {
    let words: Vec<_> = code.split_whitespace().collect();
    let first = words.first()?;
    let flags = || words.iter().take_while(|word| **word != "--").filter_map(|word| word.split('=').next());
    let long: Vec<_> = flags().filter(|word| word.starts_with("--") && word.len() > 2).collect();
    if first.starts_with('-') {
        let known = |flag: &str| {
            let everywhere = help.verbs.values().flatten().chain([&help.main]);
            OF_OTHERS.contains(&flag) || everywhere.into_iter().any(|help| takes(help, flag).is_some())
        };
        return long.iter().find(|flag| !known(flag)).map(|flag| format!("there is no flag {flag}"));
    }
    if long.is_empty() {
        return None;
    }
    let two = words.get(1).filter(|second| !second.starts_with('-')).map(|second| format!("{first} {second}"));
    let is_two = help.of(first).is_some_and(|help| help.contains("\nCommands:\n"));
    let own = help.of(two.filter(|_| is_two).as_deref().unwrap_or(first))?;
    long.iter().find(|flag| takes(own, flag).is_none()).map(|flag| format!("{first} has no flag {flag}"))
}
