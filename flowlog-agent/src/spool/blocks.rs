//! How flows are written: in blocks of at most 32 KiB, each with a checksum.
//!
//! All numbers are little endian; addresses and ports are as in the key. A block is a header of 16 octets and its flows:
//!
//! | octets | header |
//! |---|---|
//! | 4 | number of the run in its file |
//! | 4 | flows |
//! | 4 | family: 4 or 6 |
//! | 4 | CRC-32 of the drains' range, the block's offset in the file, the rest of the header, and the flows |
//!
//! | octets | flow |
//! |---|---|
//! | 20 or 44 | key, field by field: slot, addresses, ports, protocol, direction, action, 0 |
//! | 4 | TCP flags |
//! | 8 | packets |
//! | 8 | octets |
//!
//! All blocks of a run but the last are full, so that the next one is found also where one is damaged.
use flowlog_common::{FlowKeyV4, FlowKeyV6, FlowMarks};
use serde::{Deserialize, Serialize};

use super::names::DrainRange;
use crate::flows::{Flow, FlowKey};

/// Largest block, in octets.
pub(super) const MAX_BLOCK_OCTETS: usize = 32 << 10;

const HEADER_OCTETS: usize = 16;

/// Octets of what was counted of a flow.
const COUNTED_OCTETS: usize = 20;

