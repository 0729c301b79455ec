//! Whether what a page shows and what was printed are alike. Pure.

use std::collections::BTreeMap;

/// The numbers of a page, and what they are in truth.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    true_ones: BTreeMap<String, String>,
    of_page: BTreeMap<String, String>,
}

impl Numbers {
    /// Whether `shown` may be `real`: as it was before, if there was a before.
    pub fn learn(&mut self, shown: &str, real: &str) -> bool {
        match (self.true_ones.get(shown), self.of_page.get(real)) {
            (None, None) => {
                self.true_ones.insert(shown.to_owned(), real.to_owned());
                self.of_page.insert(real.to_owned(), shown.to_owned());
                true
            }
            (Some(known), _) => known == real,
            // A pid may by chance be the number of one of the page's ports.
            (None, Some(other)) if is_port(other) && !is_port(shown) => {
                self.true_ones.insert(shown.to_owned(), real.to_owned());
                true
            }
            (None, Some(_)) => false,
        }
    }

    /// A text of the page with the true numbers.
    pub fn in_truth(&self, text: &str) -> String {
        replaced(text, &self.true_ones)
    }

    /// What was printed with the numbers of the page.
    pub fn in_page(&self, text: &str) -> String {
        replaced(text, &self.of_page)
    }
}

/// Whether a number of a page is a port: those are 8000 to 8999, and pids are larger.
pub fn is_port(shown: &str) -> bool {
    shown.len() == 4 && shown.starts_with('8') && shown.parse::<u16>().is_ok()
}

fn replaced(text: &str, by: &BTreeMap<String, String>) -> String {
    let pieces = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let replaced = pieces.map(|piece| {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        by.get(word).map_or_else(|| piece.to_owned(), |other| piece.replacen(word, other, 1))
    });
    replaced.collect()
}

/// Whether all lines are alike; `...` alone stands for any lines. Learns numbers only if they are.
pub fn lines(shown: &[&str], real: &[&str], numbers: &mut Numbers) -> bool {
    match shown.split_first() {
        None => real.is_empty(),
        Some((&"...", rest)) => (0..=real.len()).any(|skipped| {
            let mut tried = numbers.clone();
            let alike = lines(rest, &real[skipped..], &mut tried);
            if alike {
                *numbers = tried;
            }
            alike
        }),
        Some((first, rest)) => {
            let mut tried = numbers.clone();
            let alike = real.split_first().is_some_and(|(line, more)| {
                tokens_alike(&tokens(first), &tokens(line), &mut tried) && lines(rest, more, &mut tried)
            });
            if alike {
                *numbers = tried;
            }
            alike
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// Any white space: columns are as wide as their longest pid.
    Space,
    /// `1.4s`, `6ms`, `1m 35s`, and other fractions.
    Time,
    /// `2026-11-21T12:15:40.416342Z`.
    Moment,
    /// Digits.
    Number(&'a str),
    /// A word, or one other character.
    Text(&'a str),
    /// `...`
    Anything,
}

fn tokens_alike(shown: &[Token<'_>], real: &[Token<'_>], numbers: &mut Numbers) -> bool {
    match (shown.split_first(), real.split_first()) {
        (None, None) => true,
        (Some((Token::Anything, rest)), _) => (0..=real.len()).any(|skipped| {
            let mut tried = numbers.clone();
            let alike = tokens_alike(rest, &real[skipped..], &mut tried);
            if alike {
                *numbers = tried;
            }
            alike
        }),
        (Some((Token::Number(shown), rest)), Some((Token::Number(real), more))) => {
            let same = if (4..=7).contains(&shown.len()) { numbers.learn(shown, real) } else { shown == real };
            same && tokens_alike(rest, more, numbers)
        }
        (Some((one, rest)), Some((other, more))) => one == other && tokens_alike(rest, more, numbers),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn tokens(line: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_end();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first.is_whitespace() {
            (Token::Space, rest.len() - rest.trim_start().len())
        } else if rest.starts_with("...") {
            (Token::Anything, 3)
        } else if first.is_ascii_digit() {
            // What stands after a point is a part of an address or a version.
            number(rest, matches!(tokens.last(), Some(Token::Text("."))))
        } else {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = length.max(first.len_utf8());
            (Token::Text(&rest[..length]), length)
        };
        rest = &rest[length..];
        match (token, tokens.as_slice()) {
            // `1m 35s` and `1m35s` are one.
            (Token::Time, [.., Token::Time]) => {}
            (Token::Time, [.., Token::Time, Token::Space]) => {
                tokens.pop();
            }
            _ => tokens.push(token),
        }
    }
    tokens
}

fn number(text: &str, after_point: bool) -> (Token<'_>, usize) {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let whole = digits(text);
    if text[whole..].starts_with('-') && text.as_bytes().get(10) == Some(&b'T') {
        return (Token::Moment, text.find('Z').map_or(text.len(), |at| at + 1));
    }
    let fraction = text[whole..].strip_prefix('.').map_or(0, digits);
    let is_fraction = fraction > 0 && !after_point && !text[whole + 1 + fraction..].starts_with('.');
    let end = if is_fraction { whole + 1 + fraction } else { whole };
    let unit = text[end..].find(|c: char| !c.is_alphabetic()).unwrap_or(text.len() - end);
    if ["ms", "s", "m", "h", "d"].contains(&&text[end..end + unit]) {
        return (Token::Time, end + unit);
    }
    if is_fraction { (Token::Time, end) } else { (Token::Number(&text[..whole]), whole) }
}

#[test]
fn what_varies_is_alike_and_nothing_else_is() {
    for (shown, real, expected) in [
        ("pid 12345, for 1.4s", "pid 77, for 1m 3s", true),
        ("a   b", "a b", true),
        ("ab", "a b", false),
        ("12345 12345", "1 2", false),
        ("12345 12346", "1 1", false),
        ("12345 12346", "2 1", true),
        ("200 in 6ms", "404 in 6ms", false),
        ("x ... z", "x y y z", true),
        ("x ... z", "x y y", false),
        ("2026-11-21T12:15:40.416342Z INFO", "2027-01-01T00:00:00.1Z INFO", true),
        ("2026-11-21T12:15:40.416342Z INFO", "2027-01-01T00:00:00.1Z WARN", false),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:29999/", true),
        ("http://127.0.0.1:8000/", "http://127.0.0.2:29999/", false),
        ("laneway 0.1.0", "laneway 0.2.0", false),
        ("...\nlast", "1\n2\nlast", true),
        ("...\nlast", "1\n2\nlast\n3", false),
        ("a", "", false),
        ("", "a", false),
    ] {
        let [left, right] = [shown, real].map(|text| text.lines().collect::<Vec<_>>());
        assert_eq!(lines(&left, &right, &mut Numbers::default()), expected, "{shown:?} and {real:?}");
    }
    let mut numbers = Numbers::default();
    assert!(numbers.learn("8000", "20123"));
    assert!(numbers.learn("12345", "20123") && !numbers.learn("12345", "20124"), "a pid with the number of a port");
    assert!(!numbers.learn("8001", "20123"), "two ports");
    assert_eq!(numbers.in_truth("--port=8000 18000 x8000 8000"), "--port=20123 18000 x8000 20123");
    assert_eq!(numbers.in_page("http://127.0.0.1:20123/"), "http://127.0.0.1:8000/");
}
