//! Caches on real servers: looked into, cleared, and told about health, and nobody else's key is touched.

use std::time::Duration;

use laneway::services::redis::{Fault, Server};

use crate::redis_server::Redis;

const SOON: Duration = Duration::from_millis(300);

#[test]
fn a_prefix_is_removed_and_nothing_that_only_looks_like_it() {
    let redis = Redis::start();
    redis.fill("p_chat:1:", 2500);
    redis.fill("p_chat_main:1:", 700);
    redis.cli(&["set", "p_chat", "no prefix"]);
    redis.cli(&["set", "pXchat:1:x", "not a wildcard"]);
    let mut connection = redis.open();
    let mut last = 0;
    let bucket = |key: &[u8]| if key.ends_with(b"77") { None } else { Some(usize::from(key.ends_with(b"8"))) };
    let gone = connection.remove("p_chat:", bucket, |progress| last = progress.removed).unwrap();
    assert_eq!((gone.get(&0), gone.get(&1), last), (Some(&2225), Some(&250), 2475));
    let mut seen = 0;
    connection.walk("p_chat:", |_| seen += 1).unwrap();
    assert_eq!(seen, 25);
    assert_eq!(connection.key_count().unwrap(), 25 + 700 + 2);
    let info = connection.info().unwrap();
    assert_eq!((info.keys, info.max_memory), (727, None));
    assert!(info.used_memory > 0 && info.version.starts_with(|c: char| c.is_ascii_digit()), "{info:?}");
    assert!(connection.memory_of(b"pXchat:1:x").unwrap().is_some_and(|size| size > 20));
    assert_eq!(connection.memory_of(b"none").unwrap(), None);
    assert!(connection.clients().unwrap().iter().any(|client| client.field("cmd") == "client|list"));
    assert_eq!(redis.keys().first().map(String::as_str), Some("pXchat:1:x"));
    let over_socket = Server::parse(&redis.socket_url()).unwrap().open(SOON).unwrap().key_count();
    assert_eq!(over_socket, Ok(727));
}

#[test]
fn trouble_with_a_server_is_told_apart() {
    let mut redis =
        Redis::with(&["--requirepass", "geheim", "--maxmemory", "100kb", "--maxmemory-policy", "noeviction"]);
    let fault = |url: &str, act: fn(&mut laneway::services::redis::Connection) -> bool| {
        let failed = match Server::parse(url).unwrap().open(SOON) {
            Err(error) => error,
            Ok(mut connection) => {
                assert!(!act(&mut connection));
                connection.set(b"k", b"v", SOON).unwrap_err()
            }
        };
        assert!(!failed.to_string().contains("geheim") && failed.to_string().starts_with("redis://"), "{failed}");
        failed.fault
    };
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}/0", redis.port());
    let (right, wrong, none) = (at(":geheim@"), at(":geheimer@"), at(""));
    assert_eq!(fault(&wrong, |_| false), Fault::Login);
    assert_eq!(fault(&none, |_| false), Fault::Login);
    assert_eq!(fault(&at(":geheim@").replace("/0", "/99"), |_| false), Fault::Other);
    assert_eq!(fault(&right, |connection| connection.ping().is_err()), Fault::Full, "an empty server needs more");
    redis.hang();
    assert_eq!(fault(&right, |_| false), Fault::Slow);
    redis.go_on();
    redis.crash();
    assert_eq!(fault(&right, |_| false), Fault::Unreachable);
    redis.come_back();
    assert!(Server::parse(&right).unwrap().open(SOON).unwrap().ping().is_ok());
}
