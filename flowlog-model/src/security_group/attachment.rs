//! How an ENI is attached to security groups.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use toml::Spanned;

use super::{
    AddressFamily, MAX_ADDRESSES_PER_ENI, MAX_CIDRS_PER_DIRECTION, MAX_GROUPS_PER_ENI,
    MAX_RULES_PER_DIRECTION, Peer, SecurityGroup, SecurityGroups, SecurityMode,
};
use crate::input::{Document, InputError};
use crate::record::Direction;
use crate::text::{Id, Text};

/// What an ENI has to do with security groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// What is done with the verdict.
    pub mode: SecurityMode,
    /// The groups that it is in, in the order of the file.
    pub group_ids: Vec<Id>,
    /// Its addresses, by which others know it as a member of its groups.
    pub addresses: Vec<IpAddr>,
}

/// The keys of an `[[eni]]` that are about security groups, as they are in the file.
pub(crate) struct RawAttachment {
    pub(crate) security_mode: Option<Spanned<SecurityMode>>,
    pub(crate) security_group_ids: Option<Spanned<Vec<Spanned<Id>>>>,
    pub(crate) private_ip_addresses: Vec<Spanned<Address>>,
    pub(crate) ipv6_addresses: Vec<Spanned<Address>>,
}

/// A set of groups that an ENI is in, and where the file says so.
pub(crate) struct Use {
    group_ids: Vec<Id>,
    span: Range<usize>,
}

impl RawAttachment {
    /// Checks all but whether the policy of these groups is too large, which [`Use::check`] does when all members are known.
    pub(crate) fn check(
        self,
        document: &Document<'_>,
        groups: &SecurityGroups,
        vpc_id: Option<&Id>,
    ) -> Result<(Attachment, Option<Use>), InputError> {
        let span = self.security_group_ids.as_ref().map(Spanned::span);
        let raw_ids = self
            .security_group_ids
            .map_or_else(Vec::new, Spanned::into_inner);
        check_groups(document, groups, vpc_id, &raw_ids)?;
        let group_ids: Vec<Id> = raw_ids.into_iter().map(Spanned::into_inner).collect();
        let mode = match self.security_mode {
            None if group_ids.is_empty() => SecurityMode::Off,
            None => SecurityMode::Observe,
            Some(mode) if group_ids.is_empty() && *mode.get_ref() != SecurityMode::Off => {
                return Err(document.refuse(
                    &mode.span(),
                    "allowed is off, for there is no group in `security-group-ids`",
                ));
            }
            Some(mode) => mode.into_inner(),
        };
        let mut addresses = Vec::new();
        let families = [
            (AddressFamily::V4, self.private_ip_addresses),
            (AddressFamily::V6, self.ipv6_addresses),
        ];
        for (family, raw) in families {
            for address in raw {
                addresses.push(checked_address(
                    document,
                    family,
                    &address,
                    addresses.len(),
                )?);
            }
        }
        let r#use = span.map(|span| Use {
            group_ids: group_ids.clone(),
            span,
        });
        let attachment = Attachment {
            mode,
            group_ids,
            addresses,
        };
        Ok((attachment, r#use))
    }
}

fn check_groups(
    document: &Document<'_>,
    groups: &SecurityGroups,
    vpc_id: Option<&Id>,
    ids: &[Spanned<Id>],
) -> Result<(), InputError> {
    let mut first: Option<&SecurityGroup> = None;
    let mut seen = BTreeSet::new();
    for (index, id) in ids.iter().enumerate() {
        let refuse = |clause: fmt::Arguments<'_>| Err(document.refuse(&id.span(), clause));
        if index == MAX_GROUPS_PER_ENI {
            return refuse(format_args!("allowed are {MAX_GROUPS_PER_ENI} groups"));
        }
        if !seen.insert(id.get_ref()) {
            return refuse(format_args!("allowed is each group once"));
        }
        let Some(group) = groups.group(id.get_ref()) else {
            return refuse(format_args!(
                "allowed are the ids of `[[security-group]]` in this file"
            ));
        };
        let first = first.get_or_insert(group);
        let vpc_id = vpc_id.unwrap_or(&first.vpc_id);
        if group.vpc_id != *vpc_id {
            return refuse(format_args!(
                "allowed are groups of {vpc_id}, and this one is of {}",
                group.vpc_id
            ));
        }
        if group.group_type != first.group_type {
            return refuse(format_args!(
                "allowed are groups of one type: {} is {}, and this one is {}",
                first.id, first.group_type, group.group_type
            ));
        }
    }
    Ok(())
}

