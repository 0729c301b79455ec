//! `{port}` and its like: fills placeholders into a text. Pure, and small enough to be fuzzed.
//!
//! `{name}` is a placeholder, `{{` a literal `{`, and a `{` that begins no name stays as it is, so that JSON survives;
//! `}` is never special.

/// A placeholder that cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Byte of its `{`.
    pub at: usize,
    /// Between the braces.
    pub name: String,
}

/// `template` with its placeholders filled in. `lookup` gets a name and what follows the placeholder.
///
/// # Errors
/// Every placeholder that `lookup` does not know.
pub fn expand(template: &str, lookup: &dyn Fn(&str, &str) -> Option<String>) -> Result<String, Vec<Bad>> {
    let mut filled = String::with_capacity(template.len());
    let mut bad = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let at = template.len() - after.len() - 1;
        rest = if let Some(after) = after.strip_prefix('{') {
            filled.push('{');
            after
        } else if let Some((name, after)) = placeholder(after) {
            match lookup(name, after) {
                Some(value) => filled.push_str(&value),
                None => bad.push(Bad { at, name: name.to_owned() }),
            }
            after
        } else {
            filled.push('{');
            after
        };
    }
    filled.push_str(rest);
    if bad.is_empty() { Ok(filled) } else { Err(bad) }
}

fn placeholder(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.split_once('}')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some((name, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn lookup(name: &str, _: &str) -> Option<String> {
        (name == "port").then(|| "8000".to_owned())
    }

    #[test]
    fn names_are_filled_in_and_everything_else_stays() {
        let cases = [
            ("127.0.0.1:{port}", "127.0.0.1:8000"),
            ("{port}{port}", "80008000"),
            ("{{port}", "{port}"),
            (r#"{"a": {"b": 1}}"#, r#"{"a": {"b": 1}}"#),
            ("{", "{"),
            ("{}", "{}"),
            ("{ port }", "{ port }"),
            ("{1}", "{1}"),
            ("a}b", "a}b"),
            ("{{{port}", "{8000"),
        ];
        for (template, expected) in cases {
            assert_eq!(expand(template, &lookup).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn unknown_names_are_all_given_with_their_positions() {
        let bad = expand("é{prot}{port}{x}", &lookup).unwrap_err();
        assert_eq!(bad, [Bad { at: 2, name: "prot".to_owned() }, Bad { at: 14, name: "x".to_owned() }]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(template in any::<String>(), shape in "[{}a-cé ]{0,40}") {
            let _ = expand(&template, &lookup);
            let _ = expand(&shape, &lookup);
        }

        #[test]
        fn doubled_braces_keep_every_text(text in any::<String>()) {
            assert_eq!(expand(&text.replace('{', "{{"), &lookup), Ok(text));
        }
    }
}
