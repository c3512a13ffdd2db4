//! What is too much or too old is given up, the oldest first, and known to the packet.
use super::*;

/// What a window tells: what is in its flows, and what was skipped.
fn told(window: &StoredWindow) -> (Volumes, Volumes) {
    let reader = window.read().unwrap();
    assert!(!reader.loss_unknown());
    (read(&reader).flows(), told_skipped(&reader))
}

fn sum(a: &Volumes, b: &Volumes) -> Volumes {
    let mut sum = a.clone();
    add_volumes(&mut sum, b);
    sum
}

fn packets(volumes: &Volumes) -> u64 {
    volumes
        .values()
        .map(|v| v.r#in.packets + v.out.packets)
        .sum()
}

impl Lab {
    /// The windows that wait for a flow log: which of them have their flows, and that all add up.
    fn have_flows(&mut self, flow_log: &str) -> Vec<bool> {
        let windows = self.spool().pending(flow_log);
        windows
            .iter()
            .map(|window| {
                let truth = self.truth(&self.windows[&window.id()].drains);
                let (flows, skipped) = told(window);
                assert_eq!(sum(&flows, &skipped), truth.total());
                assert!(flows.is_empty() || flows == truth.flows());
                !flows.is_empty()
            })
            .collect()
    }

    /// A drain that is in a window of each length, both of which are closed then.
    fn closed_drain(&mut self, seed: u64) {
        self.drain(&large(seed));
        self.close(1);
        self.close(0);
    }
}

/// What a drain of [`large`] takes, in two files, when it is in one run.
const DRAIN_BYTES: u64 = 21 * 4096;

/// With one run for each drain.
fn config(path: &Path) -> SpoolConfig {
    SpoolConfig {
        max_flows_in_memory: 100_000,
        ..super::config(path)
    }
}

/// What a window takes: its manifest.
const WINDOW_BYTES: u64 = 4096;

#[test]
fn the_oldest_windows_are_given_up_when_there_are_too_many_bytes() {
    let folder = temporary();
    let mut lab = Lab::with(config(folder.path()));
    for seed in 0..4 {
        lab.closed_drain(seed);
    }
    let all = 4 * (DRAIN_BYTES + 2 * WINDOW_BYTES);
    assert_eq!(lab.spool().usage().bytes, all);
    assert_eq!(lab.spool().sweep(0), GivenUp::default());
    lab.spool().config.max_bytes = all - 1;
    let given_up = lab.spool().sweep(0);
    let lost = packets(&large(0).flows());
    let size = Lost {
        windows: 2,
        packets: 2 * lost,
        ..given_up.size
    };
    assert!(size.bytes > 100 * size.packets);
    assert_eq!(
        given_up,
        GivenUp {
            size,
            ..GivenUp::default()
        }
    );
    assert_eq!(lab.spool().sweep(0), GivenUp::default(), "told once");
    for flow_log in ["minute", "too", "ten-minutes"] {
        assert_eq!(lab.have_flows(flow_log), [false, true, true, true]);
    }
    assert!(lab.spool().usage().bytes < all);
    lab.config = lab.spool().config.clone();
    lab.reopen();
    assert_eq!(
        lab.spool().sweep(0),
        GivenUp::default(),
        "also after a restart"
    );
    assert_eq!(lab.have_flows("too"), [false, true, true, true]);
}

#[test]
fn closed_windows_make_room_for_a_drain_and_if_they_cannot_it_has_sums_only() {
    let folder = temporary();
    let mut lab = Lab::with(SpoolConfig {
        // Room for three drains, their windows, and a manifest that is written.
        max_bytes: 3 * (DRAIN_BYTES + 2 * WINDOW_BYTES),
        ..config(folder.path())
    });
    for seed in 0..3 {
        lab.closed_drain(seed);
    }
    assert_eq!(lab.have_flows("minute"), [true, true, true]);
    assert_eq!(lab.drain(&large(3)).sums_only, None);
    assert_eq!(lab.spool().sweep(0).size.windows, 2);
    assert_eq!(lab.have_flows("minute"), [false, true, true]);
    // The open windows take all that the closed ones give.
    let mut sums_only = Vec::new();
    for seed in 4..12 {
        sums_only.push(lab.drain(&large(seed)).sums_only);
    }
    assert!(sums_only.is_sorted_by_key(Option::is_some), "{sums_only:?}");
    assert_eq!(sums_only.first(), Some(&None));
    assert_eq!(sums_only.last(), Some(&Some(Full::Limit)));
    assert_eq!(lab.have_flows("minute"), [false, false, false]);
    lab.reopen();
    let window = lab.close(0);
    let (flows, skipped) = told(&window);
    let truth = lab.truth(&lab.windows[&window.id()].drains);
    assert_eq!(sum(&flows, &skipped), truth.total());
    assert!(packets(&flows) > 0 && packets(&skipped) > 0);
}

#[test]
fn a_drain_that_fits_in_no_way_does_not_cost_others_their_flows() {
    let folder = temporary();
    let mut lab = Lab::with(SpoolConfig {
        max_bytes: 3 * (DRAIN_BYTES + 2 * WINDOW_BYTES),
        ..config(folder.path())
    });
    lab.closed_drain(0);
    let mut too_large = Counted::default();
    for number in 0..10_000_u32 {
        let mut flow = flow_v4(1, 0, 0, 1);
        flow.key.dst_addr = number.to_be_bytes();
        too_large.v4.push(flow);
    }
    assert_eq!(lab.drain(&too_large).sums_only, Some(Full::Limit));
    assert_eq!(lab.have_flows("minute"), [true]);
    let window = lab.close(0);
    assert_eq!(told(&window), (Volumes::new(), too_large.flows()));
}

#[test]
fn windows_that_are_too_old_are_given_up_but_keep_what_others_still_need() {
    let folder = temporary();
    let mut lab = Lab::with(SpoolConfig {
        max_age_seconds: 100,
        ..config(folder.path())
    });
    lab.drain(&some(0));
    let minute = lab.close(0);
    let end = minute.label().end;
    lab.drain(&some(1));
    assert_eq!(lab.spool().sweep(end + 100).age.windows, 0);
    assert_eq!(lab.spool().sweep(end + 101).age.windows, 1);
    assert_eq!(
        lab.have_flows("minute"),
        [true],
        "the open window has them too"
    );
    lab.close(1);
    lab.reopen();
    assert_eq!(lab.have_flows("minute"), [true], "a closed window likewise");
    assert_eq!(lab.have_flows("ten-minutes"), [true]);
    lab.close(0);
    let end = lab.now;
    assert_eq!(lab.spool().sweep(end + 101).age.windows, 2);
    lab.reopen();
    assert_eq!(lab.have_flows("minute"), [false, false]);
    assert_eq!(lab.have_flows("ten-minutes"), [false]);
    assert_eq!(lab.spool().sweep(u64::MAX).age, Lost::default());
}

#[test]
fn windows_beyond_the_bound_are_joined_and_their_sums_stay_known() {
    let folder = temporary();
    let mut lab = Lab::with(config(folder.path()));
    lab.spool().max_pending = 6;
    let mut truth = Volumes::new();
    for seed in 0..20 {
        lab.closed_drain(seed);
        add_volumes(&mut truth, &large(seed).total());
        assert!(lab.spool().usage().pending_windows <= 6);
    }
    for flow_log in ["too", "ten-minutes"] {
        let windows = lab.spool().pending(flow_log);
        assert_eq!(windows.len(), 3);
        let labels: Vec<Window> = windows.iter().map(|window| window.label()).collect();
        assert_eq!(labels[0].start, 1_000_000);
        assert!(labels.windows(2).all(|pair| pair[0].end == pair[1].start));
        let mut all = Volumes::new();
        for window in &windows {
            let (flows, skipped) = told(window);
            add_volumes(&mut all, &sum(&flows, &skipped));
            let reader = window.read().unwrap();
            assert_eq!(reader.enis().flatten().count(), 3);
            assert_eq!(reader.not_captured().count(), 1);
            assert!(reader.was_captured(0));
        }
        assert_eq!(all, truth);
    }
    lab.reopen();
}

#[test]
fn a_window_in_hand_is_not_joined_to_another() {
    let folder = temporary();
    let mut lab = Lab::with(config(folder.path()));
    lab.drain(&some(0));
    let in_hand = lab.close(0);
    for seed in 1..6 {
        lab.drain(&some(seed));
        lab.close(0);
    }
    lab.spool().max_pending = 2;
    lab.spool().sweep(0);
    let ids: Vec<u64> = lab
        .spool()
        .pending("too")
        .iter()
        .map(|window| window.id())
        .collect();
    assert_eq!(ids, [1, 6]);
    lab.check(&in_hand);
}

#[test]
fn windows_for_different_flow_logs_are_not_joined() {
    let folder = temporary();
    let mut lab = Lab::with(config(folder.path()));
    for seed in 0..4 {
        lab.drain(&some(seed));
        lab.close(0);
    }
    lab.spool().delivered("minute", 2);
    lab.spool().max_pending = 0;
    lab.spool().sweep(0);
    let ids = |flow_log| -> Vec<u64> {
        let windows = lab.spool.as_ref().unwrap().pending(flow_log);
        windows.iter().map(|window| window.id()).collect()
    };
    assert_eq!((ids("minute"), ids("too")), (vec![4], vec![2, 4]));
}

#[test]
fn joined_windows_tell_apart_enis_that_had_the_same_slot() {
    let folder = temporary();
    let mut lab = Lab::with(config(folder.path()));
    for number in [4, 5, 4] {
        let mut captured = captured();
        captured.by_slot = vec![Some(EniInSlot {
            eni: Arc::new(eni(number)),
            gone_at: (number == 5).then_some(Duration::ZERO),
        })];
        let counted = Counted {
            v4: vec![flow_v4(0, 1, 0, u64::from(number))],
            ..Counted::default()
        };
        lab.drain(&counted);
        let first_drain = lab.state.series[0].first_drain;
        lab.state.series[0].first_drain += 1;
        let closing = Closing {
            length_seconds: 60,
            label: Window {
                start: lab.now,
                end: lab.now + 60,
            },
            opened: Duration::from_secs(1),
            closed: Duration::from_secs(2),
            captured: &captured,
            flow_logs: &["minute".to_owned()],
            first_drain,
            loss_unknown: false,
        };
        lab.now += 60;
        lab.spool().close_window(&closing).unwrap();
        lab.state.series[0].start = lab.now;
        lab.save();
    }
    lab.spool().max_pending = 1;
    lab.spool().sweep(0);
    let windows = lab.spool().pending("minute");
    let [window] = windows.as_slice() else {
        panic!("{windows:?}");
    };
    let reader = window.read().unwrap();
    let enis: Vec<_> = reader.enis().flatten().cloned().collect();
    assert_eq!(enis, [eni(4), eni(5)]);
    assert!(reader.was_captured(0) && !reader.was_captured(1));
    let packets: Vec<u64> = reader.skipped().values().map(|v| v.r#in.packets).collect();
    assert_eq!(packets, [4 + 4, 5]);
    assert_eq!(reader.volumes(), &Volumes::new());
}

#[test]
fn old_manifests_are_joined_before_younger_flows_go() {
    let folder = temporary();
    let mut lab = Lab::with(config(folder.path()));
    // Windows without flows, and then some with.
    for _ in 0..30 {
        lab.close(0);
    }
    for seed in 0..2 {
        lab.closed_drain(seed);
    }
    let max_bytes = 2 * DRAIN_BYTES + 12 * WINDOW_BYTES;
    lab.spool().config.max_bytes = max_bytes;
    assert_eq!(
        lab.spool().sweep(0).size.windows,
        2,
        "the oldest with flows"
    );
    lab.spool().config.max_bytes = 30 * WINDOW_BYTES;
    lab.spool().sweep(0);
    assert!(lab.spool().usage().bytes <= 30 * WINDOW_BYTES);
    assert!(lab.spool().pending("minute").len() <= 15);
}
