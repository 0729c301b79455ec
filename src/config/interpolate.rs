//! `${VAR}` by Compose's rules: from the caller's environment, then from `.env`.
//!
//! Knows texts only; `load` says which scalars are filled and where variables come from.
//!
//! | written | becomes |
//! |---|---|
//! | `$VAR` `${VAR}` | its value; unset is an error (Compose warns and takes nothing) |
//! | `${VAR:-x}` `${VAR-x}` | `x` when it is unset or empty; when it is unset |
//! | `${VAR:?m}` `${VAR?m}` | an error with the message `m` in those cases |
//! | `${VAR:+x}` `${VAR+x}` | `x` when it is set and not empty; when it is set |
//! | `$$` | `$` |
//!
//! `x` may hold variables again, and both may hold braces in pairs. `m` is said as it stands: what a variable in it holds
//! may be a secret.

use super::problem::Fault;

/// Variables inside variables.
const MAX_DEPTH: usize = 16;

/// Where variables come from, and how their values are put in.
pub struct Variables<'a> {
    /// The value of a variable.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Whether braces are doubled where a value is put in, so that no placeholder arises from it.
    pub escape_braces: bool,
}

/// A fault in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Byte of the `$`.
    pub at: usize,
    /// How many bytes belong to it.
    pub length: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// `text` with its variables filled in, and what is wrong with them.
#[must_use]
pub fn interpolate(text: &str, variables: &Variables<'_>) -> (String, Vec<Bad>) {
    let mut bad = Vec::new();
    let filled = fill(text, 0, 0, variables, &mut bad);
    (filled, bad)
}

fn fill(text: &str, base: usize, depth: usize, variables: &Variables<'_>, bad: &mut Vec<Bad>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, from) = rest.split_at(dollar);
        filled.push_str(before);
        let at = base + text.len() - from.len();
        let after = from.get(1..).unwrap_or("");
        let length = if after.starts_with('$') {
            filled.push('$');
            2
        } else if let Some(inner) = after.strip_prefix('{') {
            if let Some(end) = closing_brace(inner) {
                let expression = inner.get(..end).unwrap_or("");
                let before = bad.len();
                match evaluate(expression, at + 2, depth, variables, bad) {
                    Ok(value) => put(&mut filled, &value, variables),
                    Err(fault) if bad.len() == before => bad.push(Bad { at, length: end + 3, fault }),
                    Err(_) => {}
                }
                end + 3
            } else {
                let fault = Fault::new("`${` is never closed").hint("`$$` is a literal `$`");
                bad.push(Bad { at, length: from.len(), fault });
                from.len()
            }
        } else {
            let name = name_of(after);
            if name.is_empty() {
                let fault = Fault::new("`$` begins no variable here").hint("`$$` is a literal `$`");
                bad.push(Bad { at, length: 1, fault });
            } else {
                match (variables.lookup)(name) {
                    Some(value) => put(&mut filled, &escaped(value, variables), variables),
                    None => bad.push(Bad { at, length: name.len() + 1, fault: unset(name) }),
                }
            }
            name.len() + 1
        };
        rest = from.get(length..).unwrap_or("");
    }
    filled.push_str(rest);
    filled
}

fn evaluate(
    expression: &str,
    base: usize,
    depth: usize,
    variables: &Variables<'_>,
    bad: &mut Vec<Bad>,
) -> Result<String, Fault> {
    let name = name_of(expression);
    if name.is_empty() {
        return Err(Fault::new(format!("`${{{expression}}}` names no variable")).hint("`$$` is a literal `$`"));
    }
    if depth >= MAX_DEPTH {
        return Err(Fault::new(format!("variables are nested more than {MAX_DEPTH} deep")));
    }
    let value = (variables.lookup)(name);
    let rest = expression.get(name.len()..).unwrap_or("");
    let (empty_counts, operator) = match rest.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, rest),
    };
    let is_there = value.as_ref().is_some_and(|value| !(empty_counts && value.is_empty()));
    let mut characters = operator.chars();
    let kind = characters.next();
    let word = characters.as_str();
    let word_base = base + expression.len() - word.len();
    let value = value.map(|value| escaped(value, variables));
    match kind {
        None if !empty_counts => value.ok_or_else(|| unset(name)),
        Some('-' | '?') if is_there => Ok(value.unwrap_or_default()),
        Some('-') => Ok(fill(word, word_base, depth + 1, variables, bad)),
        Some('+') if is_there => Ok(fill(word, word_base, depth + 1, variables, bad)),
        Some('+') => Ok(String::new()),
        Some('?') => {
            let state = if value.is_some() { "empty" } else { "not set" };
            let what = format!("the variable {name} is {state}");
            let what = if word.is_empty() { what } else { format!("{what}: {word}") };
            Err(Fault::new(what).hint(format!("set {name} in the environment or in .env")))
        }
        _ => Err(Fault::new(format!("`${{{expression}}}` is no form of a variable"))
            .hint("the forms are ${VAR}, ${VAR:-default}, ${VAR:?message} and ${VAR:+replacement}")),
    }
}

