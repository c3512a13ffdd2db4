//! Draining: from the kernel's counters to the spool, so that each packet is in one of them at any moment, and never in both.
//!
//! | step | if the agent is killed before the next one |
//! |---|---|
//! | flip: the programs count into the other generation | the next agent reads the still generation |
//! | read the still generation and the overflow ring, delete nothing | likewise |
//! | commit to the spool, with the number of flips and the ring's position | the next agent sees by them that the still generation is committed |
//! | move the ring's consumer forward | likewise |
//! | renew the still generation | likewise; it is renewed again |
use std::{collections::BTreeSet, time::Duration};

use flowlog_common::{EniCounters, Overflow};
use thiserror::Error;

use crate::{
    bpf::{BpfError, Counters, Fill, MapSizes, OverflowPacket, OverflowRing, Still},
    failpoint,
    flows::{Flow, FlowKey},
    ledger::Ledger,
    sizing::Sizing,
    slots::EniTable,
    spool::{Committed, DrainWriter, Kept, KernelMark, RuleIds, Spool, SpoolError, Volumes},
};

/// Why there was no drain.
#[derive(Debug, Error)]
pub enum DrainError {
    /// The kernel's counters cannot be used; what is in them stays there.
    #[error(transparent)]
    Kernel(#[from] BpfError),
    /// The spool takes nothing. What was counted is still in the kernel, and the drain can be tried again.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// The result of a drain.
pub struct Drain {
    /// What the spool has of it.
    pub committed: Committed,
    /// What is in no flow, by `slot * 2 + direction`.
    pub aside: Vec<EniCounters>,
    /// Packets that had no room in the maps and came by the ring.
    pub overflowed: u64,
    /// How long it took to commit it, when all was read.
    pub commit_time: Duration,
}

/// The books in which a drain is entered.
pub struct Books<'a> {
    /// The ledger; it is kept with the drain.
    pub ledger: &'a mut Ledger,
    /// Whose the slots are.
    pub enis: &'a EniTable,
    /// Gives the ids of rules by their numbers, as far as they are known.
    pub rule_ids: &'a dyn Fn(&BTreeSet<u32>) -> RuleIds,
    /// Gives the boot time, by which a commit is timed.
    pub now: &'a dyn Fn() -> Duration,
}

impl Books<'_> {
    /// Commits a drain and enters it in the ledger, in one step: the ledger as it is after it is kept with it. `aside` is what is in no
    /// flow, by `slot * 2 + direction`. `in_ledger` says whether the ledger has the devices that this was counted on; otherwise nothing is
    /// entered but that what was lost is told.
    pub(crate) fn commit(
        &mut self,
        writer: DrainWriter<'_>,
        mark: KernelMark,
        aside: &[EniCounters],
        in_ledger: bool,
    ) -> Result<Committed, SpoolError> {
        let mut ledger = self.ledger.clone();
        let skipped = skipped(aside, ledger.lost());
        let committed = writer.commit(mark, &skipped, |drain| {
            if in_ledger {
                ledger.drained(drain, aside, self.enis);
            } else {
                ledger.drained(&Committed::default(), &[], self.enis);
            }
            Kept {
                rule_ids: (self.rule_ids)(&drain.rules),
                // Text keys and numbers always can be.
                extras: serde_json::to_value(&ledger).unwrap_or_default(),
            }
        })?;
        *self.ledger = ledger;
        Ok(committed)
    }
}

/// Owns the counters and their ring.
pub struct Drainer {
    counters: Counters,
    ring: OverflowRing,
    sizing: Sizing,
    epoch: String,
    /// A still generation that is not committed.
    held: Option<Still>,
}

