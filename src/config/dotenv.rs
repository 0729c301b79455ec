//! `.env` files and `env_file`, by Compose's rules. A pure parser; `disk` reads, `load` and `plan` ask.
//!
//! `KEY=value`, `export KEY=value`, `KEY: value`; `#` lines and ` #` after an unquoted value are comments; `'single'` is
//! taken as it is; `"double"` knows `\n \r \t \" \\ \$`; both may go over several lines; variables are filled in everywhere
//! but in single quotes, from `lookup` first and the lines above second; a bare `KEY` is taken from `lookup`.

use std::collections::HashMap;

use super::interpolate::{Variables, interpolate};
use super::problem::Fault;

/// One assignment of an environment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub key: String,
    /// Its value; `None` = a bare name that `lookup` does not know.
    pub value: Option<String>,
    /// Byte where it begins.
    pub at: usize,
}

/// A fault in an environment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Byte where it is.
    pub at: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// The assignments of `text` in order, and what is wrong with it.
pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> (Vec<Assignment>, Vec<Bad>) {
    let mut file = File { text, lookup, assignments: Vec::new(), above: HashMap::new(), bad: Vec::new() };
    let mut at = 0;
    while at < text.len() {
        at = file.line(at);
    }
    (file.assignments, file.bad)
}

struct File<'a> {
    text: &'a str,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    assignments: Vec<Assignment>,
    above: HashMap<String, String>,
    bad: Vec<Bad>,
}

impl File<'_> {
    /// Takes what begins at `at`; gives the byte where the next line begins.
    fn line(&mut self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or("");
        let line_end = rest.find('\n').unwrap_or(rest.len());
        let next = at + line_end + 1;
        let line = rest.get(..line_end).unwrap_or("");
        let indent = line.len() - line.trim_start().len();
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            return next;
        }
        let (content, at) = match content.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])) {
            Some(rest) => (rest.trim_start(), at + indent + content.len() - rest.trim_start().len()),
            None => (content, at + indent),
        };
        let key_end = content.find(['=', ':', ' ', '\t', '#']).unwrap_or(content.len());
        let (key, after) = content.split_at(key_end);
        if !is_variable_name(key) {
            let hint = "lines have the form KEY=value, with A-Z, a-z, 0-9 and _ in KEY";
            self.report(at, Fault::new(format!("`{}` is no name of a variable", key.escape_debug())).hint(hint));
            return next;
        }
        let after_key = after.trim_start();
        let Some(value) = after_key.strip_prefix(['=', ':']) else {
            if after_key.is_empty() || after_key.starts_with('#') {
                let value = self.look_up(key);
                self.push(key, value, at);
            } else {
                let fault = Fault::new(format!("`{key}` is followed by neither `=` nor a value"));
                self.report(at, fault.hint("lines have the form KEY=value"));
            }
            return next;
        };
        let value = value.trim_start();
        let value_at = at + content.len() - value.len();
        if let Some(quote @ ('"' | '\'')) = value.chars().next() {
            return self.quoted(key, quote, at, value_at + 1, next);
        }
        self.unquoted(key, value, at, value_at);
        next
    }

    fn unquoted(&mut self, key: &str, value: &str, at: usize, value_at: usize) {
        let comment = if value.starts_with('#') {
            Some(0)
        } else {
            value
                .match_indices('#')
                .map(|(found, _)| found)
                .find(|found| value.get(..*found).is_some_and(|before| before.ends_with([' ', '\t'])))
        };
        let value = value.get(..comment.unwrap_or(value.len())).unwrap_or("").trim_end();
        self.assign(key, value, at, value_at);
    }

    fn quoted(&mut self, key: &str, quote: char, at: usize, value_at: usize, next: usize) -> usize {
        let rest = self.text.get(value_at..).unwrap_or("");
        let mut value = String::new();
        let mut characters = rest.char_indices();
        while let Some((offset, c)) = characters.next() {
            match c {
                c if c == quote => {
                    if quote == '"' {
                        self.assign(key, &value, at, value_at);
                    } else {
                        self.push(key, Some(value), at);
                    }
                    return self.after_quote(value_at + offset + 1);
                }
                '\\' if quote == '"' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    // Doubled, so that filling in leaves one.
                    Some((_, '$')) => value.push_str("$$"),
                    Some((_, c @ ('"' | '\\'))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => value.push('\\'),
                },
                c => value.push(c),
            }
        }
        self.report(value_at - 1, Fault::new(format!("the quote of {key} is never closed")));
        next
    }

    /// Nothing but a comment may follow a closing quote; gives the byte where the next line begins.
    fn after_quote(&mut self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or("");
        let line = rest.split('\n').next().unwrap_or("");
        let trimmed = line.trim();
        if !trimmed.is_empty() && !trimmed.starts_with('#') {
            self.report(at, Fault::new("something follows the closing quote").hint("quote the whole value"));
        }
        at + line.len() + 1
    }

    fn assign(&mut self, key: &str, template: &str, at: usize, value_at: usize) {
        let lookup = |name: &str| self.look_up(name);
        let (value, bad) = interpolate(template, &Variables { lookup: &lookup, escape_braces: false });
        for bad in bad {
            let hint = "in single quotes a value is taken as it is";
            self.report(value_at, Fault { hint: Some(hint.to_owned()), ..bad.fault });
        }
        self.push(key, Some(value), at);
    }

    fn push(&mut self, key: &str, value: Option<String>, at: usize) {
        if let Some(value) = &value {
            self.above.insert(key.to_owned(), value.clone());
        }
        self.assignments.push(Assignment { key: key.to_owned(), value, at });
    }

    fn look_up(&self, name: &str) -> Option<String> {
        (self.lookup)(name).or_else(|| self.above.get(name).cloned())
    }

    fn report(&mut self, at: usize, fault: Fault) {
        self.bad.push(Bad { at, fault });
    }
}

