//! The tables of one policy, as maps.
use std::{
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use flowlog_common::{
    ACTION_ACCEPT, ACTION_REJECT, AddressClasses, DECIDED_BY_DEFAULT, DECIDED_BY_INNER_ACCESS,
    DIRECTION_IN, DIRECTION_OUT, DirectionTables, OutcomeVector, PREFIX_TABLE_BITS,
    PREFIXES_OF_LOCALS, PREFIXES_OF_PEERS, PortClasses, PrefixAddress, VECTOR_WORDS,
};
use flowlog_model::{
    record::Direction,
    security_group::{
        Cidr, MAX_CIDRS_PER_DIRECTION, MAX_RULES_PER_DIRECTION, Reason,
        compile::{CompiledPolicy, PortTable, PrefixTable, Tables},
    },
};

use crate::bpf::{
    error::BpfError,
    rules::RuleNumbers,
    sys::{self, MapData},
};

/// Most prefixes that a policy can have: of peers, and a local one for each rule, for each direction.
const MAX_PREFIXES: u32 = 2 * (MAX_CIDRS_PER_DIRECTION + MAX_RULES_PER_DIRECTION) as u32;

/// A key of the trie: `struct bpf_lpm_trie_key` with its data.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct PrefixKey {
    prefix_len: u32,
    data: PrefixAddress,
}
const _: () = assert!(size_of::<PrefixKey>() == 24);

// SAFETY: `#[repr(C)]`, integers without padding, as the size says.
unsafe impl MapData for PrefixKey {}

/// The maps of one policy.
pub(super) struct PolicyMaps {
    pub(super) tables: OwnedFd,
    pub(super) vectors: OwnedFd,
    pub(super) prefixes: OwnedFd,
}

impl PolicyMaps {
    /// Maps with nothing in them.
    pub(super) fn empty() -> Result<Self, BpfError> {
        let failed = || BpfError::map("make the tables of a policy");
        Ok(Self {
            tables: sys::map_create::<u32, DirectionTables>(
                sys::MAP_TYPE_ARRAY,
                2,
                "flowlog_tables",
            )
            .map_err(failed())?,
            vectors: vectors(1).map_err(failed())?,
            prefixes: sys::map_create_flagged::<PrefixKey, u32>(
                sys::MAP_TYPE_LPM_TRIE,
                sys::NO_PREALLOC,
                MAX_PREFIXES,
                "flowlog_prefix",
            )
            .map_err(failed())?,
        })
    }

    /// The maps of a policy.
    pub(super) fn of(compiled: &CompiledPolicy, rules: &mut RuleNumbers) -> Result<Self, BpfError> {
        let failed = || BpfError::map("fill the tables of a policy");
        let directions = [
            (DIRECTION_IN, Direction::In),
            (DIRECTION_OUT, Direction::Out),
        ];
        let directions: Vec<_> = directions
            .into_iter()
            .filter_map(|(number, direction)| {
                Some((number, direction, compiled.tables(direction)?))
            })
            .collect();
        let count = directions
            .iter()
            .map(|(_, _, tables)| tables.vectors.len())
            .sum::<usize>();
        let maps = Self {
            vectors: vectors(u32::try_from(count).unwrap_or(u32::MAX).max(1)).map_err(failed())?,
            ..Self::empty()?
        };
        // Classes of both directions are in one array, those of `out` behind those of `in`.
        let mut base = 0_u32;
        for (number, direction, tables) in directions {
            let outcome = |outcome| decided(compiled, direction, outcome, rules);
            let in_kernel = direction_tables(tables, base, outcome)?;
            sys::map_update(maps.tables.as_fd(), &u32::from(number), in_kernel.as_ref())
                .map_err(failed())?;
            let prefixes = [
                (PREFIXES_OF_PEERS, &tables.peers),
                (PREFIXES_OF_LOCALS, &tables.locals),
            ];
            for (kind, families) in prefixes {
                for (prefix, class) in families.iter().flat_map(PrefixTable::prefixes) {
                    let key = prefix_key(number, kind, prefix);
                    sys::map_update(maps.prefixes.as_fd(), &key, &(base + class))
                        .map_err(failed())?;
                }
            }
            let elements: Vec<(u32, OutcomeVector)> = (base..)
                .zip(tables.vectors.iter().map(|vector| *vector.words()))
                .collect();
            sys::update_all(maps.vectors.as_fd(), &elements).map_err(failed())?;
            base += elements.len() as u32;
        }
        Ok(maps)
    }
}

