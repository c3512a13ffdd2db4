//! What is put in comes out, whatever happens in between.
use super::*;

/// What happens to a spool.
#[derive(Clone, Debug)]
enum Step {
    Drain(Counted),
    Close(usize),
    /// A flow log (by number of its length, and in it) takes so many windows.
    Deliver(usize, usize, usize),
    Compact,
    Sweep,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => counted(30).prop_map(Step::Drain),
        3 => (0..2_usize).prop_map(Step::Close),
        2 => (0..2_usize, 0..2_usize, 1..3_usize).prop_map(|(a, b, c)| Step::Deliver(a, b, c)),
        1 => Just(Step::Compact),
        1 => Just(Step::Sweep),
        2 => Just(Step::Reopen),
    ]
}

impl Lab {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Drain(counted) => drop(self.drain(counted)),
            Step::Close(length) => {
                let window = self.close(*length);
                self.check(&window);
            }
            Step::Deliver(length, flow_log, windows) => {
                let flow_logs = LENGTHS[*length].1;
                let flow_log = flow_logs[flow_log % flow_logs.len()];
                self.deliver(flow_log, *windows);
            }
            Step::Compact => while self.compact() {},
            Step::Sweep => assert_eq!(self.spool().sweep(u64::MAX), GivenUp::default()),
            Step::Reopen => self.reopen(),
        }
    }

    fn deliver(&mut self, flow_log: &str, windows: usize) {
        for window in self.spool().pending(flow_log).iter().take(windows) {
            self.check(window);
            self.spool().delivered(flow_log, window.id());
        }
    }

    fn deliver_all(&mut self) {
        for flow_log in LENGTHS.iter().flat_map(|(_, flow_logs)| *flow_logs) {
            self.deliver(flow_log, usize::MAX);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_window_has_all_its_flows_and_each_flow_log_all_its_windows(steps in prop::collection::vec(step(), 1..40)) {
        let folder = temporary();
        let mut lab = Lab::new(folder.path());
        for step in &steps {
            lab.step(step);
        }
        lab.reopen();
        for length in 0..2 {
            lab.close(length);
        }
        lab.deliver_all();
        // The state, a cursor for each flow log, and the newest drain for its mark.
        let left = names(folder.path());
        let of = |prefix: &str| left.iter().filter(|name| name.starts_with(prefix)).count();
        prop_assert_eq!((of("window-"), of("cursor-"), of("state")), (0, if lab.windows.is_empty() { 0 } else { 3 }, 1));
        prop_assert!(of("drain-") <= 1, "{:?}", left);
        lab.reopen();
    }

    #[test]
    fn flows_that_do_not_fit_in_memory_are_added_up_all_the_same(
        drains in prop::collection::vec(counted(400), 1..4), max_flows_in_memory in 0..200_usize,
    ) {
        let folder = temporary();
        let mut lab = Lab::with(SpoolConfig { max_flows_in_memory, ..config(folder.path()) });
        for counted in &drains {
            let committed = lab.drain(counted);
            let given = (counted.v4.len() as u64, counted.v6.len() as u64);
            prop_assert_eq!((committed.flows_v4, committed.flows_v6), given);
        }
        let window = lab.close(0);
        lab.check(&window);
    }
}

#[test]
fn runs_of_many_blocks_are_read_in_order() {
    let folder = temporary();
    let mut lab = Lab::with(SpoolConfig {
        max_flows_in_memory: 3000,
        ..config(folder.path())
    });
    let mut counted = Counted::default();
    for number in 0..5000_u32 {
        let mut flow = flow_v4(number % 3, 0, 0, u64::from(number) + 1);
        flow.key.dst_addr = (number * 7919 % 5000).to_be_bytes();
        counted.v4.push(flow);
        let mut flow = flow_v6(number % 3, 0, 1, u64::from(number) + 1);
        flow.key.src_addr[..4].copy_from_slice(&(number * 7919 % 5000).to_be_bytes());
        counted.v6.push(flow);
    }
    lab.drain(&counted);
    lab.drain(&counted);
    let window = lab.close(0);
    lab.check(&window);
}

#[test]
fn early_drains_are_merged_and_their_flows_are_the_same() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for seed in 0..10 {
        lab.drain(&some(seed));
    }
    lab.close(0);
    let mut merged = 0;
    for seed in 10..1210 {
        lab.drain(&some(seed % 50));
        while lab.compact() {
            merged += 1;
        }
    }
    assert!(merged >= 1200 / 33, "{merged}");
    let drains = names(folder.path());
    let metas = drains.iter().filter(|name| name.ends_with(".meta")).count();
    assert!(metas < 10 + 3 * 32, "{metas} drains are left of 1210");
    lab.reopen();
    let minute = lab.close(0);
    let ten_minutes = lab.close(1);
    lab.check(&minute);
    lab.check(&ten_minutes);
    lab.reopen();
    lab.deliver_all();
    assert!(names(folder.path()).len() < 7, "{:?}", names(folder.path()));
}