/// `[A-Za-z_][A-Za-z0-9_]*`.
pub fn is_variable_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "OUTER").then(|| "outside".to_owned())
    }

    #[test]
    fn a_file_reads_as_compose_reads_it() {
        let text = concat!(
            "# comment\r\n\n",
            "PLAIN=a b # comment\r\n",
            "export EXPORTED=1\n",
            "YAML: style\n",
            "HASH=a#b\n",
            "EMPTY=\n",
            "SINGLE='$OUTER \\n # kept' # comment\n",
            "DOUBLE=\"a\\n\\\"b\\\" \\$OUTER ${OUTER}\"\n",
            "LINES=\"one\ntwo\"\n",
            "ABOVE=${PLAIN}-${MISSING:-none}\n",
            "OUTER\n",
            "UNKNOWN\n",
            " INDENTED = spaced",
        );
        let (assignments, bad) = parse(text, &lookup);
        assert_eq!(bad, []);
        let pairs: Vec<(String, Option<String>)> = assignments.into_iter().map(|a| (a.key, a.value)).collect();
        let expected = [
            ("PLAIN", Some("a b")),
            ("EXPORTED", Some("1")),
            ("YAML", Some("style")),
            ("HASH", Some("a#b")),
            ("EMPTY", Some("")),
            ("SINGLE", Some("$OUTER \\n # kept")),
            ("DOUBLE", Some("a\n\"b\" $OUTER outside")),
            ("LINES", Some("one\ntwo")),
            ("ABOVE", Some("a b-none")),
            ("OUTER", Some("outside")),
            ("UNKNOWN", None),
            ("INDENTED", Some("spaced")),
        ];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
    }

    #[test]
    fn faults_are_collected_with_their_positions() {
        let (_, bad) = parse("1X=2\nA=${NOPE}\nB='x' y\nC d\nD=\"open\nE=1\n", &lookup);
        let said: Vec<(usize, &str)> = bad.iter().map(|bad| (bad.at, bad.fault.what.as_str())).collect();
        assert_eq!(
            said,
            [
                (0, "`1X` is no name of a variable"),
                (7, "the variable NOPE is not set"),
                (20, "something follows the closing quote"),
                (23, "`C` is followed by neither `=` nor a value"),
                (29, "the quote of D is never closed"),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), shape in "[A-C=:'\"\\\\${}# \nİ]{0,60}") {
            let _ = parse(&text, &lookup);
            let _ = parse(&shape, &lookup);
        }

        #[test]
        fn single_quotes_keep_every_value(value in "[^']*") {
            let (assignments, bad) = parse(&format!("KEY='{value}'"), &lookup);
            assert_eq!(bad, []);
            assert_eq!(assignments.first().and_then(|first| first.value.as_deref()), Some(value.as_str()));
        }
    }
}
