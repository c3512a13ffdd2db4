use std::{fs, io::Write as _, sync::Mutex};

use super::{
    cursor::{Cursor, Position},
    stdout::Stdout,
    *,
};
use support::*;

mod support;

#[test]
fn a_batch_has_an_identity_that_is_the_same_each_time() {
    let output = output_to_stdout();
    let format = Format::template("${bytes} ${batch-id}").unwrap();
    let render = || {
        let mut text = Vec::new();
        let written = lines::write(
            &*window(7, 4097),
            &output.flow_log,
            &format,
            &mut |lines: &[u8]| text.write_all(lines),
        );
        (written.unwrap(), String::from_utf8(text).unwrap())
    };
    let (written, text) = render();
    let expected: String = (0..4097)
        .map(|number| format!("{number} stdout-9f86d081884c7d65-60-7-{}\n", number / 4096))
        .collect();
    assert_eq!(text, expected);
    let bytes = text.len() as u64;
    assert_eq!(
        written,
        Written {
            records: 4097,
            bytes
        }
    );
    assert_eq!(render(), (written, text));
}

#[test]
fn cursors_are_read_as_they_were_written() {
    let file = Cursor {
        window: Some(7),
        position: Position::File {
            path: "/var/log/a.log".into(),
            inode: 12,
            length: 345,
        },
    };
    let text = r#"{"window":7,"position":{"type":"file","path":"/var/log/a.log","inode":12,"length":345}}"#;
    for (cursor, text) in [
        (file, text),
        (
            Cursor::default(),
            r#"{"window":null,"position":{"type":"nothing"}}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&cursor).unwrap(), text);
        assert_eq!(serde_json::from_str::<Cursor>(text).unwrap(), cursor);
    }
}

#[test]
fn a_destination_that_is_dead_for_five_windows_gets_them_all_once_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let obstacle = folder.path().join("logs");
    fs::write(&obstacle, "").unwrap();
    let output = output_to_file(&obstacle.join("flow.log"));
    let (mut sinks, mut events) = sinks(&Arc::new(HeldCursors::default()), QUICK);
    for number in 1..=5 {
        sinks.deliver(&output, window(number, 3)).unwrap();
    }
    assert_eq!(failed(&mut events).0, 1);
    assert_eq!(failed(&mut events).0, 2);
    fs::remove_file(&obstacle).unwrap();
    assert_eq!(delivered(&mut events, 5), of("file", 1..=5, 3));
    assert!(sinks.close(AGES).is_empty());
    let text = fs::read_to_string(obstacle.join("flow.log")).unwrap();
    assert_eq!(text, text_of(1..=5, 3));
}

#[test]
fn what_was_delivered_before_is_not_delivered_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flow.log");
    let output = output_to_file(&path);
    let cursors = Arc::new(HeldCursors::default());
    let expected = [
        of("file", 1..=2, 3),
        [of("file", 1..=2, 0), of("file", 3..=4, 3)].concat(),
    ];
    for expected in expected {
        let (mut sinks, mut events) = sinks(&cursors, QUICK);
        for (_, number, _) in &expected {
            sinks.deliver(&output, window(*number, 3)).unwrap();
        }
        assert_eq!(delivered(&mut events, expected.len()), expected);
        assert!(sinks.close(AGES).is_empty());
    }
    assert_eq!(fs::read_to_string(path).unwrap(), text_of(1..=4, 3));
}

#[test]
fn a_window_whose_cursor_was_not_stored_is_delivered_again_and_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let destinations = [
        (
            "file",
            format!(
                "type = 'file', path = '{}/flow.log'",
                folder.path().display()
            ),
        ),
        (
            "folder",
            format!("type = 'folder', path = '{}/flow'", folder.path().display()),
        ),
    ];
    for (name, destination) in destinations {
        let output = outputs_to(&[(name, &destination)]).remove(0);
        // A file's position before the window is stored too.
        let stored = u32::from(name == "file");
        let cursors = Arc::new(FailingCursors {
            cursors: HeldCursors::default(),
            left: Mutex::new(Some(stored)),
        });
        let (mut dying, mut events) = sinks(&cursors, QUICK);
        dying.deliver(&output, window(1, 3)).unwrap();
        failed(&mut events);
        assert_eq!(dying.close(AGES), BTreeMap::from([(name.to_owned(), 1)]));
        *cursors.left.lock().unwrap() = None;
        let (mut next, mut events) = sinks(&cursors, QUICK);
        next.deliver(&output, window(1, 3)).unwrap();
        assert_eq!(delivered(&mut events, 1), of(name, [1], 3));
        assert!(next.close(AGES).is_empty());
    }
    let text = fs::read_to_string(folder.path().join("flow.log")).unwrap();
    assert_eq!(text, text_of([1], 3));
    let files: Vec<_> = fs::read_dir(folder.path().join("flow")).unwrap().collect();
    let [Ok(file)] = files.as_slice() else {
        panic!("{files:?}")
    };
    assert_eq!(fs::read_to_string(file.path()).unwrap(), text_of([1], 3));
    let name = "19700101T000100Z-19700101T000200Z-9f86d081884c7d65-60-1.log";
    assert_eq!(file.file_name(), name);
}

