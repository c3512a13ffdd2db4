//! Security groups: which packets of an ENI are allowed.
//!
//! They stand in the inventory, with the attribute names of the product's API in kebab-case:
//!
//! | table, key | default | allowed |
//! |---|---|---|
//! | **`[[security-group]]`** | | |
//! | `security-group-id` | required, unique | an [`Id`] |
//! | `vpc-id` | required | an [`Id`]; its members and the groups that its rules name are in the same VPC |
//! | `security-group-type` | `normal` | `normal` (basic), `enterprise` (advanced) |
//! | `inner-access-policy` | `accept`; `drop` of an advanced group | `accept`, `drop`; only `drop` of an advanced group |
//! | `description` | none | 1 to 512 characters |
//! | **`[[security-group.rule]]`** | | |
//! | `security-group-rule-id` | required, unique among all groups | an [`Id`] |
//! | `direction` | required | `ingress`, `egress` |
//! | `policy` | `accept` | `accept`, `drop` |
//! | `ip-protocol` | required | `TCP`, `UDP`, `ICMP`, `ICMPv6`, `GRE`, `ALL`, an IANA number |
//! | `port-range` | required of protocols with ports, else `-1/-1` | `first/last` of 1 to 65535, `-1/-1` for all; only that without ports |
//! | `priority` | 1 | 1 to 100 |
//! | `source-cidr-ip`, `ipv6-source-cidr-ip`, `source-group-id`, `source-prefix-list-id` | one is required for ingress | |
//! | `dest-cidr-ip`, `ipv6-dest-cidr-ip`, `dest-group-id`, `dest-prefix-list-id` | one is required for egress | |
//! | `source-port-range` | `-1/-1` | as `port-range`; makes a five-tuple rule |
//! | `dest-cidr-ip`, `ipv6-dest-cidr-ip` for ingress; `source-…` for egress | none | the local address; makes a five-tuple rule |
//! | `description` | none | 1 to 512 characters |
//! | **`[[prefix-list]]`** | | |
//! | `prefix-list-id` | required, unique | an [`Id`] |
//! | `address-family` | `IPv4` | `IPv4`, `IPv6` |
//! | `entry` | none | up to [`MAX_ENTRIES_PER_PREFIX_LIST`] of `{ cidr, description }` |
//! | `description` | none | 1 to 512 characters |
//! | **`[[eni]]`, `[[remote-eni]]`** | | |
//! | `security-group-ids` | none | up to [`MAX_GROUPS_PER_ENI`] groups of one type in the ENI's VPC |
//! | `private-ip-addresses`, `ipv6-addresses` | none | together up to [`MAX_ADDRESSES_PER_ENI`]; by these others know the group's members |
//! | **`[[eni]]`** | | |
//! | `security-mode` | `observe` of an ENI that has groups, else `off` | `off`, `observe`, `enforce` |
//!
//! [`Policy::decide`] says what the rules make of a packet that opens a session. It is written to be obviously right, and is the
//! reference for [`compile`], the form in which the kernel has it. [`session`] says what becomes of the packets that follow.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spelled_enum;
use crate::text::Id;

mod attachment;
mod cidr;
pub mod compile;
mod described;
mod policy;
mod protocol;
mod raw;
mod rule;
pub mod session;

pub use attachment::Attachment;
pub(crate) use attachment::{Address, RawAttachment, Use};
pub use cidr::{AddressFamily, Cidr};
pub use described::DescribedPacket;
pub use policy::{Policy, PolicyRule, Reason, Verdict};
pub use protocol::{IpProtocol, PortRange, has_ports};
pub(crate) use raw::{RawGroup, RawPrefixList, read};
pub use rule::{Access, Description, Peer, Rule};

/// Most security groups that an inventory can have.
pub const MAX_GROUPS: usize = 16_384;

/// Most prefix lists that an inventory can have.
pub const MAX_PREFIX_LISTS: usize = 4_096;

/// Most entries that a prefix list can have.
pub const MAX_ENTRIES_PER_PREFIX_LIST: usize = 1_000;

/// Most groups that an ENI can be in.
pub const MAX_GROUPS_PER_ENI: usize = 16;

/// Most addresses, of both families together, that an ENI can have.
pub const MAX_ADDRESSES_PER_ENI: usize = 256;

