//! A page of Markdown, taken apart: its blocks with their marks, and the text around them. Knows nothing of laneway.

use std::fs;
use std::path::Path;

use super::REPOSITORY;

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Where it is, from the top of the repository.
    pub path: String,
    /// Its blocks, and the scripts that it does not show, from top to bottom.
    pub blocks: Vec<Block>,
    /// Everything else, line by line; lines of blocks and comments are empty.
    pub prose: Vec<String>,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands after `$ `, with what they print.
    Console,
    /// A script.
    Script,
    /// A script that the page does not show.
    Hidden,
    /// YAML.
    Yaml,
    /// Python.
    Python,
    /// JSON.
    Json,
    /// Nothing that could be tried.
    Text,
    /// None of these.
    Unknown,
}

impl Kind {
    fn of(word: &str) -> Self {
        match word {
            "console" => Self::Console,
            "sh" => Self::Script,
            "yaml" => Self::Yaml,
            "python" => Self::Python,
            "json" => Self::Json,
            "text" | "dockerfile" | "ini" | "nginx" => Self::Text,
            _ => Self::Unknown,
        }
    }

    /// Whether a person would type it.
    pub fn is_command(self) -> bool {
        matches!(self, Self::Console | Self::Script)
    }
}

/// What the comments before a block say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Why it is not run.
    pub not_run: Option<String>,
    /// How its commands end, if not with 0.
    pub exit: Option<i32>,
    /// The file that it is.
    pub file: Option<String>,
    /// The file that it is a further part of.
    pub added_to: Option<String>,
}

/// A block.
#[derive(Clone, Debug)]
pub struct Block {
    page: String,
    line: usize,
    /// What it is.
    pub kind: Kind,
    /// Its lines.
    pub text: String,
    /// What else is said of it.
    pub marks: Marks,
}

/// A command of a transcript.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// What is typed.
    pub typed: String,
    /// What is shown after it.
    pub shown: Vec<String>,
}

impl Page {
    /// Reads a page of the repository.
    #[track_caller]
    pub fn read(path: &str) -> Self {
        Self::parse(path, &fs::read_to_string(Path::new(REPOSITORY).join(path)).unwrap())
    }

    /// Takes a page apart.
    #[track_caller]
    pub fn parse(path: &str, text: &str) -> Self {
        let mut page = Self { path: path.to_owned(), blocks: Vec::new(), prose: Vec::new() };
        let mut marks = Marks::default();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let place = format!("{path}:{}", number + 1);
            page.prose.push(String::new());
            let mut block = Block {
                page: path.to_owned(),
                line: number + 1,
                kind: Kind::Hidden,
                text: String::new(),
                marks: Marks::default(),
            };
            if let Some(word) = line.trim_start().strip_prefix("```") {
                let margin = line.len() - line.trim_start().len();
                block.kind = Kind::of(word.trim());
                block.marks = std::mem::take(&mut marks);
                loop {
                    let (_, line) = lines.next().unwrap_or_else(|| panic!("{place}: a block without an end"));
                    page.prose.push(String::new());
                    if line.trim() == "```" {
                        break;
                    }
                    block.text.push_str(line.get(margin..).unwrap_or_default());
                    block.text.push('\n');
                }
                page.blocks.push(block);
            } else if let Some(start) = line.trim_start().strip_prefix("<!--") {
                let mut comment = start.to_owned();
                while !comment.contains("-->") {
                    let (_, line) = lines.next().unwrap_or_else(|| panic!("{place}: a comment without an end"));
                    page.prose.push(String::new());
                    comment.push('\n');
                    comment.push_str(line);
                }
                let comment = comment.split("-->").next().unwrap_or_default().trim();
                match comment.split_once(':').map(|(word, rest)| (word, rest.trim().to_owned())) {
                    Some(("not run", why)) => marks.not_run = Some(why),
                    Some(("exit", code)) => marks.exit = Some(code.parse().unwrap()),
                    Some(("file", path)) => marks.file = Some(path),
                    Some(("added to", path)) => marks.added_to = Some(path),
                    Some(("run", script)) => {
                        block.text = script + "\n";
                        page.blocks.push(block);
                    }
                    // A comment for people.
                    _ => {}
                }
            } else {
                assert!(line.trim().is_empty() || marks == Marks::default(), "{place}: the mark above has no block");
                line.clone_into(page.prose.last_mut().unwrap());
            }
        }
        assert!(marks == Marks::default(), "{path}: the last mark has no block");
        page
    }

    /// What stands between backticks in the text, with its line.
    pub fn code(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        // A span may go over the end of a line.
        let mut open: Option<(usize, String)> = None;
        for (number, line) in self.prose.iter().enumerate() {
            if line.trim().is_empty() {
                open = None;
            }
            for (position, piece) in line.split('`').enumerate() {
                if position > 0 {
                    match open.take() {
                        Some(span) => found.push(span),
                        None => open = Some((number + 1, String::new())),
                    }
                }
                if let Some((_, span)) = &mut open {
                    span.push_str(piece);
                }
            }
            if let Some((_, span)) = &mut open {
                span.push(' ');
            }
        }
        found
    }

    /// The first columns of its tables: what is the same in every language, but for words such as NAME.
    pub fn tables(&self) -> Vec<String> {
        let rows = self.prose.iter().filter(|line| line.starts_with("| `") || line.starts_with("| 1"));
        rows.map(|row| {
            let cell = row.trim_matches('|').split(" | ").next().unwrap_or_default();
            cell.split(' ').filter(|word| !word.chars().any(|c| c.is_ascii_uppercase())).collect::<Vec<_>>().join(" ")
        })
        .collect()
    }
}

impl Block {
    /// Where it is.
    pub fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// The commands of a transcript. Lines after `> ` go on with the command before them.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        for line in self.text.lines() {
            if let Some(typed) = line.strip_prefix("$ ") {
                commands.push(Command { typed: typed.to_owned(), shown: Vec::new() });
                continue;
            }
            let command = commands.last_mut().unwrap_or_else(|| panic!("{}: begins without `$ `", self.place()));
            match line.strip_prefix("> ") {
                Some(more) if command.shown.is_empty() => command.typed = format!("{}\n{more}", command.typed),
                _ => command.shown.push(line.to_owned()),
            }
        }
        commands
    }

    /// Kind, marks and text, without what is said after `#`: for a page in another language.
    pub fn without_comments(&self) -> String {
        let bare = |line: &str| match line.split_once(" # ") {
            Some((command, _)) if line.starts_with("$ ") => command.trim_end().to_owned(),
            _ => line.to_owned(),
        };
        let lines: Vec<_> = self.text.lines().map(bare).collect();
        format!("{:?} {:?}\n{}", self.kind, self.marks, lines.join("\n"))
    }
}
