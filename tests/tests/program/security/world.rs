//! A small world, so that blocks of addresses and ranges of ports overlap and packets meet rules: random policies and 5-tuples in it.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowlog_model::{
    record::{Direction, FlowTuple},
    security_group::{
        Access, AddressFamily, Attachment, Cidr, GroupType, IpProtocol, Peer, Policy, PortRange,
        PrefixList, Rule, SecurityGroup, SecurityGroups, SecurityMode,
    },
    text::Id,
};

const V4_ENDS: [u8; 6] = [0, 1, 2, 127, 128, 255];
const V6_SUBNETS: [u16; 3] = [0, 1, 0x8000];
const V6_ENDS: [u16; 4] = [0, 1, 2, 0xffff];
const PORT_EDGES: [u16; 10] = [1, 2, 79, 80, 81, 443, 1023, 1024, 65534, 65535];
const LENGTHS: [u8; 16] = [
    0, 1, 8, 14, 15, 16, 22, 23, 24, 25, 31, 32, 48, 64, 127, 128,
];
const GROUPS: [&str; 3] = ["sg-1", "sg-2", "sg-3"];
const LISTS: [&str; 2] = ["pl-4", "pl-6"];

/// `SplitMix64`. To draw each value by a strategy would take most of a test's time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn of<T: Clone>(&mut self, values: &[T]) -> T {
        let index = self.below(values.len());
        values[index].clone()
    }

    /// True in one of so many cases.
    pub(crate) fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    pub(crate) fn direction(&mut self) -> Direction {
        self.of(&[Direction::In, Direction::Out])
    }

    pub(crate) fn address_of(&mut self, family: AddressFamily) -> IpAddr {
        match family {
            AddressFamily::V4 => {
                let [b, c] = [0; 2].map(|_: u8| self.of(&[0, 1, 2, 3]));
                IpAddr::V4(Ipv4Addr::new(10, b, c, self.of(&V4_ENDS)))
            }
            AddressFamily::V6 => {
                let (subnet, end) = (self.of(&V6_SUBNETS), self.of(&V6_ENDS));
                IpAddr::V6(Ipv6Addr::new(0xfd00, subnet, 0, 0, 0, 0, 0, end))
            }
        }
    }

    pub(crate) fn family(&mut self) -> AddressFamily {
        use AddressFamily::{V4, V6};
        self.of(&[V4, V4, V4, V6, V6])
    }

    fn cidr(&mut self) -> Cidr {
        let family = self.family();
        let address = self.address_of(family);
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Cidr::new(address, self.of(&LENGTHS).min(bits)).expect("a length that the family has")
    }

    /// A port, which is not 0.
    pub(crate) fn port(&mut self) -> u16 {
        match self.below(4) {
            0 | 1 => self.of(&PORT_EDGES),
            2 => self.below(200) as u16 + 1,
            _ => (self.next() as u16).max(1),
        }
    }

    fn ports(&mut self) -> PortRange {
        if self.below(5) < 2 {
            return PortRange::ALL;
        }
        let (a, b) = (self.port(), self.port());
        PortRange::new(a.min(b)..=a.max(b)).expect("in order")
    }

    fn peer(&mut self) -> Peer {
        match self.below(8) {
            0 => Peer::Group(id(self.of(&GROUPS))),
            1 => Peer::PrefixList(id(self.of(&LISTS))),
            _ => Peer::Cidr(self.cidr()),
        }
    }

    fn rule(&mut self, rule_id: &str, direction: Option<Direction>) -> Rule {
        let number = self.of(&[None, Some(1), Some(6), Some(6), Some(6), Some(17), Some(58)]);
        Rule {
            id: id(rule_id),
            direction: direction.unwrap_or_else(|| self.direction()),
            policy: self.of(&[Access::Accept, Access::Drop]),
            protocol: number.map_or(IpProtocol::ALL, IpProtocol::from_number),
            priority: self.below(4) as u8 + 1,
            peer: self.peer(),
            local: self.one_in(5).then(|| self.cidr()),
            src_ports: if self.one_in(5) {
                self.ports()
            } else {
                PortRange::ALL
            },
            dst_ports: self.ports(),
            description: None,
        }
    }

    /// Two groups with so many rules each, all of one direction if one is given, and one that is only named by rules. The ENI is in the
    /// first two, in one or in none.
    pub(crate) fn policy(&mut self, rules: [usize; 2], direction: Option<Direction>) -> Policy {
        let group_type = self.of(&[GroupType::Normal, GroupType::Enterprise]);
        let groups: Vec<SecurityGroup> = GROUPS
            .into_iter()
            .zip([rules[0], rules[1], 0])
            .map(|(group_id, count)| SecurityGroup {
                id: id(group_id),
                vpc_id: id("vpc-1"),
                group_type,
                inner_access_policy: self.of(&[Access::Accept, Access::Drop, Access::Drop]),
                description: None,
                // Not in the order of the rules.
                rules: (0..count)
                    .map(|index| {
                        self.rule(&format!("{:04}-{group_id}", index * 7 % 1000), direction)
                    })
                    .collect(),
            })
            .collect();
        let families = [AddressFamily::V4, AddressFamily::V6];
        let lists = LISTS.into_iter().zip(families).map(|(list_id, family)| {
            let cidrs = (0..self.below(8)).map(|_| self.cidr());
            PrefixList {
                id: id(list_id),
                address_family: family,
                cidrs: cidrs.filter(|cidr| cidr.family() == family).collect(),
                description: None,
            }
        });
        let lists: Vec<PrefixList> = lists.collect();
        let members: Vec<Attachment> = (0..self.below(12))
            .map(|_| {
                let family = self.family();
                Attachment {
                    mode: SecurityMode::Observe,
                    group_ids: vec![id(self.of(&GROUPS))],
                    addresses: vec![self.address_of(family)],
                }
            })
            .collect();
        let memberships = self.of(&[0_usize, 1, 1, 1, 2, 2, 2, 2]);
        let ids: Vec<Id> = GROUPS[..memberships]
            .iter()
            .map(|group| id(group))
            .collect();
        SecurityGroups::new(groups, lists)
            .with_members(&members)
            .policy(&ids)
    }

    /// The 5-tuple of a packet, with ports where its protocol has them.
    pub(crate) fn flow(&mut self) -> FlowTuple {
        let family = self.family();
        let protocol = self.of(&[1, 6, 6, 6, 17, 17, 58, 47, 132, 136, 255]);
        let has_ports = flowlog_model::security_group::has_ports(protocol);
        let mut port = || if has_ports { self.port() } else { 0 };
        let (src_port, dst_port) = (port(), port());
        FlowTuple {
            src_addr: self.address_of(family),
            src_port,
            dst_addr: self.address_of(family),
            dst_port,
            protocol,
        }
    }
}

pub(crate) fn id(text: &str) -> Id {
    text.parse().expect("an id")
}
