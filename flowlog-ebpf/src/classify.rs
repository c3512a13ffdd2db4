//! What the rules say of a packet that opens a session: a look-up in each dimension, and the first bit that all vectors have.
use aya_ebpf::btf_maps::lpm_trie::Key as Prefix;
use flowlog_common::{
    ACTION_ACCEPT, AddressClasses, DIRECTION_IN, MAX_OUTCOMES, PORT_INTERVALS, PREFIX_TABLE_BITS,
    PREFIXES_OF_LOCALS, PREFIXES_OF_PEERS, PortClasses, PrefixAddress, PrefixTable, VECTOR_WORDS,
};

use crate::{
    maps::{PREFIXES, TABLES, VECTORS},
    session::Key,
};

/// What is said where the tables are not there, which user space sees to that they are.
const NO_TABLES: u32 = ACTION_ACCEPT as u32;

/// The outcome, as in [`flowlog_common::DirectionTables::outcomes`], of a packet of the session `key` that goes in `direction`. `zero` is
/// [`flowlog_common::Active::zero`].
///
/// A function of its own, so that the programs have it once.
#[inline(never)]
pub fn outcome(key: &Key, direction: u32, policy: u32, zero: u32) -> u32 {
    look_up(key, direction, policy, zero).unwrap_or(NO_TABLES)
}

#[inline(always)]
fn look_up(key: &Key, direction: u32, policy: u32, zero: u32) -> Option<u32> {
    let direction = direction & 1;
    // SAFETY: live map values, which are not written any more.
    let tables = unsafe { &*TABLES.get(policy)?.get_ptr(direction)? };
    let is_v6 = usize::from(key.version() == 6);
    let (local_port, peer_port) = key.ports();
    let (src_port, dst_port) = if direction == u32::from(DIRECTION_IN) {
        (peer_port, local_port)
    } else {
        (local_port, peer_port)
    };
    let table = |kind| PrefixTable {
        direction: direction as u8,
        kind,
        version: key.version(),
        reserved: 0,
    };
    let classes = [
        tables.protocols[usize::from(key.protocol())],
        address_class(
            policy,
            &tables.peers[is_v6],
            table(PREFIXES_OF_PEERS),
            &key.peer,
        )?,
        address_class(
            policy,
            &tables.locals[is_v6],
            table(PREFIXES_OF_LOCALS),
            &key.local,
        )?,
        port_class(&tables.src_ports, src_port, zero),
        port_class(&tables.dst_ports, dst_port, zero),
    ];
    let outcome = first_common(policy, classes, tables.words, zero)?;
    Some(tables.outcomes[outcome as usize & (MAX_OUTCOMES - 1)])
}

/// A key of the trie in words: the verifier wants the stack aligned, and the compiler joins writes of octets.
#[repr(C, align(8))]
struct PrefixWords {
    prefix_len: u32,
    table: u32,
    address: [u32; 4],
}

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
    address: &[u32; 4],
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
    let words = PrefixWords {
        prefix_len: PREFIX_TABLE_BITS + bits,
        table: u32::from_ne_bytes([direction, kind, version, reserved]),
        address: *address,
    };
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
            return Some(word as u32 * 64 + trailing_zeros(common) + zero);
        }
    }
    // The default fits everything, so this is not reached.
    None
}

#[inline(always)]
fn trailing_zeros(word: u64) -> u32 {
    word.trailing_zeros()
}