#[test]
fn a_window_that_cannot_be_read_at_first_is_delivered_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flow.log");
    let (mut sinks, mut events) = sinks(&Arc::new(HeldCursors::default()), QUICK);
    // More than a chunk.
    let window = window(1, 50_000);
    window.fails.store(1, Ordering::Relaxed);
    sinks.deliver(&output_to_file(&path), window).unwrap();
    failed(&mut events);
    assert_eq!(delivered(&mut events, 1), of("file", [1], 50_000));
    assert_eq!(fs::read_to_string(path).unwrap(), text_of([1], 50_000));
}

#[test]
fn standard_output_goes_on_from_where_it_stopped() {
    use io::ErrorKind::{Interrupted, StorageFull, WouldBlock};
    let told = Told::to([
        Ok(3),
        Err(WouldBlock),
        Err(Interrupted),
        Ok(1),
        Err(StorageFull),
        Err(StorageFull),
    ]);
    let (mut sinks, mut events) = sinks(&Arc::new(HeldCursors::default()), QUICK);
    let stdout = Device::Stdout(Stdout::to(told.clone()));
    sinks.start(Target::Stdout, stdout).unwrap();
    sinks.deliver(&output_to_stdout(), window(1, 9)).unwrap();
    // What has gone on after a failure begins with a short pause again.
    let failures: Vec<(u32, Duration)> = (0..3).map(|_| failed(&mut events)).collect();
    let expected = [(1, 1), (1, 1), (2, 2)];
    assert_eq!(
        failures,
        expected.map(|(attempts, pause)| (attempts, Duration::from_millis(pause)))
    );
    assert_eq!(delivered(&mut events, 1), of("stdout", [1], 9));
    assert_eq!(told.text(), text_of([1], 9));
}

#[test]
fn when_nobody_reads_standard_output_its_windows_are_left() {
    let told = Told::to([Err(io::ErrorKind::BrokenPipe)]);
    let cursors = Arc::new(HeldCursors::default());
    let (mut sinks, mut events) = sinks(&cursors, QUICK);
    let stdout = Device::Stdout(Stdout::to(told.clone()));
    sinks.start(Target::Stdout, stdout).unwrap();
    for number in 1..=2 {
        sinks
            .deliver(&output_to_stdout(), window(number, 9))
            .unwrap();
    }
    assert_eq!(events.blocking_recv(), Some(SinkEvent::StdoutClosed));
    let left = BTreeMap::from([("stdout".to_owned(), 2)]);
    assert_eq!(sinks.close(AGES), left);
    assert_eq!(cursors.load("stdout").unwrap(), None);
}

#[test]
fn flow_logs_share_standard_output_and_have_a_cursor_each() {
    let told = Told::default();
    let cursors = Arc::new(HeldCursors::default());
    let cursor = Cursor {
        window: Some(1),
        position: Position::Nothing,
    };
    cursors.store("second", &cursor).unwrap();
    let (mut sinks, mut events) = sinks(&cursors, QUICK);
    let stdout = Device::Stdout(Stdout::to(told.clone()));
    sinks.start(Target::Stdout, stdout).unwrap();
    let outputs = outputs_to(&[("first", "type = 'stdout'"), ("second", "type = 'stdout'")]);
    for number in 1..=2 {
        for output in &outputs {
            sinks.deliver(output, window(number, 1)).unwrap();
        }
    }
    let expected = [
        of("first", [1], 1),
        of("second", [1], 0),
        of("first", [2], 1),
        of("second", [2], 1),
    ];
    assert_eq!(delivered(&mut events, 4), expected.concat());
    assert_eq!(told.text(), text_of([1, 2, 2], 1));
}

