//! The pages that people read, held to what is true: what they show is run and comes out so, their files are right, their
//! links lead somewhere, and every verb and flag that they name exists.
//!
//! `page` takes a page apart, `shell` runs its commands, `alike` compares, `words` looks at what stands in the text.
//! No tool of the field does this for a session of a shell: they run one program per block, without pipes, variables
//! and jobs, and know no number that is another one each time but the same one throughout the page.
//!
//! What a writer has to know:
//!
//! - A page begins in a copy of this repository at `/srv/laneway`, with laneway at `target/release/laneway` and on PATH.
//!   One shell runs the whole page from top to bottom; at its end nothing may run any more.
//! - `console` is a transcript: commands after `$ `, each with all that it prints. A block that shows no output at all is
//!   a list of commands: they must succeed, and may print. `sh` is a script that must succeed.
//! - What varies: durations and moments match each other. A number of four digits or more is a name: a pid or a port may
//!   be another one in truth, but it is the same one in the whole page, and no other one is. `...` in a line stands for
//!   anything, and alone for any lines. Ports of a page are 8000 to 8999, pids are larger.
//! - A command that only looks (`laneway status`, `why` and `logs`, `cat`, `curl` ...) looks again for some seconds until
//!   it sees what the page shows, as a person would.
//! - Comments before a block say what else there is to know: `not run: WHY`; `exit: 1` (its commands end with
//!   that); `file: PATH` and `added to: PATH` (the block is written there). `run:` is a script of its own that the page
//!   does not show.
//! - `yaml` is a whole file; one without `instances:`, or one that is none alone, is laid over `shell::SAMPLE`. `python` must be Python, `json` JSON.

mod alike;
mod page;
mod shell;
mod words;

use std::fs;
use std::path::Path;

use page::{Block, Kind, Page};
use shell::Shell;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// Pages with a test of their own, which run side by side. All others share one.
const LONG: [&str; 4] = ["README.md", "docs/quick-start.md", "docs/django.md", "docs/operations.md"];

/// What the reference, which is made from the source and has no marks, expects to be there.
const REFERENCE: (&str, &str) = (
    "docs/configuration.md",
    "<!-- run: echo 'instances: {web: {port: 8000, command: [x]}}' >instances.yaml; cp instances.yaml overlay.yaml -->",
);

/// The page that says the same as README.md, and shows the same: run once.
const TURKISH: &str = "README.tr.md";

/// All pages.
fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".to_owned(), TURKISH.to_owned(), "CHANGELOG.md".to_owned()];
    let docs = fs::read_dir(Path::new(REPOSITORY).join("docs")).unwrap();
    let names = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    paths.extend(names.filter(|name| has_ending(name, "md")));
    paths.sort();
    paths.into_iter().map(|path| Page::read(&path)).collect()
}

/// Whether a file is called so.
fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == ending)
}

/// Runs a page; every difference is told, not the first one alone.
#[track_caller]
fn run(page: &Page) {
    let mut shell = Shell::start(page);
    let before = if page.path == REFERENCE.0 { Page::parse("before", REFERENCE.1).blocks } else { Vec::new() };
    let faults: Vec<_> = before.iter().chain(&page.blocks).flat_map(|block| shell.run(block)).collect();
    assert!(faults.is_empty(), "{} differences:\n\n{}", page.path, faults.join("\n\n"));
}

#[test]
fn the_readme_shows_what_happens() {
    run(&Page::read("README.md"));
}

#[test]
fn the_quick_start_shows_what_happens() {
    run(&Page::read("docs/quick-start.md"));
}

#[test]
fn the_page_about_django_shows_what_happens() {
    run(&Page::read("docs/django.md"));
}

#[test]
fn the_page_about_operations_shows_what_happens() {
    run(&Page::read("docs/operations.md"));
}

#[test]
fn the_other_pages_show_what_happens() {
    for page in pages().iter().filter(|page| page.path != TURKISH && !LONG.contains(&page.path.as_str())) {
        run(page);
    }
}

#[test]
fn both_readmes_show_the_same() {
    let [english, turkish] = ["README.md", TURKISH].map(Page::read);
    let shown = |page: &Page| page.blocks.iter().map(Block::without_comments).collect::<Vec<_>>();
    for (english, turkish) in shown(&english).iter().zip(&shown(&turkish)) {
        assert_eq!(english, turkish, "README.md and {TURKISH} differ");
    }
    assert_eq!(english.blocks.len(), turkish.blocks.len(), "one of the two shows more");
    assert_eq!(english.tables(), turkish.tables(), "the first columns of their tables differ");
}

