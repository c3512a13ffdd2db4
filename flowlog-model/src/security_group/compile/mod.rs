//! A policy in the form in which the kernel has it, and an interpreter that makes exactly the look-ups that the kernel makes.
//!
//! # Why bit vectors
//!
//! Rules one by one would cost the more the more there are, and a thousand of them would be a loop that the verifier walks. A hash of
//! rules by mask (tuple space search) does not bound the number of masks. Cutting the space into a decision tree makes its size depend
//! on how rules overlap. With a bit vector per dimension the cost is bounded, it hardly depends on the rules, and it is the same
//! straight code for every policy:
//!
//! 1. What may decide are the *outcomes* of a direction, in their order: inner access policy accept, the rules by priority, inner
//!    access policy drop, the default. Up to 1,024 of them.
//! 2. Each of five dimensions (protocol, peer address, local address, source port, destination port) leads to a *class*: the number
//!    of the vector that has a bit for each outcome which fits in that dimension. Different vectors are kept once.
//! 3. The first bit that all five vectors have is the outcome. The default fits everything, so there always is one.
//!
//! | dimension | look-up | entries |
//! |---|---|---|
//! | protocol | an array | 256 |
//! | peer address, local address | a longest prefix match for each family; none where there is no prefix | all prefixes of peers; one for each five-tuple rule |
//! | source port, destination port | a binary search of 11 steps | an interval begins where a rule's range begins or ended |
//!
//! # What it costs
//!
//! A decision makes at most two longest prefix matches and two binary searches, and then ANDs five vectors word by word, up to the
//! first word that is not empty. It is made once for a session.
//!
//! Sizes for one direction, for rules with a /24 and a port each (the test `sizes` holds them):
//!
//! | rules | prefixes | intervals of ports | vectors | vectors, octets | words that are in use |
//! |---:|---:|---:|---:|---:|---:|
//! | 10 | 10 | 12 | 23 | 2,944 | 1 |
//! | 100 | 100 | 102 | 203 | 25,984 | 2 |
//! | 1,000 | 1,000 | 1,002 | 2,003 | 256,384 | 16 |
//!
//! At worst, there is a vector for each prefix ([`super::MAX_CIDRS_PER_DIRECTION`] of peers), for each interval of ports (2,001 in
//! each of two dimensions) and for each protocol: 9 MiB. What members of a group have in common is there once, however many they are.
//!
//! ENIs that are in the same groups share the tables: see [`Policy`].
//!
//! # In the kernel
//!
//! Each table is an inner map behind a map of maps whose index is the number of a policy. A policy's tables are made whole and in place
//! before its number is written to the ENI's entry; that one write is the change, so no packet is judged by half a policy. The old
//! tables go when no ENI has their number.
use std::collections::BTreeMap;
use std::sync::Arc;

mod ports;
mod prefixes;
mod vector;

pub use ports::PortTable;
pub use prefixes::PrefixTable;
use vector::Classes;
pub use vector::{Class, Vector, WORDS};

use super::policy::{Ends, default_action};
use super::{
    Access, AddressFamily, Cidr, GroupType, MAX_RULES_PER_DIRECTION, Policy, PortRange, Reason,
    Verdict,
};
use crate::record::{Action, Direction, FlowTuple};

/// Outcomes that are not rules: inner access policy accept, inner access policy drop, the default.
const OTHER_OUTCOMES: usize = 3;

const _: () = assert!(MAX_RULES_PER_DIRECTION + OTHER_OUTCOMES <= Vector::BITS);

/// A policy, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicy {
    policy: Policy,
    /// For `in` and for `out`; none without groups, where there is nothing to decide.
    tables: Option<[Tables; 2]>,
}

/// The tables of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// What may decide, in its order; the kernel has only the numbers.
    outcomes: Vec<Outcome>,
    /// The outcomes that accept.
    pub accept: Vector,
    /// The vectors, by class.
    pub vectors: Vec<Vector>,
    /// The class of each protocol, by its number: 256 of them.
    pub protocols: Vec<Class>,
    /// The class of the peer's address: IPv4, IPv6.
    pub peers: [PrefixTable; 2],
    /// The class of the local address: IPv4, IPv6.
    pub locals: [PrefixTable; 2],
    /// The class of the source port.
    pub src_ports: PortTable,
    /// The class of the destination port.
    pub dst_ports: PortTable,
}

