//! Reading security groups.
use crate::inventory::Inventory;
use crate::record::Direction;

use super::*;

/// Two VPCs, a group and a prefix list of every kind, and then `rest`.
fn text(rest: &str) -> String {
    format!(
        "[[prefix-list]]\nprefix-list-id = 'pl-v4'\nentry = [{{ cidr = '192.0.2.0/24', description = 'office' }}]\n\
         [[prefix-list]]\nprefix-list-id = 'pl-v6'\naddress-family = 'IPv6'\nentry = [{{ cidr = '2001:db8::/32' }}]\n\
         [[security-group]]\nsecurity-group-id = 'sg-other-vpc'\nvpc-id = 'vpc-2'\n\
         [[security-group]]\nsecurity-group-id = 'sg-advanced'\nvpc-id = 'vpc-1'\nsecurity-group-type = 'enterprise'\n\
         [[security-group]]\nsecurity-group-id = 'sg-1'\nvpc-id = 'vpc-1'\n{rest}\n"
    )
}

/// Line of the first line of `rest` in [`text`].
const REST: usize = 18;

fn rule(keys: &str) -> String {
    text(&format!(
        "[[security-group.rule]]\nsecurity-group-rule-id = 'sgr-1'\n{keys}"
    ))
}

fn eni(keys: &str) -> String {
    text(&format!(
        "[[eni]]\neni-id = 'eni-1'\nvswitch-id = 'vsw-1'\nvpc-id = 'vpc-1'\naccount-id = '1'\nmatch.name = 'eth0'\n{keys}"
    ))
}

fn parse(text: &str) -> Inventory {
    Inventory::parse(text, "inventory.toml").unwrap()
}

fn problem(text: &str) -> String {
    Inventory::parse(text, "inventory.toml")
        .unwrap_err()
        .to_string()
}

fn only_rule(keys: &str) -> Rule {
    let inventory = parse(&rule(keys));
    let group = inventory.security_groups().group(&"sg-1".parse().unwrap());
    group.unwrap().rules[0].clone()
}

#[test]
fn reads_every_key_of_a_rule() {
    let rule = only_rule(
        "direction = 'egress'\npolicy = 'Drop'\nip-protocol = 'tcp'\nport-range = '1/200'\npriority = 100\n\
         dest-cidr-ip = '10.0.0.0/8'\nsource-cidr-ip = '10.1.0.1'\nsource-port-range = '1024/65535'\ndescription = 'no telnet'",
    );
    let expected = Rule {
        id: "sgr-1".parse().unwrap(),
        direction: Direction::Out,
        policy: Access::Drop,
        protocol: IpProtocol::from_number(6),
        priority: 100,
        peer: Peer::Cidr("10.0.0.0/8".parse().unwrap()),
        local: Some("10.1.0.1/32".parse().unwrap()),
        src_ports: PortRange::new(1024..=65535).unwrap(),
        dst_ports: PortRange::new(1..=200).unwrap(),
        description: Some("no telnet".parse().unwrap()),
    };
    assert_eq!(rule, expected);
    assert_eq!(
        rule.to_string(),
        "drop TCP 1/200 to 10.0.0.0/8 from 10.1.0.1/32, source ports 1024/65535, priority 100"
    );
}

#[test]
fn defaults_of_a_rule() {
    let rule = only_rule("direction = 'ingress'\nip-protocol = 'ALL'\nsource-group-id = 'sg-1'");
    assert_eq!(
        (
            rule.policy,
            rule.priority,
            rule.local,
            rule.src_ports,
            rule.dst_ports
        ),
        (Access::Accept, 1, None, PortRange::ALL, PortRange::ALL)
    );
    assert_eq!(
        rule.to_string(),
        "accept ALL -1/-1 from group sg-1, priority 1"
    );
}

