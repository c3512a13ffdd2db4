//! The maps. User space pins them and shares them among the programs of all ENIs.
//!
//! Counters come in two generations: the active one, into which every program counts, and the still one, which user space
//! reads. A program reads `ACTIVE` once per packet, so that all that it counts of the packet is in one generation.
use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, RingBuf},
    macros::btf_map,
};
use flowlog_common::{
    Active, DirectionTables, EniCounters, FAMILIES, FlowCounters, FlowKeyV4, FlowKeyV6,
    FragmentKey, FragmentPorts, GENERATIONS, MAX_ENIS, MAX_FRAGMENTED_DATAGRAMS, MAX_POLICIES,
    MAX_SESSIONS, OVERFLOW_RING_BYTES, Occupancy, OutcomeVector, Overflow, POLICY_ENTRIES,
    PrefixAddress, Session, SessionKey, SessionRoom, WAKE_RING_BYTES,
};

/// A flow map of one generation. User space makes the real ones, of a size that follows the traffic.
pub type Flows<K> = HashMap<K, FlowCounters, 1>;

/// What is in no flow, by ENI and direction, of one generation.
pub type Enis = Array<EniCounters, { MAX_ENIS as usize * 2 }>;

/// The active generation.
#[btf_map]
pub static ACTIVE: Array<Active, 1> = Array::new();

/// IPv4 flows, by generation.
#[btf_map]
pub static FLOWS_V4: ArrayOfMaps<Flows<FlowKeyV4>, GENERATIONS> = ArrayOfMaps::new();

/// IPv6 flows, by generation.
#[btf_map]
pub static FLOWS_V6: ArrayOfMaps<Flows<FlowKeyV6>, GENERATIONS> = ArrayOfMaps::new();

/// What is in no flow, by generation.
#[btf_map]
pub static ENIS: ArrayOfMaps<Enis, GENERATIONS> = ArrayOfMaps::new();

/// How full the flow maps are, by `generation * 2 + family`.
#[btf_map]
pub static OCCUPANCY: Array<Occupancy, { GENERATIONS * FAMILIES }> = Array::new();

/// Tells user space that a flow map has passed half full, or that a session had no room.
#[btf_map]
pub static WAKE: RingBuf<u64, { WAKE_RING_BYTES as usize }> = RingBuf::new();

/// Packets for whose flow the flow map had no room: [`Overflow`] of either family, told apart by its size. User space adds them to the
/// flows that it reads.
#[btf_map]
pub static OVERFLOW: RingBuf<Overflow<FlowKeyV6>, { OVERFLOW_RING_BYTES as usize }> =
    RingBuf::new();

/// First fragments, for the ports of the later ones. It may forget: a later fragment is then counted with ports 0.
#[btf_map]
pub static FRAGMENTS: LruHashMap<
    FragmentKey,
    FragmentPorts,
    { MAX_FRAGMENTED_DATAGRAMS as usize },
> = LruHashMap::new();

/// `BPF_F_INNER_MAP`: maps of any number of entries can be behind a map of maps.
const INNER_MAP: usize = 0x1000;

/// `BPF_F_NO_PREALLOC`: entries take memory when they are made.
const NO_PREALLOC: usize = 1;

/// Which policy holds for each slot. The entry behind them is user space's.
#[btf_map]
pub static POLICIES: Array<u64, { POLICY_ENTRIES as usize }> = Array::new();

/// By policy: the tables of its two directions.
#[btf_map]
pub static TABLES: ArrayOfMaps<Array<DirectionTables, 2>, { MAX_POLICIES as usize }> =
    ArrayOfMaps::new();

/// By policy: its bit vectors, by class. User space makes the real ones, of as many entries as there are classes.
#[btf_map]
pub static VECTORS: ArrayOfMaps<Array<OutcomeVector, 1, INNER_MAP>, { MAX_POLICIES as usize }> =
    ArrayOfMaps::new();

/// By policy: the classes of its prefixes of all tables.
#[btf_map]
pub static PREFIXES: ArrayOfMaps<LpmTrie<PrefixAddress, u32, 1>, { MAX_POLICIES as usize }> =
    ArrayOfMaps::new();

/// The sessions of all ENIs. It never forgets silently: a session that has no room is counted.
#[btf_map]
pub static SESSIONS: HashMap<SessionKey, Session, { MAX_SESSIONS as usize }, NO_PREALLOC> =
    HashMap::new();

/// Whether sessions had no room.
#[btf_map]
pub static SESSION_ROOM: Array<SessionRoom, 1> = Array::new();
