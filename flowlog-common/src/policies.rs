//! Security groups as the programs have them: the policy of each ENI, and the tables of each policy.
//!
//! A decision is a look-up in each of five dimensions (protocol, address of the peer, local address, source port, destination port). Each
//! gives a *class*, the index of a bit vector that has a bit for each outcome which fits; the first bit that all five have is the outcome.
use crate::MAX_ENIS;

/// Policies that can be installed at a time: for each ENI one, and the one that takes its place; and a number that is nobody's.
pub const MAX_POLICIES: u32 = 2 * MAX_ENIS + 1;

/// Entries of the array of [`PolicyEntry`]: one for each slot, and [`LAST_EPOCH`].
pub const POLICY_ENTRIES: u32 = MAX_ENIS + 1;

/// Index behind the slots in the array of [`PolicyEntry`]: its epoch is the last that was given out. For user space alone.
pub const LAST_EPOCH: u32 = MAX_ENIS;

/// Words of 64 bits in a bit vector.
pub const VECTOR_WORDS: usize = 16;

/// Outcomes that a direction of a policy can have: the bits of a vector.
pub const MAX_OUTCOMES: usize = VECTOR_WORDS * 64;

/// Intervals that a dimension of ports can have. A rule begins one and ends one, so there are at most 2,001.
pub const PORT_INTERVALS: usize = 2048;

/// [`PrefixTable::kind`]: the other end's addresses.
pub const PREFIXES_OF_PEERS: u8 = 0;
/// [`PrefixTable::kind`]: the ENI's own end's addresses.
pub const PREFIXES_OF_LOCALS: u8 = 1;

/// Which policy holds for an ENI. Programs read both numbers at once, so a new policy is in force by one write.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyEntry {
    /// Index of the policy's tables, less than [`MAX_POLICIES`].
    pub policy: u32,
    /// Another for each policy that comes into force on the ENI, so that what the one before decided is known as such; 0 if nothing is to
    /// be judged. Its low 16 bits are never 0 otherwise.
    pub epoch: u32,
}

/// A bit vector: bit 0 of word 0 is outcome 0, which comes before all others.
pub type OutcomeVector = [u64; VECTOR_WORDS];

/// The class of each port. The intervals are in order, and the first begins at port 0; entries that are not in use begin at 65535 and have
/// the class of the last that is, so that every search is of as many steps.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortClasses {
    /// The first port of each interval, in the host's order.
    pub firsts: [u16; PORT_INTERVALS],
    /// The class of each interval.
    pub classes: [u32; PORT_INTERVALS],
}

impl PortClasses {
    /// All zeros.
    pub const ZERO: Self = Self {
        firsts: [0; PORT_INTERVALS],
        classes: [0; PORT_INTERVALS],
    };
}

impl Default for PortClasses {
    fn default() -> Self {
        Self::ZERO
    }
}

/// The class of addresses of one family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressClasses {
    /// The class of addresses that have none of the prefixes.
    pub miss: u32,
    /// How many prefixes there are. Without any, nothing needs to be looked up.
    pub prefixes: u32,
}

/// What decides in one direction of a policy, but for prefixes and vectors. The array's index is the direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectionTables {
    /// What each outcome comes to: the action, and `decided_by << 8`.
    pub outcomes: [u32; MAX_OUTCOMES],
    /// The class of each protocol.
    pub protocols: [u32; 256],
    /// The class of the source port.
    pub src_ports: PortClasses,
    /// The class of the destination port.
    pub dst_ports: PortClasses,
    /// The class of the peer's address: IPv4, IPv6.
    pub peers: [AddressClasses; 2],
    /// The class of the local address: IPv4, IPv6.
    pub locals: [AddressClasses; 2],
    /// Words of the vectors that are in use: 1 to [`VECTOR_WORDS`].
    pub words: u32,
    /// Always 0.
    pub reserved: u32,
}

impl Default for DirectionTables {
    fn default() -> Self {
        Self {
            outcomes: [0; MAX_OUTCOMES],
            protocols: [0; 256],
            src_ports: PortClasses::ZERO,
            dst_ports: PortClasses::ZERO,
            peers: [AddressClasses::default(); 2],
            locals: [AddressClasses::default(); 2],
            words: 0,
            reserved: 0,
        }
    }
}

/// Of which look-up a prefix is: a policy's prefixes are all in one trie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PrefixTable {
    /// `DIRECTION_IN` or `DIRECTION_OUT`.
    pub direction: u8,
    /// [`PREFIXES_OF_PEERS`] or [`PREFIXES_OF_LOCALS`].
    pub kind: u8,
    /// 4 or 6.
    pub version: u8,
    /// Always 0.
    pub reserved: u8,
}

/// An address in the trie, behind the number of its bits that count; those of [`PrefixTable`] are among them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PrefixAddress {
    /// The table.
    pub table: PrefixTable,
    /// The address; IPv4 in the first four octets.
    pub address: [u8; 16],
}

/// Bits of [`PrefixTable`].
pub const PREFIX_TABLE_BITS: u32 = 32;

/// Octets of the text of a rule's id, filled up with zeros.
pub const RULE_ID_OCTETS: usize = 64;

assert_layout! {
    PolicyEntry: 8, 8;
    OutcomeVector: 128, 8;
    PortClasses: 12288, 4;
    AddressClasses: 8, 4;
    DirectionTables: 29736, 4;
    PrefixTable: 4, 1;
    PrefixAddress: 20, 1;
}