fn vectors(entries: u32) -> std::io::Result<OwnedFd> {
    sys::map_create_flagged::<u32, OutcomeVector>(
        sys::MAP_TYPE_ARRAY,
        sys::INNER_MAP,
        entries,
        "flowlog_vectors",
    )
}

/// The action and what decides, as the programs count them.
fn decided(
    compiled: &CompiledPolicy,
    direction: Direction,
    outcome: usize,
    rules: &mut RuleNumbers,
) -> Result<u32, BpfError> {
    let accepts = compiled
        .tables(direction)
        .is_some_and(|tables| tables.accept.contains(outcome));
    let action = if accepts {
        ACTION_ACCEPT
    } else {
        ACTION_REJECT
    };
    let decided_by = match compiled.reason(direction, outcome) {
        Reason::Rule(rule) => rules.number(rule.rule.id.as_str())?,
        Reason::InnerAccess => DECIDED_BY_INNER_ACCESS,
        Reason::Default | Reason::NoGroup => DECIDED_BY_DEFAULT,
    };
    Ok(u32::from(action) | decided_by << 8)
}

fn direction_tables(
    tables: &Tables,
    base: u32,
    mut outcome: impl FnMut(usize) -> Result<u32, BpfError>,
) -> Result<Box<DirectionTables>, BpfError> {
    let mut made = Box::<DirectionTables>::default();
    let count = tables.outcome_count();
    for (index, to) in made.outcomes.iter_mut().take(count).enumerate() {
        *to = outcome(index)?;
    }
    for (to, class) in made.protocols.iter_mut().zip(&tables.protocols) {
        *to = base + class;
    }
    made.src_ports = port_classes(&tables.src_ports, base);
    made.dst_ports = port_classes(&tables.dst_ports, base);
    made.peers = [&tables.peers[0], &tables.peers[1]].map(|table| address_classes(table, base));
    made.locals = [&tables.locals[0], &tables.locals[1]].map(|table| address_classes(table, base));
    made.words = (count.div_ceil(64)).clamp(1, VECTOR_WORDS) as u32;
    Ok(made)
}

fn port_classes(table: &PortTable, base: u32) -> PortClasses {
    let mut made = PortClasses::ZERO;
    let mut last = 0;
    let mut intervals = table.intervals().iter();
    for (first, class) in made.firsts.iter_mut().zip(&mut made.classes) {
        *first = u16::MAX;
        if let Some((from, interval)) = intervals.next() {
            *first = *from;
            last = base + interval;
        }
        *class = last;
    }
    made
}

fn address_classes(table: &PrefixTable, base: u32) -> AddressClasses {
    AddressClasses {
        miss: base + table.miss(),
        prefixes: table.prefixes().len() as u32,
    }
}

fn prefix_key(direction: u8, kind: u8, prefix: Cidr) -> PrefixKey {
    let (version, address) = match prefix.address() {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            (4, octets)
        }
        IpAddr::V6(address) => (6, address.octets()),
    };
    PrefixKey {
        prefix_len: PREFIX_TABLE_BITS + u32::from(prefix.prefix_len()),
        data: PrefixAddress {
            table: flowlog_common::PrefixTable {
                direction,
                kind,
                version,
                reserved: 0,
            },
            address,
        },
    }
}
