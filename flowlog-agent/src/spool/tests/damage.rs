//! Whatever becomes of the files: what is read was there, and what is not read is told of.
use super::*;

/// What was told after the spool was opened and an agent went on with it.
struct Told {
    damage: u64,
    had_state: bool,
    mark: Option<KernelMark>,
    /// Lengths of which a window says that an unknown amount was lost.
    unknown: Vec<u64>,
    /// Flows, by length.
    flows: BTreeMap<u64, Counted>,
}

/// Windows of both lengths, closed and open; one is delivered to one of its flow logs.
fn furnished(path: &Path) -> Lab {
    let mut lab = Lab::new(path);
    lab.drain(&some(1));
    lab.drain(&some(2));
    let first = lab.close(0);
    lab.drain(&some(3));
    lab.close(0);
    lab.close(1);
    lab.drain(&some(4));
    lab.close(0);
    lab.drain(&some(5));
    lab.drain(&some(6));
    lab.spool().delivered("minute", first.id());
    lab.spool = None;
    lab
}

/// The state of an agent that knows of none before it.
fn fresh(lab: &Lab, spool: &Spool) -> State {
    let series = LENGTHS.map(|(length_seconds, flow_logs)| OpenSeries {
        length_seconds,
        start: lab.now,
        opened_ns: 0,
        first_drain: spool.next_drain(),
        flow_logs: owned(flow_logs),
    });
    State {
        series: series.into(),
        ..State::default()
    }
}

/// Opens the spool of `path`, goes on as an agent does, and delivers everything. Whatever it was that happened to the files, nothing may
/// be told that was not there, and whatever is missing must be told.
fn go_on(lab: &Lab, path: &Path) -> Told {
    let (mut spool, recovered) = Spool::open(config(path)).unwrap();
    let mut told = Told {
        damage: recovered.damage.count,
        had_state: recovered.state.is_some(),
        mark: recovered.mark,
        unknown: Vec::new(),
        flows: BTreeMap::new(),
    };
    let mut state = recovered.state.unwrap_or_else(|| fresh(lab, &spool));
    spool.save_state(&state).unwrap();
    let writer = spool.begin_drain();
    let nothing = (Volumes::new(), serde_json::Value::Null);
    writer
        .commit(mark(999), &nothing.0, kept(nothing.1))
        .unwrap();
    for (series, (length_seconds, flow_logs)) in state.series.iter_mut().zip(LENGTHS) {
        assert_eq!(series.length_seconds, length_seconds);
        let label = Window {
            start: series.start,
            end: lab.now + 1000,
        };
        let flow_logs = owned(flow_logs);
        let closing = Closing {
            length_seconds,
            label,
            opened: Duration::ZERO,
            closed: Duration::ZERO,
            captured: &captured(),
            flow_logs: &flow_logs,
            first_drain: series.first_drain,
            loss_unknown: false,
        };
        spool.close_window(&closing).unwrap();
        series.first_drain = spool.next_drain();
        series.start = label.end;
    }
    spool.save_state(&state).unwrap();
    for (length_seconds, flow_logs) in LENGTHS {
        // One that has taken nothing yet.
        let windows = spool.pending(flow_logs.last().unwrap());
        assert!(
            windows
                .iter()
                .all(|window| window.length_seconds() == length_seconds)
        );
        let flows = deliver(lab, &windows, length_seconds, &mut told.unknown);
        told.flows.insert(length_seconds, flows);
    }
    told
}

