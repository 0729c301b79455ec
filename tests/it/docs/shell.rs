//! One shell for one page: runs its blocks in a directory of their own and says what came out otherwise.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::alike::{self, Numbers, is_port};
use super::page::{Block, Kind, Page};
use super::{REPOSITORY, has_ending};
use crate::harness::{Fleet, names_in, port, wait_until};

/// Several Python processes start at once on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long a command that only looks may look for what the page shows: a start of Django on a busy machine.
const LOOKING: Duration = Duration::from_mins(1);

/// What a fragment of a file is laid over.
const SAMPLE: &str = "
defaults: {command: [server]}
instances:
  chat_main: {port: 60000}
  chat_api: {port: 60001}
  chat_websocket: {port: 60002}
  web: {port: 60003}
  db: {port: 60004}
profiles: {dev: {defaults: {restart: always}}}
";

/// Where pages play.
const PLACE: &str = "/srv";

/// In the place of `cargo`, which would build laneway for minutes: it is built.
const CARGO: &str = "#!/bin/sh
case $1 in
--version) echo 'cargo 99.0.0' ;;
build) echo '    Finished `release` profile [optimized] target(s) in 0.1s' >&2 ;;
*) echo \"cargo $*: not in a test\" >&2; exit 1 ;;
esac
";

/// The environment of the example for those who start it: the stamp names the folder that it was made in.
const STAMP: &str = "cd /srv/laneway; . scripts/lib.sh; venv_origin >examples/django_chat/.venv/stamp\n";

/// The shell of a page.
pub struct Shell {
    bash: Child,
    numbers: Numbers,
    fleet: Fleet,
    steps: usize,
}

