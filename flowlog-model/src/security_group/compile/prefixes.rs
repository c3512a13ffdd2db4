//! From an address to a class: in the kernel a `BPF_MAP_TYPE_LPM_TRIE`.
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::vector::{Class, Classes, Vector};
use crate::security_group::Cidr;

/// The class of each address of one family: that of the longest prefix that the address has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixTable {
    classes: HashMap<Cidr, Class>,
    /// The lengths of prefixes that there are, the longest first.
    lengths: Vec<u8>,
    miss: Class,
}

impl PrefixTable {
    /// A table in which each prefix leads to the outcomes of `any`, to its own and to those of the prefixes that cover it.
    pub(super) fn new(
        any: Vector,
        prefixes: &BTreeMap<Cidr, Vector>,
        classes: &mut Classes,
    ) -> Self {
        let mut by_prefix = HashMap::with_capacity(prefixes.len());
        // The prefixes that cover the one that is being added, the widest first: in order of address and then of length, what covers
        // a prefix comes before it, and with nothing between that it does not cover too.
        let mut covering: Vec<(Cidr, Vector)> = Vec::new();
        for (&prefix, &own) in prefixes {
            while covering
                .last()
                .is_some_and(|(outer, _)| !outer.covers(prefix))
            {
                covering.pop();
            }
            let vector = own | covering.last().map_or(any, |(_, outer)| *outer);
            by_prefix.insert(prefix, classes.of(vector));
            covering.push((prefix, vector));
        }
        let mut lengths: Vec<u8> = prefixes.keys().map(|prefix| prefix.prefix_len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self {
            classes: by_prefix,
            lengths,
            miss: classes.of(any),
        }
    }

    /// The class of an address. A table without prefixes needs no look-up.
    pub(super) fn look_up(&self, address: IpAddr) -> Class {
        let mut prefixes = self
            .lengths
            .iter()
            .filter_map(|&length| Cidr::new(address, length));
        prefixes
            .find_map(|prefix| self.classes.get(&prefix).copied())
            .unwrap_or(self.miss)
    }

    /// The prefixes with their classes, in no order.
    pub fn prefixes(&self) -> impl ExactSizeIterator<Item = (Cidr, Class)> + '_ {
        self.classes.iter().map(|(&prefix, &class)| (prefix, class))
    }

    /// The class of addresses that have none of the prefixes.
    #[must_use]
    pub const fn miss(&self) -> Class {
        self.miss
    }
}