fn deliver(
    lab: &Lab,
    windows: &[Arc<StoredWindow>],
    length_seconds: u64,
    unknown: &mut Vec<u64>,
) -> Counted {
    let all = lab.truth(&(0..u64::MAX));
    let (mut flows, mut total) = (Counted::default(), Volumes::new());
    let mut is_unknown = false;
    for window in windows {
        let reader = window.read().unwrap();
        let counted = read(&reader);
        let mut of_window = told_skipped(&reader);
        add_volumes(&mut of_window, &counted.flows());
        is_unknown |= reader.loss_unknown();
        if let Some(expected) = lab.windows.get(&window.id())
            && expected.label == window.label()
        {
            let truth = lab.truth(&expected.drains);
            assert_within(&counted.v4, &truth.v4);
            assert_within(&counted.v6, &truth.v6);
            assert!(reader.loss_unknown() || of_window == truth.total());
        }
        add_volumes(&mut total, &of_window);
        flows.add(&counted);
    }
    let flows = flows.sorted();
    assert_within(&flows.v4, &all.v4);
    assert_within(&flows.v6, &all.v6);
    assert_eq!(
        missing(&total, &all.total()),
        Volumes::new(),
        "more than there was"
    );
    if is_unknown {
        unknown.push(length_seconds);
    } else {
        assert_eq!(total, all.total(), "{length_seconds}");
    }
    flows
}

/// Each flow is one that there was, and has no more than it had.
fn assert_within<K: FlowKey + std::fmt::Debug>(flows: &[Flow<K>], truth: &[Flow<K>]) {
    for flow in flows {
        let at = truth.binary_search_by_key(&flow.key, |flow| flow.key);
        let there_was = truth[at.expect("there is such a flow")];
        assert!(flow.packets <= there_was.packets && flow.bytes <= there_was.bytes);
        assert_eq!(flow.marks.tcp_flags() & !there_was.marks.tcp_flags(), 0);
    }
}

/// Cuts a file at every octet, and flips a bit in each; tells `check` of each.
fn each_damage(lab: &Lab, name: &str, mut check: impl FnMut(&Told, usize)) {
    let whole = fs::read(lab.path.join(name)).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for octets in [&whole[..at], &flipped] {
            let folder = temporary();
            copy(&lab.path, folder.path());
            fs::write(folder.path().join(name), octets).unwrap();
            check(&go_on(lab, folder.path()), at);
        }
    }
}

#[test]
fn without_damage_everything_is_there() {
    let folder = temporary();
    let lab = furnished(folder.path());
    let told = go_on(&lab, folder.path());
    assert_eq!(
        (told.damage, told.had_state, told.mark),
        (0, true, Some(mark(6)))
    );
    assert!(told.unknown.is_empty());
    let truth = lab.truth(&(0..u64::MAX));
    for flows in told.flows.into_values() {
        assert_eq!((flows.v4, flows.v6), (truth.v4.clone(), truth.v6.clone()));
    }
}

#[test]
fn what_is_damaged_of_flows_is_known_to_the_packet() {
    let folder = temporary();
    let lab = furnished(folder.path());
    each_damage(&lab, "drain-6-6.flows", |told, at| {
        assert_eq!(
            (told.unknown.as_slice(), told.had_state),
            (&[][..], true),
            "{at}"
        );
    });
}

#[test]
fn a_drain_whose_sums_are_damaged_is_lost_and_the_windows_that_had_it_say_so() {
    let folder = temporary();
    let lab = furnished(folder.path());
    each_damage(&lab, "drain-6-6.meta", |told, at| {
        assert_eq!(
            (told.unknown.as_slice(), told.damage),
            (&[60, 600][..], 1),
            "{at}"
        );
        assert_eq!(told.mark, Some(mark(5)), "{at}");
    });
}

#[test]
fn closed_windows_know_their_sums_without_those_of_their_drains() {
    let folder = temporary();
    let lab = furnished(folder.path());
    // It is in windows of both lengths, and these are closed.
    each_damage(&lab, "drain-2-2.meta", |told, at| {
        assert_eq!((told.unknown.as_slice(), told.damage), (&[][..], 1), "{at}");
    });
}

#[test]
fn a_damaged_manifest_is_told_of_by_the_windows_that_are_open_then() {
    let folder = temporary();
    let lab = furnished(folder.path());
    each_damage(&lab, "window-4.json", |told, at| {
        assert_eq!(
            (told.unknown.as_slice(), told.damage),
            (&[60, 600][..], 1),
            "{at}"
        );
    });
}