impl Shell {
    /// A directory with a copy of the repository, and a shell in it.
    pub fn start(page: &Page) -> Self {
        let mut fleet = Fleet::raw("");
        fs::remove_file(fleet.file()).unwrap();
        let mut numbers = Numbers::default();
        // Also those that the page does not name: another page may run the example at the same moment.
        let example = fs::read_to_string(Path::new(REPOSITORY).join("instances.yaml")).unwrap();
        let texts = page.blocks.iter().map(|block| &block.text).chain([&example]);
        for word in texts.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric())) {
            if is_port(word) {
                let known = numbers.in_truth(word) != word;
                assert!(known || numbers.learn(word, &port().to_string()));
            }
        }
        copy_repository(&fleet.folder().join("laneway"), &numbers);
        let programs = fleet.folder().join("bin");
        fs::create_dir(&programs).unwrap();
        symlink(env!("CARGO_BIN_EXE_laneway"), programs.join("laneway")).unwrap();
        fs::write(programs.join("cargo"), CARGO).unwrap();
        fs::set_permissions(programs.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
        fleet.set("PATH", &format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display()));
        let mut shell = Self { bash: bash(&fleet), numbers, fleet, steps: 0 };
        let (code, printed) = shell.execute(&format!("({STAMP})"), true);
        assert_eq!(code, Some(0), "{printed}");
        shell
    }

    /// Runs a block, and says what is not as the page has it.
    pub fn run(&mut self, block: &Block) -> Vec<String> {
        if block.marks.not_run.is_some() {
            return Vec::new();
        }
        let place = block.place();
        let fault = match block.kind {
            Kind::Console => return self.run_transcript(block),
            Kind::Script | Kind::Hidden => match self.execute(&block.text, true) {
                (Some(code), _) if code == block.marks.exit.unwrap_or(0) => None,
                (code, printed) => Some(format!("exit code {code:?}\n{printed}")),
            },
            Kind::Yaml => self.check_yaml(&block.text),
            Kind::Python => self.check_python(&block.text),
            Kind::Json => serde_json::from_str::<Value>(&block.text).err().map(|error| error.to_string()),
            Kind::Text => None,
            Kind::Unknown => Some("a block of no kind that is known".to_owned()),
        };
        self.write(block);
        fault.map(|fault| format!("{place}: {fault}")).into_iter().collect()
    }

    fn run_transcript(&mut self, block: &Block) -> Vec<String> {
        let commands = block.commands();
        let is_list = commands.iter().all(|command| command.shown.is_empty());
        let mut faults = Vec::new();
        let wanted = block.marks.exit.unwrap_or(0);
        for command in &commands {
            let shown: Vec<_> = command.shown.iter().map(|line| line.trim_end()).collect();
            let mut seen = (None, String::new());
            let is_so = wait_until(if only_looks(&command.typed) { LOOKING } else { Duration::ZERO }, || {
                seen = self.execute(&command.typed, false);
                let lines: Vec<_> = seen.1.lines().map(str::trim_end).collect();
                seen.0 == Some(wanted) && (is_list || alike::lines(&shown, &lines, &mut self.numbers))
            });
            if !is_so {
                let (code, printed) = &seen;
                let code = code.map_or("the shell ended".to_owned(), |code| format!("exit code {code}"));
                let printed = indented("  | ", &self.numbers.in_page(printed));
                faults.push(format!("{}: $ {}\n  {code}, and it prints\n{printed}", block.place(), command.typed));
            }
        }
        faults
    }

    /// Runs a script in the shell itself: exit code (`None` if that was the shell's end), and what it printed, with the
    /// page's paths. A strict one ends with the first command that fails.
    fn execute(&mut self, script: &str, strict: bool) -> (Option<i32>, String) {
        self.steps += 1;
        // Not among the page's files, and not where the harness looks for the fleet's processes.
        let folder = self.fleet.folder().with_file_name("home");
        let [script_file, out, code] = ["sh", "out", "code"].map(|kind| folder.join(format!(".{}.{kind}", self.steps)));
        let text = self.numbers.in_truth(&self.true_paths(script));
        fs::write(&script_file, if strict { format!("set -e\n{text}\nset +e\n") } else { text }).unwrap();
        let (script_file, out_file, code_file) = (script_file.display(), out.display(), code.display());
        let order = format!(
            ". {script_file} >{out_file} 2>&1 </dev/null; echo $? >{code_file}.new; mv {code_file}.new {code_file}\n"
        );
        self.bash.stdin.as_ref().unwrap().write_all(order.as_bytes()).unwrap();
        let mut ended = false;
        let done = wait_until(PATIENCE, || {
            ended = self.bash.try_wait().unwrap().is_some();
            ended || code.exists()
        });
        let printed = self.page_paths(&fs::read_to_string(&out).unwrap_or_default());
        assert!(done, "never ends: {script}\n{printed}");
        let code = fs::read_to_string(&code).ok().and_then(|code| code.trim().parse().ok());
        if code.is_none() {
            // A strict script has ended it; whatever comes next gets a new one, in the same place.
            self.bash = bash(&self.fleet);
            return (Some(1), printed);
        }
        (code, printed)
    }

    fn true_paths(&self, text: &str) -> String {
        text.replace(&format!("{PLACE}/"), &format!("{}/", self.fleet.folder().display()))
    }

    fn page_paths(&self, text: &str) -> String {
        let folder = self.fleet.folder();
        let home = folder.with_file_name("home");
        text.replace(folder.to_str().unwrap(), PLACE).replace(home.to_str().unwrap(), "/home/you")
    }

    /// Where a file of the page lies: a relative one in the folder that the page begins in, and none in the repository.
    fn path(&self, path: &str) -> PathBuf {
        let path = self.fleet.folder().join("laneway").join(self.true_paths(path));
        refuse_repository(&path);
        path
    }

    /// Writes the file that a block is, or is a part of.
    fn write(&self, block: &Block) {
        let (path, before) = match (&block.marks.file, &block.marks.added_to) {
            (Some(path), _) => (self.path(path), String::new()),
            (None, Some(path)) => (self.path(path), fs::read_to_string(self.path(path)).unwrap() + "\n"),
            (None, None) => return,
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, before + &self.numbers.in_truth(&block.text)).unwrap();
    }

    /// `laneway check` of a whole file, or of the sample fleet under this fragment of one.
    fn check_yaml(&self, text: &str) -> Option<String> {
        let folder = self.fleet.folder().with_file_name("checks");
        fs::create_dir_all(&folder).unwrap();
        let is_top = |line: &&str| line.starts_with(|c: char| c.is_ascii_alphabetic());
        let top: Vec<_> = text.lines().filter(is_top).filter_map(|line| line.split(':').next()).collect();
        let of_file = ["version", "name", "namespace", "state_dir", "restart_brake", "defaults", "presets", "profiles"];
        let is_whole = top.contains(&"instances");
        let text = if is_whole || top.iter().any(|key| of_file.contains(key)) {
            text.to_owned()
        } else {
            format!("instances:\n  chat_api:\n{}", indented("    ", text))
        };
        fs::write(folder.join("sample.yaml"), SAMPLE).unwrap();
        fs::write(folder.join("shown.yaml"), text).unwrap();
        let check = |files: &[&str]| {
            let mut command = self.fleet.command(&[]);
            // Nothing of what the page runs.
            command.env("XDG_STATE_HOME", &folder).env("DB_PASSWORD", "secret").current_dir(&folder);
            command.args(files.iter().flat_map(|file| ["-f", file])).arg("check");
            let output = self.fleet.run_command(command);
            (output.code != 0).then(|| format!("exit code {}\n{}{}", output.code, output.out, output.err))
        };
        let laid_over = || check(&["sample.yaml", "shown.yaml"]);
        if !is_whole {
            return laid_over();
        }
        // Both faults: which of them counts, the reader knows.
        Some(check(&["shown.yaml"])? + &laid_over()?)
    }

    fn check_python(&self, text: &str) -> Option<String> {
        let mut python = self.fleet.clean(Command::new("python3"));
        python.args(["-c", "import ast, sys; ast.parse(sys.argv[1])", text]);
        let output = self.fleet.run_command(python);
        (output.code != 0).then_some(output.err)
    }
}

