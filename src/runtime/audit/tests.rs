//! The chain: what it shows of every way to touch it, and what it survives.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("laneway-audit-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn log(&self) -> AuditLog {
        AuditLog::of(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn act(verb: &str) -> Act {
    Act::of_command(verb, vec!["chat_api".to_owned()])
}

/// `count` acts, so two lines each.
fn acts(log: &AuditLog, count: usize) {
    for number in 0..count {
        log.begin(&act(&format!("verb{number}"))).unwrap().end(&Ending::done()).unwrap();
    }
}

fn lines(log: &AuditLog) -> Vec<String> {
    fs::read_to_string(log.path()).unwrap().lines().map(str::to_owned).collect()
}

/// The same file with other lines.
fn rewrite(log: &AuditLog, lines: &[String]) {
    fs::write(log.path(), lines.join("\n") + "\n").unwrap();
}

fn fault_line(log: &AuditLog) -> Option<u64> {
    log.verify(None).unwrap().fault.map(|fault| fault.line)
}

#[test]
fn what_was_written_is_whole_and_ours_alone() {
    let folder = Folder::new("whole");
    let log = folder.log();
    assert_eq!(log.verify(None).unwrap().head, None);
    acts(&log, 3);
    let verdict = log.verify(None).unwrap();
    assert_eq!((verdict.fault.clone(), verdict.whole, verdict.first, verdict.last), (None, 6, 1, 6));
    assert_eq!(fs::metadata(log.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let entries = log.entries().unwrap();
    assert_eq!(entries[2].verb.as_deref(), Some("verb1"));
    assert_eq!((entries[3].of, entries[3].outcome.as_deref()), (Some(3), Some("done")));
    assert_eq!(entries[0].pid, Some(std::process::id()));
    assert!(entries.windows(2).all(|two| two[0].at <= two[1].at && two[0].hash == two[1].prev));
    assert_eq!(verdict.head.as_ref(), entries.last().map(|last| &last.hash));
}

#[test]
fn the_first_line_that_was_touched_is_named() {
    let folder = Folder::new("touched");
    let log = folder.log();
    acts(&log, 4);
    let good = lines(&log);
    let touched = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = good.clone();
        change(&mut lines);
        rewrite(&log, &lines);
        fault_line(&log)
    };
    assert_eq!(touched(&|_| {}), None);
    assert_eq!(touched(&|lines| lines[2] = lines[2].replace("verb1", "verb9")), Some(3), "changed");
    assert_eq!(touched(&|lines| drop(lines.remove(4))), Some(5), "taken out");
    assert_eq!(touched(&|lines| drop(lines.remove(0))), Some(1), "taken out in front, though nothing was rotated");
    assert_eq!(touched(&|lines| lines.swap(2, 3)), Some(3), "moved");
    assert_eq!(touched(&|lines| lines.insert(3, lines[2].clone())), Some(4), "doubled");
    assert_eq!(touched(&|lines| lines.insert(3, "a note".to_owned())), Some(4), "put in");
    assert_eq!(touched(&|lines| lines[1].push(' ')), Some(2), "a space");
    // Somebody makes one line anew, with a hash of its own.
    let forged = |lines: &mut Vec<String>| {
        let (rest, _) = lines[2].split_once(BEFORE_HASH).unwrap();
        let rest = rest.replace("verb1", "verb9");
        lines[2] = format!("{rest}{BEFORE_HASH}{}\"}}", hash_of(rest.as_bytes()));
    };
    assert_eq!(touched(&forged), Some(4), "what follows it does not follow");
    // The last one was changed, and then the next act was written: nobody is told that it was a crash.
    rewrite(&log, &[&good[..7], &[good[7].replace("done", "gone")]].concat());
    acts(&log, 1);
    assert_eq!(fault_line(&log), Some(8));
}

#[test]
fn an_end_that_was_cut_off_shows_by_a_head_that_was_kept() {
    let folder = Folder::new("cut");
    let log = folder.log();
    acts(&log, 3);
    let head = log.verify(None).unwrap().head.unwrap();
    acts(&log, 1);
    assert!(log.verify(Some(&head)).unwrap().has_head);
    let all = lines(&log);
    rewrite(&log, &all[..4]);
    assert_eq!(fault_line(&log), None, "a chain does not show it");
    assert!(!log.verify(Some(&head)).unwrap().has_head);
    fs::remove_file(log.path()).unwrap();
    assert!(!log.verify(Some(&head)).unwrap().has_head);
}

#[test]
fn a_line_whose_writer_died_is_told_from_one_that_was_touched() {
    let folder = Folder::new("torn");
    let log = folder.log();
    acts(&log, 2);
    let whole = fs::read(log.path()).unwrap();
    let (start, end) = (whole.len() - 40, whole.len());
    for cut in [end - 1, start, start - 100] {
        fs::write(log.path(), &whole[..cut]).unwrap();
        let torn = log.verify(None).unwrap();
        assert_eq!(torn.fault, None);
        // Without its last byte only, the line is whole.
        assert_eq!((torn.torn > 0, torn.last), if cut == end - 1 { (false, 4) } else { (true, 3) });
        acts(&log, 1);
        let mended = log.verify(None).unwrap();
        assert_eq!((mended.fault, mended.torn), (None, 0));
        assert_eq!((mended.mended, mended.last), if cut == end - 1 { (0, 6) } else { (1, 5) });
    }
    // What the writer left is evidence too.
    let mut all = lines(&log);
    all[3].push('x');
    rewrite(&log, &all);
    assert_eq!(fault_line(&log), Some(4));
}

#[test]
fn many_who_write_at_once_write_one_chain() {
    let folder = Folder::new("many");
    let log = folder.log();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| acts(&log, 25));
        }
    });
    let verdict = log.verify(None).unwrap();
    assert_eq!((verdict.fault, verdict.whole), (None, 400));
}

#[test]
fn a_full_file_is_followed_by_one_that_goes_on() {
    let folder = Folder::new("rotated");
    let log = AuditLog { full: 1000, ..folder.log() };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| acts(&log, 20));
        }
    });
    let verdict = log.verify(None).unwrap();
    assert_eq!((verdict.fault, verdict.last), (None, 160));
    assert!(verdict.first > 1, "the oldest are gone");
    let rotated = log.rotated().unwrap();
    assert_eq!(rotated.len(), KEPT);
    let (number, middle) = rotated.iter().nth(4).unwrap();
    fs::remove_file(middle).unwrap();
    let fault = log.verify(None).unwrap().fault.unwrap();
    assert_eq!((fault.file, fault.line), (rotated[&(number + 1)].clone(), 1));
}

#[test]
fn what_is_in_the_way_is_an_error_and_no_detour() {
    let folder = Folder::new("way");
    let log = folder.log();
    fs::create_dir_all(log.path()).unwrap();
    assert!(log.begin(&act("stop")).is_err());
    fs::remove_dir(log.path()).unwrap();
    let elsewhere = folder.0.join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, log.path()).unwrap();
    assert!(log.begin(&act("stop")).is_err());
    assert_eq!(fs::metadata(&elsewhere).unwrap().len(), 0);
}
