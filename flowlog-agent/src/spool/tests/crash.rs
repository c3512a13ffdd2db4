//! A crash between any two steps leaves the one or the other.
use super::*;
use std::collections::BTreeSet;

/// The names that are in `a` and not in `b`.
fn only_in(a: &Path, b: &Path) -> Vec<String> {
    let others: BTreeSet<String> = names(b).into_iter().collect();
    let mut names = names(a);
    names.retain(|name| !others.contains(name));
    names
}

/// Those of `names` that the bits of `subset` choose.
fn chosen(names: &[String], subset: u64) -> impl Iterator<Item = &String> {
    (0..64)
        .zip(names)
        .filter(move |(bit, _)| subset >> bit & 1 == 1)
        .map(|(_, name)| name)
}

/// A copy of the folder, with some files of another one.
fn with_some(of: &Path, from: &Path, names: &[String], subset: u64) -> tempfile::TempDir {
    let folder = temporary();
    copy(of, folder.path());
    for name in chosen(names, subset) {
        fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// The spool of a folder has these pending windows, and what it tells of them adds up.
fn check_pending(lab: &Lab, path: &Path, ids: &[(&str, &[u64])]) {
    let (spool, recovered) = Spool::open(config(path)).unwrap();
    assert_eq!(recovered.damage, Damage::default());
    assert_eq!(recovered.state.as_ref(), Some(&lab.state));
    for (flow_log, ids) in ids {
        let windows = spool.pending(flow_log);
        let found: Vec<u64> = windows.iter().map(|window| window.id()).collect();
        assert_eq!(&found, ids, "{flow_log}");
        for window in &windows {
            check_sums(lab, window);
        }
    }
}

/// What a window tells adds up to what there was.
fn check_sums(lab: &Lab, window: &StoredWindow) {
    let reader = window.read().unwrap();
    let mut told = told_skipped(&reader);
    add_volumes(&mut told, &read(&reader).flows());
    let truth = lab.truth(&lab.windows[&window.id()].drains);
    assert_eq!(told, truth.total());
    assert!(!reader.loss_unknown());
}

#[test]
fn a_drain_is_committed_as_soon_as_its_meta_file_has_its_name() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    lab.drain(&some(1));
    lab.close(0);
    lab.drain(&some(2));
    let before = temporary();
    copy(folder.path(), before.path());
    lab.drain(&some(3));
    let read = |name| fs::read(folder.path().join(name)).unwrap();
    let (flows, meta) = (read("drain-3-3.flows"), read("drain-3-3.meta"));
    let state = |files: &[(&str, &[u8])]| {
        let folder = temporary();
        copy(before.path(), folder.path());
        for (name, octets) in files {
            fs::write(folder.path().join(name), octets).unwrap();
        }
        folder
    };
    let mut uncommitted = vec![state(&[("drain-3-3.flows", &flows)])];
    for cut in 0..flows.len() {
        uncommitted.push(state(&[("drain-3-3.flows.tmp", &flows[..cut])]));
    }
    for cut in 0..=meta.len() {
        let files = [
            ("drain-3-3.flows", &*flows),
            ("drain-3-3.meta.tmp", &meta[..cut]),
        ];
        uncommitted.push(state(&files));
    }
    for folder in uncommitted {
        let (mut spool, recovered) = Spool::open(config(folder.path())).unwrap();
        assert_eq!(recovered.damage, Damage::default());
        assert_eq!((recovered.mark, spool.next_drain()), (Some(mark(2)), 3));
        assert_eq!(names(folder.path()), names(before.path()));
        // The kernel still has it all: it is drained again.
        let mut writer = spool.begin_drain();
        writer.v4(some(3).v4);
        writer.v6(some(3).v6);
        writer
            .commit(mark(3), &some(3).skipped, kept(3.into()))
            .unwrap();
        assert_eq!(names(folder.path()), names(&lab.path));
    }
    let folder = state(&[("drain-3-3.flows", &flows), ("drain-3-3.meta", &meta)]);
    let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
    assert_eq!((recovered.mark, spool.next_drain()), (Some(mark(3)), 4));
}

#[test]
fn a_drain_that_is_not_committed_leaves_nothing_behind() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    lab.drain(&some(1));
    let before = (names(folder.path()), lab.told());
    let mut writer = lab.spool().begin_drain();
    for seed in 0..20 {
        writer.v4(some(seed).v4);
    }
    drop(writer);
    assert_eq!((names(folder.path()), lab.told()), before);
    lab.reopen();
}

