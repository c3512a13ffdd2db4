use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::security_group::{
    Attachment, IpProtocol, Peer, PrefixList, Rule, SecurityGroup, SecurityGroups, SecurityMode,
};
use crate::text::Id;

/// Policies of few rules, and packets that are tried on each.
const POLICIES: u32 = 80;
const PACKETS: usize = 1300;
/// Policies with as many rules as there can be, each of which takes as long as many others, and packets that are tried on each.
const LARGE_POLICIES: u32 = 4;
const PACKETS_OF_LARGE: usize = 2000;

const V4_ENDS: [u8; 6] = [0, 1, 2, 127, 128, 255];
const V6_SUBNETS: [u16; 3] = [0, 1, 0x8000];
const V6_ENDS: [u16; 4] = [0, 1, 2, 0xffff];
const PORT_EDGES: [u16; 11] = [0, 1, 2, 79, 80, 81, 443, 1023, 1024, 65534, 65535];

const fn v4(b: u8, c: u8, end: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, b, c, end))
}

const fn v6(subnet: u16, end: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, subnet, 0, 0, 0, 0, 0, end))
}

/// Addresses of a small world, so that blocks overlap and packets meet rules.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0..4_u8, 0..4_u8, select(V4_ENDS.to_vec())).prop_map(|(b, c, end)| v4(b, c, end));
    let v6 = (select(V6_SUBNETS.to_vec()), select(V6_ENDS.to_vec()))
        .prop_map(|(subnet, end)| v6(subnet, end));
    prop_oneof![3 => v4, 2 => v6]
}

fn cidr() -> impl Strategy<Value = Cidr> {
    let lengths = select(vec![
        0_u8, 1, 8, 14, 15, 16, 22, 23, 24, 25, 31, 32, 48, 64, 127, 128,
    ]);
    (address(), lengths).prop_map(|(address, length)| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Cidr::new(address, length.min(bits)).unwrap()
    })
}

fn port() -> impl Strategy<Value = u16> {
    let edges = select(PORT_EDGES.to_vec());
    prop_oneof![2 => edges, 1 => 0..200_u16, 1 => any::<u16>()]
}

fn ports() -> impl Strategy<Value = PortRange> {
    let range = (port(), port())
        .prop_map(|(a, b)| PortRange::new(a.min(b).max(1)..=a.max(b).max(1)).unwrap());
    prop_oneof![2 => Just(PortRange::ALL), 3 => range]
}

fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::In, Direction::Out])
}

const LISTS: [&str; 2] = ["pl-4", "pl-6"];
const GROUPS: [&str; 3] = ["sg-1", "sg-2", "sg-3"];

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        6 => cidr().prop_map(Peer::Cidr),
        1 => select(GROUPS.to_vec()).prop_map(|group| Peer::Group(id(group))),
        1 => select(LISTS.to_vec()).prop_map(|list| Peer::PrefixList(id(list))),
    ]
}

/// A rule for packets as there are in the small world; its id is given later.
fn rule() -> impl Strategy<Value = Rule> {
    let protocol = select(vec![
        None,
        Some(1_u8),
        Some(6),
        Some(6),
        Some(6),
        Some(17),
        Some(58),
    ])
    .prop_map(|number| number.map_or(IpProtocol::ALL, IpProtocol::from_number));
    let access = select(vec![Access::Accept, Access::Drop]);
    let local = prop_oneof![4 => Just(None), 1 => cidr().prop_map(Some)];
    let src_ports = prop_oneof![4 => Just(PortRange::ALL), 1 => ports()];
    (
        direction(),
        access,
        protocol,
        1..=4_u8,
        peer(),
        local,
        src_ports,
        ports(),
    )
        .prop_map(
            |(direction, policy, protocol, priority, peer, local, src_ports, dst_ports)| Rule {
                id: id("x"),
                direction,
                policy,
                protocol,
                priority,
                peer,
                local,
                src_ports,
                dst_ports,
                description: None,
            },
        )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    prop_oneof![
        2 => vec(rule(), 0..20),
        1 => vec(rule(), 20..120),
    ]
}

/// As many rules of a direction as there can be.
fn most_rules() -> impl Strategy<Value = Vec<Rule>> {
    (vec(rule(), MAX_RULES_PER_DIRECTION), direction()).prop_map(|(mut rules, direction)| {
        for rule in &mut rules {
            rule.direction = direction;
        }
        rules
    })
}