#[test]
fn an_open_reader_reads_on_when_the_spool_has_merged_or_removed_the_files() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for seed in 0..40 {
        lab.drain(&some(seed));
    }
    let window = lab.close(0);
    let truth = lab.truth(&(1..41));
    let before_merge = window.read().unwrap();
    // The window of ten minutes is still open, and needs them.
    assert!(lab.compact());
    assert_eq!(read(&before_merge), truth);
    let before_removal = window.read().unwrap();
    let second = lab.close(1);
    for (window, flow_log) in [
        (&window, "minute"),
        (&window, "too"),
        (&second, "ten-minutes"),
    ] {
        lab.spool().delivered(flow_log, window.id());
    }
    assert!(
        !names(folder.path())
            .iter()
            .any(|name| name.ends_with(".flows"))
    );
    assert_eq!(read(&before_removal), truth);
    assert_eq!(before_merge.damage() + before_removal.damage(), 0);
    // Its manifest is gone by now.
    assert!(window.read().is_err());
}

#[test]
fn readers_find_everything_while_drains_are_merged() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for round in 0..20 {
        let first = lab.spool().next_drain();
        for seed in 0..64 {
            lab.drain(&some(round + seed));
        }
        let window = lab.close(0);
        let truth = lab.truth(&(first..first + 64));
        let (merged, stop) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            // At least once after the last merge.
            let mut last = false;
            while !std::mem::replace(&mut last, stop.try_recv().is_ok()) {
                let reader = window.read().unwrap();
                assert_eq!(read(&reader), truth);
                assert_eq!(reader.damage(), 0);
            }
        });
        assert!(lab.compact() && lab.compact());
        merged.send(()).unwrap();
        reader.join().unwrap();
    }
}

#[test]
fn what_is_delivered_is_removed_but_for_the_newest_drains_mark() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for seed in 0..5 {
        lab.drain(&some(seed));
        lab.close(0);
        lab.close(1);
        lab.deliver_all();
        let mut left = names(folder.path());
        left.retain(|name| name.starts_with("drain-") || name.starts_with("window-"));
        assert_eq!(left, [format!("drain-{0}-{0}.meta", seed + 1)]);
        let usage = lab.spool().usage();
        let pending = (usage.pending_windows, usage.oldest);
        assert_eq!((usage.bytes, usage.drains, pending), (4096, 1, (0, None)));
        lab.reopen();
    }
}

#[test]
fn compaction_gives_way_to_what_happens_meanwhile() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for seed in 0..32 {
        lab.drain(&some(seed));
    }
    let job = lab.spool().compaction_due().unwrap();
    assert!(lab.spool().compaction_due().is_none(), "one at a time");
    let minute = lab.close(0);
    let ten_minutes = lab.close(1);
    lab.check(&minute);
    let compacted = job.run();
    // Closed windows need them now: they may be merged.
    lab.spool().compacted(compacted);
    assert!(folder.path().join("drain-1-32.flows").exists());
    lab.check(&minute);
    lab.check(&ten_minutes);
    lab.reopen();
    for seed in 0..32 {
        lab.drain(&some(seed));
    }
    let job = lab.spool().compaction_due().unwrap();
    lab.close(0);
    lab.close(1);
    lab.deliver_all();
    // Nobody needs them any more.
    let compacted = job.run();
    lab.spool().compacted(compacted);
    lab.reopen();
    assert!(
        !names(folder.path())
            .iter()
            .any(|name| name.ends_with(".flows"))
    );
}

