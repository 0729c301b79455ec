//! `${VAR}` and `{fact}`: the two little languages inside of texts, each alone and one after the other.

use laneway::config::{Variables, interpolate};
use laneway::plan::placeholder::expand;

/// Any text is filled in, or its faults are found where they are.
pub fn check_placeholder(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    check_facts(text);
    check_variables(text);
}

fn fact(name: &str, _: &str) -> Option<String> {
    (name == "port").then(|| "8000".to_owned())
}

fn check_facts(text: &str) {
    match expand(text, &fact) {
        Ok(filled) => assert!(filled.len() <= text.len(), "grew to {filled:?}"),
        Err(bad) => {
            for bad in bad {
                assert!(text[bad.at..].starts_with(&format!("{{{}}}", bad.name)), "{bad:?} does not stand there");
            }
        }
    }
    assert_eq!(expand(&text.replace('{', "{{"), &fact).as_deref(), Ok(text), "doubled braces are literal");
}

fn variable(name: &str) -> Option<String> {
    match name {
        "A" => Some("value".to_owned()),
        "E" => Some(String::new()),
        "P" => Some("{port}".to_owned()),
        "N" => Some("port".to_owned()),
        "O" => Some("{".to_owned()),
        _ => None,
    }
}

fn check_variables(text: &str) {
    let (filled, bad) = interpolate(text, &Variables { lookup: &variable, escape_braces: true });
    for bad in &bad {
        let place = text.get(bad.at..bad.at + bad.length);
        assert!(place.is_some_and(|place| place.starts_with('$')), "{bad:?} begins at no dollar");
    }
    if !text.contains('$') {
        assert_eq!(filled, text);
    }
    if bad.is_empty() {
        // What comes out of a variable is never taken for a placeholder, whatever stands beside it.
        let _ = expand(&filled, &|name, _| {
            assert!(text.contains(&format!("{{{name}}}")), "{{{name}}} arose in {filled:?}");
            Some(String::new())
        });
    }
}