#[test]
fn every_kind_of_peer() {
    for (keys, peer) in [
        (
            "direction = 'ingress'\nsource-cidr-ip = '10.0.0.0/8'",
            "from 10.0.0.0/8",
        ),
        (
            "direction = 'ingress'\nipv6-source-cidr-ip = 'fd00::/8'",
            "from fd00::/8",
        ),
        (
            "direction = 'ingress'\nsource-group-id = 'sg-1'",
            "from group sg-1",
        ),
        (
            "direction = 'ingress'\nsource-prefix-list-id = 'pl-v6'",
            "from prefix list pl-v6",
        ),
        (
            "direction = 'egress'\ndest-cidr-ip = '10.0.0.1'",
            "to 10.0.0.1/32",
        ),
        (
            "direction = 'egress'\nipv6-dest-cidr-ip = '::/0'",
            "to ::/0",
        ),
        (
            "direction = 'egress'\ndest-group-id = 'sg-advanced'",
            "to group sg-advanced",
        ),
        (
            "direction = 'egress'\ndest-prefix-list-id = 'pl-v4'",
            "to prefix list pl-v4",
        ),
    ] {
        let rule = only_rule(&format!("ip-protocol = 47\n{keys}"));
        assert_eq!(
            rule.to_string(),
            format!("accept GRE -1/-1 {peer}, priority 1")
        );
    }
}

#[test]
fn groups_and_their_defaults() {
    let inventory = parse(&text(
        "inner-access-policy = 'Drop'\ndescription = 'the web'",
    ));
    let group = |id: &str| {
        let group = inventory
            .security_groups()
            .group(&id.parse().unwrap())
            .unwrap();
        (group.group_type, group.inner_access_policy)
    };
    assert_eq!(group("sg-1"), (GroupType::Normal, Access::Drop));
    assert_eq!(group("sg-other-vpc"), (GroupType::Normal, Access::Accept));
    assert_eq!(group("sg-advanced"), (GroupType::Enterprise, Access::Drop));
}

#[test]
fn an_eni_s_mode_groups_and_addresses() {
    for (keys, mode) in [
        ("", SecurityMode::Off),
        ("security-group-ids = []", SecurityMode::Off),
        ("security-group-ids = ['sg-1']", SecurityMode::Observe),
        (
            "security-group-ids = ['sg-1']\nsecurity-mode = 'off'",
            SecurityMode::Off,
        ),
        (
            "security-group-ids = ['sg-1']\nsecurity-mode = 'enforce'",
            SecurityMode::Enforce,
        ),
    ] {
        assert_eq!(parse(&eni(keys)).entries()[0].security.mode, mode, "{keys}");
    }
    let inventory = parse(&eni(
        "security-group-ids = ['sg-1']\nprivate-ip-addresses = ['10.0.0.1', '10.0.0.2']\nipv6-addresses = ['fd00::1']",
    ));
    let security = &inventory.entries()[0].security;
    let shown: Vec<String> = security.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    assert_eq!(security.group_ids, ["sg-1".parse().unwrap()]);
}

#[test]
fn remote_enis_are_members_without_a_device() {
    let inventory = parse(&text(
        "[[remote-eni]]\neni-id = 'eni-far'\nsecurity-group-ids = ['sg-1']\nprivate-ip-addresses = ['10.9.0.1']",
    ));
    assert!(inventory.entries().is_empty());
    let members = inventory
        .security_groups()
        .members(&"sg-1".parse().unwrap());
    assert_eq!(*members, ["10.9.0.1/32".parse().unwrap()]);
}

