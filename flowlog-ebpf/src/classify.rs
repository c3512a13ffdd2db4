//! What the rules say of a packet that opens a session: a look-up in each dimension, and the first bit that all vectors have.
use aya_ebpf::btf_maps::lpm_trie::Key as Prefix;
use flowlog_common::{
    ACTION_ACCEPT, AddressClasses, DIRECTION_IN, MAX_OUTCOMES, MAX_POLICIES, PORT_INTERVALS,
    PREFIX_TABLE_BITS, PREFIXES_OF_LOCALS, PREFIXES_OF_PEERS, PortClasses, PrefixAddress,
    PrefixTable, VECTOR_WORDS,
};

use crate::{
    key::{pair, second},
    maps::{ACTIVE, PREFIXES, TABLES, VECTORS},
    session::Key,
};

/// What is said where the tables are not there, which user space sees to that they are.
const NO_TABLES: u32 = ACTION_ACCEPT as u32;

/// The outcome, as in [`flowlog_common::DirectionTables::outcomes`], of a packet of the session `key` that goes in `direction`.
///
/// A function of its own because of the stack.
#[inline(never)]
pub fn outcome(key: &Key, direction: u32, policy: u32) -> u32 {
    let [slot_and_local, w1, w2, w3, w4] = key.words();
    let about = About {
        protocol: key.protocol(),
        direction: direction as u8 & 1,
        has_ports: !key.is_query(),
        is_v6: key.version() == 6,
        policy,
    };
    let w0 = pair(about.pack(), second(slot_and_local));
    flowlog_outcome(w0, w1, w2, w3, w4)
}

/// What the rules are asked about besides addresses and ports.
#[derive(Clone, Copy)]
struct About {
    protocol: u8,
    direction: u8,
    has_ports: bool,
    is_v6: bool,
    policy: u32,
}

impl About {
    #[inline(always)]
    fn pack(self) -> u32 {
        const { assert!(MAX_POLICIES <= 0x1_0000) };
        let flags = self.direction | u8::from(self.has_ports) << 1 | u8::from(self.is_v6) << 2;
        u32::from(self.protocol) | u32::from(flags) << 8 | self.policy << 16
    }

    #[inline(always)]
    fn unpack(packed: u32) -> Self {
        let [protocol, flags, _, _] = packed.to_ne_bytes();
        Self {
            protocol,
            direction: flags & 1,
            has_ports: flags & 2 != 0,
            is_v6: flags & 4 != 0,
            policy: packed >> 16,
        }
    }
}

/// To the verifier a global function, which it walks once, whoever calls it; so its arguments can only be numbers. They are the words of the
/// session's key, with [`About::pack`] in the place of the ENI.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowlog_outcome(w0: u64, w1: u64, w2: u64, w3: u64, w4: u64) -> u32 {
    look_up([w0, w1, w2, w3, w4]).unwrap_or(NO_TABLES)
}

#[inline(always)]
fn look_up([w0, w1, w2, w3, w4]: [u64; 5]) -> Option<u32> {
    let About {
        protocol,
        direction,
        has_ports,
        is_v6,
        policy,
    } = About::unpack(w0 as u32);
    let local = [second(w0), w1 as u32, second(w1), w2 as u32];
    let peer = [second(w2), w3 as u32, second(w3), w4 as u32];
    let ports = if has_ports { second(w4) } else { 0 };
    let (local_port, peer_port) = (
        u16::from_be(ports as u16),
        u16::from_be((ports >> 16) as u16),
    );
    let (src_port, dst_port) = if direction == DIRECTION_IN {
        (peer_port, local_port)
    } else {
        (local_port, peer_port)
    };
    // SAFETY: a live map value; volatile, as in `count`.
    let zero = unsafe { (&raw const ACTIVE.get(0)?.zero).read_volatile() };
    // SAFETY: live map values, which are not written any more.
    let tables = unsafe { &*TABLES.get(policy)?.get_ptr(u32::from(direction))? };
    let version = if is_v6 { 6 } else { 4 };
    let table = |kind| PrefixTable {
        direction,
        kind,
        version,
        reserved: 0,
    };
    let peers = &tables.peers[usize::from(is_v6)];
    let locals = &tables.locals[usize::from(is_v6)];
    let classes = [
        tables.protocols[usize::from(protocol)],
        address_class(policy, peers, table(PREFIXES_OF_PEERS), peer)?,
        address_class(policy, locals, table(PREFIXES_OF_LOCALS), local)?,
        port_class(&tables.src_ports, src_port, zero),
        port_class(&tables.dst_ports, dst_port, zero),
    ];
    let outcome = first_common(policy, classes, tables.words, zero)?;
    Some(tables.outcomes[outcome as usize & (MAX_OUTCOMES - 1)])
}

/// A key of the trie in words of 8 octets: the verifier wants the stack aligned, and the compiler joins what is narrower.
#[repr(transparent)]
struct PrefixWords([u64; 3]);

impl AsRef<Prefix<PrefixAddress>> for PrefixWords {
    #[inline(always)]
    fn as_ref(&self) -> &Prefix<PrefixAddress> {
        const { assert!(size_of::<PrefixWords>() == size_of::<Prefix<PrefixAddress>>()) };
        // SAFETY: the words are those of the key in order, of which any bit pattern is a value; alignment is 8 for 1.
        unsafe { &*(&raw const *self).cast() }
    }
}

#[inline(always)]
fn address_class(
    policy: u32,
    classes: &AddressClasses,
    table: PrefixTable,
    address: [u32; 4],
) -> Option<u32> {
    if classes.prefixes == 0 {
        return Some(classes.miss);
    }
    let bits = if table.version == 6 { 128 } else { 32 };
    let PrefixTable {
        direction,
        kind,
        version,
        reserved,
    } = table;
    let table = u32::from_ne_bytes([direction, kind, version, reserved]);
    let [a0, a1, a2, a3] = address;
    let words = PrefixWords([
        pair(PREFIX_TABLE_BITS + bits, table),
        pair(a0, a1),
        pair(a2, a3),
    ]);
    let class = PREFIXES.get(policy)?.get(words.as_ref()).copied();
    Some(class.unwrap_or(classes.miss))
}

/// By binary search, always of as many steps.
#[inline(always)]
fn port_class(table: &PortClasses, port: u16, zero: u32) -> u32 {
    let mut found = zero & (PORT_INTERVALS as u32 - 1);
    let mut step = PORT_INTERVALS as u32 / 2;
    while step > 0 {
        // One path for the verifier, whichever half it was.
        let next = (found + step + zero) & (PORT_INTERVALS as u32 - 1);
        if table.firsts[next as usize] <= port {
            found = next;
        }
        step /= 2;
    }
    table.classes[found as usize & (PORT_INTERVALS - 1)]
}

/// The first bit that the vectors of all classes have.
#[inline(always)]
fn first_common(policy: u32, classes: [u32; 5], words: u32, zero: u32) -> Option<u32> {
    let vectors = VECTORS.get(policy)?;
    let [protocol, peer, local, src_port, dst_port] = classes;
    let protocol = vectors.get(protocol)?;
    let peer = vectors.get(peer)?;
    let local = vectors.get(local)?;
    let src_port = vectors.get(src_port)?;
    let dst_port = vectors.get(dst_port)?;
    for word in 0..VECTOR_WORDS {
        if word as u32 >= words {
            break;
        }
        let common = protocol[word] & peer[word] & local[word] & src_port[word] & dst_port[word];
        if common != 0 {
            return Some(word as u32 * 64 + common.trailing_zeros() + zero);
        }
    }
    // The default fits everything, so this is not reached.
    None
}
