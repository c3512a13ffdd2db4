//! The spool against an oracle that keeps everything in memory.
mod crash;
mod damage;
mod disk_full;
mod limits;
mod open;
mod round_trip;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flowlog_common::{DECIDED_BY_FIRST_RULE, FlowKeyV4, FlowKeyV6, FlowMarks};
use flowlog_model::record::Eni;
use proptest::prelude::*;

use super::*;
use crate::{
    flows::{Flow, FlowKey, Run},
    slots::CapturedEnis,
    slots::EniInSlot,
    window::Window,
};

/// Lengths of windows, in seconds, each with its flow logs.
const LENGTHS: [(u64, &[&str]); 2] = [(60, &["minute", "too"]), (600, &["ten-minutes"])];

fn owned(flow_logs: &[&str]) -> Vec<String> {
    flow_logs.iter().map(ToString::to_string).collect()
}

/// A folder where waiting for the disk takes no time, if there is one.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn config(path: &Path) -> SpoolConfig {
    SpoolConfig {
        path: path.to_owned(),
        max_bytes: 1 << 30,
        max_age_seconds: u64::MAX,
        max_flows_in_memory: 7,
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // It is large, and made anew.
        if entry.file_name() != "reserve" {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !matches!(name.as_str(), "lock" | "reserve"))
        .collect();
    names.sort();
    names
}

/// What was counted, or read.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    v4: Vec<Flow<FlowKeyV4>>,
    v6: Vec<Flow<FlowKeyV6>>,
    skipped: Volumes,
}

impl Counted {
    fn add(&mut self, other: &Self) {
        self.v4.extend_from_slice(&other.v4);
        self.v6.extend_from_slice(&other.v6);
        add_volumes(&mut self.skipped, &other.skipped);
    }

    fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for counted in all {
            sum.add(counted);
        }
        sum.sorted()
    }

    /// Each key once, in order.
    fn sorted(self) -> Self {
        Self {
            v4: by_key(self.v4),
            v6: by_key(self.v6),
            skipped: self.skipped,
        }
    }

    fn flows(&self) -> Volumes {
        let mut volumes = Volumes::new();
        add_flows(&mut volumes, &self.v4);
        add_flows(&mut volumes, &self.v6);
        volumes
    }

    /// All that there was, in flows or not.
    fn total(&self) -> Volumes {
        let mut total = self.flows();
        add_volumes(&mut total, &self.skipped);
        total
    }
}

/// By a map, for the spool does it by sorting.
fn by_key<K: FlowKey>(flows: Vec<Flow<K>>) -> Vec<Flow<K>> {
    let mut by_key: BTreeMap<K, Flow<K>> = BTreeMap::new();
    for flow in flows {
        let sum = by_key.entry(flow.key).or_insert(Flow {
            marks: FlowMarks::default(),
            packets: 0,
            bytes: 0,
            ..flow
        });
        sum.marks = sum.marks.merged(flow.marks);
        sum.packets += flow.packets;
        sum.bytes += flow.bytes;
    }
    by_key.into_values().collect()
}

/// Extras, and the ids of the rules that the flows name.
fn kept(extras: serde_json::Value) -> impl FnOnce(&Committed) -> Kept {
    |drain| Kept {
        rule_ids: drain
            .rules
            .iter()
            .map(|rule| (*rule, rule_id(*rule)))
            .collect(),
        extras,
    }
}

fn rule_id(number: u32) -> String {
    format!("sgr-{number}")
}

fn flow_v4(slot: u32, host: u8, direction: u8, packets: u64) -> Flow<FlowKeyV4> {
    Flow {
        key: FlowKeyV4 {
            eni: slot,
            src_addr: [10, 0, 0, host],
            protocol: 6,
            direction,
            ..FlowKeyV4::default()
        },
        marks: FlowMarks::new(1 << (packets % 8), packets as u32 % 100),
        packets,
        bytes: packets * 100,
    }
}