#[test]
fn errors_name_line_key_and_what_is_allowed() {
    let ingress = |keys: &str| {
        rule(&format!(
            "direction = 'ingress'\nip-protocol = 'TCP'\n{keys}"
        ))
    };
    let cases = [
        (
            ingress("source-cidr-ip = '10.0.0.0/8'"),
            0,
            "`port-range` is missing: a rule for a protocol with ports needs it, as in 80/80, or -1/-1 for all",
        ),
        (
            ingress("port-range = '80'"),
            4,
            "`port-range` is '80': allowed are a first and a last port from 1 to 65535, as in 80/80, and -1/-1 for all",
        ),
        (
            ingress("port-range = '80/80'"),
            0,
            "`source-cidr-ip` is missing: an ingress rule needs one of source-cidr-ip, ipv6-source-cidr-ip, source-group-id and source-prefix-list-id",
        ),
        (
            ingress(
                "port-range = '80/80'\nsource-cidr-ip = '10.0.0.0/8'\nsource-group-id = 'sg-1'",
            ),
            6,
            "`source-group-id` is 'sg-1': allowed is only one of source-cidr-ip, ipv6-source-cidr-ip, source-group-id and source-prefix-list-id",
        ),
        (
            ingress("port-range = '80/80'\nsource-cidr-ip = '10.0.0.0/8'\ndest-group-id = 'sg-1'"),
            6,
            "`dest-group-id` is 'sg-1': allowed of the dest of an ingress rule are dest-cidr-ip and ipv6-dest-cidr-ip",
        ),
        (
            ingress(
                "port-range = '80/80'\nsource-cidr-ip = '10.0.0.0/8'\nipv6-dest-cidr-ip = 'fd00::/8'",
            ),
            6,
            "`ipv6-dest-cidr-ip` is 'fd00::/8': allowed are source and destination of one family, and 10.0.0.0/8 is IPv4",
        ),
        (
            ingress("port-range = '80/80'\nsource-cidr-ip = 'fd00::/8'"),
            5,
            "`source-cidr-ip` is 'fd00::/8': allowed are IPv4 addresses",
        ),
        (
            ingress("port-range = '80/80'\nsource-cidr-ip = '10.0.0.1/8'"),
            5,
            "`source-cidr-ip` is '10.0.0.1/8': allowed are blocks of addresses without bits behind the prefix, as 10.0.0.0/8 or 2001:db8::/32, and single addresses",
        ),
        (
            ingress("port-range = '80/80'\nsource-group-id = 'sg-2'"),
            5,
            "`source-group-id` is 'sg-2': allowed are the ids of `[[security-group]]` in this file",
        ),
        (
            ingress("port-range = '80/80'\nsource-group-id = 'sg-other-vpc'"),
            5,
            "`source-group-id` is 'sg-other-vpc': allowed are groups of vpc-1, and this one is of vpc-2",
        ),
        (
            ingress("port-range = '80/80'\nsource-prefix-list-id = 'pl-1'"),
            5,
            "`source-prefix-list-id` is 'pl-1': allowed are the ids of `[[prefix-list]]` in this file",
        ),
        (
            ingress("priority = 0"),
            4,
            "`priority` is 0: allowed are whole numbers from 1 to 100",
        ),
        (
            ingress("policy = 'allow'"),
            4,
            "`policy` is 'allow': allowed are accept and drop",
        ),
        (
            rule("direction = 'in'"),
            2,
            "`direction` is 'in': allowed are ingress and egress",
        ),
        (
            rule("ip-protocol = 256"),
            2,
            "`ip-protocol` is 256: allowed are TCP, UDP, ICMP, ICMPv6, GRE, ALL and IANA numbers from 0 to 255",
        ),
        (
            rule(
                "direction = 'ingress'\nip-protocol = 'ICMP'\nport-range = '8/8'\nsource-cidr-ip = '10.0.0.0/8'",
            ),
            4,
            "`port-range` is '8/8': allowed is -1/-1, for ICMP has no ports",
        ),
        (
            text(
                "[[security-group.rule]]\nsecurity-group-rule-id = 'r'\ndirection = 'ingress'\nip-protocol = 'ALL'\nsource-group-id = 'sg-1'\n\
                  [[security-group.rule]]\nsecurity-group-rule-id = 'r'\ndirection = 'ingress'\nip-protocol = 'ALL'\nsource-group-id = 'sg-1'",
            ),
            6,
            "`security-group-rule-id` is 'r': allowed is each security-group-rule-id once, and line 19 has this one already",
        ),
        (
            text("[[security-group]]\nsecurity-group-id = 'sg-1'\nvpc-id = 'vpc-1'"),
            1,
            "`security-group-id` is 'sg-1': allowed is each security-group-id once, and line 16 has this one already",
        ),
        (
            text(
                "[[security-group]]\nsecurity-group-id = 'sg-2'\nvpc-id = 'vpc-1'\nsecurity-group-type = 'enterprise'\ninner-access-policy = 'accept'",
            ),
            4,
            "`inner-access-policy` is 'accept': allowed is drop, for members of an advanced group are isolated",
        ),
        (
            text(
                "[[security-group]]\nsecurity-group-id = 'sg-2'\nvpc-id = 'vpc-1'\nsecurity-group-type = 'enterprise'\n[[security-group.rule]]\n\
                  security-group-rule-id = 'r'\ndirection = 'ingress'\nip-protocol = 'ALL'\nsource-group-id = 'sg-1'",
            ),
            8,
            "`source-group-id` is 'sg-1': allowed in an advanced group are blocks of addresses and prefix lists",
        ),
        (
            text("[[prefix-list]]\nprefix-list-id = 'pl-1'\nentry = [{ cidr = 'fd00::/8' }]"),
            2,
            "`cidr` is 'fd00::/8': allowed are IPv4 addresses",
        ),
        (
            eni("security-group-ids = ['sg-2']"),
            6,
            "`security-group-ids` is 'sg-2': allowed are the ids of `[[security-group]]` in this file",
        ),
        (
            eni("security-group-ids = ['sg-1', 'sg-1']"),
            6,
            "`security-group-ids` is 'sg-1': allowed is each group once",
        ),
        (
            eni("security-group-ids = ['sg-other-vpc']"),
            6,
            "`security-group-ids` is 'sg-other-vpc': allowed are groups of vpc-1, and this one is of vpc-2",
        ),
        (
            eni("security-group-ids = ['sg-1', 'sg-advanced']"),
            6,
            "`security-group-ids` is 'sg-advanced': allowed are groups of one type: sg-1 is normal, and this one is enterprise",
        ),
        (
            eni("security-mode = 'observe'"),
            6,
            "`security-mode` is 'observe': allowed is off, for there is no group in `security-group-ids`",
        ),
        (
            eni("security-mode = 'on'"),
            6,
            "`security-mode` is 'on': allowed are off, observe and enforce",
        ),
        (
            eni("private-ip-addresses = ['fd00::1']"),
            6,
            "`private-ip-addresses` is 'fd00::1': allowed are IPv4 addresses",
        ),
        (
            eni("ipv6-addresses = ['x']"),
            6,
            "`ipv6-addresses` is 'x': allowed are IPv4 and IPv6 addresses",
        ),
        (
            eni("[[remote-eni]]\neni-id = 'eni-1'"),
            7,
            "`eni-id` is 'eni-1': allowed is one entry for each eni-id, and line 19 has this one already",
        ),
    ];
    for (text, line, sentence) in cases {
        let line = line + REST;
        assert_eq!(
            problem(&text),
            format!("inventory.toml:{line}: {sentence}"),
            "{text}"
        );
    }
}