#[test]
fn a_damaged_state_is_told_of_by_the_next_windows() {
    let folder = temporary();
    let lab = furnished(folder.path());
    each_damage(&lab, "state.json", |told, at| {
        assert_eq!(
            (told.unknown.as_slice(), told.damage),
            (&[60, 600][..], 1),
            "{at}"
        );
        assert!(!told.had_state);
    });
}

#[test]
fn a_damaged_cursor_loses_nothing() {
    let folder = temporary();
    let lab = furnished(folder.path());
    each_damage(&lab, "cursor-minute.json", |told, at| {
        assert_eq!((told.unknown.as_slice(), told.damage), (&[][..], 1), "{at}");
    });
}

#[test]
fn files_that_are_missing_are_told_of() {
    let missing = [
        ("drain-6-6.flows", 1, &[][..]),
        ("drain-5-5.meta", 1, &[60, 600]),
        ("state.json", 1, &[60, 600]),
        ("drain-2-2.meta", 0, &[]),
        ("drain-2-2.flows", 1, &[]),
    ];
    for (name, damage, unknown) in missing {
        let folder = temporary();
        let lab = furnished(folder.path());
        fs::remove_file(folder.path().join(name)).unwrap();
        let told = go_on(&lab, folder.path());
        assert_eq!(
            (told.unknown.as_slice(), told.damage),
            (unknown, damage),
            "{name}"
        );
    }
}

#[test]
fn a_loss_is_not_forgotten_if_nothing_is_drained_before_the_next_restart() {
    for name in ["drain-6-6.meta", "window-4.json", "state.json"] {
        let folder = temporary();
        let lab = furnished(folder.path());
        fs::write(folder.path().join(name), "rubbish").unwrap();
        for restart in 0..3 {
            let (mut spool, recovered) = Spool::open(config(folder.path())).unwrap();
            // The damaged manifest is kept as a witness.
            let told = name == "window-4.json" || restart == 0;
            assert_eq!(recovered.damage.count, u64::from(told), "{name}");
            let state = recovered.state.unwrap_or_else(|| fresh(&lab, &spool));
            spool.save_state(&state).unwrap();
        }
        assert_eq!(go_on(&lab, folder.path()).unknown, [60, 600], "{name}");
    }
}

#[test]
fn a_window_whose_last_drains_are_missing_says_so() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    lab.drain(&some(1));
    lab.close(0);
    lab.spool = None;
    fs::remove_file(folder.path().join("drain-1-1.meta")).unwrap();
    lab.spool = Some(Spool::open(lab.config.clone()).unwrap().0);
    assert_eq!(lab.spool().next_drain(), 2, "the closed window had one");
    let window = lab.close(1);
    assert!(window.read().unwrap().loss_unknown());
}

#[test]
fn what_is_merged_with_a_lost_drain_is_lost_with_it_in_part() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    lab.drain(&some(0));
    lab.spool = None;
    fs::write(folder.path().join("drain-1-1.meta"), "rubbish").unwrap();
    lab.spool = Some(Spool::open(lab.config.clone()).unwrap().0);
    for seed in 1..40 {
        lab.drain(&some(seed));
    }
    assert!(lab.compact());
    assert!(folder.path().join("drain-1-32.meta").exists());
    let window = lab.close(0);
    let reader = window.read().unwrap();
    assert!(reader.loss_unknown());
    assert_eq!(read(&reader), lab.truth(&(2..41)));
}

#[test]
fn a_cursor_in_the_place_of_anothers_is_not_believed() {
    let folder = temporary();
    let lab = furnished(folder.path());
    let cursor = |name: &str| folder.path().join(format!("cursor-{name}.json"));
    fs::rename(cursor("minute"), cursor("too")).unwrap();
    let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
    assert_eq!(recovered.damage.count, 1);
    assert_eq!(spool.cursors().of("too").read().unwrap(), None);
    assert_eq!(spool.pending("too").len(), spool.pending("minute").len());
    drop(spool);
    go_on(&lab, folder.path());
}