#[test]
fn what_is_not_run_says_why() {
    for page in pages() {
        for block in &page.blocks {
            if let Some(why) = &block.marks.not_run {
                let place = block.place();
                assert!(why.len() > 10 && block.kind.is_command(), "{place}: what is this mark for?");
            }
        }
    }
}

#[test]
fn links_lead_somewhere() {
    words::links(&pages());
}

#[test]
fn verbs_and_flags_exist() {
    words::verbs_and_flags(&pages());
}

#[test]
fn files_that_are_named_exist() {
    words::files(&pages());
}

/// What the sample page `text` comes to: the faults that its test would tell.
fn faults_of(text: &str) -> String {
    let page = Page::parse("sample.md", text);
    let mut shell = Shell::start(&page);
    page.blocks.iter().flat_map(|block| shell.run(block)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_page_that_is_wrong_is_found() {
    let good = "```console\n$ x=5\n$ echo a $x; echo \"pid 12345 for 3s\"\na 5\npid 54321 for 1m 2s\n$ echo 12345\n54321\n```\n";
    assert_eq!(faults_of(good), "");
    for (right, wrong, told) in [
        ("a 5", "a 6", "| a 5"),
        ("\n54321\n", "\n54322\n", "| 54321"),
        ("for 1m 2s", "for 1m 2", "| pid 12345 for 3s"),
        ("a 5\n", "", "| a 5"),
        ("$ x=5\n", "$ x=5; false\n", "exit code 1"),
        ("```console", "```", "no kind"),
        ("$ x=5\n", "", "x: unbound variable"),
    ] {
        let faults = faults_of(&good.replacen(right, wrong, 1));
        assert!(faults.contains(told), "{wrong:?}: {faults}");
    }
    let yaml = "```yaml\ninstances:\n  a: {port: 8000, command: [x]}\n```\n";
    assert_eq!(faults_of(yaml), "");
    assert!(faults_of(&yaml.replace("port", "prot")).contains("did you mean `port`"));
    assert_eq!(faults_of("<!-- exit: 2 -->\n```console\n$ laneway -f no.yaml check\n...no.yaml...\n...\n```\n"), "");
    assert!(faults_of("```sh\necho so; false; echo never\n```\n").contains("so"));
    assert!(faults_of("```json\n{\"a\": }\n```\n").contains("sample.md:1"));
    assert_eq!(faults_of("<!-- not run: it needs a server far away -->\n```console\n$ false\n```\n"), "");
}

#[test]
fn a_text_that_is_wrong_is_found() {
    let fails = |check: fn(&[Page]), text: &str| {
        let page = Page::parse("docs/sample.md", text);
        std::panic::catch_unwind(|| check(&[page])).is_err()
    };
    for (right, wrong) in [
        ("`laneway logs --follow`", "`laneway logs --folow`"),
        ("`laneway logs`", "`laneway log`"),
        ("`laneway -C there start-chat -d --wait`", "`laneway -C there start-chat -d --weit`"),
        ("`down --now`", "`down --nov`"),
        ("`--reveal`", "`--reveil`"),
        ("```sh\nlaneway status | laneway env a --reveal\n```", "```sh\nlaneway status | laneway env a --wait\n```"),
    ] {
        assert!(!fails(words::verbs_and_flags, right), "{right}");
        assert!(fails(words::verbs_and_flags, wrong), "{wrong}");
    }
    for (right, wrong) in [
        ("[x](operations.md#restarts)", "[x](operations.md#restart)"),
        ("[x](../README.md)", "[x](README.md)"),
        ("# An `own` one!\n\n[x](#an-own-one)", "# An own\n\n[x](#an-own-one)"),
    ] {
        assert!(!fails(words::links, right), "{right}");
        assert!(fails(words::links, wrong), "{wrong}");
    }
    assert!(!fails(words::files, "`keeper/protocol.rs`, `scripts/test`"));
    assert!(fails(words::files, "`keeper/protokol.rs`"));
    assert!(fails(words::files, "`scripts/tset`"));
}

#[test]
fn every_block_has_a_kind_that_is_known() {
    for page in pages() {
        for block in &page.blocks {
            assert!(block.kind != Kind::Unknown, "{}: a block of no kind that is known", block.place());
        }
    }
}