#[test]
fn limits() {
    let ids = |count: usize| {
        let ids: Vec<String> = (0..count).map(|index| format!("'sg-n{index}'")).collect();
        ids.join(",")
    };
    let groups = |count: usize, rest: &str| {
        let groups: String = (0..count)
            .map(|index| {
                format!("[[security-group]]\nsecurity-group-id = 'sg-n{index}'\nvpc-id = 'vpc-1'\n")
            })
            .collect();
        eni(&format!(
            "security-group-ids = [{}]\n{groups}{rest}",
            ids(count)
        ))
    };
    parse(&groups(MAX_GROUPS_PER_ENI, ""));
    assert_eq!(
        problem(&groups(MAX_GROUPS_PER_ENI + 1, "")),
        "inventory.toml:24: `security-group-ids` is 'sg-n16': allowed are 16 groups"
    );

    let rules = |count: usize| -> String {
        let rule = |index: usize| {
            format!(
                "[[security-group.rule]]\nsecurity-group-rule-id = 'r{index}'\ndirection = 'ingress'\nip-protocol = 'ALL'\nsource-cidr-ip = '10.0.0.1'\n"
            )
        };
        (0..count).map(rule).collect()
    };
    parse(&groups(1, &rules(MAX_RULES_PER_DIRECTION)));
    assert_eq!(
        problem(&groups(1, &rules(MAX_RULES_PER_DIRECTION + 1))),
        "inventory.toml:24: `security-group-ids` is ['sg-n0']: allowed are 1000 rules of each direction, and its groups have 1001 for `in`"
    );

    let addresses = |count: usize| {
        let addresses: Vec<String> = (0..count)
            .map(|index| format!("'10.0.{}.{}'", index / 256, index % 256))
            .collect();
        eni(&format!("private-ip-addresses = [{}]", addresses.join(",")))
    };
    parse(&addresses(MAX_ADDRESSES_PER_ENI));
    assert_eq!(
        problem(&addresses(MAX_ADDRESSES_PER_ENI + 1)),
        "inventory.toml:24: `private-ip-addresses` is '10.0.1.0': allowed are 256 addresses in all"
    );
}

