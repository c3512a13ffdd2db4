use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::sink::disk::crash;

/// A rotating file in a folder of its own, and the position that its cursor has.
struct Log {
    folder: TempDir,
    max_bytes: u64,
    max_files: u16,
    position: Position,
    file: RotatingFile,
}

impl Log {
    fn new(max_bytes: u64, max_files: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = RotatingFile::new(folder.path().join("flow.log"), max_bytes, max_files);
        Self {
            folder,
            max_bytes,
            max_files,
            position: Position::Nothing,
            file,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another agent takes over.
    fn restart(&mut self) {
        self.file = RotatingFile::new(self.path("flow.log"), self.max_bytes, self.max_files);
    }

    /// As the thread does it: the cursor is stored before the first line and after the last.
    fn deliver(&mut self, chunks: &[impl AsRef<str>]) -> io::Result<()> {
        let from = self.file.begin(&self.position)?;
        crash::step()?;
        self.position = from;
        for chunk in chunks {
            self.file.write(chunk.as_ref().as_bytes())?;
        }
        let behind = self.file.commit()?;
        crash::step()?;
        self.position = behind;
        Ok(())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The files, the oldest first.
    fn files(&self) -> Vec<String> {
        let rotated = (1..).map(|number| format!("flow.log.{number}"));
        let mut names: Vec<String> = std::iter::once("flow.log".to_owned())
            .chain(rotated)
            .take_while(|name| self.path(name).exists())
            .collect();
        names.reverse();
        names.iter().map(|name| self.read(name)).collect()
    }

    /// All names in the folder.
    fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_newest_files_are_kept_and_no_line_is_cut() {
    let mut log = Log::new(10, 3);
    log.deliver(&[
        "first\n",
        "second\n",
        "a line longer than a file\n",
        "fourth\n",
        "5\n",
    ])
    .unwrap();
    assert_eq!(
        log.files(),
        ["second\n", "a line longer than a file\n", "fourth\n5\n"]
    );
}

#[test]
fn folders_are_made_and_an_existing_file_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/flow.log");
    let deliver = |lines: &[u8]| {
        let mut file = RotatingFile::new(path.clone(), 100, 2);
        file.begin(&Position::Nothing).unwrap();
        file.write(lines).unwrap();
        file.commit().unwrap()
    };
    deliver(b"before\n");
    let position = deliver(b"after\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
    let expected = Position::File {
        inode: fs::metadata(&path).unwrap().ino(),
        path,
        length: 13,
    };
    assert_eq!(position, expected);
}

#[test]
fn a_position_in_another_file_is_none() {
    let mut log = Log::new(100, 2);
    log.deliver(&["one\n"]).unwrap();
    let Position::File { inode, length, .. } = log.position else {
        panic!("no position")
    };
    fs::write(log.path("flow.log"), "one\nothers\n").unwrap();
    log.position = Position::File {
        path: log.path("other.log"),
        inode,
        length,
    };
    log.restart();
    log.deliver(&["two\n"]).unwrap();
    assert_eq!(log.files(), ["one\nothers\ntwo\n"]);
}

#[test]
fn what_others_changed_while_no_agent_ran_is_kept() {
    type Change = fn(&Log);
    let changes: [(Change, &[&str]); 3] = [
        (
            |log| fs::remove_file(log.path("flow.log")).unwrap(),
            &["two\n"],
        ),
        (
            |log| fs::write(log.path("flow.log"), "").unwrap(),
            &["two\n"],
        ),
        (
            |log| {
                fs::copy(log.path("flow.log"), log.path("flow.log.1")).unwrap();
                fs::write(log.path("flow.log"), "0\n").unwrap();
            },
            &["one\n", "0\ntwo\n"],
        ),
    ];
    for (change, expected) in changes {
        let mut log = Log::new(100, 4);
        log.deliver(&["one\n"]).unwrap();
        change(&log);
        log.restart();
        log.deliver(&["two\n"]).unwrap();
        assert_eq!(log.files(), expected);
    }
}

#[test]
fn others_may_rotate_and_cut_it_between_windows_while_the_agent_runs() {
    let mut log = Log::new(100, 4);
    log.deliver(&["one\n"]).unwrap();
    fs::rename(log.path("flow.log"), log.path("flow.log.1")).unwrap();
    log.deliver(&["two\n"]).unwrap();
    assert_eq!(log.files(), ["one\n", "two\n"]);
    fs::write(log.path("flow.log"), "").unwrap();
    log.deliver(&["three\n"]).unwrap();
    assert_eq!(log.files(), ["one\n", "three\n"]);
}

#[test]
fn a_window_that_rotates_out_all_that_was_there_before_it_is_taken_back_whole() {
    let mut log = Log::new(10, 2);
    log.deliver(&["before\n"]).unwrap();
    log.file.begin(&log.position).unwrap();
    for line in ["line-1\n", "line-2\n", "line-3\n", "line-4\n"] {
        log.file.write(line.as_bytes()).unwrap();
    }
    assert_eq!(log.files(), ["line-3\n", "line-4\n"]);
    for _ in 0..2 {
        // Killed once more right after the new file was made.
        log.restart();
        log.file.begin(&log.position).unwrap();
        assert_eq!(log.files(), [""]);
    }
    log.restart();
    log.deliver(&["line-1\n", "line-2\n"]).unwrap();
    assert_eq!(log.files(), ["line-1\n", "line-2\n"]);
    log.deliver(&["more\n"]).unwrap();
    assert_eq!(log.names(), ["flow.log", "flow.log.1"]);
}

/// How an attempt ends before its time.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// A step fails, and the agent goes on.
    Failure,
    /// The agent is killed.
    Kill,
    /// The host loses its power.
    PowerFailure,
}

fn any_trouble() -> impl Strategy<Value = (Trouble, u32)> {
    let kind = prop_oneof![
        Just(Trouble::Failure),
        Just(Trouble::Kill),
        Just(Trouble::PowerFailure)
    ];
    (kind, 0..60_u32)
}

/// Numbers of lines of chunks of windows.
fn any_windows() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(1..4_usize, 0..12), 1..8)
}

/// Delivers the windows with the troubles on the way. Gives the expected lines.
fn deliver_all(log: &mut Log, windows: &[Vec<usize>], troubles: &[(Trouble, u32)]) -> Vec<String> {
    let mut expected: Vec<String> = log.files().concat().lines().map(str::to_owned).collect();
    let mut troubles = troubles.iter();
    for (window, chunks) in windows.iter().enumerate() {
        let mut line = 0;
        let mut next_line = || {
            line += 1;
            format!("{window}.{line}{}", "x".repeat(line * 7 % 11))
        };
        let chunks: Vec<Vec<String>> = chunks
            .iter()
            .map(|lines| (0..*lines).map(|_| next_line()).collect())
            .collect();
        let texts: Vec<String> = chunks
            .iter()
            .map(|lines| lines.iter().map(|line| format!("{line}\n")).collect())
            .collect();
        loop {
            let trouble = troubles.next();
            if let Some((_, steps)) = trouble {
                crash::after(*steps);
            }
            let delivered = log.deliver(&texts);
            crash::none();
            match (delivered, trouble) {
                (Ok(()), _) => break,
                (Err(error), None) => panic!("{error}"),
                (Err(_), Some((Trouble::Failure, _))) => {}
                (Err(_), Some((Trouble::Kill, _))) => log.restart(),
                (Err(_), Some((Trouble::PowerFailure, _))) => {
                    log.restart();
                    crash::lose_what_is_not_synced(log.folder.path());
                }
            }
        }
        expected.extend(chunks.into_iter().flatten());
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_line_is_there_once_and_in_order_whatever_happens(
        windows in any_windows(),
        troubles in prop::collection::vec(any_trouble(), 0..12),
        max_bytes in 1..100_u64,
        with_content in any::<bool>(),
    ) {
        let mut log = Log::new(max_bytes, 100);
        if with_content {
            fs::write(log.path("flow.log"), "before\n").unwrap();
            crash::sync_now(&File::open(log.path("flow.log")).unwrap()).unwrap();
        }
        let expected = deliver_all(&mut log, &windows, &troubles);
        let files = log.files();
        let text = files.concat();
        prop_assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        prop_assert_eq!(log.names().len(), files.len());
        prop_assert!(text.is_empty() || text.ends_with('\n'));
    }

    /// Where files are rotated out, the newest lines are there, once and in order.
    #[test]
    fn what_is_kept_has_no_gap_and_no_line_twice(
        windows in any_windows(),
        troubles in prop::collection::vec(any_trouble(), 0..12),
        max_bytes in 1..100_u64,
        max_files in 2..5_u16,
    ) {
        let mut log = Log::new(max_bytes, max_files);
        let expected = deliver_all(&mut log, &windows, &troubles);
        let files = log.files();
        let lines = files.concat();
        let lines: Vec<&str> = lines.lines().collect();
        prop_assert!(expected.ends_with(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()), "{lines:?} of {expected:?}");
        prop_assert!(!lines.is_empty() || expected.is_empty());
        prop_assert!(files.len() <= usize::from(max_files));
        let others: Vec<String> = log.names().into_iter().filter(|name| name.starts_with('.')).collect();
        prop_assert!(others.is_empty() || others == [".flow.log.began"], "{others:?}");
    }
}
