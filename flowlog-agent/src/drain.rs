//! Draining: from the kernel's counters to sorted runs of flows.
use std::path::Path;

use flowlog_common::{FlowKeyV4, FlowKeyV6, Overflow};

use crate::{
    bpf::{BpfError, Counters, Fill, MapSizes, OverflowPacket, OverflowRing},
    flows::{Flow, FlowKey, Run},
    sizing::Sizing,
    store::Drained,
};

/// Packets from the overflow ring that may gather before those of a flow are added together.
const MAX_UNMERGED: usize = 1 << 20;

/// The result of a drain.
pub struct Drain {
    /// What was counted.
    pub drained: Drained,
    /// Packets that had no room in the maps and came by the ring.
    pub overflowed: u64,
}

/// Packets that came by the ring.
#[derive(Default)]
struct Overflowed {
    v4: Vec<Flow<FlowKeyV4>>,
    v6: Vec<Flow<FlowKeyV6>>,
    packets: u64,
}

/// Owns the counters and their ring.
pub struct Drainer {
    counters: Counters,
    sizing: Sizing,
    ring: OverflowRing,
}

impl Drainer {
    /// Drains these counters.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new(counters: Counters, sizing: Sizing, pin_folder: &Path) -> Result<Self, BpfError> {
        let ring = OverflowRing::open(pin_folder)?;
        Ok(Self {
            counters,
            sizing,
            ring,
        })
    }

    /// Takes the packets that wait in the ring.
    fn take_overflow(&mut self) -> Overflowed {
        let mut overflowed = Overflowed::default();
        let end = self.ring.read(|packet| match packet {
            OverflowPacket::V4(packet) => {
                overflowed.packets += packet.packets;
                add(&mut overflowed.v4, &packet);
            }
            OverflowPacket::V6(packet) => {
                overflowed.packets += packet.packets;
                add(&mut overflowed.v6, &packet);
            }
        });
        self.ring.advance(end);
        overflowed
    }

    /// Drains the counters: flips, reads the still generation, and makes it ready for the next flip.
    ///
    /// # Errors
    ///
    /// The kernel's. They leave the counters in doubt, so that the agent must end.
    pub fn drain(&mut self, window_closed: bool) -> Result<Drain, BpfError> {
        let still = self.counters.flip()?;
        // No program counts into the still generation any more, so what it has sent is all in the ring by now.
        let overflowed = self.take_overflow();
        let fill = self.counters.fill(&still)?;
        let mut v4 = Vec::with_capacity(usize::try_from(fill.v4).unwrap_or(0));
        self.counters.read_v4(&still, |keys, counters| {
            v4.extend(
                keys.iter()
                    .zip(counters)
                    .map(|(key, counters)| Flow::new(*key, counters)),
            );
        })?;
        let mut v6 = Vec::with_capacity(usize::try_from(fill.v6).unwrap_or(0));
        self.counters.read_v6(&still, |keys, counters| {
            v6.extend(
                keys.iter()
                    .zip(counters)
                    .map(|(key, counters)| Flow::new(*key, counters)),
            );
        })?;
        let enis = self.counters.read_enis(&still)?;
        let (v4, overflow_v4) = (Run::from_distinct(v4), Run::from_any(overflowed.v4));
        let (v6, overflow_v6) = (Run::from_distinct(v6), Run::from_any(overflowed.v6));
        let wanted = Fill {
            v4: fill.v4 + overflow_v4.flows().len() as u64,
            v6: fill.v6 + overflow_v6.flows().len() as u64,
        };
        let sizes = self.sizing.drained(wanted, window_closed);
        self.counters.renew(still, sizes)?;
        Ok(Drain {
            drained: Drained {
                v4: both(v4, &overflow_v4),
                v6: both(v6, &overflow_v6),
                enis,
            },
            overflowed: overflowed.packets,
        })
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

fn add<K: FlowKey>(flows: &mut Vec<Flow<K>>, packet: &Overflow<K>) {
    if flows.len() == flows.capacity() && flows.len() >= MAX_UNMERGED {
        *flows = Run::from_any(std::mem::take(flows)).into_flows();
    }
    flows.push(Flow {
        key: packet.key,
        tcp_flags: packet.tcp_flags,
        packets: packet.packets,
        bytes: packet.bytes,
    });
}

/// The flows of the map and of the ring.
fn both<K: FlowKey>(map: Run<K>, ring: &Run<K>) -> Run<K> {
    if ring.flows().is_empty() {
        return map;
    }
    map.merged(ring, usize::MAX, |_| {})
}