/// What may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    InnerAccess(Access),
    /// Index in [`Policy::rules`].
    Rule(usize),
    Default,
}

/// Which packets fit an outcome.
struct Fits<'p> {
    action: Action,
    protocol: Option<u8>,
    /// None for every peer.
    peers: Option<Vec<&'p [Cidr]>>,
    local: Option<Cidr>,
    src_ports: PortRange,
    dst_ports: PortRange,
}

impl CompiledPolicy {
    /// Compiles a policy that keeps the limits of [`super`]; rules beyond [`MAX_RULES_PER_DIRECTION`] are left out.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let tables = policy.group_type().map(|group_type| {
            [Direction::In, Direction::Out]
                .map(|direction| Tables::new(&policy, group_type, direction))
        });
        Self { policy, tables }
    }

    /// What [`Policy::decide`] says, found by the look-ups that the kernel makes.
    #[must_use]
    pub fn decide(&self, direction: Direction, flow: &FlowTuple) -> Verdict {
        let Some(tables) = self.tables(direction) else {
            return Verdict::new(Action::Accept, Reason::NoGroup);
        };
        let outcome = tables.look_up(direction, flow);
        let action = if tables.accept.contains(outcome) {
            Action::Accept
        } else {
            Action::Reject
        };
        Verdict::new(action, self.reason(direction, outcome))
    }

    /// What an outcome of the tables stands for.
    #[must_use]
    pub fn reason(&self, direction: Direction, outcome: usize) -> Reason {
        let outcomes = self.tables(direction).map(|tables| &tables.outcomes);
        match outcomes.and_then(|outcomes| outcomes.get(outcome)) {
            Some(Outcome::InnerAccess(_)) => Reason::InnerAccess,
            Some(Outcome::Rule(index)) => match self.policy.rules().get(*index) {
                Some(rule) => Reason::Rule(Arc::clone(rule)),
                None => Reason::Default,
            },
            Some(Outcome::Default) | None => Reason::Default,
        }
    }

    /// The policy that was compiled.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The tables of a direction; none without groups.
    #[must_use]
    pub fn tables(&self, direction: Direction) -> Option<&Tables> {
        let [r#in, out] = self.tables.as_ref()?;
        Some(match direction {
            Direction::In => r#in,
            Direction::Out => out,
        })
    }
}

impl Tables {
    fn new(policy: &Policy, group_type: GroupType, direction: Direction) -> Self {
        let outcomes = outcomes(policy, direction);
        let fits: Vec<Fits<'_>> = outcomes
            .iter()
            .map(|outcome| Fits::of(*outcome, policy, group_type, direction))
            .collect();
        let numbered = || fits.iter().enumerate();
        let mut classes = Classes::default();
        let families = [AddressFamily::V4, AddressFamily::V6];
        Self {
            accept: numbered()
                .filter(|(_, fits)| fits.action == Action::Accept)
                .map(|(outcome, _)| outcome)
                .collect(),
            protocols: protocols(&fits, &mut classes),
            peers: families.map(|family| peers(&fits, family, &mut classes)),
            locals: families.map(|family| locals(&fits, family, &mut classes)),
            src_ports: PortTable::new(
                numbered().map(|(outcome, fits)| (outcome, fits.src_ports)),
                &mut classes,
            ),
            dst_ports: PortTable::new(
                numbered().map(|(outcome, fits)| (outcome, fits.dst_ports)),
                &mut classes,
            ),
            vectors: classes.into_vectors(),
            outcomes,
        }
    }

    /// The outcome that decides: a look-up in each dimension, and the first bit that all five vectors have.
    #[must_use]
    pub fn look_up(&self, direction: Direction, flow: &FlowTuple) -> usize {
        let Ends { peer, local } = Ends::of(direction, flow);
        let family = |address| match AddressFamily::of(address) {
            AddressFamily::V4 => 0,
            AddressFamily::V6 => 1,
        };
        let protocol = self.protocols.get(usize::from(flow.protocol));
        let vectors = [
            protocol.copied().unwrap_or(Class::MAX),
            self.peers[family(peer)].look_up(peer),
            self.locals[family(local)].look_up(local),
            self.src_ports.look_up(flow.src_port),
            self.dst_ports.look_up(flow.dst_port),
        ]
        .map(|class| self.vector(class));
        let last = self.outcomes.len().saturating_sub(1);
        for word in 0..=last / 64 {
            let common = vectors
                .iter()
                .fold(u64::MAX, |common, vector| common & vector.words()[word]);
            if common != 0 {
                return word * 64 + common.trailing_zeros() as usize;
            }
        }
        last
    }

