//! What `--help` says beyond the arguments: verbs in groups, presets, examples, exit codes. The manual pages (`man`) are
//! made of the same, and completion (`completions`) asks the same command.

use std::fmt::Write;

use clap::builder::Styles;
use clap::{Command, CommandFactory, FromArgMatches};

use super::args::{Arguments, Place, PresetUp, Values};
use super::place::Fleet;
use super::report::EXIT_CODES;
use crate::config::{self, Settings};

/// The verbs as somebody meets them, the daily ones first. Who is in no group stands in the last one.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Every day", &["up", "down", "status", "logs", "why"]),
    ("Some instances", &["start", "stop", "restart", "kill", "exec", "env"]),
    ("Lanes", &["cache", "db", "audit"]),
    ("The file", &["check", "config", "schema", "apply"]),
    ("Setting up", &["completions", "man", "install-service", "uninstall-service", "upgrade"]),
];

/// What a verb's page shows besides its arguments.
#[derive(Debug)]
pub struct Page {
    verb: &'static str,
    /// Commands, and what they do.
    pub examples: &'static [(&'static str, &'static str)],
    /// Exit codes that mean something of their own.
    pub exits: &'static [(&'static str, &'static str)],
}

const PAGES: [Page; 22] = [
    Page {
        verb: "up",
        examples: &[
            ("laneway up", "start all, show changes and logs; Ctrl-C stops all"),
            ("laneway up -d --wait", "return once all are healthy, or say who is not, and why"),
            ("laneway up 'chat_*'", "those whose names begin like this"),
        ],
        exits: &[
            ("0", "the fleet is down again; with -d or --wait: it is up"),
            ("1", "somebody is not up, or keeper and supervisor were killed"),
            ("130", "Ctrl-C; all is down"),
        ],
    },
    Page {
        verb: "down",
        examples: &[("laneway down", "stop all in order, then laneway itself"), ("laneway down --now", "kill at once")],
        exits: &[],
    },
    Page {
        verb: "start",
        examples: &[("laneway start chat_api --wait", "with what it depends on, and wait until it is healthy")],
        exits: &[],
    },
    Page {
        verb: "stop",
        examples: &[("laneway stop 'chat_*'", "return when their whole process trees are gone")],
        exits: &[("1", "a process would not go; it is named")],
    },
    Page { verb: "restart", examples: &[("laneway restart chat_api --wait", "end it, start it anew")], exits: &[] },
    Page {
        verb: "kill",
        examples: &[
            ("laneway kill chat_api", "SIGKILL: see that it comes back"),
            ("laneway kill -s HUP chat_api", "let gunicorn read its files again"),
            ("laneway kill -s STOP --all", "freeze all, and see what notices; -s CONT wakes them"),
        ],
        exits: &[("1", "an instance that was named does not run; the others got the signal")],
    },
    Page {
        verb: "status",
        examples: &[
            ("laneway status", "one line for each instance, and what is not well"),
            ("laneway status --watch", "the same, as it changes"),
            ("laneway status --json | jq -r '.instances[].health'", "for a program"),
            ("laneway status --watch --json", "a line of JSON for each change"),
        ],
        exits: &[
            ("0", "all that are wanted are well"),
            ("1", "not all are"),
            ("3", "nothing runs"),
            ("130", "Ctrl-C ended --watch"),
        ],
    },
    Page {
        verb: "why",
        examples: &[("laneway why chat_api", "the reason, what was seen and when, what happens next, what to do")],
        exits: &[],
    },
    Page {
        verb: "logs",
        examples: &[
            ("laneway logs -f", "what all print, as they print it"),
            ("laneway logs -n all --no-prefix chat_api > chat_api.txt", "everything that one has printed"),
        ],
        exits: &[],
    },
    Page {
        verb: "exec",
        examples: &[
            ("laneway exec chat_api -- .venv/bin/python manage.py shell", "a shell on its database and cache"),
            ("laneway exec chat_api -- env", "what its server gets"),
        ],
        exits: &[("N", "as the command ended")],
    },
    Page {
        verb: "env",
        examples: &[
            ("eval \"$(laneway env chat_api)\"", "into this shell"),
            ("laneway env --format dotenv chat_api > .env", "for an editor"),
        ],
        exits: &[],
    },
    Page {
        verb: "db",
        examples: &[
            ("laneway db status", "size, tables, sessions, what an integrity check finds"),
            ("laneway db backup --keep 7", "save all, in use or not, and keep a week of them"),
            ("laneway db restore chat_api", "put the newest backup back; what was there is saved before"),
            ("laneway db migrate 'chat_*'", "Django's migrations, in each lane"),
            ("laneway db drop chat_api --yes-drop chat_api", "for scripts; else the name is to be typed"),
        ],
        exits: &[("1", "one of them is not good, or something could not be done; the others were looked after")],
    },
    Page {
        verb: "check",
        examples: &[("laneway check", "all problems of the file at once, each with its line")],
        exits: &[
            ("1", "another fleet of this machine owns something that this one claims"),
            ("2", "the file is wrong"),
        ],
    },
    Page {
        verb: "config",
        examples: &[
            ("laneway config", "what runs, else what the file comes to"),
            ("laneway config --explain chat_api", "where each value of one comes from"),
            ("laneway --profile prod config --json", "with a profile, for a program"),
        ],
        exits: &[],
    },
    Page {
        verb: "schema",
        examples: &[("laneway schema > instances.schema.json", "for an editor that completes and checks")],
        exits: &[],
    },
    Page {
        verb: "apply",
        examples: &[
            ("laneway apply --dry-run", "what would change, and who would restart"),
            ("laneway apply --wait", "change it, and wait until what changed is healthy"),
        ],
        exits: &[],
    },
    Page {
        verb: "completions",
        examples: &[
            ("source <(laneway completions bash)", "in ~/.bashrc"),
            ("source <(laneway completions zsh)", "in ~/.zshrc, after compinit"),
            ("laneway completions fish | source", "in ~/.config/fish/config.fish"),
        ],
        exits: &[],
    },
    Page {
        verb: "man",
        examples: &[
            ("laneway man | man -l -", "read it now"),
            ("laneway man ~/.local/share/man/man1", "from then on: man laneway, man laneway-status"),
        ],
        exits: &[],
    },
    Page {
        verb: "cache",
        examples: &[
            ("laneway cache status", "what each instance has cached, where, and how the store is"),
            ("laneway cache clear chat_main --type django", "what it has cached; whoever is logged in stays so"),
            ("laneway cache clear --all --dry-run", "what would go of all instances, and whose logins would end"),
            ("laneway cache clear chat_main --type static -y", "collect static files anew, without a gap"),
        ],
        exits: &[("1", "a store does not answer, or not all is gone; it is named")],
    },
    Page {
        verb: "install-service",
        examples: &[
            ("laneway install-service --dry-run", "see the unit"),
            ("sudo laneway install-service --now", "of the machine: from boot on"),
            ("laneway install-service --user --now", "of this user"),
        ],
        exits: &[],
    },
    Page {
        verb: "uninstall-service",
        examples: &[("sudo laneway uninstall-service", "stop and remove it")],
        exits: &[],
    },
    Page {
        verb: "upgrade",
        examples: &[
            ("laneway upgrade", "to the binary that this command runs from"),
            ("laneway upgrade ./laneway-new", "to another one; one that does not work is refused"),
        ],
        exits: &[],
    },
];

