//! The name of an instance: the one input from which every per-instance fact is derived.
//!
//! Knows the allowed characters and the nearest legal spelling; not what a name is used for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes. With the longest prefix it stays a legal PostgreSQL identifier and cookie name.
const MAX_LENGTH: usize = 32;

/// A name of the form `[a-z0-9][a-z0-9_-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

/// Why a text is not a name, with the nearest legal one where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    /// What is wrong, ready to print.
    pub what: String,
    /// The nearest legal name.
    pub nearest: Option<String>,
}

impl InstanceName {
    /// Checks `text` against the allowed form.
    ///
    /// # Errors
    /// Says what is wrong and offers the nearest legal name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let what = if text.is_empty() {
            "an instance name is empty".to_owned()
        } else if text.len() > MAX_LENGTH && text.chars().all(is_allowed) {
            format!("this name has {} characters, at most {MAX_LENGTH} are allowed", text.chars().count())
        } else if !text.chars().all(is_allowed) || text.starts_with(['-', '_']) {
            format!("`{}` is not a name: a-z, 0-9, `_` and `-`, beginning with a letter or digit", shortened(text))
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(NameError { what, nearest: nearest(text) })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-'
}

fn shortened(text: &str) -> String {
    let printable: String = text.escape_debug().take(41).collect();
    if printable.len() > 40 { format!("{}...", printable.chars().take(37).collect::<String>()) } else { printable }
}

/// `şube ankara` becomes `sube_ankara`: Turkish letters lose their marks, everything else that is not allowed becomes `_`.
fn nearest(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        let plain = match c {
            'ç' => 'c',
            'ğ' => 'g',
            'ı' | 'î' => 'i',
            'ö' => 'o',
            'ş' => 's',
            'ü' | 'û' => 'u',
            'â' => 'a',
            // The second half of a lower-cased `İ`.
            '\u{307}' => continue,
            _ if is_allowed(c) => c,
            _ => '_',
        };
        if !(plain == '_' && (name.is_empty() || name.ends_with('_'))) {
            name.push(plain);
        }
    }
    let name: String = name.trim_start_matches(['-', '_']).chars().take(MAX_LENGTH).collect();
    let name = name.trim_end_matches(['-', '_']).to_owned();
    (!name.is_empty()).then_some(name)
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for NameError {}

impl TryFrom<String> for InstanceName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_pass() {
        for name in ["a", "chat_main", "0-x", "a234567890123456789012345678901b"] {
            assert_eq!(InstanceName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn illegal_names_get_the_nearest_legal_one() {
        let cases = [
            ("şube_ankara", Some("sube_ankara")),
            ("İzmir Çarşı", Some("izmir_carsi")),
            ("../x", Some("x")),
            ("Chat Main", Some("chat_main")),
            ("a\nb", Some("a_b")),
            ("", None),
            ("--", None),
        ];
        for (text, expected) in cases {
            assert_eq!(InstanceName::parse(text).unwrap_err().nearest.as_deref(), expected, "{text:?}");
        }
        let long = "a".repeat(300);
        let error = InstanceName::parse(&long).unwrap_err();
        assert!(error.what.contains("300 characters"), "{error}");
        assert_eq!(error.nearest.unwrap().len(), MAX_LENGTH);
    }
}