fn flow_v6(slot: u32, host: u8, direction: u8, packets: u64) -> Flow<FlowKeyV6> {
    Flow {
        key: FlowKeyV6 {
            eni: slot,
            dst_addr: [host; 16],
            protocol: 17,
            direction,
            ..FlowKeyV6::default()
        },
        marks: FlowMarks::default(),
        packets,
        bytes: packets * 1000,
    }
}

fn volume(packets: u64) -> crate::flows::ByDirection {
    [packets, packets * 50, 0, 0].into()
}

/// Random drains, of few keys, so that many are equal.
fn counted(max_flows: usize) -> impl Strategy<Value = Counted> {
    let flow = || (0..3_u32, 0..12_u8, 0..2_u8, 1..1000_u64);
    let v4 = prop::collection::vec(flow(), 0..max_flows);
    let v6 = prop::collection::vec(flow(), 0..max_flows);
    let skipped = prop::collection::btree_map(0..3_u32, (1..9_u64).prop_map(volume), 0..2);
    (v4, v6, skipped).prop_map(|(v4, v6, skipped)| Counted {
        v4: v4
            .into_iter()
            .map(|(a, b, c, d)| flow_v4(a, b, c, d))
            .collect(),
        v6: v6
            .into_iter()
            .map(|(a, b, c, d)| flow_v6(a, b, c, d))
            .collect(),
        skipped,
    })
}

fn eni(number: u32) -> Eni {
    Eni {
        eni_id: format!("eni-{number}"),
        vswitch_id: "vsw".to_owned(),
        vm_id: None,
        vpc_id: "vpc".to_owned(),
        account_id: "1".to_owned(),
        region: Some("here".to_owned()),
    }
}

/// Three ENIs in slots 0, 1 and 2, and one that is not captured.
fn captured() -> CapturedEnis {
    let in_slot = |number| {
        Some(EniInSlot {
            eni: Arc::new(eni(number)),
            gone_at: None,
        })
    };
    CapturedEnis {
        by_slot: (0..3).map(in_slot).collect(),
        not_captured: vec![Arc::new(eni(9))],
    }
}

fn mark(flips: u64) -> KernelMark {
    KernelMark {
        epoch: "boot".to_owned(),
        flips,
        ring_position: flips * 8,
    }
}

/// A closed window as it should be.
#[derive(Clone, Debug)]
struct Expected {
    length_seconds: u64,
    label: Window,
    drains: std::ops::Range<u64>,
}

/// A spool in use, and what should be in it.
struct Lab {
    spool: Option<Spool>,
    path: PathBuf,
    config: SpoolConfig,
    state: State,
    /// By sequence number.
    drains: BTreeMap<u64, Counted>,
    /// By id.
    windows: BTreeMap<u64, Expected>,
    /// Wall clock, in seconds.
    now: u64,
}

impl Lab {
    fn new(path: &Path) -> Self {
        Self::with(config(path))
    }

