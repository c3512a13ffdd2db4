//! What all groups of an ENI say together.
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Access, Cidr, GroupType, Rule, SecurityGroups};
use crate::record::{Action, Direction, FlowTuple};
use crate::text::Id;

/// What all groups of an ENI say together. It depends on the groups alone: ENIs that are in the same groups have equal policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The type of all groups; none without groups.
    group_type: Option<GroupType>,
    /// The rules, those that decide first before the others.
    rules: Vec<Arc<PolicyRule>>,
    /// The addresses of the members of each group whose inner access policy is accept.
    open: Vec<Arc<[Cidr]>>,
    /// The addresses of the members of each group whose inner access policy is drop.
    isolated: Vec<Arc<[Cidr]>>,
}

/// A rule as a part of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// The group whose rule it is.
    pub group_id: Id,
    /// The rule.
    pub rule: Rule,
    /// The addresses that its peer stands for.
    pub peers: Arc<[Cidr]>,
}

/// What becomes of a packet that opens a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is allowed.
    pub action: Action,
    /// What decided.
    pub reason: Reason,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The ENI is in no group.
    NoGroup,
    /// The peer is a member of a group that the ENI is in too, and that group's inner access policy.
    InnerAccess,
    /// A rule.
    Rule(Arc<PolicyRule>),
    /// No rule matched.
    Default,
}

impl Reason {
    /// The rule, if one decided.
    #[must_use]
    pub fn rule(&self) -> Option<&PolicyRule> {
        match self {
            Self::Rule(rule) => Some(rule),
            Self::NoGroup | Self::InnerAccess | Self::Default => None,
        }
    }

    /// As reports spell it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoGroup => "no-group",
            Self::InnerAccess => "inner-access-policy",
            Self::Rule(_) => "rule",
            Self::Default => "default",
        }
    }
}

impl From<Access> for Action {
    fn from(access: Access) -> Self {
        match access {
            Access::Accept => Self::Accept,
            Access::Drop => Self::Reject,
        }
    }
}

/// The two ends of a packet, as the ENI sees them.
pub(super) struct Ends {
    pub(super) peer: IpAddr,
    pub(super) local: IpAddr,
}

impl Ends {
    pub(super) const fn of(direction: Direction, flow: &FlowTuple) -> Self {
        match direction {
            Direction::In => Self {
                peer: flow.src_addr,
                local: flow.dst_addr,
            },
            Direction::Out => Self {
                peer: flow.dst_addr,
                local: flow.src_addr,
            },
        }
    }
}

impl PolicyRule {
    /// Whether the rule is about this packet.
    #[must_use]
    pub fn matches(&self, direction: Direction, flow: &FlowTuple) -> bool {
        let Ends { peer, local } = Ends::of(direction, flow);
        self.rule.direction == direction
            && self.rule.matches_protocol_and_ports(flow)
            && self.rule.local.is_none_or(|cidr| cidr.contains(local))
            && contain(&self.peers, peer)
    }

    /// What decides which of several rules that match comes first: the priority; at equal priority drop before accept; and then the
    /// id, which changes no action, so that the same rule is named whatever the order of groups and rules.
    fn rank(&self) -> (u8, bool, &Id) {
        let Rule {
            priority,
            policy,
            id,
            ..
        } = &self.rule;
        (*priority, *policy == Access::Accept, id)
    }
}

/// As in `sgr-1 (sg-web): drop TCP 22/22 from 10.0.0.0/8, priority 1`.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.rule.id, self.group_id, self.rule)
    }
}

impl Policy {
    pub(super) fn new(groups: &SecurityGroups, group_ids: &[Id]) -> Self {
        let mut policy = Self::default();
        let mut ids: Vec<&Id> = group_ids.iter().collect();
        ids.sort_unstable();
        ids.dedup();
        for group in ids.into_iter().filter_map(|id| groups.group(id)) {
            policy.group_type = Some(group.group_type);
            let members = groups.members(&group.id);
            match group.inner_access_policy {
                Access::Accept => policy.open.push(members),
                Access::Drop => policy.isolated.push(members),
            }
            policy.rules.extend(group.rules.iter().map(|rule| {
                Arc::new(PolicyRule {
                    group_id: group.id.clone(),
                    rule: rule.clone(),
                    peers: groups.cidrs(&rule.peer),
                })
            }));
        }
        policy.rules.sort_by(|a, b| a.rank().cmp(&b.rank()));
        policy
    }

    /// What becomes of a packet that opens a session, and why. Ports are 0 where the protocol has none, or where a packet, a later
    /// fragment, does not tell them.
    ///
    /// 1. Without any group, all is accepted.
    /// 2. Members of a group whose inner access policy is accept talk to each other, whatever the rules.
    /// 3. Of the rules that match, that of the lowest priority decides; at equal priority drop does.
    /// 4. Members of a group whose inner access policy is drop do not talk to each other.
    /// 5. Basic groups accept what goes out; everything else is rejected.
    #[must_use]
    pub fn decide(&self, direction: Direction, flow: &FlowTuple) -> Verdict {
        let Some(group_type) = self.group_type else {
            return Verdict::new(Action::Accept, Reason::NoGroup);
        };
        let Ends { peer, .. } = Ends::of(direction, flow);
        if self.open.iter().any(|members| contain(members, peer)) {
            return Verdict::new(Action::Accept, Reason::InnerAccess);
        }
        let deciding = self
            .rules
            .iter()
            .filter(|rule| rule.matches(direction, flow))
            .min_by_key(|rule| rule.rank());
        if let Some(rule) = deciding {
            return Verdict::new(rule.rule.policy.into(), Reason::Rule(Arc::clone(rule)));
        }
        if self.isolated.iter().any(|members| contain(members, peer)) {
            return Verdict::new(Action::Reject, Reason::InnerAccess);
        }
        Verdict::new(default_action(group_type, direction), Reason::Default)
    }

    /// All rules that match the packet, the deciding one first.
    pub fn matching(
        &self,
        direction: Direction,
        flow: &FlowTuple,
    ) -> impl Iterator<Item = &Arc<PolicyRule>> {
        let rules = self.rules.iter();
        rules.filter(move |rule| rule.matches(direction, flow))
    }

    /// The type of all groups; none without groups.
    #[must_use]
    pub const fn group_type(&self) -> Option<GroupType> {
        self.group_type
    }

    /// The rules, those that decide first before the others.
    #[must_use]
    pub fn rules(&self) -> &[Arc<PolicyRule>] {
        &self.rules
    }

    /// The addresses of members, group by group, that come before the rules (accept) or after them (drop).
    pub(super) fn inner(&self, access: Access) -> &[Arc<[Cidr]>] {
        match access {
            Access::Accept => &self.open,
            Access::Drop => &self.isolated,
        }
    }
}

impl Verdict {
    pub(super) const fn new(action: Action, reason: Reason) -> Self {
        Self { action, reason }
    }
}

/// What holds where no rule matches.
pub(super) const fn default_action(group_type: GroupType, direction: Direction) -> Action {
    match (group_type, direction) {
        (GroupType::Normal, Direction::Out) => Action::Accept,
        (GroupType::Normal, Direction::In) | (GroupType::Enterprise, _) => Action::Reject,
    }
}

fn contain(cidrs: &[Cidr], address: IpAddr) -> bool {
    cidrs.iter().any(|cidr| cidr.contains(address))
}

#[cfg(test)]
mod tests;