impl Drainer {
    /// Drains these counters; those of an agent that has ended, anywhere in a drain, from there on. `mark` is where the kernel stood at
    /// the newest drain in the spool.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new(
        counters: Counters,
        ring: OverflowRing,
        sizing: Sizing,
        mark: Option<&KernelMark>,
    ) -> Result<Self, BpfError> {
        let mut drainer = Self {
            epoch: counters.epoch()?,
            counters,
            ring,
            sizing,
            held: None,
        };
        if drainer.counters.flips() > 0 {
            drainer.resume(mark)?;
        }
        Ok(drainer)
    }

    fn resume(&mut self, mark: Option<&KernelMark>) -> Result<(), BpfError> {
        // That agent may have been killed in the flip, an instant ago.
        self.counters.settle()?;
        let still = self.counters.still_after_take_over();
        match mark.filter(|mark| mark.epoch == self.epoch) {
            Some(mark) if mark.flips == self.counters.flips() => {
                self.ring.advance(mark.ring_position);
                self.counters.renew(still, self.sizing.sizes())?;
            }
            _ => self.held = Some(still),
        }
        Ok(())
    }

    /// What the numbers of flips count within: the maps' life.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Drains a generation that was flipped and could not be committed; none if there is no such.
    ///
    /// # Errors
    ///
    /// See [`DrainError`].
    pub fn drain_held(
        &mut self,
        spool: &mut Spool,
        books: Books<'_>,
    ) -> Result<Option<Drain>, DrainError> {
        match self.held.take() {
            Some(still) => self.drain_still(still, spool, books, false).map(Some),
            None => Ok(None),
        }
    }

    /// Drains all that was counted until now. What is held goes first: see [`Self::drain_held`].
    ///
    /// # Errors
    ///
    /// See [`DrainError`].
    pub fn drain(
        &mut self,
        spool: &mut Spool,
        books: Books<'_>,
        window_closed: bool,
    ) -> Result<Drain, DrainError> {
        failpoint::reached("drain-begun");
        let still = match self.held.take() {
            Some(still) => still,
            None => self.counters.flip()?,
        };
        failpoint::reached("drain-flipped");
        self.drain_still(still, spool, books, window_closed)
    }

    fn drain_still(
        &mut self,
        still: Still,
        spool: &mut Spool,
        mut books: Books<'_>,
        window_closed: bool,
    ) -> Result<Drain, DrainError> {
        let (drain, ring_position) = match self.commit(&still, spool, &mut books) {
            Ok(committed) => committed,
            Err(error) => {
                self.held = Some(still);
                return Err(error);
            }
        };
        failpoint::reached("drain-committed");
        self.ring.advance(ring_position);
        failpoint::reached("drain-ring-advanced");
        let wanted = Fill {
            v4: drain.committed.flows_v4,
            v6: drain.committed.flows_v6,
        };
        let sizes = self.sizing.drained(wanted, window_closed);
        self.counters.renew(still, sizes)?;
        failpoint::reached("drain-renewed");
        Ok(drain)
    }

    /// Reads a still generation and the ring, and commits what was read; gives the position in the ring up to which it was read.
    fn commit(
        &self,
        still: &Still,
        spool: &mut Spool,
        books: &mut Books<'_>,
    ) -> Result<(Drain, u64), DrainError> {
        let mut writer = spool.begin_drain();
        self.counters.read_v4(still, |keys, counters| {
            writer.v4(keys
                .iter()
                .zip(counters)
                .map(|(key, of)| Flow::new(*key, of)));
        })?;
        self.counters.read_v6(still, |keys, counters| {
            writer.v6(keys
                .iter()
                .zip(counters)
                .map(|(key, of)| Flow::new(*key, of)));
        })?;
        // No program counts into the still generation any more, so what it has sent is all in the ring by now.
        let mut overflowed = 0;
        let ring_position = self.ring.read(|packet| match packet {
            OverflowPacket::V4(packet) => {
                overflowed += packet.packets;
                writer.v4([flow(&packet)]);
            }
            OverflowPacket::V6(packet) => {
                overflowed += packet.packets;
                writer.v6([flow(&packet)]);
            }
        });
        let aside = self.counters.read_enis(still)?;
        failpoint::reached("drain-read");
        let mark = KernelMark {
            epoch: self.epoch.clone(),
            flips: self.counters.flips(),
            ring_position,
        };
        let read = (books.now)();
        let committed = books.commit(writer, mark, &aside, true)?;
        let commit_time = (books.now)().saturating_sub(read);
        let drain = Drain {
            committed,
            aside,
            overflowed,
            commit_time,
        };
        Ok((drain, ring_position))
    }

    /// How full the active maps are, and their sizes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn fill(&self) -> Result<(Fill, MapSizes), BpfError> {
        Ok((
            self.counters.fill_of_active()?,
            self.counters.sizes_of_active(),
        ))
    }
}

/// As a flow of its own.
pub(crate) fn flow<K: FlowKey>(packet: &Overflow<K>) -> Flow<K> {
    Flow {
        key: packet.key,
        marks: packet.marks,
        packets: packet.packets,
        bytes: packet.bytes,
    }
}

/// What is in no flow and belongs into one.
fn skipped(aside: &[EniCounters], lost: &Volumes) -> Volumes {
    let mut skipped = lost.clone();
    for (index, counters) in (0_u32..).zip(aside) {
        for volume in [counters.map_full, counters.unparsable] {
            if volume.packets > 0 {
                skipped.entry(index / 2).or_default().add(
                    (index % 2) as u8,
                    volume.packets,
                    volume.bytes,
                );
            }
        }
    }
    skipped
}