fn unset(name: &str) -> Fault {
    Fault::new(format!("the variable {name} is not set"))
        .hint(format!("set it in the environment or in .env, or write ${{{name}:-}} for an empty default"))
}

fn escaped(value: String, variables: &Variables<'_>) -> String {
    if variables.escape_braces { value.replace('{', "{{") } else { value }
}

/// Appends `value`. A brace that stands open before it would begin a placeholder with a name out of the value.
fn put(filled: &mut String, value: &str, variables: &Variables<'_>) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let before = filled.trim_end_matches(is_name);
    let braces = before.len() - before.trim_end_matches('{').len();
    if variables.escape_braces && braces % 2 == 1 {
        filled.insert(before.len(), '{');
    }
    filled.push_str(value);
}

fn name_of(text: &str) -> &str {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(is_first) {
        return "";
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.get(..end).unwrap_or("")
}

/// The brace that closes the one before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            "BRACE" => Some("{port}".to_owned()),
            _ => None,
        }
    }

    fn filled(text: &str) -> Result<String, Vec<(usize, usize, String)>> {
        let (filled, bad) = interpolate(text, &Variables { lookup: &lookup, escape_braces: true });
        if bad.is_empty() {
            Ok(filled)
        } else {
            Err(bad.into_iter().map(|bad| (bad.at, bad.length, bad.fault.what)).collect())
        }
    }

    #[test]
    fn every_form_follows_compose() {
        let cases = [
            ("a ${SET} b", "a value b"),
            ("$SET-x", "value-x"),
            ("$$SET $$", "$SET $"),
            ("${UNSET:-x}|${UNSET-x}|${EMPTY:-x}|${EMPTY-x}|${SET:-x}", "x|x|x||value"),
            ("${UNSET:+x}|${UNSET+x}|${EMPTY:+x}|${EMPTY+x}|${SET:+x}", "|||x|x"),
            ("${UNSET:-${SET}}", "value"),
            ("${UNSET:-{port}}", "{port}"),
            ("${BRACE}", "{{port}"),
            ("{${BRACE}}", "{{{{port}}"),
            ("{po${SET}} {{$SET", "{{povalue} {{value"),
            ("${SET:?never said}", "value"),
            ("${EMPTY?never said}", ""),
            ("${UNSET:-}", ""),
            ("{port} stays", "{port} stays"),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn faults_know_their_position() {
        let cases = [
            (
                "ab ${NOPE} ${NOPE2}",
                vec![(3, 7, "the variable NOPE is not set"), (11, 8, "the variable NOPE2 is not set")],
            ),
            ("${EMPTY:?set it}", vec![(0, 16, "the variable EMPTY is empty: set it")]),
            ("${EMPTY:?see $SET}", vec![(0, 18, "the variable EMPTY is empty: see $SET")]),
            ("x${UNSET?}", vec![(1, 9, "the variable UNSET is not set")]),
            ("5$ ", vec![(1, 1, "`$` begins no variable here")]),
            ("${SET", vec![(0, 5, "`${` is never closed")]),
            ("${}", vec![(0, 3, "`${}` names no variable")]),
            ("${SET!x}", vec![(0, 8, "`${SET!x}` is no form of a variable")]),
            ("${A:-${NOPE}}", vec![(5, 7, "the variable NOPE is not set")]),
        ];
        for (text, expected) in cases {
            let expected = expected.into_iter().map(|(at, length, what)| (at, length, what.to_owned())).collect();
            assert_eq!(filled(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), shape in r"[${}:\-?+A-Zé]{0,40}") {
            let _ = filled(&text);
            let _ = filled(&shape);
        }

        #[test]
        fn a_text_without_dollars_stays_as_it_is(text in "[^$]*") {
            assert_eq!(filled(&text), Ok(text));
        }
    }
}