    fn with(config: SpoolConfig) -> Self {
        let (spool, recovered) = Spool::open(config.clone()).unwrap();
        assert_eq!(recovered.state, None);
        assert_eq!(recovered.damage, Damage::default());
        let now = 1_000_000;
        let series = LENGTHS.map(|(length_seconds, flow_logs)| OpenSeries {
            length_seconds,
            start: now,
            opened_ns: 0,
            first_drain: spool.next_drain(),
            flow_logs: owned(flow_logs),
        });
        let mut lab = Self {
            spool: Some(spool),
            path: config.path.clone(),
            config,
            state: State {
                series: series.into(),
                enis: vec![StoredEni {
                    slot: 1,
                    eni: eni(1),
                    gone_at_ns: Some(5),
                }],
                ledger: serde_json::json!({ "some": [1, 2] }),
            },
            drains: BTreeMap::new(),
            windows: BTreeMap::new(),
            now,
        };
        lab.save();
        lab
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn save(&mut self) {
        let state = self.state.clone();
        self.spool().save_state(&state).unwrap();
    }

    fn drain(&mut self, counted: &Counted) -> Committed {
        self.try_drain(counted).unwrap()
    }

    fn try_drain(&mut self, counted: &Counted) -> Result<Committed, SpoolError> {
        let sequence = self.spool().next_drain();
        let mut writer = self.spool().begin_drain();
        writer.v4(counted.v4.iter().copied());
        writer.v6(counted.v6.iter().copied());
        let extras = serde_json::json!(sequence);
        let committed = writer.commit(mark(sequence), &counted.skipped, kept(extras))?;
        assert_eq!(committed.sequence, sequence);
        assert_eq!(committed.volumes, counted.flows());
        self.drains.insert(sequence, counted.clone());
        Ok(committed)
    }

    fn close(&mut self, length: usize) -> Arc<StoredWindow> {
        let window = self.close_unsaved(length);
        self.save();
        window
    }

    fn close_unsaved(&mut self, length: usize) -> Arc<StoredWindow> {
        let (length_seconds, flow_logs) = LENGTHS[length];
        let series = self.state.series[length].clone();
        self.now += length_seconds;
        let label = Window {
            start: series.start,
            end: self.now,
        };
        let next_drain = self.spool().next_drain();
        let closed = Duration::from_secs(self.now);
        let window = self
            .spool()
            .close_window(&Closing {
                length_seconds,
                label,
                opened: Duration::from_nanos(series.opened_ns),
                closed,
                captured: &captured(),
                flow_logs: &owned(flow_logs),
                first_drain: series.first_drain,
                loss_unknown: false,
            })
            .unwrap();
        self.windows.insert(
            window.id(),
            Expected {
                length_seconds,
                label,
                drains: series.first_drain..next_drain,
            },
        );
        self.state.series[length] = OpenSeries {
            start: label.end,
            opened_ns: closed.as_nanos() as u64,
            first_drain: next_drain,
            ..series
        };
        window
    }

    fn compact(&mut self) -> bool {
        let Some(job) = self.spool().compaction_due() else {
            return false;
        };
        let compacted = std::thread::spawn(|| job.run()).join().unwrap();
        self.spool().compacted(compacted);
        true
    }

    /// What all know of the spool.
    fn told(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let spool = self.spool.as_ref().unwrap();
        let flow_logs = LENGTHS.iter().flat_map(|(_, flow_logs)| *flow_logs);
        let pending = |flow_log: &&str| -> Vec<_> {
            let windows = spool.pending(flow_log);
            let mut one_by_one = Vec::new();
            while let Some(next) =
                spool.next_pending(flow_log, one_by_one.last().copied().unwrap_or(0))
            {
                one_by_one.push(next.id());
            }
            let ids: Vec<u64> = windows.iter().map(|window| window.id()).collect();
            assert_eq!(one_by_one, ids);
            windows
                .iter()
                .map(|w| (w.id(), w.label(), w.length_seconds()))
                .collect()
        };
        let pending: Vec<_> = flow_logs.map(pending).collect();
        (
            pending,
            spool.next_drain(),
            spool.usage(),
            spool.flow_logs(),
        )
    }

    /// Opens the spool anew, and finds nothing changed.
    fn reopen(&mut self) {
        let before = self.told();
        let mut on_disk = names(&self.path);
        self.spool = None;
        let (spool, recovered) = Spool::open(self.config.clone()).unwrap();
        self.spool = Some(spool);
        assert_eq!(recovered.damage, Damage::default());
        assert_eq!(recovered.state.as_ref(), Some(&self.state));
        let newest = self.drains.keys().next_back().copied();
        assert_eq!(recovered.mark, newest.map(mark));
        assert_eq!(
            recovered.extras,
            newest.map_or(serde_json::Value::Null, Into::into)
        );
        assert_eq!(self.told(), before);
        on_disk.retain(|name| !name.ends_with(".tmp"));
        assert_eq!(names(&self.path), on_disk);
    }

    fn truth(&self, drains: &std::ops::Range<u64>) -> Counted {
        Counted::sum(
            self.drains
                .range(drains.clone())
                .map(|(_, counted)| counted),
        )
    }

    /// A window has everything that it should have.
    fn check(&self, window: &StoredWindow) {
        let expected = &self.windows[&window.id()];
        assert_eq!(window.label(), expected.label);
        assert_eq!(window.length_seconds(), expected.length_seconds);
        let truth = self.truth(&expected.drains);
        let reader = window.read().unwrap();
        assert_eq!(reader.label(), expected.label);
        assert_eq!(reader.volumes(), &truth.flows());
        for _ in 0..2 {
            assert_eq!(read(&reader), truth);
        }
        assert_eq!(reader.damage(), 0);
        assert!(!reader.loss_unknown());
        let enis: Vec<_> = reader.enis().flatten().cloned().collect();
        assert_eq!(enis, [eni(0), eni(1), eni(2)]);
        assert!(reader.was_captured(2) && !reader.was_captured(3));
        assert_eq!(reader.not_captured().cloned().collect::<Vec<_>>(), [eni(9)]);
    }
}

fn read(reader: &WindowReader) -> Counted {
    let counted = Counted {
        v4: reader.v4().collect(),
        v6: reader.v6().collect(),
        skipped: reader.skipped().clone(),
    };
    assert!(counted.v4.is_sorted_by(|a, b| a.key < b.key));
    assert!(counted.v6.is_sorted_by(|a, b| a.key < b.key));
    let marks = counted.v4.iter().map(|flow| flow.marks);
    for number in marks.map(FlowMarks::decided_by) {
        let expected = (number >= DECIDED_BY_FIRST_RULE).then(|| rule_id(number));
        assert_eq!(reader.rule_id(number), expected.as_deref());
    }
    counted
}

/// What a reader tells was skipped, if it compares what it read with the sums.
fn told_skipped(reader: &WindowReader) -> Volumes {
    let mut skipped = reader.skipped().clone();
    add_volumes(
        &mut skipped,
        &missing(reader.volumes(), &read(reader).flows()),
    );
    skipped
}

/// A few flows of both families.
fn some(seed: u64) -> Counted {
    let host = |n: u64| (n % 200) as u8;
    Counted {
        v4: (0..5)
            .map(|n| {
                flow_v4(
                    (n % 3) as u32,
                    host(seed + n),
                    (n % 2) as u8,
                    seed * 7 + n + 1,
                )
            })
            .collect(),
        v6: (0..3)
            .map(|n| {
                flow_v6(
                    (n % 3) as u32,
                    host(seed + n),
                    (n % 2) as u8,
                    seed * 5 + n + 1,
                )
            })
            .collect(),
        skipped: Volumes::from([(1, volume(seed + 1))]),
    }
}

/// Many flows: a drain of them takes 24 pages.
fn large(seed: u64) -> Counted {
    let mut counted = some(seed);
    for number in 0..2000_u32 {
        let mut flow = flow_v4(number % 3, 0, 0, seed + 1);
        flow.key.dst_addr = number.to_be_bytes();
        counted.v4.push(flow);
    }
    counted
}

#[test]
fn what_sinks_and_compaction_have_can_go_to_other_threads() {
    fn goes<T: Send + Sync>() {}
    goes::<(Arc<StoredWindow>, WindowReader, CursorFile)>();
    goes::<(CompactionJob, Compacted)>();
}

#[test]
fn the_oracle_adds_up_as_the_agent_does() {
    let flows = some(3).v4.repeat(3);
    assert_eq!(by_key(flows.clone()), Run::from_any(flows).into_flows());
}
