//! The words of the command line. Imported by every command, imports none.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config;
use crate::model::{Signal, UnknownSignal};

/// One app, many instances, side by side on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "laneway",
    version,
    about,
    max_term_width = 100,
    subcommand_help_heading = "Verbs",
    subcommand_value_name = "VERB"
)]
pub struct Arguments {
    /// Where the fleet is.
    #[command(flatten)]
    pub place: Place,
    /// Other values.
    #[command(flatten)]
    pub values: Values,
    /// How it looks.
    #[command(flatten)]
    pub look: Look,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Where the fleet is.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// Configuration file; further ones lie over the first [default: instances.yaml, here or above]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Go there first
    #[arg(short = 'C', long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Values other than the file's.
#[derive(Clone, Debug, Default, Args)]
pub struct Values {
    /// Lay this profile over the defaults
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Set one value, such as defaults.restart=always (values are YAML)
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// How it looks.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Look {
    /// Colours: auto (where a terminal shows them), always or never
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    pub color: Color,
}

/// When there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// As the environment says, else where a terminal shows them
    #[default]
    Auto,
    /// Into files and pipes too
    Always,
    /// Nowhere
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the fleet, and stay attached: Ctrl-C stops all
    ///
    /// Starts laneway itself where it does not run, then the instances, and shows their changes and logs.
    Up(Up),
    /// Stop everything, and laneway too
    Down(Down),
    /// Start instances of a fleet that is up
    Start(Start),
    /// Take over what the file says now
    ///
    /// What changed is started, stopped or restarted, and nothing else is touched.
    Apply(Apply),
    /// Stop instances; laneway stays
    Stop(Names),
    /// Stop instances and start them anew
    Restart(Start),
    /// Send instances a signal; what is wanted of them stays
    ///
    /// The signal goes to the process that `status` shows, and to no other one. It is no stop: a server that ends of it
    /// is started again as its `restart` says, and `why` tells that a person sent it.
    Kill(Kill),
    /// Show what runs and how it is
    ///
    /// `laneway ps` is the same.
    #[command(alias = "ps")]
    Status(Status),
    /// Say why an instance is what it is, and what happens next
    Why(Why),
    /// Show what instances print, merged in the order of time
    Logs(Logs),
    /// Print the environment of an instance
    Env(Env),
    /// Run a command in the lane of an instance
    Exec(Exec),
    /// Print the plan: every value as resolved
    Config(Config),
    /// Check the file, and that nothing collides
    Check(Check),
    /// Look whether the lanes are apart, by what they do
    ///
    /// Where the fleet runs: what its servers have open, write, listen on, set as cookies, have in their environment. Each
    /// is asked for a few pages and one write. Where it does not: the file, the disk, and the settings of the app.
    Doctor(Doctor),
    /// Make the users anew that `isolation` gives lanes on Redis, and look at their roles on PostgreSQL
    ///
    /// Every start does so too.
    Isolate(SomeNames),
    /// Make them for one lane; started by the supervisor
    #[command(hide = true)]
    MakeIsolation,
    /// Show who wished what, when, and how it ended
    ///
    /// Every act that goes through laneway is in it: starts, stops, signals, changes of the file, commands in a lane.
    Audit(Audit),
    /// Print a JSON Schema of the file, for editors
    Schema,
    /// Look into caches, and clear them
    ///
    /// Whatever the store is: only what belongs to the instances that are named is touched.
    Cache(Cache),
    /// Make the fleet a service of systemd
    ///
    /// It starts at boot, and what is killed is replaced.
    InstallService(InstallService),
    /// Stop the fleet's service and remove it
    UninstallService(UninstallService),
    /// Change laneway's own binary while everything runs
    ///
    /// Servers do not notice.
    Upgrade(Upgrade),
    /// Print what lets a shell complete verbs, names and presets
    Completions(Completions),
    /// Print the manual page, or write one for each verb
    Man(Man),
    /// Make, look at, migrate, save, put back or drop the databases of lanes
    #[command(subcommand)]
    Db(Db),
    /// Makes what is missing of one lane's database; started by the supervisor
    #[command(hide = true)]
    MakeDatabase,
    /// Answers the Tab key; called by what `completions` prints
    #[command(hide = true)]
    Complete {
        /// Who asks.
        shell: Shell,
        /// The word to complete, counted from 0.
        position: usize,
        /// The words so far, the program's name first.
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Compresses the rotated files of one log; started by the supervisor
    #[command(hide = true)]
    Compress {
        /// The log.
        log: PathBuf,
        /// The newest of them.
        last: u64,
    },
    /// A new binary shows that it understands what runs
    #[command(hide = true)]
    Prove {
        /// Descriptor of the table that was left to it.
        #[arg(default_value_t = -1, allow_negative_numbers = true)]
        table: i32,
    },
    /// The small process; started by `up`
    #[command(hide = true)]
    Keeper {
        /// Descriptor of the table that was left to it.
        #[arg(default_value_t = -1, allow_negative_numbers = true)]
        table: i32,
    },
    /// The supervisor; started by the keeper
    #[command(hide = true)]
    Supervisor {
        /// Descriptor of the table that was left to it.
        #[arg(default_value_t = -1, allow_negative_numbers = true)]
        table: i32,
    },
    /// A preset, or a word that is none.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// `laneway upgrade`.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// The new binary [default: the one that this command runs from]
    pub binary: Option<PathBuf>,
}

/// `up`.
#[derive(Clone, Debug, Args)]
pub struct Up {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// How it returns.
    #[command(flatten)]
    pub attachment: Attachment,
}

/// `laneway start-chat -d --wait`: the flags of `up`, without names.
#[derive(Debug, Parser)]
#[command(disable_version_flag = true)]
pub struct PresetUp {
    /// How it returns.
    #[command(flatten)]
    pub attachment: Attachment,
    /// Other values.
    #[command(flatten)]
    pub values: Values,
    /// How it looks.
    #[command(flatten)]
    pub look: Look,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
    pub shell: Shell,
}

/// A shell that completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// `source <(laneway completions bash)` in ~/.bashrc
    Bash,
    /// `source <(laneway completions zsh)` in ~/.zshrc, after `compinit`
    Zsh,
    /// `laneway completions fish | source` in ~/.config/fish/config.fish
    Fish,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write laneway.1 and a page for each verb there [default: laneway(1) to standard output]
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Whether `up` stays attached.
#[derive(Clone, Copy, Debug, Args)]
pub struct Attachment {
    /// Return once the servers are started; they go on without this terminal
    #[arg(short, long)]
    pub detach: bool,
    /// When it returns.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// When a start counts as done.
#[derive(Clone, Copy, Debug, Args)]
pub struct Waiting {
    /// Return once they are healthy, or say who is not
    #[arg(long)]
    pub wait: bool,
    /// How long to wait for health, in seconds or as 90s, 2m
    #[arg(long, value_name = "TIME", value_parser = seconds_or_words, default_value = "2m")]
    pub wait_timeout: std::time::Duration,
}

/// `down`.
#[derive(Debug, Args)]
pub struct Down {
    /// Without grace: kill at once
    #[arg(long)]
    pub now: bool,
}

/// `start`, `restart`.
#[derive(Debug, Args)]
pub struct Start {
    /// Instances, globs or presets
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// When it returns.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// When it returns.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// Some instances.
#[derive(Debug, Args)]
pub struct Names {
    /// Instances, globs or presets
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// `kill`.
#[derive(Debug, Args)]
#[command(override_usage = "laneway kill [OPTIONS] <NAME>...\n       laneway kill [OPTIONS] --all")]
pub struct Kill {
    /// Instances, globs or presets
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub names: Vec<String>,
    /// A name with or without SIG, or a number
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal, default_value = "KILL")]
    pub signal: Signal,
    /// All that run
    #[arg(long)]
    pub all: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Go on showing it as it changes, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `why`.
#[derive(Debug, Args)]
pub struct Why {
    /// The instance
    #[arg(value_name = "NAME")]
    pub name: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Go on with what comes, across restarts
    #[arg(short, long)]
    pub follow: bool,
    /// So many of the last lines, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "100", value_parser = lines)]
    pub lines: usize,
    /// Without the instance's name before each line
    #[arg(long)]
    pub no_prefix: bool,
}

/// `env`.
#[derive(Debug, Args)]
pub struct Env {
    /// The instance
    #[arg(value_name = "NAME")]
    pub name: String,
    /// For `eval`, for a .env file, or for a program
    #[arg(long, value_enum, default_value = "shell")]
    pub format: EnvFormat,
    /// Secrets too
    #[arg(long)]
    pub reveal: bool,
}

/// How `env` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EnvFormat {
    /// `export NAME='value'`
    Shell,
    /// `NAME="value"`
    Dotenv,
    /// An object
    Json,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// The instance
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Program and arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `db`. Instances that live in one lane have one database: what is asked of several of them is done once.
#[derive(Debug, Subcommand)]
pub enum Db {
    /// Make what is missing: role and database (create), or the copy of the template
    ///
    /// A start does so too.
    Create(DbCreate),
    /// Show how they are: size, tables, sessions, what an integrity check finds, backups
    Status(DbStatus),
    /// Run Django's migrations in the lane
    Migrate(DbNames),
    /// Save them into {state}/backup, while they are in use
    Backup(DbBackup),
    /// Put a backup in the place of what is there, which is saved before
    Restore(DbRestore),
    /// Remove database and role; backups stay
    Drop(DbDrop),
}

/// Some lanes.
#[derive(Debug, Args)]
pub struct DbNames {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// `db create`.
#[derive(Debug, Args)]
pub struct DbCreate {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// A role of that name that is there already, and that laneway did not make for this lane, becomes the lane's
    #[arg(long, requires = "names")]
    pub adopt: bool,
}

/// `db status`.
#[derive(Debug, Args)]
pub struct DbStatus {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `db backup`.
#[derive(Debug, Args)]
pub struct DbBackup {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Remove all but the newest so many backups of each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
}

/// `db restore`.
#[derive(Debug, Args)]
pub struct DbRestore {
    /// The instance
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The backup: a path, or a file's name in {state}/backup [default: the newest]
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Though its instances run: they see other data from one moment to the next
    #[arg(long)]
    pub while_running: bool,
}

/// `db drop`.
#[derive(Debug, Args)]
pub struct DbDrop {
    /// Instances, globs or presets
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Do not ask for this one; once for each
    #[arg(long, value_name = "NAME")]
    pub yes_drop: Vec<String>,
}

/// `config`.
#[derive(Debug, Args)]
pub struct Config {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Say of each value of the file where it comes from
    #[arg(long, conflicts_with = "reveal")]
    pub explain: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Secrets too
    #[arg(long)]
    pub reveal: bool,
}

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Only what is about these instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Look at the file and the disk only, though it runs
    #[arg(long = "static")]
    pub r#static: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Some instances, or all.
#[derive(Debug, Args)]
pub struct SomeNames {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// `audit`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    /// Check instead of show.
    #[command(subcommand)]
    pub check: Option<AuditCheck>,
    /// So many of the last acts, or `all`
    #[arg(short = 'n', long, value_name = "ACTS", default_value = "50", value_parser = lines)]
    pub lines: usize,
    /// Only acts since then: 2h (ago), 2026-11-21, 2026-11-21T17:20:00Z
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    pub since: Option<PointInTime>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What is checked.
#[derive(Debug, Subcommand)]
pub enum AuditCheck {
    /// Follow the chain of hashes; the first line that is not as it was written is named
    Verify(AuditVerify),
}

/// `audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerify {
    /// A head that an earlier `verify` printed and that was kept elsewhere: it must be in the chain
    #[arg(long, value_name = "HASH")]
    pub head: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// A point in time, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointInTime {
    /// So long ago.
    Ago(std::time::Duration),
    /// This one, as RFC 3339 writes it.
    At(String),
}

/// `cache`.
#[derive(Debug, Args)]
pub struct Cache {
    /// What to do with them
    #[command(subcommand)]
    pub verb: CacheVerb,
}

/// What to do with caches.
#[derive(Debug, Subcommand)]
pub enum CacheVerb {
    /// Show where each instance caches, what is in it, and how the store is
    Status(CacheStatus),
    /// Clear what instances have cached, after a question
    Clear(CacheClear),
}

/// `cache status`.
#[derive(Debug, Args)]
pub struct CacheStatus {
    /// Instances, globs or presets [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `cache clear`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
#[command(override_usage = "laneway cache clear [OPTIONS] <NAME>...\n       laneway cache clear [OPTIONS] --all")]
pub struct CacheClear {
    /// Instances, globs or presets
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub names: Vec<String>,
    /// All of this file; other projects keep theirs
    #[arg(long)]
    pub all: bool,
    /// What to clear
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value = "all")]
    pub kind: CacheKind,
    /// Say what would go, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Without the question
    #[arg(short, long)]
    pub yes: bool,
    /// What went, or with --dry-run would go, as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheKind {
    /// What is cached, and all sessions: everybody has to log in again
    All,
    /// What is cached, but sessions
    Django,
    /// All sessions, in the cache and in the database
    Session,
    /// Static files: collected anew beside the old ones, then exchanged with them
    Static,
}

/// `install-service`.
#[derive(Debug, Args)]
pub struct InstallService {
    /// Which service.
    #[command(flatten)]
    pub service: ServiceName,
    /// User of a machine's service [default: who calls sudo, else the owner of the file; never root]
    #[arg(long, value_name = "USER", conflicts_with = "user")]
    pub run_as: Option<String>,
    /// Start it too
    #[arg(long)]
    pub now: bool,
    /// Print the unit, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `uninstall-service`.
#[derive(Debug, Args)]
pub struct UninstallService {
    /// Which service.
    #[command(flatten)]
    pub service: ServiceName,
}

/// Which service.
#[derive(Debug, Args)]
pub struct ServiceName {
    /// A service of this user, not of the machine
    #[arg(long)]
    pub user: bool,
    /// What it is called [default: laneway-PROJECT, with the namespace if there is one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

fn signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(|error: UnknownSignal| {
        let word = text.trim().to_ascii_uppercase();
        match config::nearest_name(word.strip_prefix("SIG").unwrap_or(&word), Signal::names()) {
            Some(near) => format!("{error}; did you mean {near}?"),
            None => format!("{error}; there are {}", Signal::names().collect::<Vec<_>>().join(", ")),
        }
    })
}

fn seconds_or_words(text: &str) -> Result<std::time::Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(std::time::Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}

fn lines(text: &str) -> Result<usize, String> {
    if text == "all" { Ok(usize::MAX) } else { text.parse().map_err(|_| "a number, or `all`".to_owned()) }
}

fn point_in_time(text: &str) -> Result<PointInTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(PointInTime::Ago(ago));
    }
    let day = format!("{text}T00:00:00Z");
    let at = [text, day.as_str()].into_iter().find_map(|text| humantime::parse_rfc3339_weak(text).ok());
    let at = at.map(|at| PointInTime::At(humantime::format_rfc3339_millis(at).to_string()));
    at.ok_or_else(|| "a duration such as 2h, a day, or 2026-11-21T17:20:00Z (UTC)".to_owned())
}