#[test]
fn a_policy_s_blocks_of_addresses_are_limited() {
    const LISTS_OF_FIRST: usize = 65;
    let rule = |list: usize| {
        format!(
            "[[security-group.rule]]\nsecurity-group-rule-id = 'r{list}'\ndirection = 'egress'\nip-protocol = 'ALL'\n\
             dest-prefix-list-id = 'pl-{list}'\n"
        )
    };
    let list = |list: usize| {
        let entries: Vec<String> = (0..MAX_ENTRIES_PER_PREFIX_LIST)
            .map(|index| format!("{{ cidr = '10.{list}.{}.{}' }}", index / 256, index % 256))
            .collect();
        let entries = entries.join(",");
        format!("[[prefix-list]]\nprefix-list-id = 'pl-{list}'\nentry = [{entries}]\n")
    };
    let eni = |eni: &str, groups: &str| {
        format!(
            "[[eni]]\neni-id = '{eni}'\nvswitch-id = 'v'\nvpc-id = 'vpc-1'\naccount-id = '1'\nmatch.name = '{eni}'\n\
             security-group-ids = {groups}\n"
        )
    };
    // The first ENI's 65,000 blocks are allowed. In one file, for it is large.
    let problem = problem(&text(&format!(
        "{}[[security-group]]\nsecurity-group-id = 'sg-2'\nvpc-id = 'vpc-1'\n{}{}{}{}",
        (0..LISTS_OF_FIRST).map(rule).collect::<String>(),
        rule(LISTS_OF_FIRST),
        (0..=LISTS_OF_FIRST).map(list).collect::<String>(),
        eni("e-1", "['sg-1']"),
        eni("e-2", "['sg-1', 'sg-2']"),
    )));
    assert!(
        problem.ends_with(
            "`security-group-ids` is ['sg-1', 'sg-2']: allowed are 65536 blocks of addresses for each direction, and with members and \
             prefix lists its groups have 66000 for `out`"
        ),
        "{problem}"
    );
}

#[test]
fn the_sample_is_as_it_says() {
    let sample = include_str!("../../../inventory.toml");
    let inventory = parse(sample);
    let entry = inventory.entry("eni-web-1").unwrap();
    assert_eq!(entry.security.mode, SecurityMode::Observe);
    let policy = inventory.policy(entry);
    let decide = |direction, src: &str, dst: &str, dst_port| {
        let flow = crate::record::FlowTuple {
            src_addr: src.parse().unwrap(),
            src_port: 50_000,
            dst_addr: dst.parse().unwrap(),
            dst_port,
            protocol: 6,
        };
        let verdict = policy.decide(direction, &flow);
        verdict
            .reason
            .rule()
            .map(|rule| rule.rule.id.as_str().to_owned())
    };
    let own = "10.0.1.10";
    for (decided, rule) in [
        (
            decide(Direction::In, "203.0.113.1", own, 443),
            Some("sgr-web-https"),
        ),
        (
            decide(Direction::In, "10.0.9.10", own, 22),
            Some("sgr-web-ssh"),
        ),
        (decide(Direction::In, "10.0.9.11", own, 22), None),
        (
            decide(Direction::Out, own, "198.51.100.7", 1),
            Some("sgr-web-blocked"),
        ),
    ] {
        assert_eq!(decided.as_deref(), rule);
    }
}