fn checked_address(
    document: &Document<'_>,
    family: AddressFamily,
    address: &Spanned<Address>,
    before: usize,
) -> Result<IpAddr, InputError> {
    let Address(value) = *address.get_ref();
    if AddressFamily::of(value) != family {
        return Err(document.refuse(
            &address.span(),
            format_args!("allowed are {family} addresses"),
        ));
    }
    if before == MAX_ADDRESSES_PER_ENI {
        return Err(document.refuse(
            &address.span(),
            format_args!("allowed are {MAX_ADDRESSES_PER_ENI} addresses in all"),
        ));
    }
    Ok(value)
}

impl Use {
    /// Whether the groups together keep within the limits of a policy; each set of groups is checked once.
    pub(crate) fn check(
        document: &Document<'_>,
        groups: &SecurityGroups,
        uses: Vec<Self>,
    ) -> Result<(), InputError> {
        let mut checked = BTreeSet::new();
        for Self { group_ids, span } in uses {
            for direction in [Direction::In, Direction::Out] {
                if !checked.contains(&group_ids) {
                    check_size(groups, &group_ids, direction)
                        .map_err(|clause| document.refuse(&span, clause))?;
                }
            }
            checked.insert(group_ids);
        }
        Ok(())
    }
}

/// Says what is allowed, if the groups have too many rules or too many addresses.
fn check_size(
    groups: &SecurityGroups,
    group_ids: &[Id],
    direction: Direction,
) -> Result<(), String> {
    let groups_of_eni = || group_ids.iter().filter_map(|id| groups.group(id));
    let rules = groups_of_eni()
        .flat_map(|group| &group.rules)
        .filter(|rule| rule.direction == direction);
    let mut count = 0;
    let mut single = BTreeSet::new();
    let mut named: BTreeMap<(bool, &Id), usize> = groups_of_eni()
        .map(|group| ((true, &group.id), groups.members(&group.id).len()))
        .collect();
    for rule in rules {
        count += 1;
        match &rule.peer {
            Peer::Cidr(cidr) => {
                single.insert(*cidr);
            }
            Peer::Group(id) => {
                named.insert((true, id), groups.cidrs(&rule.peer).len());
            }
            Peer::PrefixList(id) => {
                named.insert((false, id), groups.cidrs(&rule.peer).len());
            }
        }
    }
    if count > MAX_RULES_PER_DIRECTION {
        return Err(format!(
            "allowed are {MAX_RULES_PER_DIRECTION} rules of each direction, and its groups have {count} for `{}`",
            direction.as_str()
        ));
    }
    let cidrs = single.len() + named.values().sum::<usize>();
    if cidrs > MAX_CIDRS_PER_DIRECTION {
        return Err(format!(
            "allowed are {MAX_CIDRS_PER_DIRECTION} blocks of addresses for each direction, and with members and prefix lists its \
             groups have {cidrs} for `{}`",
            direction.as_str()
        ));
    }
    Ok(())
}

/// An address as the file has it.
#[derive(Clone, Copy)]
pub(crate) struct Address(IpAddr);

impl Text for Address {
    fn allowed() -> String {
        "allowed are IPv4 and IPv6 addresses".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize_text(deserializer)
    }
}