/// Groups of one type, of which the ENI is in two; the third is only named by rules.
fn policy(
    first: impl Strategy<Value = Vec<Rule>>,
    second: impl Strategy<Value = Vec<Rule>>,
) -> impl Strategy<Value = Policy> {
    let inner = || select(vec![Access::Accept, Access::Drop, Access::Drop]);
    let group_type = select(vec![GroupType::Normal, GroupType::Enterprise]);
    let members = vec((select(GROUPS.to_vec()), address()), 0..12);
    let list = || vec(cidr(), 0..8);
    (
        (first, inner()),
        (second, inner()),
        group_type,
        members,
        [list(), list()],
        select(vec![0_usize, 1, 1, 1, 2, 2, 2, 2]),
    )
        .prop_map(|(first, second, group_type, members, lists, memberships)| {
            let groups = GROUPS
                .into_iter()
                .zip([first, second, (Vec::new(), Access::Drop)])
                .map(|(group_id, (mut rules, inner_access_policy))| {
                    for (index, rule) in rules.iter_mut().enumerate() {
                        // Not in the order of the rules.
                        rule.id = id(&format!("{:04}-{group_id}", index * 7 % 1000));
                    }
                    SecurityGroup {
                        id: id(group_id),
                        vpc_id: id("vpc-1"),
                        group_type,
                        inner_access_policy,
                        description: None,
                        rules,
                    }
                });
            let families = [AddressFamily::V4, AddressFamily::V6];
            let lists =
                LISTS
                    .into_iter()
                    .zip(lists)
                    .zip(families)
                    .map(|((list_id, cidrs), family)| PrefixList {
                        id: id(list_id),
                        address_family: family,
                        cidrs: cidrs
                            .into_iter()
                            .filter(|cidr| cidr.family() == family)
                            .collect(),
                        description: None,
                    });
            let members: Vec<Attachment> = members
                .into_iter()
                .map(|(group, address)| Attachment {
                    mode: SecurityMode::Observe,
                    group_ids: vec![id(group)],
                    addresses: vec![address],
                })
                .collect();
            let ids: Vec<Id> = GROUPS[..memberships]
                .iter()
                .map(|group| id(group))
                .collect();
            SecurityGroups::new(groups, lists)
                .with_members(&members)
                .policy(&ids)
        })
}

/// Packets of the small world, from a seed: to draw each value by a strategy would take most of the test's time.
fn packets(seed: u64) -> impl Iterator<Item = (Direction, FlowTuple)> {
    let mut random = Random(seed);
    std::iter::repeat_with(move || {
        let flow = FlowTuple {
            src_addr: random.address(),
            src_port: random.port(),
            dst_addr: random.address(),
            dst_port: random.port(),
            protocol: random.of(&[1, 6, 6, 6, 17, 58, 0, 255]),
        };
        (random.of(&[Direction::In, Direction::Out]), flow)
    })
}

