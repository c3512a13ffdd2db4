use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::sink::disk::crash;

const SPOOL: &str = "9f86d081884c7d65";

/// The name of a window of a minute.
fn name(window: u64) -> String {
    let label = Window {
        start: window * 60,
        end: window * 60 + 60,
    };
    let identity = WindowIdentity {
        spool: SPOOL.to_owned(),
        window,
        length_seconds: 60,
    };
    file_name(label, &identity, false).unwrap()
}

fn deliver(folder: &mut Folder, window: u64, lines: &[String]) -> io::Result<()> {
    folder.begin(name(window))?;
    for line in lines {
        folder.write(line.as_bytes())?;
    }
    folder.commit()
}

/// Names in a folder, in lexical order.
fn names(folder: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn names_are_made_of_label_and_identity_and_known_again() {
    // `date --utc --date 2026-01-02T03:04:05 +%s`
    let start = 1_767_323_045;
    let identity = WindowIdentity {
        spool: SPOOL.to_owned(),
        window: 12,
        length_seconds: 600,
    };
    let name = |start, is_json| {
        let label = Window {
            start,
            end: start + 600,
        };
        file_name(label, &identity, is_json).unwrap()
    };
    let expected = "20260102T030405Z-20260102T031405Z-9f86d081884c7d65-600-12";
    assert_eq!(name(start, false), format!("{expected}.log"));
    assert_eq!(name(start, true), format!("{expected}.json"));
    assert!(name(u64::MAX - 600, false).starts_with("99991231T235959Z-99991231T235959Z-"));
    for name in [name(start, false), name(0, true), name(LAST_SECOND, true)] {
        assert!(is_of_a_window(&name), "{name}");
        assert!(is_temporary(&format!(".{name}.tmp")), "{name}");
        assert!(!is_of_a_window(&format!(".{name}.tmp")), "{name}");
        assert!(!is_temporary(&name), "{name}");
    }
    for other in [
        "",
        ".tmp",
        "flow.log",
        "20260102T030405Z-20260102T031405Z-9f86-600-12.txt",
        "20260102T030405Z-20260102T031405Z-9f86-600-12",
        "20260102T030405Z-20260102T031405Z-9f86-600.log",
        "20260102T030405Z-20260102T031405Z-9f86-600-12-1.log",
        "20260102T030405Z-20260102T031405Z-web-600-12.log",
        "20260102-20260102-9f86-600-12.log",
    ] {
        assert!(
            !is_of_a_window(other) && !is_temporary(&format!(".{other}.tmp")),
            "{other}"
        );
    }
}

#[test]
fn a_file_appears_when_it_is_complete() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("logs/web");
    // What a crash has left.
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(format!(".{}.tmp", name(0))), "").unwrap();
    let mut folder = Folder::new(path.clone(), 2);
    folder.begin(name(1)).unwrap();
    folder.write(b"one\n").unwrap();
    assert_eq!(names(&path), [format!(".{}.tmp", name(1))]);
    folder.write(b"two\n").unwrap();
    folder.commit().unwrap();
    assert_eq!(names(&path), [name(1)]);
    let text = fs::read_to_string(path.join(name(1))).unwrap();
    assert_eq!(text, "one\ntwo\n");
}

#[test]
fn the_newest_files_are_kept_and_those_of_others_are_not_counted() {
    let path = tempfile::tempdir().unwrap();
    let others = [".hidden.tmp", "notes.log"];
    for other in others {
        fs::write(path.path().join(other), "").unwrap();
    }
    for window in 1..=5 {
        fs::write(path.path().join(name(window)), "").unwrap();
    }
    let all = |windows: &[u64]| -> Vec<String> {
        let own = windows.iter().map(|window| name(*window));
        let mut all: Vec<String> = others.map(str::to_owned).into_iter().chain(own).collect();
        all.sort_unstable();
        all
    };
    let mut folder = Folder::new(path.path().to_owned(), 3);
    deliver(&mut folder, 6, &[]).unwrap();
    assert_eq!(names(path.path()), all(&[4, 5, 6]));
    // One is delivered again, and does not count twice.
    deliver(&mut folder, 6, &[]).unwrap();
    assert_eq!(names(path.path()), all(&[4, 5, 6]));
    // Whoever reads the files may take them away.
    fs::remove_file(path.path().join(name(5))).unwrap();
    fs::remove_file(path.path().join(name(4))).unwrap();
    deliver(&mut folder, 7, &[]).unwrap();
    deliver(&mut folder, 8, &[]).unwrap();
    assert_eq!(names(path.path()), all(&[6, 7, 8]));
    deliver(&mut folder, 9, &[]).unwrap();
    assert_eq!(names(path.path()), all(&[7, 8, 9]));
}

#[test]
fn a_folder_that_is_taken_away_is_made_anew() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("web");
    let mut folder = Folder::new(path.clone(), 3);
    deliver(&mut folder, 1, &[]).unwrap();
    fs::remove_dir_all(&path).unwrap();
    deliver(&mut folder, 2, &[]).unwrap();
    assert_eq!(names(&path), [name(2)]);
}

proptest! {
    /// Whatever happens, each of the newest windows has a file with all of its lines, and nothing else is there.
    #[test]
    fn each_window_is_there_once_whatever_happens(
        windows in prop::collection::vec(prop::collection::vec("[a-z]{0,9}\n", 0..5), 1..8),
        crashes in prop::collection::vec((0..12_u32, 0..3), 0..12),
        max_files in 2..10_u32,
    ) {
        let path = tempfile::tempdir().unwrap();
        let path = path.path().join("logs");
        let new = || Folder::new(path.clone(), max_files);
        let mut folder = new();
        let mut crashes = crashes.into_iter();
        for (window, lines) in (1..).zip(&windows) {
            loop {
                let crash = crashes.next();
                if let Some((steps, _)) = crash {
                    crash::after(steps);
                }
                let delivered = deliver(&mut folder, window, lines);
                // The last crash may come before the cursor is stored.
                let stored = delivered.and_then(|()| crash::step());
                crash::none();
                match (stored, crash) {
                    (Ok(()), _) => break,
                    (Err(error), None) => panic!("{error}"),
                    (Err(_), Some((_, 0))) => {}
                    (Err(_), Some((_, kind))) => {
                        folder = new();
                        if kind == 2 && path.exists() {
                            crash::lose_what_is_not_synced(&path);
                        }
                    }
                }
            }
        }
        let newest = windows.len().saturating_sub(max_files as usize);
        let expected: Vec<(String, String)> = (1..)
            .zip(&windows)
            .skip(newest)
            .map(|(window, lines)| (name(window), lines.concat()))
            .collect();
        let there: Vec<(String, String)> = names(&path)
            .into_iter()
            .map(|name| {
                let text = fs::read_to_string(path.join(&name)).unwrap();
                (name, text)
            })
            .collect();
        prop_assert_eq!(there, expected);
    }
}
