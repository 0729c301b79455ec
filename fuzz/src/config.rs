//! The loader: files of a user, an overlay, `.env` and `--set`, from bytes to a plan or to problems.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use laneway::config::{self, Problems, Source};
use laneway::plan::{Plan, build};

use super::check_message;

/// What divides the input: `instances.yaml`, an overlay, `.env`, and values of `--set`, one a line.
const DIVIDER: &[u8] = b"\n=====\n";
/// The value of a variable of the caller's environment. No message may say it.
const SECRET: &str = "pA55-of-the-caller";

/// Files of a user become a plan, or problems that a person can read and find.
pub fn check_config(bytes: &[u8]) {
    let folder = Folder::new();
    let mut rest = bytes;
    let mut next = || {
        let at = rest.windows(DIVIDER.len()).position(|window| window == DIVIDER);
        let (part, after) = at.map_or((rest, &[][..]), |at| (&rest[..at], &rest[at + DIVIDER.len()..]));
        rest = after;
        part
    };
    let texts = [("instances.yaml", next()), ("overlay.yaml", next()), (".env", next())];
    let set: Vec<String> = String::from_utf8_lossy(next()).lines().take(8).map(str::to_owned).collect();
    let written = texts.iter().filter(|(name, text)| *name == "instances.yaml" || !text.is_empty());
    let mut files = Vec::new();
    for (name, text) in written {
        fs::write(folder.0.join(name), text).unwrap();
        files.extend((*name != ".env").then(|| PathBuf::from(name)));
    }
    let environment = BTreeMap::from([("SECRET".to_owned(), SECRET.to_owned())]);
    let source = Source { files, directory: folder.0.clone(), profile: None, set: set.clone(), environment };
    let text_of = |file: &str| {
        let written = texts.iter().find(|(name, _)| *name == file).and_then(|(_, text)| str::from_utf8(text).ok());
        // Without its byte order mark, as it was read.
        let read = written.map(|text| text.strip_prefix('\u{feff}').unwrap_or(text));
        // Two of one name cannot be told apart here.
        let mut same = set.iter().filter(|set| file == set_name(set));
        let named = same.next().filter(|_| same.next().is_none());
        read.or(named.map(String::as_str)).map(str::to_owned)
    };
    let (settings, problems) = config::read(&source);
    check_problems(&problems, text_of);
    let said = problems.render(false);
    assert!(!said.contains(SECRET), "a secret in {said}");
    let Some(settings) = settings else {
        assert!(!problems.is_empty(), "refused without a reason");
        return;
    };
    // Here names and paths are resolved, which are shown, wherever they come from.
    match build(&settings, &source.environment) {
        Ok(plan) => check_plan(&plan),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            check_problems(&problems, text_of);
        }
    }
}

fn set_name(set: &str) -> String {
    format!("--set {}", set.split('=').next().unwrap_or(set))
}

/// The supervisor reads the plan from a file that its predecessor wrote.
fn check_plan(plan: &Plan) {
    let text = serde_json::to_string(plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), *plan);
}

fn check_problems(problems: &Problems, text_of: impl Fn(&str) -> Option<String>) {
    let rendered = problems.render(false);
    assert!(!rendered.contains('\u{1b}'), "an escape in {rendered:?}");
    for problem in problems.iter() {
        for text in [&problem.what, &problem.path, problem.hint.as_ref().unwrap_or(&problem.what)] {
            check_message(text);
        }
        let Some(place) = problem.place else { continue };
        assert_eq!((problem.line, problem.column), (place.line, place.column));
        let Some(text) = text_of(&problem.file) else { continue };
        let (start, end) = (place.start as usize, place.end as usize);
        assert!(start <= end && text.get(start..end).is_some(), "{start}..{end} of {}: {problem}", text.len());
        // Alone, a carriage return ends a line for YAML and none for most editors; the byte order mark has no width.
        if text.replace("\r\n", "").contains(['\r', '\u{feff}']) {
            continue;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[line_start..].chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        assert_eq!((place.line as usize, place.column as usize), (line, column), "byte {start}: {problem}");
    }
}

/// A folder for one input; gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("laneway-fuzz-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
