//! Security groups and prefix lists as they are in the file, and what is checked of them.
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::rule::RuleDirection;
use super::{
    Access, AddressFamily, Cidr, Description, GroupType, IpProtocol, MAX_ENTRIES_PER_PREFIX_LIST,
    MAX_GROUPS, MAX_PREFIX_LISTS, Peer, PortRange, PrefixList, Rule, SecurityGroup, SecurityGroups,
};
use crate::input::{Document, InputError, Table};
use crate::record::Direction;
use crate::text::{Id, WholeNumber};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawGroup {
    security_group_id: Spanned<Id>,
    vpc_id: Id,
    #[serde(default)]
    security_group_type: GroupType,
    inner_access_policy: Option<Spanned<Access>>,
    description: Option<Description>,
    #[serde(default)]
    rule: Vec<Spanned<Table<RawRule>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawRule {
    security_group_rule_id: Spanned<Id>,
    direction: RuleDirection,
    policy: Option<Access>,
    ip_protocol: IpProtocol,
    port_range: Option<Spanned<PortRange>>,
    source_port_range: Option<Spanned<PortRange>>,
    priority: Option<WholeNumber<1, 100>>,
    source_cidr_ip: Option<Spanned<Cidr>>,
    ipv6_source_cidr_ip: Option<Spanned<Cidr>>,
    source_group_id: Option<Spanned<Id>>,
    source_prefix_list_id: Option<Spanned<Id>>,
    dest_cidr_ip: Option<Spanned<Cidr>>,
    ipv6_dest_cidr_ip: Option<Spanned<Cidr>>,
    dest_group_id: Option<Spanned<Id>>,
    dest_prefix_list_id: Option<Spanned<Id>>,
    description: Option<Description>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawPrefixList {
    prefix_list_id: Spanned<Id>,
    address_family: Option<AddressFamily>,
    description: Option<Description>,
    #[serde(default)]
    entry: Vec<Spanned<Table<RawEntry>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawEntry {
    cidr: Spanned<Cidr>,
    /// Read, so that it can stand in the file, and not kept.
    #[serde(rename = "description")]
    _description: Option<Description>,
}

/// Checks groups and prefix lists; the groups are still without members.
///
/// # Errors
/// [`InputError`] for something that is not allowed, such as a rule that names a group that there is not.
pub(crate) fn read(
    document: &Document<'_>,
    groups: Vec<Spanned<Table<RawGroup>>>,
    prefix_lists: Vec<Spanned<Table<RawPrefixList>>>,
) -> Result<SecurityGroups, InputError> {
    limit(document, &groups, MAX_GROUPS, "security groups")?;
    limit(document, &prefix_lists, MAX_PREFIX_LISTS, "prefix lists")?;
    let mut reader = Reader {
        document,
        prefix_lists: Ids::new("prefix-list-id"),
        groups: Ids::new("security-group-id"),
        rules: Ids::new("security-group-rule-id"),
        named: Vec::new(),
    };
    let lists = prefix_lists
        .into_iter()
        .map(|raw| reader.prefix_list(raw.into_inner().0))
        .collect::<Result<Vec<_>, _>>()?;
    let groups = groups
        .into_iter()
        .map(|raw| reader.group(raw.into_inner().0))
        .collect::<Result<Vec<_>, _>>()?;
    let named = std::mem::take(&mut reader.named);
    let groups = SecurityGroups::new(groups, lists);
    for peer in named {
        peer.check(document, &groups)?;
    }
    Ok(groups)
}

struct Reader<'d> {
    document: &'d Document<'d>,
    prefix_lists: Ids,
    groups: Ids,
    rules: Ids,
    /// What rules name, to be checked when all is read.
    named: Vec<NamedPeer>,
}

impl Reader<'_> {
    fn prefix_list(&mut self, raw: RawPrefixList) -> Result<PrefixList, InputError> {
        let RawPrefixList {
            prefix_list_id,
            address_family,
            description,
            entry,
        } = raw;
        limit(
            self.document,
            &entry,
            MAX_ENTRIES_PER_PREFIX_LIST,
            "entries",
        )?;
        let address_family = address_family.unwrap_or(AddressFamily::V4);
        let cidrs = entry
            .into_iter()
            .map(|entry| self.of_family(entry.into_inner().0.cidr, address_family))
            .collect::<Result<_, _>>()?;
        Ok(PrefixList {
            id: self.prefix_lists.take(self.document, prefix_list_id)?,
            address_family,
            cidrs,
            description,
        })
    }

    fn group(&mut self, raw: RawGroup) -> Result<SecurityGroup, InputError> {
        let RawGroup {
            security_group_id,
            vpc_id,
            security_group_type: group_type,
            inner_access_policy,
            description,
            rule,
        } = raw;
        let inner_access_policy = match (group_type, inner_access_policy) {
            (GroupType::Enterprise, Some(access)) if *access.get_ref() == Access::Accept => {
                let clause = "allowed is drop, for members of an advanced group are isolated";
                return Err(self.document.refuse(&access.span(), clause));
            }
            (_, Some(access)) => access.into_inner(),
            (GroupType::Normal, None) => Access::Accept,
            (GroupType::Enterprise, None) => Access::Drop,
        };
        let mut group = SecurityGroup {
            id: self.groups.take(self.document, security_group_id)?,
            vpc_id,
            group_type,
            inner_access_policy,
            description,
            rules: Vec::with_capacity(rule.len()),
        };
        for raw in rule {
            let span = raw.span();
            let rule = self.rule(raw.into_inner().0, &span, &group)?;
            group.rules.push(rule);
        }
        Ok(group)
    }

    fn rule(
        &mut self,
        raw: RawRule,
        span: &Range<usize>,
        group: &SecurityGroup,
    ) -> Result<Rule, InputError> {
        let RawRule {
            security_group_rule_id,
            direction,
            policy,
            ip_protocol: protocol,
            port_range,
            source_port_range,
            priority,
            source_cidr_ip,
            ipv6_source_cidr_ip,
            source_group_id,
            source_prefix_list_id,
            dest_cidr_ip,
            ipv6_dest_cidr_ip,
            dest_group_id,
            dest_prefix_list_id,
            description,
        } = raw;
        let source = RawEnd {
            cidr: source_cidr_ip,
            ipv6_cidr: ipv6_source_cidr_ip,
            group_id: source_group_id,
            prefix_list_id: source_prefix_list_id,
        };
        let dest = RawEnd {
            cidr: dest_cidr_ip,
            ipv6_cidr: ipv6_dest_cidr_ip,
            group_id: dest_group_id,
            prefix_list_id: dest_prefix_list_id,
        };
        let (peer, local, words) = match direction {
            RuleDirection::Ingress => (source, dest, ["source", "dest"]),
            RuleDirection::Egress => (dest, source, ["dest", "source"]),
        };
        if port_range.is_none() && protocol.has_ports() {
            let clause = "a rule for a protocol with ports needs it, as in 80/80, or -1/-1 for all";
            return Err(self.document.missing(span, "port-range", clause));
        }
        let peer = self.peer(peer, span, words[0], direction, group)?;
        let local = self.local(local, &peer, words[1], direction)?;
        Ok(Rule {
            id: self.rules.take(self.document, security_group_rule_id)?,
            direction: Direction::from(direction),
            policy: policy.unwrap_or(Access::Accept),
            protocol,
            priority: priority.map_or(1, |number| u8::try_from(number.get()).unwrap_or(u8::MAX)),
            peer,
            local,
            src_ports: self.ports(source_port_range, protocol)?,
            dst_ports: self.ports(port_range, protocol)?,
            description,
        })
    }

    fn ports(
        &self,
        range: Option<Spanned<PortRange>>,
        protocol: IpProtocol,
    ) -> Result<PortRange, InputError> {
        match range {
            None => Ok(PortRange::ALL),
            Some(range) if *range.get_ref() != PortRange::ALL && !protocol.has_ports() => {
                let clause = format_args!("allowed is -1/-1, for {protocol} has no ports");
                Err(self.document.refuse(&range.span(), clause))
            }
            Some(range) => Ok(range.into_inner()),
        }
    }

    /// Who is at the other end: exactly one of the four.
    fn peer(
        &mut self,
        end: RawEnd,
        span: &Range<usize>,
        word: &str,
        direction: RuleDirection,
        group: &SecurityGroup,
    ) -> Result<Peer, InputError> {
        let one_of = format!(
            "{word}-cidr-ip, ipv6-{word}-cidr-ip, {word}-group-id and {word}-prefix-list-id"
        );
        let mut given = end.given(self)?.into_iter();
        let Some((peer_span, peer)) = given.next() else {
            let clause = format_args!("an {direction} rule needs one of {one_of}");
            return Err(self
                .document
                .missing(span, &format!("{word}-cidr-ip"), clause));
        };
        if let Some((second, _)) = given.next() {
            let clause = format_args!("allowed is only one of {one_of}");
            return Err(self.document.refuse(&second, clause));
        }
        if matches!(peer, Peer::Group(_)) && group.group_type == GroupType::Enterprise {
            let clause = "allowed in an advanced group are blocks of addresses and prefix lists";
            return Err(self.document.refuse(&peer_span, clause));
        }
        if !matches!(peer, Peer::Cidr(_)) {
            self.named.push(NamedPeer {
                peer: peer.clone(),
                vpc_id: group.vpc_id.clone(),
                span: peer_span,
            });
        }
        Ok(peer)
    }

    /// The local addresses of a five-tuple rule.
    fn local(
        &self,
        end: RawEnd,
        peer: &Peer,
        word: &str,
        direction: RuleDirection,
    ) -> Result<Option<Cidr>, InputError> {
        let mut local = None;
        for (span, end) in end.given(self)? {
            let refuse = |clause: fmt::Arguments<'_>| Err(self.document.refuse(&span, clause));
            let Peer::Cidr(cidr) = end else {
                return refuse(format_args!(
                    "allowed of the {word} of an {direction} rule are {word}-cidr-ip and ipv6-{word}-cidr-ip"
                ));
            };
            if local.is_some() {
                return refuse(format_args!(
                    "allowed is only one of {word}-cidr-ip and ipv6-{word}-cidr-ip"
                ));
            }
            if let Peer::Cidr(other) = peer
                && other.family() != cidr.family()
            {
                return refuse(format_args!(
                    "allowed are source and destination of one family, and {other} is {}",
                    other.family()
                ));
            }
            local = Some(cidr);
        }
        Ok(local)
    }

    fn of_family(&self, cidr: Spanned<Cidr>, family: AddressFamily) -> Result<Cidr, InputError> {
        if cidr.get_ref().family() == family {
            return Ok(cidr.into_inner());
        }
        let clause = format_args!("allowed are {family} addresses");
        Err(self.document.refuse(&cidr.span(), clause))
    }
}

/// The source or the destination of a rule, as it is in the file.
struct RawEnd {
    cidr: Option<Spanned<Cidr>>,
    ipv6_cidr: Option<Spanned<Cidr>>,
    group_id: Option<Spanned<Id>>,
    prefix_list_id: Option<Spanned<Id>>,
}

impl RawEnd {
    /// What is given of the four.
    fn given(self, reader: &Reader<'_>) -> Result<Vec<(Range<usize>, Peer)>, InputError> {
        let mut given = Vec::new();
        let cidrs = [
            (self.cidr, AddressFamily::V4),
            (self.ipv6_cidr, AddressFamily::V6),
        ];
        for (cidr, family) in cidrs {
            if let Some(cidr) = cidr {
                given.push((cidr.span(), Peer::Cidr(reader.of_family(cidr, family)?)));
            }
        }
        let group = self
            .group_id
            .map(|id| (id.span(), Peer::Group(id.into_inner())));
        let list = self
            .prefix_list_id
            .map(|id| (id.span(), Peer::PrefixList(id.into_inner())));
        given.extend(group.into_iter().chain(list));
        Ok(given)
    }
}

/// A group or a prefix list that a rule names.
struct NamedPeer {
    peer: Peer,
    /// The VPC of the rule's group.
    vpc_id: Id,
    span: Range<usize>,
}

impl NamedPeer {
    fn check(&self, document: &Document<'_>, groups: &SecurityGroups) -> Result<(), InputError> {
        let Self { peer, vpc_id, span } = self;
        let refuse = |clause: fmt::Arguments<'_>| Err(document.refuse(span, clause));
        match peer {
            Peer::Group(id) => match groups.group(id) {
                None => refuse(format_args!(
                    "allowed are the ids of `[[security-group]]` in this file"
                )),
                Some(group) if group.vpc_id != *vpc_id => refuse(format_args!(
                    "allowed are groups of {vpc_id}, and this one is of {}",
                    group.vpc_id
                )),
                Some(_) => Ok(()),
            },
            Peer::PrefixList(id) if !groups.prefix_lists.contains_key(id) => refuse(format_args!(
                "allowed are the ids of `[[prefix-list]]` in this file"
            )),
            Peer::PrefixList(_) | Peer::Cidr(_) => Ok(()),
        }
    }
}

/// Ids of one kind, each of which may be given once.
struct Ids {
    key: &'static str,
    spans: HashMap<Id, Range<usize>>,
}

impl Ids {
    fn new(key: &'static str) -> Self {
        Self {
            key,
            spans: HashMap::new(),
        }
    }

    fn take(&mut self, document: &Document<'_>, id: Spanned<Id>) -> Result<Id, InputError> {
        let span = id.span();
        let id = id.into_inner();
        if let Some(earlier) = self.spans.insert(id.clone(), span.clone()) {
            let clause = format_args!(
                "allowed is each {} once, and line {} has this one already",
                self.key,
                document.line(&earlier)
            );
            return Err(document.refuse(&span, clause));
        }
        Ok(id)
    }
}

fn limit<T>(
    document: &Document<'_>,
    items: &[Spanned<T>],
    most: usize,
    what: &str,
) -> Result<(), InputError> {
    match items.get(most) {
        Some(item) => Err(document.refuse(&item.span(), format_args!("allowed are {most} {what}"))),
        None => Ok(()),
    }
}