impl Drop for Shell {
    /// Ends every fleet of the page. What is left then fails the test, by the harness.
    fn drop(&mut self) {
        let _ = self.bash.kill();
        let _ = self.bash.wait();
        let registry = self.fleet.folder().with_file_name("state").join("laneway");
        for name in names_in(&registry).iter().filter(|name| has_ending(name, "fleet")) {
            let entry =
                fs::read(registry.join(name)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            if let Some(file) = entry.as_ref().and_then(|entry| entry["file"].as_str()) {
                self.fleet.run(&["-f", file, "down", "--now"]);
            }
        }
    }
}

/// What a user of the repository would need of it, with the page's ports.
fn copy_repository(to: &Path, numbers: &Numbers) {
    let from = Path::new(REPOSITORY);
    for folder in ["scripts", "examples/django_chat"] {
        copy(&from.join(folder), &to.join(folder));
    }
    fs::copy(from.join("Cargo.toml"), to.join("Cargo.toml")).unwrap();
    let sample = fs::read_to_string(from.join("instances.yaml")).unwrap();
    fs::write(to.join("instances.yaml"), numbers.in_truth(&sample)).unwrap();
    // The environment that scripts/test made, with a stamp of its own.
    let (venv, own) = (from.join("examples/django_chat/.venv"), to.join("examples/django_chat/.venv"));
    assert!(venv.join("bin/python").exists(), "there is no {}; scripts/test makes it", venv.display());
    fs::create_dir(&own).unwrap();
    for name in names_in(&venv).iter().filter(|name| *name != "stamp") {
        symlink(venv.join(name), own.join(name)).unwrap();
    }
    fs::create_dir_all(to.join("target/release")).unwrap();
    symlink(env!("CARGO_BIN_EXE_laneway"), to.join("target/release/laneway")).unwrap();
}

/// Panics where a page's file would lie in the repository, by whatever name.
fn refuse_repository(path: &Path) {
    let there =
        path.ancestors().find_map(|folder| Some((folder.canonicalize().ok()?, path.strip_prefix(folder).ok()?)));
    let (real, rest) = there.unwrap();
    let climbs = rest.components().any(|part| part == Component::ParentDir);
    assert!(
        !climbs && !real.starts_with(Path::new(REPOSITORY).canonicalize().unwrap()),
        "a page would write {} in the repository: its file marks name files of the test's own folder",
        path.display()
    );
}

#[test]
fn no_page_writes_into_the_repository() {
    let refused = |path: PathBuf| std::panic::catch_unwind(|| refuse_repository(&path)).is_err();
    let own = std::env::temp_dir().join(format!("laneway-page-{}", std::process::id()));
    fs::create_dir(&own).unwrap();
    let repository = Path::new(REPOSITORY);
    symlink(repository.join("docs"), own.join("link")).unwrap();
    for path in [repository.join("instances.yaml"), repository.join("new/deep"), own.join("link/x"), own.join("n/../x")]
    {
        assert!(refused(path.clone()), "{}", path.display());
    }
    assert!(!refused(own.join("instances.yaml")) && !refused(own.join("new/deep")));
    fs::remove_dir_all(own).unwrap();
}

fn bash(fleet: &Fleet) -> Child {
    let mut bash = fleet.clean(Command::new("bash"));
    bash.current_dir(fleet.folder().join("laneway")).args(["--noprofile", "--norc", "-uo", "pipefail"]);
    bash.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn indented(margin: &str, text: &str) -> String {
    text.lines().flat_map(|line| [margin, line, "\n"]).collect()
}

/// Whether a command changes nothing, so that it may be repeated until what it shall see has come to be.
fn only_looks(command: &str) -> bool {
    let mut words = command.split_whitespace();
    match words.next() {
        Some("laneway") => words.next().is_some_and(|verb| ["status", "why", "logs"].contains(&verb)),
        Some(program) => ["cat", "curl", "grep", "ls", "tail", "zcat"].contains(&program) && !command.contains("POST"),
        None => false,
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names_in(from).iter().filter(|name| *name != ".venv" && *name != "__pycache__") {
        let (from, to) = (from.join(name), to.join(name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}
