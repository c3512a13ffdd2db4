//! Adopting what an agent of another ABI version has left: its links at once, and what it has counted as soon as none of its programs is
//! attached any more.
use std::{collections::BTreeMap, path::Path};

use flowlog_common::EniCounters;
use flowlog_model::record::Eni;

use crate::{
    bpf::{BpfError, OtherCounters, OtherPins, OverflowPacket, pins},
    drain::{Books, DrainError, flow, skipped},
    flows::Flow,
    spool::{Committed, Kept, KernelMark, RuleIds, Spool},
};

/// Counters of another ABI version, whose links are adopted.
pub(crate) struct Adopted {
    counters: OtherCounters,
    epoch: String,
}

/// Adopts the links of what other versions have left under `pin_path` into our own `pin_folder`, and gives the counters that are to be
/// drained. `mark` is that of the newest drain in the spool: those that it is of were drained before. What cannot be read is told of, and
/// removed.
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
        let counters = match other.open() {
            Ok(counters) => counters,
            Err(error) => {
                tracing::error!("{error}: what its programs have counted is lost");
                pins::remove(other.folder());
                continue;
            }
        };
        let links = counters.adopt_links(pin_folder)?;
        let epoch = counters.epoch()?;
        if mark.is_some_and(|mark| mark.epoch == epoch) {
            counters.remove();
            continue;
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
            flips: 0,
            ring_position: 0,
        };
        let mut ledger = books.ledger.clone();
        let skipped = skipped(&aside, books.ledger.lost());
        let committed = writer.commit(mark, &skipped, |_| {
            // What was counted here was so before the ledger looked at the devices.
            ledger.drained(&Committed::default(), &[], books.enis);
            Kept {
                // Nothing was judged.
                rule_ids: RuleIds::new(),
                extras: serde_json::to_value(&ledger).unwrap_or_default(),
            }
        })?;
        *books.ledger = ledger;
        Ok(committed)
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
        bpf::{Counters, MapSizes, TestPins, filled_version_1},
        flows::ByDirection,
        ledger::Ledger,
        slots::{CapturedEnis, EniInSlot},
        spool::{Closing, SpoolConfig, State, Volumes},
        window::Window,
    };
    use std::{sync::Arc, time::Duration};

    #[test]
    fn what_version_1_has_counted_is_drained_once_under_our_slots() {
        let Some(test) = TestPins::new() else { return };
        let eni = filled_version_1(test.folder("abi-1"));
        let ours = test.folder("abi-2");
        Counters::create(&ours, MapSizes { v4: 64, v6: 64 }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = SpoolConfig {
            path: folder.path().to_owned(),
            max_bytes: 1 << 30,
            max_age_seconds: 3600,
            max_flows_in_memory: 1024,
        };
        let (mut spool, _) = Spool::open(config.clone()).unwrap();
        spool.save_state(&State::default()).unwrap();

        let adopted = adopt(test.path(), &ours, None).unwrap().pop().unwrap();
        assert_eq!(adopted.identities().unwrap(), [(7, eni.clone())]);
        let eni = EniInSlot {
            eni: Arc::new(eni),
            gone_at: None,
        };
        let captured = CapturedEnis {
            by_slot: vec![None, None, None, Some(eni)],
            not_captured: Vec::new(),
        };
        let mut books = Books {
            rule_ids: &|_| RuleIds::new(),
            ledger: &mut Ledger::default(),
            enis: &captured.by_slot,
            now: &|| Duration::ZERO,
        };
        adopted
            .drain(&mut spool, &mut books, &BTreeMap::from([(7, 3)]))
            .unwrap();
        let window = spool
            .close_window(&Closing {
                length_seconds: 60,
                label: Window { start: 0, end: 60 },
                opened: Duration::ZERO,
                closed: Duration::from_secs(60),
                captured: &captured,
                flow_logs: &["all".to_owned()],
                first_drain: 1,
                loss_unknown: false,
            })
            .unwrap()
            .read()
            .unwrap();
        let packets: u64 = window.v4().map(|flow| flow.packets).sum();
        assert_eq!(packets, 42 + 4);
        let packets: u64 = window.v6().map(|flow| flow.packets).sum();
        assert_eq!(packets, 84 + 5);
        let mut skipped = ByDirection::default();
        skipped.add(1, 6, 4 * 60);
        assert_eq!(*window.skipped(), Volumes::from([(3, skipped)]));

        // Killed before the pins are removed: the next agent sees that it was done.
        drop((adopted, spool));
        let (_, recovered) = Spool::open(config).unwrap();
        let again = adopt(test.path(), &ours, recovered.mark.as_ref()).unwrap();
        assert_eq!(again.len(), 0);
        assert!(!test.path().join("abi-1").exists());
    }

    #[test]
    fn what_is_of_an_unknown_version_is_told_of_and_removed() {
        let Some(test) = TestPins::new() else { return };
        let (theirs, ours) = (test.folder("abi-9"), test.folder("abi-2"));
        Counters::create(&theirs, MapSizes { v4: 64, v6: 64 }).unwrap();
        assert_eq!(adopt(test.path(), &ours, None).unwrap().len(), 0);
        assert!(!theirs.exists() && ours.exists());
    }
}
