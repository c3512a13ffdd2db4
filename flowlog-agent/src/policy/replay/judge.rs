//! What the new groups make of a recorded flow.
use std::net::IpAddr;

use flowlog_model::{
    inventory::Inventory,
    record::Action,
    security_group::{
        Verdict,
        compile::CompiledPolicy,
        has_ports,
        session::{SYN, reversed},
    },
};

use super::flows::{FlowKey, FlowSum, Flows};

/// IANA number of ICMPv6.
const ICMPV6: u8 = 58;

/// How a flow stands to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It opened the session, or there is no other direction in the records.
    Opener,
    /// It answers.
    Reply,
    /// It is not known, and it makes no difference or is listed apart.
    Unknown,
}

/// What becomes of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The new verdict, which is that on its session's opener.
    Judged(Verdict, Part),
    /// It depends on who opened the session: the verdicts on this direction and on the other.
    Depends(Verdict, Verdict),
    /// It may be neighbour discovery, which no group judges.
    NeighborDiscovery,
}

/// The policies of all ENIs; those of the same groups are the same.
pub(super) struct Judge {
    policies: Vec<CompiledPolicy>,
    /// Index of each ENI's policy.
    of_entry: Vec<usize>,
}

impl Judge {
    pub(super) fn new(inventory: &Inventory) -> Self {
        let mut known = std::collections::HashMap::new();
        let mut policies = Vec::new();
        let of_entry = inventory.entries().iter().map(|entry| {
            *known.entry(&entry.security.group_ids).or_insert_with(|| {
                policies.push(CompiledPolicy::new(inventory.policy(entry)));
                policies.len() - 1
            })
        });
        let of_entry = of_entry.collect();
        Self { policies, of_entry }
    }

    /// What becomes of a flow; none of an ENI that is not in the inventory.
    pub(super) fn judge(&self, flows: &Flows<'_>, key: &FlowKey, sum: &FlowSum) -> Option<Outcome> {
        let policy = self.policies.get(*self.of_entry.get(key.entry)?)?;
        if may_be_neighbor_discovery(key) {
            return Some(Outcome::NeighborDiscovery);
        }
        let own = policy.decide(key.direction, &key.flow);
        let other_key = FlowKey {
            direction: key.direction.opposite(),
            flow: reversed(&key.flow),
            ..*key
        };
        let Some(other_sum) = flows.get(&other_key) else {
            return Some(Outcome::Judged(own, Part::Opener));
        };
        let other = policy.decide(other_key.direction, &other_key.flow);
        let part = part(key, sum, other_sum);
        Some(match part {
            Part::Opener => Outcome::Judged(own, part),
            Part::Reply => Outcome::Judged(other, part),
            Part::Unknown if own.action == other.action => Outcome::Judged(own, part),
            Part::Unknown => Outcome::Depends(own, other),
        })
    }
}

/// Which part a flow has in a session of which the other direction is recorded too.
fn part(key: &FlowKey, sum: &FlowSum, other: &FlowSum) -> Part {
    let earlier = sum.first_start.cmp(&other.first_start);
    let syn = |sum: &FlowSum| sum.tcp_flags.is_some_and(|flags| flags & SYN != 0);
    // A connection that was refused or reset has a SYN from its opener alone.
    let by_syn = if sum.tcp_flags.is_some() && other.tcp_flags.is_some() {
        syn(other).cmp(&syn(sum))
    } else {
        std::cmp::Ordering::Equal
    };
    // A service's port is lower in kind than its client's.
    let by_ports = if has_ports(key.flow.protocol) {
        port_kind(key.flow.dst_port).cmp(&port_kind(key.flow.src_port))
    } else {
        std::cmp::Ordering::Equal
    };
    match earlier.then(by_syn).then(by_ports) {
        std::cmp::Ordering::Less => Part::Opener,
        std::cmp::Ordering::Greater => Part::Reply,
        std::cmp::Ordering::Equal => Part::Unknown,
    }
}

/// 0 for well-known ports, 1 for others that services have, 2 for those that clients are given (from 32768 by Linux).
const fn port_kind(port: u16) -> u8 {
    match port {
        0..1024 => 0,
        1024..32768 => 1,
        32768.. => 2,
    }
}

/// Records do not have ICMPv6's type. What is on the link alone, or for many, is taken for neighbour discovery.
fn may_be_neighbor_discovery(key: &FlowKey) -> bool {
    let on_link = |address| match address {
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
        IpAddr::V4(_) => false,
    };
    key.flow.protocol == ICMPV6 && (on_link(key.flow.src_addr) || on_link(key.flow.dst_addr))
}

impl Outcome {
    /// The action that all of its flow would have; none where it depends or is not judged.
    pub(super) fn action(&self) -> Option<Action> {
        match self {
            Self::Judged(verdict, _) => Some(verdict.action),
            Self::Depends(..) | Self::NeighborDiscovery => None,
        }
    }
}