/// Family of a run's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Octets of a flow.
    pub(super) const fn flow_octets(self) -> usize {
        COUNTED_OCTETS
            + match self {
                Self::V4 => 20,
                Self::V6 => 44,
            }
    }

    /// Flows of a full block.
    pub(super) const fn flows_of_block(self) -> usize {
        (MAX_BLOCK_OCTETS - HEADER_OCTETS) / self.flow_octets()
    }

    /// Octets of a block of so many flows; no more than fit in one.
    pub(super) const fn block_octets(self, flows: usize) -> usize {
        HEADER_OCTETS + flows * self.flow_octets()
    }

    /// Octets of a run of so many flows; none if there cannot be as many.
    pub(super) fn run_octets(self, flows: u64) -> Option<u64> {
        let blocks = flows.div_ceil(self.flows_of_block() as u64);
        let headers = blocks.checked_mul(HEADER_OCTETS as u64)?;
        flows
            .checked_mul(self.flow_octets() as u64)?
            .checked_add(headers)
    }

    const fn number(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

/// A key that is written to the spool.
pub(super) trait StoredKey: FlowKey {
    const FAMILY: Family;
    fn encode(&self, octets: &mut Vec<u8>);
    fn decode(octets: &mut Octets<'_>) -> Option<Self>;
}

macro_rules! stored_key {
    ($key:ty, $family:expr) => {
        impl StoredKey for $key {
            const FAMILY: Family = $family;

            fn encode(&self, octets: &mut Vec<u8>) {
                octets.extend_from_slice(&self.eni.to_le_bytes());
                octets.extend_from_slice(&self.src_addr);
                octets.extend_from_slice(&self.dst_addr);
                octets.extend_from_slice(&self.src_port);
                octets.extend_from_slice(&self.dst_port);
                octets.extend_from_slice(&[
                    self.protocol,
                    self.direction,
                    self.action,
                    self.origin,
                ]);
            }

            fn decode(octets: &mut Octets<'_>) -> Option<Self> {
                let eni = octets.take().map(u32::from_le_bytes)?;
                let (src_addr, dst_addr) = (octets.take()?, octets.take()?);
                let (src_port, dst_port) = (octets.take()?, octets.take()?);
                let [protocol, direction, action, origin] = octets.take()?;
                Some(Self {
                    eni,
                    src_addr,
                    dst_addr,
                    src_port,
                    dst_port,
                    protocol,
                    direction,
                    action,
                    origin,
                })
            }
        }
    };
}

stored_key!(FlowKeyV4, Family::V4);
stored_key!(FlowKeyV6, Family::V6);

/// Octets that are taken one field after the other.
pub(super) struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// Where a block belongs: a sound block in another place is not believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The drains of the file.
    pub(super) range: DrainRange,
    /// Number of the run in the file.
    pub(super) run: u32,
    /// Offset in the file, in octets.
    pub(super) offset: u64,
}

/// Writes a block in place of what is in `block`. There are no more flows than fit.
pub(super) fn encode<K: StoredKey>(block: &mut Vec<u8>, place: Place, flows: &[Flow<K>]) {
    block.clear();
    block.extend_from_slice(&place.run.to_le_bytes());
    block.extend_from_slice(&(flows.len() as u32).to_le_bytes());
    block.extend_from_slice(&K::FAMILY.number().to_le_bytes());
    block.extend_from_slice(&[0; 4]);
    for flow in flows {
        flow.key.encode(block);
        block.extend_from_slice(&flow.marks.0.to_le_bytes());
        block.extend_from_slice(&flow.packets.to_le_bytes());
        block.extend_from_slice(&flow.bytes.to_le_bytes());
    }
    let checksum = checksum(place, block).to_le_bytes();
    if let Some(field) = block.get_mut(HEADER_OCTETS - 4..HEADER_OCTETS) {
        field.copy_from_slice(&checksum);
    }
}

/// Whether a block is the one of `flows` flows that was written to this place.
pub(super) fn is_sound(family: Family, place: Place, flows: usize, block: &[u8]) -> bool {
    let mut header = Octets::new(block);
    let mut number = || header.take().map(u32::from_le_bytes);
    block.len() == family.block_octets(flows)
        && number() == Some(place.run)
        && number() == u32::try_from(flows).ok()
        && number() == Some(family.number())
        && number() == Some(checksum(place, block))
}

/// The flow with this number in a sound block.
pub(super) fn decode<K: StoredKey>(block: &[u8], number: usize) -> Option<Flow<K>> {
    let octets = K::FAMILY.flow_octets();
    let from = HEADER_OCTETS + number * octets;
    let mut octets = Octets::new(block.get(from..from + octets)?);
    Some(Flow {
        key: K::decode(&mut octets)?,
        marks: octets.take().map(u32::from_le_bytes).map(FlowMarks)?,
        packets: octets.take().map(u64::from_le_bytes)?,
        bytes: octets.take().map(u64::from_le_bytes)?,
    })
}

/// The checksum of all but the field that it stands in.
fn checksum(place: Place, block: &[u8]) -> u32 {
    let (header, rest) = block.split_at(block.len().min(HEADER_OCTETS));
    let mut hasher = crc32fast::Hasher::new();
    for number in [place.range.first, place.range.last, place.offset] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(header.get(..HEADER_OCTETS - 4).unwrap_or(header));
    hasher.update(rest);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place = Place {
        range: DrainRange { first: 7, last: 9 },
        run: 3,
        offset: 4096,
    };

    fn v4() -> impl Strategy<Value = Flow<FlowKeyV4>> {
        let key = (
            any::<u32>(),
            any::<[u8; 8]>(),
            any::<[u8; 4]>(),
            any::<[u8; 4]>(),
        );
        (key, any::<u32>(), any::<u64>(), any::<u64>()).prop_map(
            |((eni, addresses, ports, rest), marks, packets, bytes)| {
                let [a, b, c, d, e, f, g, h] = addresses;
                let [i, j, k, l] = ports;
                let [protocol, direction, action, origin] = rest;
                let (src_addr, dst_addr) = ([a, b, c, d], [e, f, g, h]);
                let (src_port, dst_port) = ([i, j], [k, l]);
                let key = FlowKeyV4 {
                    eni,
                    src_addr,
                    dst_addr,
                    src_port,
                    dst_port,
                    protocol,
                    direction,
                    action,
                    origin,
                };
                Flow {
                    key,
                    marks: FlowMarks(marks),
                    packets,
                    bytes,
                }
            },
        )
    }

    #[test]
    fn the_octets_are_as_documented() {
        let key = FlowKeyV6 {
            eni: 0x0102_0304,
            src_addr: [0xa1; 16],
            dst_addr: [0xb2; 16],
            src_port: [1, 2],
            dst_port: [3, 4],
            protocol: 6,
            direction: 1,
            action: 1,
            origin: 0,
        };
        let flow = Flow {
            key,
            marks: FlowMarks::new(0x12, 300),
            packets: 0x0304,
            bytes: 0x0506,
        };
        let mut block = vec![0xff; 5];
        encode(&mut block, PLACE, &[flow]);
        let header: &[u8] = &[3, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0];
        assert_eq!(&block[..12], header);
        let place = [7_u64, 9, 4096].map(u64::to_le_bytes).concat();
        let summed = [&place, header, &block[16..]].concat();
        assert_eq!(block[12..16], crc32fast::hash(&summed).to_le_bytes());
        assert_eq!(block[16..20], [4, 3, 2, 1]);
        assert_eq!(block[20..52], [[0xa1; 16], [0xb2; 16]].concat());
        assert_eq!(block[52..60], [1, 2, 3, 4, 6, 1, 1, 0]);
        assert_eq!(block[60..64], [0x12, 44, 1, 0]);
        assert_eq!(block[64..72], [4, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(block[72..], [6, 5, 0, 0, 0, 0, 0, 0]);
        assert!(is_sound(Family::V6, PLACE, 1, &block));
        assert_eq!(decode(&block, 0), Some(flow));
    }

    #[test]
    fn a_full_block_is_within_the_limit_and_one_more_flow_is_not() {
        for family in [Family::V4, Family::V6] {
            let full = family.flows_of_block();
            assert!(family.block_octets(full) <= MAX_BLOCK_OCTETS);
            assert!(family.block_octets(full + 1) > MAX_BLOCK_OCTETS);
            let blocks = family.block_octets(full) * 2 + family.block_octets(1);
            assert_eq!(
                family.run_octets(full as u64 * 2 + 1),
                Some(blocks as u64),
                "{family:?}"
            );
        }
        assert_eq!(Family::V4.run_octets(0), Some(0));
        assert_eq!(Family::V6.run_octets(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn flows_come_back_and_any_change_of_octets_or_place_is_seen(
            flows in prop::collection::vec(v4(), 1..20), bit in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut block = Vec::new();
            encode(&mut block, PLACE, &flows);
            let sound = |place, flows, block: &[u8]| is_sound(Family::V4, place, flows, block);
            prop_assert!(sound(PLACE, flows.len(), &block));
            let read: Vec<_> = (0..).map_while(|number| decode(&block, number)).collect();
            prop_assert_eq!(&read, &flows);
            let (run, offset, range) = (4, 0, DrainRange { first: 7, last: 8 });
            for place in [Place { run, ..PLACE }, Place { offset, ..PLACE }, Place { range, ..PLACE }] {
                prop_assert!(!sound(place, flows.len(), &block));
            }
            prop_assert!(!sound(PLACE, flows.len() + 1, &block));
            prop_assert!(!is_sound(Family::V6, PLACE, flows.len(), &block));
            prop_assert!(!sound(PLACE, flows.len(), &block[..cut.index(block.len())]));
            let bit = bit.index(block.len() * 8);
            block[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!sound(PLACE, flows.len(), &block));
        }
    }
}