/// The page of a verb.
#[must_use]
pub fn page(verb: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.verb == verb)
}

/// The command line of laneway, with the presets of a file as verbs if `settings` has some.
#[must_use]
pub fn command(settings: Option<&Settings>) -> Command {
    let mut command = Arguments::command();
    let styles = command.get_styles().clone();
    for page in &PAGES {
        command = command.mut_subcommand(page.verb, |verb| verb.after_help(examples(page.examples, &styles)));
    }
    let order = GROUPS.iter().flat_map(|(_, verbs)| *verbs);
    for (position, verb) in order.enumerate() {
        command = command.mut_subcommand(*verb, |verb| verb.display_order(position));
    }
    let template = template(&command, settings, &styles);
    let own: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let presets = settings.into_iter().flat_map(|settings| settings.presets.keys());
    let presets = presets.filter(|name| !own.contains(name)).map(|name| preset(name));
    command.subcommands(presets).help_template(template)
}

/// The verbs that people are shown, in groups.
#[must_use]
pub fn groups(command: &Command) -> Vec<(&'static str, Vec<&Command>)> {
    let shown: Vec<&Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
    let mut groups: Vec<(_, Vec<_>)> = GROUPS
        .iter()
        .map(|(title, names)| {
            (
                *title,
                names.iter().filter_map(|name| shown.iter().copied().find(|verb| verb.get_name() == *name)).collect(),
            )
        })
        .collect();
    let is_grouped = |verb: &Command| GROUPS.iter().any(|(_, names)| names.contains(&verb.get_name()));
    if let Some((_, last)) = groups.last_mut() {
        last.extend(shown.iter().filter(|verb| !is_grouped(verb)));
    }
    groups
}

