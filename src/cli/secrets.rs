//! What is hidden unless `--reveal` asks for it: values whose names promise a secret, and passwords in URLs.

use serde_json::{Map, Value};

/// What stands for a secret that is not revealed.
pub const HIDDEN: &str = "(hidden; --reveal shows it)";

/// Names that promise a secret. A `_FILE` only says where it is.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 7] = ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "API_KEY", "PRIVATE_KEY", "CREDENTIAL"];
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE")
}

/// `scheme://user:password@host` without the password, anything else as it is.
#[must_use]
pub fn without_password(value: &str) -> String {
    if let Some((scheme, rest)) = value.split_once("://") {
        let authority = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
        if let Some((login, _)) = authority.rsplit_once('@')
            && let Some((user, _)) = login.split_once(':')
        {
            return format!("{scheme}://{user}:***{}", &rest[login.len()..]);
        }
    }
    value.to_owned()
}

/// The value of the variable `name` as it may be shown.
#[must_use]
pub fn shown(name: &str, value: &str) -> String {
    if is_secret(name) { HIDDEN.to_owned() } else { without_password(value) }
}

/// The value of the header `name` as it may be shown.
#[must_use]
pub fn header(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    let is_login = ["authorization", "proxy-authorization", "cookie"].contains(&name.as_str());
    if is_login || is_secret(&name.replace('-', "_")) { HIDDEN.to_owned() } else { value.to_owned() }
}

/// Hides what is secret in a whole document; of maps called `environment` and `headers` the names count too.
pub fn hide(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_password(text),
        Value::Array(list) => list.iter_mut().for_each(hide),
        Value::Object(map) => {
            hide_named(map, "environment", shown);
            hide_named(map, "headers", header);
            map.values_mut().for_each(hide);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn hide_named(map: &mut Map<String, Value>, key: &str, shown: fn(&str, &str) -> String) {
    let Some(Value::Object(named)) = map.get_mut(key) else { return };
    for (name, value) in named {
        if let Value::String(text) = value {
            *text = shown(name, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_hidden_and_nothing_else() {
        let table = [
            ("postgres://me:geheim@h:5432/db", "postgres://me:***@h:5432/db"),
            ("postgres://me:ge@heim@h/db?x=a:b@c", "postgres://me:***@h/db?x=a:b@c"),
            ("redis://:geheim@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("sqlite:////abs/a@b:c", "sqlite:////abs/a@b:c"),
            ("plain", "plain"),
        ];
        for (value, expected) in table {
            assert_eq!(without_password(value), expected);
        }
    }

    #[test]
    fn names_promise_secrets() {
        assert!(
            is_secret("DB_PASSWORD") && is_secret("my_token") && !is_secret("SECRET_KEY_FILE") && !is_secret("PATH")
        );
        let mut document = serde_json::json!({"a": [{"environment": {"TOKEN": "x", "B": "y"}, "url": "a://b:c@d",
            "headers": {"Host": "h", "Authorization": "Basic x", "X-Api-Key": "y"}}]});
        hide(&mut document);
        let expected = serde_json::json!({"a": [{"environment": {"TOKEN": HIDDEN, "B": "y"}, "url": "a://b:***@d",
            "headers": {"Host": "h", "Authorization": HIDDEN, "X-Api-Key": HIDDEN}}]});
        assert_eq!(document, expected);
    }
}