#[test]
fn a_flow_log_that_is_forgotten_has_no_windows_and_stays_forgotten() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for seed in 0..3 {
        lab.drain(&some(seed));
        lab.close(0);
    }
    lab.drain(&some(3));
    lab.close(1);
    assert_eq!(lab.spool().forget_flow_log("unheard-of"), 0);
    assert_eq!(lab.spool().forget_flow_log("ten-minutes"), 1);
    assert_eq!(lab.spool().forget_flow_log("too"), 3);
    assert_eq!(lab.spool().forget_flow_log("too"), 0);
    lab.reopen();
    assert!(lab.spool().pending("too").is_empty());
    assert_eq!(lab.spool().pending("minute").len(), 3);
    assert_eq!(lab.spool().flow_logs(), ["minute".to_owned()].into());
    lab.deliver_all();
    lab.save();
    let cursors = |lab: &Lab| {
        let mut names = names(&lab.path);
        names.retain(|name| name.starts_with("cursor-"));
        names
    };
    assert_eq!(cursors(&lab), ["cursor-minute.json"]);
    // It comes back, and has what is closed from then on.
    lab.drain(&some(4));
    let window = lab.close(0);
    assert_eq!(lab.spool().pending("too").len(), 1);
    lab.spool().delivered("too", window.id());
    lab.reopen();
    assert_eq!(cursors(&lab), ["cursor-minute.json", "cursor-too.json"]);
}

#[test]
fn a_sinks_position_is_kept_and_the_spool_does_not_touch_it() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for seed in 0..3 {
        lab.drain(&some(seed));
        lab.close(0);
    }
    let cursor = lab.spool().cursors().of("minute");
    assert_eq!(cursor.read().unwrap(), None);
    let written = Cursor {
        window: 2,
        position: serde_json::json!({ "offset": 77 }),
    };
    cursor.write(&written).unwrap();
    // The sink is ahead of what the agent has heard.
    lab.spool().delivered("minute", 1);
    assert_eq!(cursor.read().unwrap(), Some(written.clone()));
    lab.spool().delivered("minute", 2);
    assert_eq!(cursor.read().unwrap(), Some(written));
    // A sink that writes none is noted down by the spool.
    lab.spool().delivered("too", 1);
    let noted = lab.spool().cursors().of("too").read().unwrap().unwrap();
    assert_eq!((noted.window, noted.position), (1, serde_json::Value::Null));
    lab.reopen();
    let pending = |lab: &mut Lab, flow_log| lab.spool().pending(flow_log).len();
    assert_eq!(
        (pending(&mut lab, "minute"), pending(&mut lab, "too")),
        (1, 2)
    );
}

#[test]
fn a_second_spool_in_the_folder_is_refused_and_a_later_one_is_not() {
    let folder = temporary();
    let lab = Lab::new(folder.path());
    let window_of_the_first = lab.told();
    let error = Spool::open(config(folder.path())).unwrap_err().to_string();
    let expected = format!(
        "another flowlog-agent (process {}) is running on this host: it holds {}/lock",
        std::process::id(),
        folder.path().display()
    );
    assert_eq!(error, expected);
    assert_eq!(lab.told(), window_of_the_first);
    drop(lab);
    Spool::open(config(folder.path())).unwrap();
}

#[test]
fn a_folder_that_cannot_be_used_is_told_of_in_one_sentence() {
    let folder = temporary();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let path = file.join("spool");
    let error = Spool::open(config(&path)).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "the spool cannot use the folder {}: Not a directory (os error 20)",
            path.display()
        )
    );
}

#[test]
fn the_folder_is_made_for_its_owner_only_and_what_else_is_in_it_is_let_be() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = temporary();
    let path = folder.path().join("new/spool");
    let mut lab = Lab::new(&path);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    lab.drain(&some(1));
    assert_eq!(mode(&path.join("drain-1-1.flows")), 0o600);
    assert_eq!(mode(&path.join("drain-1-1.meta")), 0o600);
    for name in [
        "notes.txt",
        "drain-x.flows",
        "drain-2-2.flows.tmp",
        "editor.tmp",
    ] {
        fs::write(path.join(name), "mine").unwrap();
    }
    drop(lab);
    drop(Spool::open(config(&path)).unwrap());
    for (name, is_there) in [
        ("notes.txt", true),
        ("drain-x.flows", true),
        ("drain-2-2.flows.tmp", false),
        ("editor.tmp", true),
    ] {
        assert_eq!(path.join(name).exists(), is_there, "{name}");
    }
}