/// The verb that a preset is.
#[must_use]
pub fn preset(name: &str) -> Command {
    // clap takes names that last; to let it own them costs each command line more than these bytes.
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    PresetUp::command()
        .name(name)
        .bin_name(format!("laneway {name}"))
        .about(format!("Start the instances of the preset `{name}`, and stay attached: Ctrl-C stops all"))
}

/// The settings of the fleet that `words` speak of, as far as they can be understood. Runs nothing, and says nothing.
#[must_use]
pub fn settings_of(words: impl IntoIterator<Item = std::ffi::OsString>) -> Option<(Fleet, Option<Settings>)> {
    let command = Arguments::command().ignore_errors(true).disable_help_flag(true).disable_help_subcommand(true);
    let matches = command.try_get_matches_from(words).ok()?;
    let (place, values) = (Place::from_arg_matches(&matches).ok()?, Values::from_arg_matches(&matches).ok()?);
    let fleet = Fleet::new(&place, &values).ok()?;
    let settings = config::read(fleet.source()).0;
    Some((fleet, settings))
}

/// The page of laneway itself: a verb is found by what it is for, not by the letter.
fn template(command: &Command, settings: Option<&Settings>, styles: &Styles) -> String {
    let (head, word) = (styles.get_header(), styles.get_literal());
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    let groups = groups(command);
    let width = groups.iter().flat_map(|(_, verbs)| verbs).map(|verb| verb.get_name().len()).max().unwrap_or(0);
    for (title, verbs) in groups {
        let _ = write!(text, "\n{head}{title}:{head:#}\n");
        for verb in verbs {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {word}{:width$}{word:#}  {about}", verb.get_name());
        }
    }
    let presets: Vec<&str> =
        settings.into_iter().flat_map(|settings| settings.presets.keys()).map(String::as_str).collect();
    let _ = write!(text, "\n{head}Presets{head:#} are verbs too: ");
    if presets.is_empty() {
        text.push_str("laneway start-chat -d --wait\n");
    } else {
        let _ = writeln!(text, "{word}{}{word:#}", presets.join(", "));
    }
    let _ = write!(text, "\n{head}Options:{head:#}\n{{options}}\n\n{head}Exit codes:{head:#}\n");
    for (code, what) in EXIT_CODES {
        let _ = writeln!(text, "  {word}{code:7}{word:#}  {what}");
    }
    let _ = write!(text, "\n{word}laneway VERB --help{word:#} shows what a verb takes, with examples.");
    text
}

fn examples(examples: &[(&str, &str)], styles: &Styles) -> String {
    let (head, word) = (styles.get_header(), styles.get_literal());
    let mut text = format!("{head}Examples:{head:#}");
    for (command, what) in examples {
        let _ = write!(text, "\n  {word}{command}{word:#}\n      {what}");
    }
    text
}