#[test]
fn a_drain_that_cannot_be_committed_leaves_nothing_behind_and_can_be_made_again() {
    // Something is in the way: of the flows while they are written, of their name, or of the meta file.
    for name in [
        "drain-2-2.flows.tmp",
        "drain-2-2.flows",
        "drain-2-2.meta.tmp",
        "drain-2-2.meta",
    ] {
        let folder = temporary();
        let mut lab = Lab::new(folder.path());
        lab.drain(&some(1));
        let before = (names(folder.path()), lab.told());
        let in_the_way = folder.path().join(name);
        fs::create_dir(&in_the_way).unwrap();
        for _ in 0..2 {
            let error = lab.try_drain(&some(2)).unwrap_err().to_string();
            assert!(
                error.ends_with("of the spool: Is a directory (os error 21)"),
                "{error}"
            );
        }
        fs::remove_dir(&in_the_way).unwrap();
        assert_eq!((names(folder.path()), lab.told()), before, "{name}");
        lab.drain(&some(2));
        let window = lab.close(0);
        lab.check(&window);
        lab.reopen();
    }
}

#[test]
fn a_window_that_was_closed_is_not_closed_again_though_the_state_was_not_saved() {
    // Windows that are closed, and how many of them are delivered before the crash.
    for (closings, delivered) in [(1, 0), (1, 1), (3, 0), (3, 2), (3, 3)] {
        let folder = temporary();
        let mut lab = Lab::new(folder.path());
        for seed in 0..closings {
            lab.drain(&some(seed));
            lab.close_unsaved(0);
        }
        for id in 1..=delivered {
            for flow_log in LENGTHS[0].1 {
                lab.spool().delivered(flow_log, id);
            }
        }
        let left: Vec<u64> = (delivered + 1..=closings).collect();
        lab.spool = None;
        for _ in 0..2 {
            check_pending(&lab, folder.path(), &[("minute", &left), ("too", &left)]);
        }
        // Once the state is saved, what is delivered goes.
        lab.spool = Some(Spool::open(config(folder.path())).unwrap().0);
        lab.save();
        let manifests = names(folder.path());
        let manifests = manifests.iter().filter(|name| name.starts_with("window-"));
        assert_eq!(manifests.count(), left.len());
        lab.reopen();
    }
}