    fn vector(&self, class: Class) -> Vector {
        let vector = usize::try_from(class)
            .ok()
            .and_then(|class| self.vectors.get(class));
        vector.copied().unwrap_or_default()
    }

    /// How many outcomes there are, and so how many bits of a vector are in use.
    #[must_use]
    pub fn outcome_count(&self) -> usize {
        self.outcomes.len()
    }
}

fn outcomes(policy: &Policy, direction: Direction) -> Vec<Outcome> {
    let inner = |access| {
        let is_there = !policy.inner(access).is_empty();
        is_there.then_some(Outcome::InnerAccess(access))
    };
    let rules = (0..)
        .zip(policy.rules())
        .filter(|(_, rule)| rule.rule.direction == direction)
        .map(|(index, _)| Outcome::Rule(index));
    inner(Access::Accept)
        .into_iter()
        .chain(rules.take(MAX_RULES_PER_DIRECTION))
        .chain(inner(Access::Drop))
        .chain([Outcome::Default])
        .collect()
}

impl<'p> Fits<'p> {
    fn of(
        outcome: Outcome,
        policy: &'p Policy,
        group_type: GroupType,
        direction: Direction,
    ) -> Self {
        let every = Self {
            action: default_action(group_type, direction),
            protocol: None,
            peers: None,
            local: None,
            src_ports: PortRange::ALL,
            dst_ports: PortRange::ALL,
        };
        match outcome {
            Outcome::Default => every,
            Outcome::InnerAccess(access) => Self {
                action: access.into(),
                peers: Some(policy.inner(access).iter().map(AsRef::as_ref).collect()),
                ..every
            },
            Outcome::Rule(index) => match policy.rules().get(index) {
                None => every,
                Some(rule) => Self {
                    action: rule.rule.policy.into(),
                    protocol: rule.rule.protocol.number(),
                    peers: Some(vec![&rule.peers]),
                    local: rule.rule.local,
                    src_ports: rule.rule.src_ports,
                    dst_ports: rule.rule.dst_ports,
                },
            },
        }
    }
}

fn protocols(fits: &[Fits<'_>], classes: &mut Classes) -> Vec<Class> {
    let class = |protocol: u8| {
        let vector = (0..)
            .zip(fits)
            .filter(|(_, fits)| fits.protocol.is_none_or(|own| own == protocol))
            .map(|(outcome, _)| outcome)
            .collect();
        classes.of(vector)
    };
    (0..=u8::MAX).map(class).collect()
}

fn peers(fits: &[Fits<'_>], family: AddressFamily, classes: &mut Classes) -> PrefixTable {
    let mut any = Vector::default();
    let mut prefixes: BTreeMap<Cidr, Vector> = BTreeMap::new();
    for (outcome, fits) in fits.iter().enumerate() {
        let Some(peers) = &fits.peers else {
            any.insert(outcome);
            continue;
        };
        let of_family = peers.iter().copied().flatten();
        for cidr in of_family.filter(|cidr| cidr.family() == family) {
            prefixes.entry(*cidr).or_default().insert(outcome);
        }
    }
    PrefixTable::new(any, &prefixes, classes)
}

fn locals(fits: &[Fits<'_>], family: AddressFamily, classes: &mut Classes) -> PrefixTable {
    let mut any = Vector::default();
    let mut prefixes: BTreeMap<Cidr, Vector> = BTreeMap::new();
    for (outcome, fits) in fits.iter().enumerate() {
        match fits.local {
            None => any.insert(outcome),
            Some(cidr) if cidr.family() == family => {
                prefixes.entry(cidr).or_default().insert(outcome);
            }
            Some(_) => {}
        }
    }
    PrefixTable::new(any, &prefixes, classes)
}

#[cfg(test)]
mod tests;