#[test]
fn another_version_of_the_spool_is_not_touched() {
    for name in [
        "drain-6-6.meta",
        "window-4.json",
        "state.json",
        "cursor-minute.json",
    ] {
        let folder = temporary();
        let lab = furnished(folder.path());
        let path = folder.path().join(name);
        let mut text = fs::read_to_string(&path).unwrap();
        text = text.replace("\"format\":1", "\"format\":2");
        text.truncate(text.trim_end().len() - 8);
        let checksum = crc32fast::hash(text.as_bytes());
        fs::write(&path, format!("{text}{checksum:08x}\n")).unwrap();
        let before = names(&lab.path);
        let error = Spool::open(config(folder.path())).unwrap_err().to_string();
        let expected = format!(
            "{} of the spool has format 2, and this flowlog-agent knows only format 1",
            path.display()
        );
        assert_eq!(error, expected);
        assert_eq!(names(&lab.path), before);
    }
}

#[test]
fn a_manifest_that_is_damaged_while_the_spool_is_open_is_abandoned_and_told_of() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    lab.drain(&some(1));
    let window = lab.close(0);
    fs::write(folder.path().join("window-1.json"), "rubbish").unwrap();
    let error = window.read().unwrap_err().to_string();
    assert!(
        error.ends_with("window-1.json of the spool is damaged: its checksum is wrong"),
        "{error}"
    );
    lab.spool().abandon(window.id());
    assert!(lab.spool().pending("minute").is_empty());
    lab.drain(&some(2));
    assert!(!folder.path().join("window-1.json").exists());
    for length in 0..2 {
        assert!(lab.close(length).read().unwrap().loss_unknown());
        lab.drain(&some(3));
        assert!(
            !lab.close(length).read().unwrap().loss_unknown(),
            "told once"
        );
    }
}

#[test]
fn merging_leaves_a_damaged_drain_alone() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for seed in 0..40 {
        lab.drain(&some(seed));
    }
    let damaged = folder.path().join("drain-3-3.flows");
    let mut octets = fs::read(&damaged).unwrap();
    *octets.last_mut().unwrap() ^= 1;
    fs::write(&damaged, octets).unwrap();
    assert!(lab.compact(), "it finds the damage");
    assert!(lab.compact(), "and goes on beside it");
    assert!(!lab.compact());
    assert!(folder.path().join("drain-4-35.meta").exists());
    lab.spool = None;
    let told = go_on(&lab, folder.path());
    assert_eq!((told.damage, told.unknown.as_slice()), (0, &[][..]));
}

/// What happens to one file.
#[derive(Clone, Debug)]
enum Blow {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index),
    Empty,
    /// In place of another one.
    Swap(prop::sample::Index),
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        2 => any::<prop::sample::Index>().prop_map(Blow::Cut),
        4 => any::<prop::sample::Index>().prop_map(Blow::Flip),
        1 => Just(Blow::Empty),
        1 => any::<prop::sample::Index>().prop_map(Blow::Swap),
    ]
}

fn strike(path: &Path, file: &prop::sample::Index, blow: &Blow) {
    let names = names(path);
    let name = path.join(file.get(&names));
    let octets = fs::read(&name).unwrap();
    match blow {
        Blow::Cut(at) => fs::write(&name, &octets[..at.index(octets.len().max(1))]).unwrap(),
        Blow::Flip(_) if octets.is_empty() => {}
        Blow::Flip(bit) => {
            let mut octets = octets;
            let bit = bit.index(octets.len() * 8);
            octets[bit / 8] ^= 1 << (bit % 8);
            fs::write(&name, octets).unwrap();
        }
        Blow::Empty => fs::write(&name, "").unwrap(),
        Blow::Swap(other) => fs::write(path.join(other.get(&names)), octets).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_damage_to_several_files_is_told_of(blows in prop::collection::vec((any::<prop::sample::Index>(), blow()), 1..5)) {
        let folder = temporary();
        let lab = furnished(folder.path());
        for (file, blow) in &blows {
            strike(folder.path(), file, blow);
        }
        go_on(&lab, folder.path());
    }
}
