//! Adopting what an agent of another ABI version has left: its links at once, and what it has counted as soon as none of its programs is
//! attached any more.
use std::{collections::BTreeMap, path::Path};

use flowlog_common::EniCounters;
use flowlog_model::record::Eni;

use crate::{
    bpf::{BpfError, OtherCounters, OtherPins, OverflowPacket, pins},
    drain::{Books, DrainError, flow},
    flows::Flow,
    spool::{Committed, KernelMark, Spool},
};

/// Flips and position of a mark that says that all was drained, and nothing counts any more.
const ALL: u64 = u64::MAX;

/// Counters of another ABI version, whose links are adopted.
pub(crate) struct Adopted {
    counters: OtherCounters,
    epoch: String,
}

/// Adopts the links of what other versions have left under `pin_path` into our own `pin_folder`, and gives the counters that are to be
/// drained. `mark` is that of the newest drain in the spool: it says which of them were drained before, and how far their own agent came.
/// What cannot be read is told of, and removed. To be called before a drain of our own is committed, whose mark would take its place.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn adopt(
    pin_path: &Path,
    pin_folder: &Path,
    mark: Option<&KernelMark>,
) -> Result<Vec<Adopted>, BpfError> {
    let mut all = Vec::new();
    for other in OtherPins::find(pin_path)? {
        let mut counters = match other.open() {
            Ok(counters) => counters,
            Err(error) => {
                tracing::error!("{error}: what its programs have counted is lost");
                pins::remove(other.folder());
                continue;
            }
        };
        let links = counters.adopt_links(pin_folder)?;
        let epoch = counters.epoch()?;
        match (mark.filter(|mark| mark.epoch == epoch), counters.flips()) {
            (None, _) => {}
            (Some(mark), Some(flips)) if mark.flips != ALL => {
                if mark.flips == flips {
                    counters.remove_drained(mark.ring_position)?;
                }
            }
            (Some(_), _) => {
                counters.remove();
                continue;
            }
        }
        tracing::info!(
            version = other.version(),
            links,
            "adopting what an agent of another version has left"
        );
        all.push(Adopted { counters, epoch });
    }
    Ok(all)
}

impl Adopted {
    /// What the numbers of flips count within, as [`crate::drain::Drainer::epoch`].
    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Whether the ledger that there is has their interfaces, and so lacks what they have counted. An agent of version 1 kept none.
    pub(crate) fn is_in_ledger(&self) -> bool {
        self.counters.flips().is_some()
    }

    /// Whose the slots of its keys are.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn identities(&self) -> Result<Vec<(u32, Eni)>, BpfError> {
        self.counters.identities()
    }

    /// Drains all that was counted, by our slots. To be called when none of its programs is attached any more; then it is to be removed.
    ///
    /// # Errors
    ///
    /// See [`DrainError`].
    pub(crate) fn drain(
        &self,
        spool: &mut Spool,
        books: &mut Books<'_>,
        our_slots: &BTreeMap<u32, u32>,
    ) -> Result<Committed, DrainError> {
        self.counters.settle()?;
        let mut writer = spool.begin_drain();
        let mut aside: Vec<EniCounters> = Vec::new();
        let ours = |slot: u32| our_slots.get(&slot).copied();
        for generation in &self.counters.generations() {
            self.counters.read_v4(generation, |keys, counters| {
                writer.v4(keys.iter().zip(counters).filter_map(|(key, counters)| {
                    let mut key = *key;
                    key.eni = ours(key.eni)?;
                    Some(Flow::new(key, counters))
                }));
            })?;
            self.counters.read_v6(generation, |keys, counters| {
                writer.v6(keys.iter().zip(counters).filter_map(|(key, counters)| {
                    let mut key = *key;
                    key.eni = ours(key.eni)?;
                    Some(Flow::new(key, counters))
                }));
            })?;
            for (index, counters) in (0_u32..).zip(self.counters.read_enis(generation)?) {
                if let Some(slot) = ours(index / 2) {
                    add_aside(&mut aside, (slot * 2 + index % 2) as usize, &counters);
                }
            }
        }
        self.counters.read_ring(|packet| match packet {
            OverflowPacket::V4(mut packet) => {
                if let Some(slot) = ours(packet.key.eni) {
                    packet.key.eni = slot;
                    writer.v4([flow(&packet)]);
                }
            }
            OverflowPacket::V6(mut packet) => {
                if let Some(slot) = ours(packet.key.eni) {
                    packet.key.eni = slot;
                    writer.v6([flow(&packet)]);
                }
            }
        });
        let mark = KernelMark {
            epoch: self.epoch.clone(),
            flips: ALL,
            ring_position: ALL,
        };
        Ok(books.commit(writer, mark, &aside, self.is_in_ledger())?)
    }

    /// Removes its pins.
    pub(crate) fn remove(self) {
        self.counters.remove();
    }
}

