//! `laneway completions`: the Tab key. A shell calls `laneway complete` with the words so far, and gets what may follow:
//! verbs, presets and flags as the command line knows them, instances and profiles as the fleet knows them now.
//!
//! It asks no supervisor and runs nothing: it reads the plan that runs, else the file, and says nothing where there is
//! none. Where a path is wanted, the shell is told to complete one itself, as it knows about quotes and `~`.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate, complete};

use super::args::Shell;
use super::help;
use super::out::println;
use super::place::Fleet;
use crate::config::Settings;
use crate::model::Signal;

/// Stands for: complete a path.
const PATH: &str = ":path";

/// Completes every `laneway`, wherever it is: it is asked itself.
const BASH: &str = r#"# Completions of laneway for bash: source <(laneway completions bash)
_laneway() {
    mapfile -t COMPREPLY < <("${1/#\~/"$HOME"}" complete bash "$COMP_CWORD" -- "${COMP_WORDS[@]}" 2>/dev/null)
    if [[ ${COMPREPLY[0]-} == :path ]]; then
        COMPREPLY=()
        compopt -o default
    elif [[ ${COMPREPLY[0]-} == *= ]]; then
        compopt -o nospace
    fi
}
complete -o nosort -F _laneway laneway"#;

const ZSH: &str = r#"#compdef laneway
# Completions of laneway for zsh: source <(laneway completions zsh), after compinit
_laneway() {
    local -a answer
    answer=("${(@f)$("${(Q)${words[1]/#\~/$HOME}}" complete zsh $((CURRENT - 1)) -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ ${answer[1]} == :path ]]; then
        _files
    elif [[ -n ${answer[1]} ]]; then
        _describe -V laneway answer
    fi
}
if [[ ${funcstack[1]} == _laneway ]]; then
    _laneway "$@"
else
    compdef _laneway laneway
fi"#;

const FISH: &str = r#"# Completions of laneway for fish: laneway completions fish | source
function __laneway
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l word (commandline --current-token --cut-at-cursor)
    set -l program (string replace --regex '^~' $HOME -- $words[1])
    set -l answer ($program complete fish (count $words) -- $words "$word" 2>/dev/null)
    if test "$answer[1]" = :path
        __fish_complete_path "$word"
    else
        string join \n -- $answer
    end
end
complete --command laneway --no-files --keep-order --arguments '(__laneway)'"#;

/// `laneway completions`.
pub fn print(shell: Shell) {
    println!(
        "{}",
        match shell {
            Shell::Bash => BASH,
            Shell::Zsh => ZSH,
            Shell::Fish => FISH,
        }
    );
}

/// Prints what may stand at `position`, one a line. Whatever goes wrong, it prints nothing.
pub fn answer(shell: Shell, position: usize, words: Vec<String>) {
    let Line { words, position, before } = match shell {
        Shell::Bash => Line::of_bash(words, position),
        Shell::Zsh | Shell::Fish => Line { words, position, before: String::new() },
    };
    for candidate in candidates(&words, position) {
        let value = candidate.get_value().to_string_lossy();
        if value.ends_with(PATH) {
            println!("{PATH}");
            return;
        }
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        match shell {
            Shell::Bash => println!("{}", value.strip_prefix(&before).unwrap_or(&value)),
            // A colon ends the value.
            Shell::Zsh if help.is_empty() => println!("{}", value.replace(':', "\\:")),
            Shell::Zsh => println!("{}:{help}", value.replace(':', "\\:")),
            Shell::Fish if help.is_empty() => println!("{value}"),
            Shell::Fish => println!("{value}\t{help}"),
        }
    }
}

/// What may stand there, the program's own verbs for its processes left out.
fn candidates(words: &[String], position: usize) -> Vec<CompletionCandidate> {
    let before = words.get(..position).unwrap_or_default();
    let known = help::settings_of(before.iter().map(OsString::from));
    let (fleet, settings) = known.map_or((None, None), |(fleet, settings)| (Some(fleet), settings));
    let known = Known::new(fleet.as_ref(), settings.as_ref());
    let mut command = known.teach(help::command(settings.as_ref()));
    let all = words.iter().map(OsString::from).collect();
    let mut candidates = complete(&mut command, all, position, None).unwrap_or_default();
    let is_flag = |candidate: &CompletionCandidate| candidate.get_value().to_string_lossy().starts_with('-');
    let is_said = |candidate: &CompletionCandidate| before.iter().skip(1).any(|word| candidate.get_value() == &**word);
    candidates.retain(|candidate| !candidate.is_hide_set() && (is_flag(candidate) || !is_said(candidate)));
    // Flags are shown to who begins one.
    let begins_one = words.get(position).is_some_and(|word| word.starts_with('-'));
    candidates.retain(|candidate| begins_one || !is_flag(candidate));
    candidates
}

/// A command line as clap counts words.
struct Line {
    words: Vec<String>,
    position: usize,
    /// What of the word at `position` the shell does not count to it.
    before: String,
}

impl Line {
    /// bash makes three words of `--profile=dev`, and replaces only the last of them.
    fn of_bash(words: Vec<String>, position: usize) -> Self {
        let mut line = Self { words: Vec::new(), position, before: String::new() };
        let mut goes_on = false;
        for (number, word) in words.into_iter().enumerate() {
            let is_equals = word == "=" && number > 1;
            match line.words.last_mut().filter(|_| is_equals || goes_on) {
                Some(whole) => {
                    whole.push_str(&word);
                    if number == position {
                        line.before = whole.split_inclusive('=').next().unwrap_or_default().to_owned();
                    }
                }
                None => line.words.push(word),
            }
            goes_on = is_equals;
            if number == position {
                line.position = line.words.len() - 1;
            }
        }
        line
    }
}

/// The names of a fleet.
#[derive(Default)]
struct Known {
    instances: Vec<String>,
    presets: Vec<String>,
    profiles: Vec<String>,
}

impl Known {
    /// Of what runs, else of the file.
    fn new(fleet: Option<&Fleet>, settings: Option<&Settings>) -> Self {
        let mut known = Self::default();
        if let Some(settings) = settings {
            known.instances = settings.instances.iter().map(|instance| instance.name.to_string()).collect();
            known.presets = settings.presets.keys().cloned().collect();
            known.profiles.clone_from(&settings.profiles);
        }
        if let Some(plan) = fleet.and_then(Fleet::running).and_then(|home| home.running_plan()) {
            known.instances = plan.ids().map(|id| plan.spec(id).name.to_string()).collect();
            known.presets = plan.presets.keys().cloned().collect();
        }
        known
    }

    /// The same command line, with these names where they fit.
    fn teach(&self, command: Command) -> Command {
        command.mut_args(|arg| self.teach_one(arg)).mut_subcommands(|verb| self.teach(verb))
    }

    fn teach_one(&self, arg: Arg) -> Arg {
        let names = |names: &[String]| {
            let names = names.to_vec();
            ArgValueCandidates::new(move || names.iter().map(CompletionCandidate::new).collect())
        };
        match (arg.get_id().as_str(), arg.is_positional()) {
            ("names", true) => {
                let (instances, presets) = (self.instances.clone(), self.presets.clone());
                arg.add(ArgValueCandidates::new(move || {
                    let instances = instances.iter().map(CompletionCandidate::new);
                    let preset = |name| CompletionCandidate::new(name).help(Some("preset".into()));
                    instances.chain(presets.iter().map(preset)).collect()
                }))
            }
            ("name", true) => arg.add(names(&self.instances)),
            ("profile", _) => arg.add(names(&self.profiles)),
            ("signal", _) => {
                arg.add(ArgValueCandidates::new(|| Signal::names().map(CompletionCandidate::new).collect()))
            }
            ("files" | "directory" | "binary" | "command", _) => {
                arg.add(ArgValueCompleter::new(|_: &OsStr| vec![CompletionCandidate::new(PATH)]))
            }
            _ => arg,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bash_took_apart_is_one_word_again() {
        let table = [
            ("laneway stop cha", 2, "laneway stop cha", 2, ""),
            ("laneway --profile = de", 3, "laneway --profile=de", 1, "--profile="),
            ("laneway --profile =", 2, "laneway --profile=", 1, "--profile="),
            ("laneway --set a = b why ", 6, "laneway --set a=b why ", 4, ""),
            ("laneway ", 1, "laneway ", 1, ""),
        ];
        for (words, position, whole, at, before) in table {
            let line = Line::of_bash(words.split(' ').map(str::to_owned).collect(), position);
            assert_eq!((line.words.join(" ").as_str(), line.position, line.before.as_str()), (whole, at, before));
        }
    }
}
