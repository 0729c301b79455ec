//! Django's ways: how it names what it caches, and how it packs it. Pure; knows no server and no instance.
//!
//! A key is `prefix:version:name`. Its `RedisCache` reads digits as a number and anything else as a pickle, of which the few
//! kinds that are written here are the oldest and most stable ones.

/// What every key of a cached session begins with, behind the version: of the engine `cache`, then the session's key; of
/// `cached_db`, then `d_db` and the session's key.
const SESSION: &[u8] = b"django.contrib.sessions.cache";
/// How a copy of a row of `django_session` goes on.
const OF_A_ROW: &[u8] = b"d_db";
/// What the state of an instance is stored under, before the instance's name.
pub const HEALTH_CHECK: &str = "health_check_";
/// The table of the sessions that live in the database, or are copied from there into the cache.
pub const SESSION_TABLE: &str = "django_session";
/// How the files of its file cache end.
pub const FILE_ENDING: &str = ".djcache";
/// The version that keys have where nobody asks for another one.
const VERSION: u32 = 1;

/// What a key under an instance's prefix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Something cached.
    Cached,
    /// A session that lives in the cache alone.
    Session,
    /// A copy of a session that lives in the database.
    SessionCopy,
    /// The state of an instance, as the supervisor publishes it.
    Health,
    /// Something else that has its keys under the same prefix, such as the channel layer. No cache: it stays.
    Foreign,
}

/// Which key it is, given all of it behind `prefix:`. Other frameworks than Django know no versions: whatever is not the
/// channel layer's is cached.
#[must_use]
pub fn key(rest: &[u8], is_django: bool) -> Key {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let name = match rest.split_at(digits) {
        (version, [b':', name @ ..]) if !version.is_empty() => name,
        _ if is_django || rest.starts_with(b"group:") || rest.starts_with(b"asgi") => return Key::Foreign,
        _ => return Key::Cached,
    };
    match name.strip_prefix(SESSION) {
        Some(rest) if rest.starts_with(OF_A_ROW) => Key::SessionCopy,
        Some(_) => Key::Session,
        None if name.starts_with(HEALTH_CHECK.as_bytes()) => Key::Health,
        None => Key::Cached,
    }
}

/// The key under which `cache.get(name)` looks, for an instance with this prefix.
#[must_use]
pub fn full_key(prefix: &str, name: &str) -> String {
    format!("{prefix}:{VERSION}:{name}")
}

/// A value that can be packed.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`
    None,
    /// `True`, `False`
    Boolean(bool),
    /// `int`
    Whole(i64),
    /// `float`
    Real(f64),
    /// `str`
    Text(String),
    /// `dict` with names as keys
    Map(Vec<(&'static str, Value)>),
}

/// A value as `cache.get()` reads it.
#[must_use]
pub fn packed(value: &Value) -> Vec<u8> {
    if let Value::Whole(number) = value {
        // So that `incr` works: Django packs no whole number either.
        return number.to_string().into_bytes();
    }
    // Protocol 2: every Python 3 reads it.
    let mut bytes = vec![0x80, 2];
    pickle(value, &mut bytes);
    bytes.push(b'.');
    bytes
}

fn pickle(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::None => bytes.push(b'N'),
        Value::Boolean(is) => bytes.push(if *is { 0x88 } else { 0x89 }),
        Value::Whole(number) => {
            // LONG1: eight bytes, the lowest first, signed.
            bytes.extend([0x8a, 8]);
            bytes.extend(number.to_le_bytes());
        }
        Value::Real(number) => {
            bytes.push(b'G');
            bytes.extend(number.to_be_bytes());
        }
        Value::Text(text) => pickle_text(text, bytes),
        Value::Map(pairs) => {
            bytes.extend(*b"}(");
            for (name, value) in pairs {
                pickle_text(name, bytes);
                pickle(value, bytes);
            }
            bytes.push(b'u');
        }
    }
}

/// Four bytes of length, then the text; what is longer than that can say is cut, between two letters.
fn pickle_text(text: &str, bytes: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(u32::MAX as usize)];
    bytes.push(b'X');
    bytes.extend(u32::try_from(text.len()).unwrap_or_default().to_le_bytes());
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        let table = [
            ("1:products", Key::Cached),
            ("12:django.contrib.sessions.cacheabc", Key::Session),
            ("1:django.contrib.sessions.cached_dbabc", Key::SessionCopy),
            ("1:health_check_chat_main", Key::Health),
            ("group:lobby", Key::Foreign),
            ("asgi:group:lobby", Key::Foreign),
            ("1products", Key::Foreign),
            (":products", Key::Foreign),
            ("", Key::Foreign),
        ];
        for (rest, expected) in table {
            assert_eq!(key(rest.as_bytes(), true), expected, "{rest}");
        }
        assert_eq!(key(b"user/7", false), Key::Cached);
        assert_eq!(key(b"group:lobby", false), Key::Foreign);
    }

    #[test]
    fn values_are_packed_as_python_does() {
        assert_eq!(packed(&Value::Whole(-5)), b"-5");
        assert_eq!(packed(&Value::Text("ş".to_owned())), b"\x80\x02X\x02\0\0\0\xc5\x9f.");
        assert_eq!(packed(&Value::None), b"\x80\x02N.");
        let map = Value::Map(vec![("t", Value::Boolean(true)), ("f", Value::Real(1.5)), ("n", Value::Whole(5))]);
        let expected =
            b"\x80\x02}(X\x01\0\0\0t\x88X\x01\0\0\0fG?\xf8\0\0\0\0\0\0X\x01\0\0\0n\x8a\x08\x05\0\0\0\0\0\0\0u.";
        assert_eq!(packed(&map), expected);
    }
}
