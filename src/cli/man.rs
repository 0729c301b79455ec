//! `laneway man`: the manual pages, made from the command line itself, so that they cannot say otherwise.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::args::Man;
use super::help::{self, Page};
use super::out::{eprintln, line};
use super::report::{DONE, EXIT_CODES, Failure};

/// Files that people may want to look at.
const FILES: [(&str, &str); 7] = [
    ("instances.yaml", "the fleet: looked for in the working directory and above it, unless -f names one"),
    (".env", "beside it: values for ${VAR} in it"),
    (".laneway/INSTANCE/", "the lane of an instance: database, logs, static and media files, secret (state_dir)"),
    (".laneway/INSTANCE/log/INSTANCE.log", "what the instance prints"),
    (".laneway/.run/laneway.log", "what laneway itself has to say"),
    (".laneway/.run/control.sock", "the API of a fleet that runs; GET /v1/openapi.json describes it"),
    ("$XDG_STATE_HOME/laneway/", "which fleets of this user run, and what they own"),
];

/// What laneway reads of its environment.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("NO_COLOR", "if not empty: no colours"),
    ("CLICOLOR_FORCE", "if not empty: colours into files and pipes too; NO_COLOR and --color are stronger"),
    ("CLICOLOR", "if 0: no colours"),
    ("TERM", "dumb: no colours, and status --watch prints lines"),
    ("XDG_STATE_HOME", "where running fleets are known; else ~/.local/state"),
    ("XDG_RUNTIME_DIR", "where the socket is, if the state directory is on a file system that has none"),
];

/// `laneway man`.
///
/// # Errors
/// When a page cannot be written.
pub fn run(arguments: &Man) -> Result<ExitCode, Failure> {
    let mut command = help::command(None).disable_help_subcommand(true);
    command.build();
    let Some(directory) = &arguments.directory else {
        let page = page(&command, &command)?;
        line(format_args!("{}", String::from_utf8_lossy(&page).trim_end()));
        return Ok(ExitCode::from(DONE));
    };
    let failed = |path: &Path, error: &io::Error| Failure::failed(format!("{}: {error}", path.display()));
    fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    let verbs = help::groups(&command).into_iter().flat_map(|(_, verbs)| verbs);
    let mut count = 0;
    for of in std::iter::once(&command).chain(verbs) {
        let path = directory.join(format!("{}.1", title(of)));
        fs::write(&path, page(&command, of)?).map_err(|error| failed(&path, &error))?;
        count += 1;
    }
    eprintln!("{count} pages are in {}", directory.display());
    Ok(ExitCode::from(DONE))
}

/// `laneway-status`.
fn title(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// One page; `root` is laneway as a whole.
fn page(root: &Command, of: &Command) -> io::Result<Vec<u8>> {
    let is_root = root.get_name() == of.get_name();
    let page = help::page(of.get_name());
    let man = clap_mangen::Man::new(of.clone());
    // By hand: the library leaves an empty date out, and the version would be taken for one.
    let version = root.get_version().unwrap_or_default();
    let mut text = format!(".TH \"{}\" 1 \"\" \"laneway {version}\" \"laneway\"\n", title(of)).into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    let mut roff = Roff::default();
    if is_root {
        verbs(&mut roff, root);
    }
    roff.to_writer(&mut text)?;
    man.render_options_section(&mut text)?;
    let mut roff = Roff::default();
    if let Some(Page { examples, .. }) = page {
        roff.control("SH", ["EXAMPLES"]);
        pairs(&mut roff, examples);
    }
    roff.control("SH", ["EXIT STATUS"]);
    pairs(&mut roff, &exits(page));
    roff.control("SH", ["FILES"]);
    pairs(&mut roff, &FILES);
    roff.control("SH", ["ENVIRONMENT"]);
    pairs(&mut roff, &ENVIRONMENT);
    see_also(&mut roff, root, of);
    roff.to_writer(&mut text)?;
    text.flush()?;
    Ok(text)
}

fn verbs(roff: &mut Roff, root: &Command) {
    roff.control("SH", ["VERBS"]);
    for (group, verbs) in help::groups(root) {
        roff.control("SS", [group]);
        for verb in verbs {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            term(roff, vec![bold(title(verb)), roman("(1)")], &about);
        }
    }
    roff.control("SS", ["Presets"]);
    roff.text([
        roman("Each preset of the file is a verb too, and takes the flags of "),
        bold("laneway up"),
        roman("."),
    ]);
}

/// What a verb means by a code, then what all mean by the others.
fn exits(page: Option<&Page>) -> Vec<(&'static str, &'static str)> {
    let mut exits: Vec<_> = page.map(|page| page.exits.to_vec()).unwrap_or_default();
    let is_said = |code: &str| page.is_some_and(|page| page.exits.iter().any(|(own, _)| *own == code));
    exits.extend(EXIT_CODES.into_iter().filter(|(code, _)| !is_said(code)));
    exits.sort_by_key(|(code, _)| code.parse().unwrap_or(u32::MAX));
    exits
}

fn see_also(roff: &mut Roff, root: &Command, of: &Command) {
    roff.control("SH", ["SEE ALSO"]);
    let is_root = root.get_name() == of.get_name();
    let groups = help::groups(root);
    let near = groups.iter().filter(|(_, verbs)| is_root || verbs.iter().any(|verb| verb.get_name() == of.get_name()));
    let others = near.flat_map(|(_, verbs)| verbs).filter(|verb| verb.get_name() != of.get_name());
    let titles = (!is_root).then(|| title(root)).into_iter().chain(others.map(|verb| title(verb)));
    let mut words = Vec::new();
    for title in titles {
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.extend([bold(title), roman("(1)")]);
    }
    roff.text(words);
}

fn pairs(roff: &mut Roff, pairs: &[(&str, &str)]) {
    for (word, what) in pairs {
        term(roff, vec![bold(*word)], what);
    }
}

fn term(roff: &mut Roff, head: Vec<Inline>, what: &str) {
    roff.control("TP", []);
    roff.text(head);
    roff.text([roman(what)]);
}