/// Asserts that the compiled policy says of each packet what the policy says.
fn assert_decides_as(
    policy: Policy,
    packets: impl Iterator<Item = (Direction, FlowTuple)>,
) -> Result<(), TestCaseError> {
    let compiled = CompiledPolicy::new(policy);
    for (direction, flow) in packets {
        prop_assert_eq!(
            compiled.decide(direction, &flow),
            compiled.policy().decide(direction, &flow),
            "{:?} {:?}",
            direction,
            flow
        );
    }
    Ok(())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[(self.next() % values.len() as u64) as usize]
    }

    fn address(&mut self) -> IpAddr {
        if self.of(&[true, true, true, false, false]) {
            let [b, c] = [0; 2].map(|_: u8| self.of(&[0, 1, 2, 3]));
            v4(b, c, self.of(&V4_ENDS))
        } else {
            v6(self.of(&V6_SUBNETS), self.of(&V6_ENDS))
        }
    }

    fn port(&mut self) -> u16 {
        match self.of(&[0, 0, 1, 2]) {
            0 => self.of(&PORT_EDGES),
            1 => (self.next() % 200) as u16,
            _ => self.next() as u16,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(POLICIES))]

    /// 104,000 pairs of a policy and a packet; an eighth of the policies is without groups.
    #[test]
    fn decides_as_the_policy_does(policy in policy(rules(), rules()), seed in any::<u64>()) {
        assert_decides_as(policy, packets(seed).take(PACKETS))?;
    }

    #[test]
    fn a_port_leads_to_the_ranges_that_it_is_in(ranges in vec(ports(), 0..100), port in port()) {
        let mut classes = Classes::default();
        let table = PortTable::new(ranges.iter().copied().enumerate(), &mut classes);
        let found = classes.into_vectors()[table.look_up(port) as usize];
        for (outcome, range) in ranges.iter().enumerate() {
            prop_assert_eq!(found.contains(outcome), range.contains(port));
        }
    }

    #[test]
    fn an_address_leads_to_the_blocks_that_it_is_in(cidrs in vec(cidr(), 0..60), address in address()) {
        let mut prefixes: BTreeMap<Cidr, Vector> = BTreeMap::new();
        for (outcome, cidr) in cidrs.iter().enumerate() {
            if cidr.family() == AddressFamily::of(address) {
                prefixes.entry(*cidr).or_default().insert(outcome);
            }
        }
        let mut classes = Classes::default();
        let table = PrefixTable::new([60].into_iter().collect(), &prefixes, &mut classes);
        let found = classes.into_vectors()[table.look_up(address) as usize];
        prop_assert!(found.contains(60));
        for (outcome, cidr) in cidrs.iter().enumerate() {
            prop_assert_eq!(found.contains(outcome), cidr.contains(address));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(LARGE_POLICIES))]

    /// 8,000 pairs.
    #[test]
    fn decides_as_the_largest_policies_do(policy in policy(most_rules(), Just(Vec::new())), seed in any::<u64>()) {
        assert_decides_as(policy, packets(seed).take(PACKETS_OF_LARGE))?;
    }
}

#[test]
fn as_many_intervals_as_rules_can_make() {
    let ranges: Vec<PortRange> = (0..MAX_RULES_PER_DIRECTION as u16)
        .map(|index| PortRange::new(index * 60 + 1..=index * 60 + 30).unwrap())
        .collect();
    let mut classes = Classes::default();
    let table = PortTable::new(ranges.iter().copied().enumerate(), &mut classes);
    assert_eq!(table.intervals().len(), 2 * MAX_RULES_PER_DIRECTION + 1);
    let vectors = classes.into_vectors();
    for port in 0..=u16::MAX {
        let (index, offset) = (
            usize::from(port.wrapping_sub(1)) / 60,
            port.wrapping_sub(1) % 60,
        );
        let expected = (offset < 30 && index < MAX_RULES_PER_DIRECTION).then_some(index);
        let vector = vectors[table.look_up(port) as usize];
        assert_eq!(vector, expected.into_iter().collect(), "{port}");
    }
}

/// Rules as people have them: a block of addresses and a port each.
fn ordinary_policy(rules: usize) -> Policy {
    let rule = |index: usize| Rule {
        id: id(&format!("sgr-{index}")),
        direction: Direction::In,
        policy: Access::Accept,
        protocol: IpProtocol::from_number(6),
        priority: 1,
        peer: Peer::Cidr(
            format!("10.{}.{}.0/24", index / 256, index % 256)
                .parse()
                .unwrap(),
        ),
        local: None,
        src_ports: PortRange::ALL,
        dst_ports: PortRange::new(index as u16 + 1..=index as u16 + 1).unwrap(),
        description: None,
    };
    let group = SecurityGroup {
        id: id("sg-1"),
        vpc_id: id("vpc-1"),
        group_type: GroupType::Normal,
        inner_access_policy: Access::Accept,
        description: None,
        rules: (0..rules).map(rule).collect(),
    };
    SecurityGroups::new([group], []).policy(&[id("sg-1")])
}

/// The table in the module's documentation. A vector has 128 octets.
#[test]
fn sizes() {
    for (rules, prefixes, intervals, vectors) in [
        (10, 10, 12, 23),
        (100, 100, 102, 203),
        (1000, 1000, 1002, 2003),
    ] {
        let compiled = CompiledPolicy::new(ordinary_policy(rules));
        let tables = compiled.tables(Direction::In).unwrap();
        let [v4, _] = &tables.peers;
        println!(
            "{rules} rules: {} prefixes, {} intervals, {} vectors of {} octets",
            v4.prefixes().len(),
            tables.dst_ports.intervals().len(),
            tables.vectors.len(),
            size_of::<Vector>(),
        );
        assert_eq!(
            (
                v4.prefixes().len(),
                tables.dst_ports.intervals().len(),
                tables.vectors.len()
            ),
            (prefixes, intervals, vectors)
        );
    }
}