/// Most rules of one direction that all groups of an ENI can have together.
pub const MAX_RULES_PER_DIRECTION: usize = 1_000;

/// Most blocks of addresses that the rules of one direction can name for all groups of an ENI together, those of prefix lists and of
/// members of groups included.
pub const MAX_CIDRS_PER_DIRECTION: usize = 65_536;

spelled_enum! {
    /// What is done with the security groups' verdict.
    #[derive(Default)]
    pub enum SecurityMode {
        /// Nothing is judged.
        #[default]
        Off = "off",
        /// The verdict is recorded, and the packet passes.
        Observe = "observe",
        /// The verdict is recorded, and a rejected packet is dropped.
        Enforce = "enforce",
    }
}

spelled_enum! {
    /// What holds where no rule matches.
    #[derive(Default)]
    pub enum GroupType {
        /// A basic group: `in` is denied, `out` is allowed.
        #[default]
        Normal = "normal",
        /// An advanced group: both ways are denied, also between members.
        Enterprise = "enterprise",
    }
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// `security-group-id`.
    pub id: Id,
    /// The VPC in which its members are.
    pub vpc_id: Id,
    /// What holds where no rule matches.
    pub group_type: GroupType,
    /// Whether members talk to each other: accept comes before all rules, drop after all.
    pub inner_access_policy: Access,
    /// Description.
    pub description: Option<Description>,
    /// Its rules, in the order of the file.
    pub rules: Vec<Rule>,
}

/// A prefix list: blocks of addresses that many rules can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixList {
    /// `prefix-list-id`.
    pub id: Id,
    /// The family of all its blocks.
    pub address_family: AddressFamily,
    /// The blocks.
    pub cidrs: Arc<[Cidr]>,
    /// Description.
    pub description: Option<Description>,
}

/// All security groups of an inventory, with what their rules name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityGroups {
    groups: BTreeMap<Id, SecurityGroup>,
    prefix_lists: BTreeMap<Id, PrefixList>,
    /// The addresses of each group's members, each once.
    members: BTreeMap<Id, Arc<[Cidr]>>,
}

impl SecurityGroups {
    /// Groups without members. Of two with one id the later counts.
    pub fn new(
        groups: impl IntoIterator<Item = SecurityGroup>,
        prefix_lists: impl IntoIterator<Item = PrefixList>,
    ) -> Self {
        Self {
            groups: groups
                .into_iter()
                .map(|group| (group.id.clone(), group))
                .collect(),
            prefix_lists: prefix_lists
                .into_iter()
                .map(|list| (list.id.clone(), list))
                .collect(),
            members: BTreeMap::new(),
        }
    }

    /// The same groups with these members instead of those before.
    #[must_use]
    pub fn with_members<'a>(self, members: impl IntoIterator<Item = &'a Attachment>) -> Self {
        let mut addresses: BTreeMap<&Id, Vec<Cidr>> = BTreeMap::new();
        for member in members {
            for id in &member.group_ids {
                let of_group = addresses.entry(id).or_default();
                of_group.extend(member.addresses.iter().copied().map(Cidr::from));
            }
        }
        let members = addresses
            .into_iter()
            .map(|(id, mut cidrs)| {
                cidrs.sort_unstable();
                cidrs.dedup();
                (id.clone(), cidrs.into())
            })
            .collect();
        Self { members, ..self }
    }

    /// The group of this id.
    #[must_use]
    pub fn group(&self, id: &Id) -> Option<&SecurityGroup> {
        self.groups.get(id)
    }

    /// What the groups of these ids say together, whatever their order. An id that no group has is passed over.
    #[must_use]
    pub fn policy(&self, group_ids: &[Id]) -> Policy {
        Policy::new(self, group_ids)
    }

    /// The addresses of the group's members.
    fn members(&self, id: &Id) -> Arc<[Cidr]> {
        self.members.get(id).cloned().unwrap_or_default()
    }

    /// The addresses that a peer stands for.
    fn cidrs(&self, peer: &Peer) -> Arc<[Cidr]> {
        match peer {
            Peer::Cidr(cidr) => Arc::from([*cidr]),
            Peer::Group(id) => self.members(id),
            Peer::PrefixList(id) => {
                let list = self.prefix_lists.get(id);
                list.map(|list| Arc::clone(&list.cidrs)).unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests;