#[test]
fn a_window_without_drains_is_not_closed_again_either() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    lab.close(0);
    lab.close_unsaved(0);
    for flow_log in LENGTHS[0].1 {
        lab.spool().delivered(flow_log, 2);
    }
    lab.spool = None;
    check_pending(&lab, folder.path(), &[("minute", &[]), ("too", &[])]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_a_crash_leaves_of_a_compaction_each_flow_counts_once(old in any::<u64>(), with_meta in any::<bool>()) {
        let folder = temporary();
        let mut lab = Lab::new(folder.path());
        for seed in 0..34 {
            lab.drain(&some(seed));
        }
        let before = temporary();
        copy(folder.path(), before.path());
        assert!(lab.compact());
        lab.spool = None;
        let removed = only_in(before.path(), folder.path());
        prop_assert_eq!(removed.len(), 64);
        prop_assert_eq!(only_in(folder.path(), before.path()), ["drain-1-32.flows", "drain-1-32.meta"]);
        let crashed = if with_meta {
            // Any of the old files may be there still.
            with_some(folder.path(), before.path(), &removed, old)
        } else {
            with_some(before.path(), folder.path(), &["drain-1-32.flows".to_owned()], old)
        };
        let (mut spool, recovered) = Spool::open(config(crashed.path())).unwrap();
        prop_assert_eq!(recovered.damage, Damage::default());
        prop_assert_eq!(recovered.mark, Some(mark(34)));
        let there = names(if with_meta { folder.path() } else { before.path() });
        prop_assert_eq!(names(crashed.path()), there);
        let window = spool.close_window(&Closing {
            length_seconds: 60,
            label: Window { start: 0, end: 60 },
            opened: Duration::ZERO,
            closed: Duration::ZERO,
            captured: &captured(),
            flow_logs: &["minute".to_owned()],
            first_drain: 1, loss_unknown: false }).unwrap();
        let reader = window.read().unwrap();
        prop_assert_eq!(read(&reader), lab.truth(&(1..35)));
    }

    #[test]
    fn whatever_a_crash_leaves_of_what_was_delivered_is_not_delivered_again(back in any::<u64>()) {
        let folder = temporary();
        let mut lab = Lab::new(folder.path());
        for seed in 0..3 {
            lab.drain(&some(seed));
            lab.close(0);
        }
        lab.close(1);
        lab.drain(&some(3));
        lab.close(0);
        lab.drain(&some(4));
        let before = temporary();
        copy(folder.path(), before.path());
        for (flow_log, window) in [("ten-minutes", 4), ("minute", 5), ("too", 3)] {
            lab.spool().delivered(flow_log, window);
        }
        lab.spool = None;
        let removed = only_in(before.path(), folder.path());
        // Four manifests, and the files of the drains 1 to 3.
        prop_assert_eq!(removed.len(), 4 + 6, "{:?}", removed);
        let crashed = with_some(folder.path(), before.path(), &removed, back);
        check_pending(&lab, crashed.path(), &[("minute", &[]), ("too", &[5]), ("ten-minutes", &[])]);
        prop_assert_eq!(names(crashed.path()), names(folder.path()));
    }

    #[test]
    fn whatever_a_crash_leaves_of_what_was_given_up_the_sums_are_right(back in any::<u64>()) {
        let folder = temporary();
        let mut lab = Lab::new(folder.path());
        for seed in 0..4 {
            lab.drain(&some(seed));
            lab.close(0);
        }
        lab.close(1);
        let before = temporary();
        copy(folder.path(), before.path());
        lab.spool().config.max_age_seconds = 0;
        lab.spool().sweep(u64::MAX);
        lab.spool = None;
        let removed = only_in(before.path(), folder.path());
        // All but the newest drain's meta file.
        prop_assert_eq!(removed.len(), 7, "{:?}", removed);
        let crashed = with_some(folder.path(), before.path(), &removed, back);
        let ids = [1, 2, 3, 4];
        check_pending(&lab, crashed.path(), &[("minute", &ids), ("ten-minutes", &[5])]);
    }
}

#[test]
fn whatever_a_crash_leaves_of_windows_that_were_joined_their_sums_count_once() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for seed in 0..4 {
        lab.drain(&some(seed));
        lab.close(0);
    }
    let before = temporary();
    copy(folder.path(), before.path());
    lab.spool().max_pending = 2;
    lab.spool().sweep(0);
    lab.spool = None;
    let removed = only_in(before.path(), folder.path());
    assert!(
        removed.contains(&"window-1.json".to_owned())
            && removed.contains(&"window-2.json".to_owned())
    );
    for subset in 0..1 << removed.len() {
        let crashed = with_some(folder.path(), before.path(), &removed, subset);
        let (spool, _) = Spool::open(config(crashed.path())).unwrap();
        let windows = spool.pending("minute");
        let found: Vec<u64> = windows.iter().map(|window| window.id()).collect();
        assert_eq!(found, [3, 4]);
        let mut told = Volumes::new();
        for window in windows {
            let reader = window.read().unwrap();
            add_volumes(&mut told, &told_skipped(&reader));
            add_volumes(&mut told, &read(&reader).flows());
        }
        assert_eq!(told, lab.truth(&(1..5)).total());
    }
}