#[test]
fn a_slow_destination_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flow.log");
    let (slow, fast) = (output_to_stdout(), output_to_file(&path));
    let (mut sinks, mut events) = sinks(&Arc::new(HeldCursors::default()), QUICK);
    let (device, key, waiting, told) = gate();
    sinks.start(Target::Stdout, device).unwrap();
    for number in 1..=20 {
        for output in [&slow, &fast] {
            sinks.deliver(output, window(number, 2)).unwrap();
        }
    }
    waiting.recv().unwrap();
    assert_eq!(delivered(&mut events, 20), of("file", 1..=20, 2));
    for _ in 1..=20 {
        key.send(()).unwrap();
    }
    assert_eq!(delivered(&mut events, 20), of("stdout", 1..=20, 2));
    assert_eq!(told.text(), text_of(1..=20, 2));
    assert_eq!(fs::read_to_string(path).unwrap(), text_of(1..=20, 2));
}

#[test]
fn a_destination_that_blocks_does_not_hold_up_the_end_and_does_nothing_after_it() {
    let cursors = Arc::new(HeldCursors::default());
    let (mut sinks, events) = sinks(&cursors, QUICK);
    let (device, key, waiting, told) = gate();
    sinks.start(Target::Stdout, device).unwrap();
    // Each of several chunks.
    for number in 1..=2 {
        sinks
            .deliver(&output_to_stdout(), window(number, 50_000))
            .unwrap();
    }
    waiting.recv().unwrap();
    let left = BTreeMap::from([("stdout".to_owned(), 2)]);
    assert_eq!(sinks.close(Duration::ZERO), left);
    key.send(()).unwrap();
    // The thread ends without another chunk, and the gate with it.
    assert!(waiting.recv().is_err());
    let text = told.text();
    assert!(text.ends_with('\n') && text_of([1], 50_000).starts_with(&text));
    assert_eq!(cursors.load("stdout").unwrap(), None);
    assert!(events.is_empty());
}

#[test]
fn the_end_waits_for_no_pause_and_leaves_what_fails_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let obstacle = folder.path().join("logs");
    let outputs = outputs_to(&[
        (
            "stays",
            &format!("type = 'file', path = '{}/a/flow.log'", obstacle.display()),
        ),
        (
            "heals",
            &format!("type = 'file', path = '{}/b/flow.log'", obstacle.display()),
        ),
    ]);
    fs::create_dir(&obstacle).unwrap();
    for name in ["a", "b"] {
        fs::write(obstacle.join(name), "").unwrap();
    }
    let (mut sinks, mut events) = sinks(
        &Arc::new(HeldCursors::default()),
        QUICK.with_min_delay(AGES).with_max_delay(AGES),
    );
    for output in &outputs {
        for number in 1..=2 {
            sinks.deliver(output, window(number, 2)).unwrap();
        }
    }
    for _ in &outputs {
        assert_eq!(failed(&mut events), (1, AGES));
    }
    fs::remove_file(obstacle.join("b")).unwrap();
    let left = BTreeMap::from([("stays".to_owned(), 2)]);
    assert_eq!(sinks.close(AGES), left);
    assert_eq!(delivered(&mut events, 2), of("heals", 1..=2, 2));
    let text = fs::read_to_string(obstacle.join("b/flow.log")).unwrap();
    assert_eq!(text, text_of(1..=2, 2));
}

#[test]
fn after_a_window_that_is_left_no_later_one_of_its_flow_log_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flow.log");
    let output = output_to_file(&path);
    let (mut sinks, mut events) = sinks(
        &Arc::new(HeldCursors::default()),
        QUICK.with_min_delay(AGES).with_max_delay(AGES),
    );
    let first = window(1, 2);
    first.fails.store(2, Ordering::Relaxed);
    sinks.deliver(&output, first).unwrap();
    sinks.deliver(&output, window(2, 2)).unwrap();
    failed(&mut events);
    let left = BTreeMap::from([("file".to_owned(), 2)]);
    assert_eq!(sinks.close(AGES), left);
    assert_eq!(fs::read_to_string(path).unwrap(), "");
}

#[test]
fn pauses_grow_to_less_than_thirty_seconds_and_differ() {
    use backon::BackoffBuilder as _;
    let of_seed =
        |seed| -> Vec<Duration> { PAUSES.with_jitter_seed(seed).build().take(50).collect() };
    let pauses = of_seed(1);
    for (index, pause) in (0..).zip(&pauses) {
        let least = Duration::from_millis(100 << index.min(8)).min(Duration::from_secs(15));
        assert!((least..least * 2).contains(pause), "{index}: {pause:?}");
    }
    assert_eq!(pauses.len(), 50);
    assert_ne!(pauses, of_seed(2));
}
