//! A rule of a security group.
use std::fmt;

use super::{Cidr, IpProtocol, PortRange};
use crate::record::{Direction, FlowTuple};
use crate::text::{Id, Text};
use crate::{spelled_enum, text_type};

/// A rule. Its *peer* is the source of an ingress rule and the destination of an egress rule; its *local* side is the other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `security-group-rule-id`.
    pub id: Id,
    /// In for `ingress`, out for `egress`.
    pub direction: Direction,
    /// What becomes of packets that match.
    pub policy: Access,
    /// Which protocol matches.
    pub protocol: IpProtocol,
    /// 1 to 100; of the rules that match, that with the lowest decides.
    pub priority: u8,
    /// Who is at the other end.
    pub peer: Peer,
    /// Local addresses that match; all if none. Of five-tuple rules only.
    pub local: Option<Cidr>,
    /// Source ports that match; all but in five-tuple rules.
    pub src_ports: PortRange,
    /// Destination ports that match.
    pub dst_ports: PortRange,
    /// Description.
    pub description: Option<Description>,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address of this block.
    Cidr(Cidr),
    /// An address of an ENI that is a member of this group.
    Group(Id),
    /// An address of this prefix list.
    PrefixList(Id),
}

impl Rule {
    /// Whether protocol and ports match. Ports are 0 where a packet has none or does not tell them; only a rule for all ports
    /// matches that.
    #[must_use]
    pub fn matches_protocol_and_ports(&self, flow: &FlowTuple) -> bool {
        self.protocol.contains(flow.protocol)
            && self.src_ports.contains(flow.src_port)
            && self.dst_ports.contains(flow.dst_port)
    }
}

/// As in `drop TCP 22/22 from 10.0.0.0/8, priority 1`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.policy, self.protocol, self.dst_ports)?;
        let (peer, local) = match self.direction {
            Direction::In => ("from", "to"),
            Direction::Out => ("to", "from"),
        };
        match &self.peer {
            Peer::Cidr(cidr) => write!(f, " {peer} {cidr}")?,
            Peer::Group(id) => write!(f, " {peer} group {id}")?,
            Peer::PrefixList(id) => write!(f, " {peer} prefix list {id}")?,
        }
        if let Some(cidr) = self.local {
            write!(f, " {local} {cidr}")?;
        }
        if self.src_ports != PortRange::ALL {
            write!(f, ", source ports {}", self.src_ports)?;
        }
        write!(f, ", priority {}", self.priority)
    }
}

/// Accept or drop, in any case of letters, as the product takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Packets are allowed.
    Accept,
    /// Packets are not allowed.
    Drop,
}

impl Text for Access {
    fn allowed() -> String {
        "allowed are accept and drop".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let is = |word| text.eq_ignore_ascii_case(word);
        match () {
            () if is("accept") => Some(Self::Accept),
            () if is("drop") => Some(Self::Drop),
            () => None,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        })
    }
}

spelled_enum! {
    /// The direction of a rule, as the product spells it.
    pub(super) enum RuleDirection {
        Ingress = "ingress",
        Egress = "egress",
    }
}

impl From<RuleDirection> for Direction {
    fn from(direction: RuleDirection) -> Self {
        match direction {
            RuleDirection::Ingress => Self::In,
            RuleDirection::Egress => Self::Out,
        }
    }
}

/// What people say of a group, a rule or a prefix list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description(String);

impl Description {
    /// The description as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for Description {
    fn allowed() -> String {
        "allowed are 1 to 512 characters on one line".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let legal = (1..=512).contains(&text.chars().count()) && !text.contains(char::is_control);
        legal.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Access, Description);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_in_any_case() {
        for (text, access) in [
            ("accept", Access::Accept),
            ("Accept", Access::Accept),
            ("DROP", Access::Drop),
        ] {
            assert_eq!(text.parse(), Ok(access));
        }
        assert!("allow".parse::<Access>().is_err());
    }
}
