//! Files as they come: missing, unreadable, no files at all, too large, no text.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::config::disk::{find, read_text};
use crate::config::scratch::Scratch;
use crate::config::{Source, load};

#[test]
fn a_missing_file_says_where_it_was_looked_for_and_what_a_minimal_one_is() {
    let scratch = Scratch::new();
    let fault = find(&scratch.path()).unwrap_err();
    assert_eq!(scratch.shown(&fault.what), "there is no instances.yaml in [here] or above it");
    let hint = fault.hint.unwrap();
    let minimal = hint.split_once("a minimal file is").unwrap().1;
    let shown = Scratch::with(minimal).problems();
    assert_eq!(shown, "fine", "the minimal file in the hint is one that works");
    let named = Source { files: vec!["other.yaml".into()], ..scratch.source() };
    assert_eq!(load(&named).unwrap_err().to_string(), "other.yaml: does not exist");
}

#[test]
fn the_file_is_found_upwards_and_either_name_will_do() {
    let scratch = Scratch::new();
    scratch.write("a/b/keep", "");
    let deep = scratch.path().join("a/b");
    let short = scratch.write("instances.yml", "");
    assert_eq!(find(&deep).unwrap(), short);
    let nearer = scratch.write("a/instances.yaml", "");
    assert_eq!(find(&deep).unwrap(), nearer);
}

#[test]
fn what_is_no_file_is_named_and_nothing_waits_for_it() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    std::fs::create_dir(path("directory")).unwrap();
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let _listener = UnixListener::bind(path("socket")).unwrap();
    let cases = [
        ("directory", "is a directory, not a file"),
        ("pipe", "is a named pipe, not a file"),
        ("socket", "is a socket or a device, not a file"),
        ("/dev/null", "is a device, not a file"),
    ];
    for (name, what) in cases {
        assert_eq!(read_text(&path(name)).unwrap_err().what, what, "{name}");
    }
}

#[test]
fn a_hundred_megabytes_are_refused_without_reading_them() {
    let scratch = Scratch::new();
    let path = scratch.write("instances.yaml", "");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(100 << 20).unwrap();
    assert_eq!(scratch.problems(), "instances.yaml: is larger than 1 MiB, the most that is read");
}

#[test]
fn text_in_another_encoding_names_the_byte() {
    let scratch = Scratch::new();
    scratch.write("instances.yaml", b"name: a\nx: caf\xe9\n");
    let expected = "instances.yaml: is not UTF-8 text: byte 0xe9 in line 2, column 7\n  hint: save it as UTF-8";
    assert_eq!(scratch.problems(), expected);
    scratch.write("instances.yaml", b"a: \0");
    assert!(scratch.problems().contains("byte 0x00 in line 1, column 4"), "{}", scratch.problems());
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    let scratch = Scratch::with("instances: {}");
    let path = scratch.path().join("instances.yaml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything; the message itself is tested in `disk`.
    if std::fs::File::open(&path).is_ok() {
        return;
    }
    assert!(scratch.problems().starts_with("instances.yaml: may not be read by you\n  hint: "));
}