fn add_aside(aside: &mut Vec<EniCounters>, index: usize, counters: &EniCounters) {
    if *counters == EniCounters::default() {
        return;
    }
    if aside.len() <= index {
        aside.resize(index + 1, EniCounters::default());
    }
    if let Some(sum) = aside.get_mut(index) {
        for (sum, volume) in [
            (&mut sum.map_full, counters.map_full),
            (&mut sum.unparsable, counters.unparsable),
            (&mut sum.not_ip, counters.not_ip),
        ] {
            sum.packets += volume.packets;
            sum.bytes += volume.bytes;
        }
        sum.extra_segments += counters.extra_segments;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bpf::{Counters, MapSizes, RING_OF_VERSION_2, TestPins, filled_other_version},
        flows::ByDirection,
        ledger::Ledger,
        slots::{CapturedEnis, EniInSlot},
        spool::{Closing, Kept, RuleIds, SpoolConfig, State, Volumes, WindowReader},
        window::Window,
    };
    use flowlog_common::ABI_VERSION;
    use std::{path::PathBuf, sync::Arc, time::Duration};

    /// The spool of a test, and the ENI of the pins that it adopts.
    struct Rig {
        folder: tempfile::TempDir,
        ledger: Ledger,
        captured: CapturedEnis,
    }

    impl Rig {
        fn new(eni: Eni) -> Self {
            let eni = EniInSlot {
                eni: Arc::new(eni),
                gone_at: None,
            };
            Self {
                folder: tempfile::tempdir().unwrap(),
                ledger: Ledger::default(),
                captured: CapturedEnis {
                    by_slot: vec![None, None, None, Some(eni)],
                    not_captured: Vec::new(),
                },
            }
        }

        fn open(&self) -> (Spool, Option<KernelMark>) {
            let (mut spool, recovered) = Spool::open(SpoolConfig {
                path: self.folder.path().to_owned(),
                max_bytes: 1 << 30,
                max_age_seconds: 3600,
                max_flows_in_memory: 1024,
            })
            .unwrap();
            spool.save_state(&State::default()).unwrap();
            (spool, recovered.mark)
        }

        fn drain(&mut self, adopted: &Adopted, spool: &mut Spool) {
            let mut books = Books {
                rule_ids: &|_| RuleIds::new(),
                ledger: &mut self.ledger,
                enis: &self.captured.by_slot,
                now: &|| Duration::ZERO,
            };
            adopted
                .drain(spool, &mut books, &BTreeMap::from([(7, 3)]))
                .unwrap();
        }

        fn close(&self, spool: &mut Spool) -> WindowReader {
            let closing = Closing {
                length_seconds: 60,
                label: Window { start: 0, end: 60 },
                opened: Duration::ZERO,
                closed: Duration::from_secs(60),
                captured: &self.captured,
                flow_logs: &["all".to_owned()],
                first_drain: 1,
                loss_unknown: false,
            };
            spool.close_window(&closing).unwrap().read().unwrap()
        }
    }

    /// A drain of nothing, of which this is the mark.
    fn commit(spool: &mut Spool, mark: KernelMark) {
        let writer = spool.begin_drain();
        writer
            .commit(mark, &Volumes::new(), |_| Kept::default())
            .unwrap();
    }

    fn ours(test: &TestPins) -> PathBuf {
        let ours = test.folder(&format!("abi-{ABI_VERSION}"));
        Counters::create(&ours, MapSizes { v4: 64, v6: 64 }).unwrap();
        ours
    }

    fn packets<K>(flows: impl Iterator<Item = Flow<K>>) -> u64 {
        flows.map(|flow| flow.packets).sum()
    }

    #[test]
    fn what_another_version_has_counted_is_drained_once_under_our_slots() {
        for version in [1, 2] {
            let Some(test) = TestPins::new() else { return };
            let theirs = test.folder(&format!("abi-{version}"));
            let eni = filled_other_version(theirs.clone(), version);
            let (ours, mut rig) = (ours(&test), Rig::new(eni.clone()));
            let (mut spool, _) = rig.open();
            let adopted = adopt(test.path(), &ours, None).unwrap().pop().unwrap();
            assert_eq!(adopted.identities().unwrap(), [(7, eni)]);
            rig.drain(&adopted, &mut spool);
            let window = rig.close(&mut spool);
            assert_eq!(packets(window.v4()), 42 + 4);
            assert_eq!(packets(window.v6()), 84 + 5);
            let mut skipped = ByDirection::default();
            skipped.add(1, 6, 4 * 60);
            assert_eq!(*window.skipped(), Volumes::from([(3, skipped)]));
            // An agent of version 1 kept no ledger in which it would be missing.
            let entered = rig
                .ledger
                .conservation()
                .map(|(_, [of, _])| of.counted.recorded);
            assert_eq!(entered.sum::<u64>(), if version == 1 { 0 } else { 135 });

            // Killed before the pins are removed: the next agent sees that it was done.
            drop((adopted, spool));
            let (_, mark) = rig.open();
            assert_eq!(adopt(test.path(), &ours, mark.as_ref()).unwrap().len(), 0);
            assert!(!theirs.exists());
        }
    }

    #[test]
    fn what_their_own_agent_had_drained_is_not_drained_again() {
        // Killed after the commit, and before what was drained was removed; or earlier, and the next flip is not committed.
        for (behind, expected) in [(0, [36, 72]), (1, [42 + 4, 84 + 5])] {
            let Some(test) = TestPins::new() else { return };
            let eni = filled_other_version(test.folder("abi-2"), 2);
            let (ours, mut rig) = (ours(&test), Rig::new(eni));
            let [theirs] = &OtherPins::find(test.path()).unwrap()[..] else {
                panic!("one folder");
            };
            let theirs = theirs.open().unwrap();
            let (mut spool, _) = rig.open();
            let mark = KernelMark {
                epoch: theirs.epoch().unwrap(),
                flips: theirs.flips().unwrap() - behind,
                ring_position: RING_OF_VERSION_2 * (1 - behind),
            };
            commit(&mut spool, mark.clone());
            // The agent that adopts them is killed after a drain of its own, and another one goes on.
            drop(adopt(test.path(), &ours, Some(&mark)).unwrap());
            let of_ours = KernelMark {
                epoch: "ours".to_owned(),
                flips: mark.flips,
                ..mark
            };
            commit(&mut spool, of_ours.clone());
            let adopted = adopt(test.path(), &ours, Some(&of_ours))
                .unwrap()
                .pop()
                .unwrap();
            rig.drain(&adopted, &mut spool);
            let window = rig.close(&mut spool);
            assert_eq!(
                [packets(window.v4()), packets(window.v6())],
                expected,
                "{behind}"
            );
        }
    }

    #[test]
    fn what_is_of_an_unknown_version_is_told_of_and_removed() {
        let Some(test) = TestPins::new() else { return };
        let (theirs, ours) = (test.folder("abi-9"), test.folder("abi-3"));
        Counters::create(&theirs, MapSizes { v4: 64, v6: 64 }).unwrap();
        assert_eq!(adopt(test.path(), &ours, None).unwrap().len(), 0);
        assert!(!theirs.exists() && ours.exists());
    }
}
