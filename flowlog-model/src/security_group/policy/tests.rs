use super::*;
use crate::inventory::Inventory;

/// Two VPCs that use the same addresses. `sg-1` has `keys`, and then tables.
fn inventory(keys: &str) -> Inventory {
    let eni = |id: &str, vpc: &str, groups: &str, v4: &str, v6: &str| {
        format!(
            "[[eni]]\neni-id = '{id}'\nvswitch-id = 'v'\nvpc-id = '{vpc}'\naccount-id = '1'\nmatch.name = '{id}'\n\
             security-group-ids = [{groups}]\nprivate-ip-addresses = ['{v4}']\nipv6-addresses = ['{v6}']\n"
        )
    };
    let group = |id: &str, vpc: &str| {
        format!("[[security-group]]\nsecurity-group-id = '{id}'\nvpc-id = '{vpc}'\n")
    };
    let text = [
        eni("own", "vpc-1", "'sg-1'", "10.0.0.2", "fd00::2"),
        eni("friend", "vpc-1", "'sg-1'", "10.0.0.3", "fd00::3"),
        eni("both", "vpc-1", "'sg-1', 'sg-2'", "10.0.0.4", "fd00::4"),
        eni("other", "vpc-1", "'sg-2'", "10.0.0.5", "fd00::5"),
        eni("stranger", "vpc-2", "'sg-3'", "10.0.0.6", "fd00::6"),
        "[[remote-eni]]\neni-id = 'far'\nsecurity-group-ids = ['sg-2']\nprivate-ip-addresses = ['10.0.9.9']\n".into(),
        "[[prefix-list]]\nprefix-list-id = 'pl-4'\nentry = [{ cidr = '192.0.2.0/24' }, { cidr = '198.51.100.7' }]\n".into(),
        "[[prefix-list]]\nprefix-list-id = 'pl-6'\naddress-family = 'IPv6'\nentry = [{ cidr = '2001:db8::/32' }]\n".into(),
        group("sg-2", "vpc-1"),
        group("sg-3", "vpc-2"),
        group("sg-1", "vpc-1"),
        keys.to_owned(),
    ];
    Inventory::parse(&text.concat(), "inventory.toml").unwrap()
}

/// Rules of the group that is open, numbered from r1.
fn rules(rules: &[&str]) -> String {
    let rule = |(number, keys): (usize, &&str)| {
        let keys = keys.replace("; ", "\n");
        format!("[[security-group.rule]]\nsecurity-group-rule-id = 'r{number}'\n{keys}\n")
    };
    (1..).zip(rules).map(rule).collect()
}

/// `tcp 10.0.0.1:1 > 10.0.0.2:80 in`, with IPv6 in brackets; no ports for the others.
fn packet(text: &str) -> (Direction, FlowTuple) {
    let words: Vec<&str> = text.split(' ').collect();
    let &[protocol, src, ">", dst, direction] = words.as_slice() else {
        panic!("{text}")
    };
    let end = |text: &str| {
        let socket = text.parse::<std::net::SocketAddr>();
        socket.map_or_else(
            |_| (text.parse().unwrap(), 0),
            |socket| (socket.ip(), socket.port()),
        )
    };
    let protocol: super::super::IpProtocol = crate::text::parse_text(protocol).unwrap();
    let ((src_addr, src_port), (dst_addr, dst_port)) = (end(src), end(dst));
    let direction = match direction {
        "in" => Direction::In,
        _ => Direction::Out,
    };
    let flow = FlowTuple {
        src_addr,
        src_port,
        dst_addr,
        dst_port,
        protocol: protocol.number().unwrap(),
    };
    (direction, flow)
}

/// A packet, and what becomes of it.
type Case = (&'static str, &'static str);

/// As in `ACCEPT r1`.
fn verdict(policy: &Policy, text: &str) -> String {
    let (direction, flow) = packet(text);
    let verdict = policy.decide(direction, &flow);
    let reason = match verdict.reason.rule() {
        Some(rule) => rule.rule.id.as_str(),
        None => verdict.reason.as_str(),
    };
    format!("{} {reason}", verdict.action.as_str())
}

fn of(inventory: &Inventory, eni_id: &str) -> Policy {
    inventory.policy(inventory.entry(eni_id).unwrap())
}

fn assert_verdicts(policy: &Policy, cases: &[Case]) {
    for (packet, expected) in cases {
        assert_eq!(verdict(policy, packet), *expected, "{packet}");
    }
}

#[test]
fn every_kind_of_rule() {
    // Rules of `own`; packets, and what becomes of each.
    let cases: &[(&[&str], &[Case])] = &[
        (
            &[
                "direction = 'ingress'; ip-protocol = 'TCP'; port-range = '80/80'; source-cidr-ip = '10.1.0.0/16'",
            ],
            &[
                ("tcp 10.1.0.0:1 > 10.0.0.2:80 in", "ACCEPT r1"),
                ("tcp 10.1.255.255:1 > 10.0.0.2:80 in", "ACCEPT r1"),
                ("tcp 10.2.0.0:1 > 10.0.0.2:80 in", "REJECT default"),
                ("tcp 10.1.0.0:1 > 10.0.0.2:79 in", "REJECT default"),
                ("tcp 10.1.0.0:1 > 10.0.0.2:81 in", "REJECT default"),
                ("tcp 10.1.0.0:80 > 10.0.0.2:1 in", "REJECT default"),
                ("udp 10.1.0.0:1 > 10.0.0.2:80 in", "REJECT default"),
                ("tcp [fd00::1]:1 > [fd00::2]:80 in", "REJECT default"),
                // The rule is about one direction.
                ("tcp 10.0.0.2:1 > 10.1.0.0:80 out", "ACCEPT default"),
            ],
        ),
        (
            &[
                "direction = 'egress'; policy = 'drop'; ip-protocol = 'UDP'; port-range = '1/200'; dest-cidr-ip = '0.0.0.0/0'",
            ],
            &[
                ("udp 10.0.0.2:999 > 8.8.8.8:1 out", "REJECT r1"),
                ("udp 10.0.0.2:999 > 8.8.8.8:200 out", "REJECT r1"),
                ("udp 10.0.0.2:999 > 8.8.8.8:201 out", "ACCEPT default"),
                ("udp 10.0.0.2:999 > 8.8.8.8:0 out", "ACCEPT default"),
                ("udp [fd00::2]:999 > [fd00::9]:1 out", "ACCEPT default"),
                ("udp 8.8.8.8:1 > 10.0.0.2:1 in", "REJECT default"),
            ],
        ),
        (
            &[
                "direction = 'ingress'; ip-protocol = 'TCP'; port-range = '-1/-1'; ipv6-source-cidr-ip = '2001:db8:8000::/33'",
            ],
            &[
                ("tcp [2001:db8:8000::1]:1 > [fd00::2]:9 in", "ACCEPT r1"),
                ("tcp [2001:db8:ffff::1]:1 > [fd00::2]:0 in", "ACCEPT r1"),
                (
                    "tcp [2001:db8:7fff::1]:1 > [fd00::2]:9 in",
                    "REJECT default",
                ),
            ],
        ),
        (
            &["direction = 'ingress'; ip-protocol = 'ICMP'; source-cidr-ip = '0.0.0.0/0'"],
            &[
                ("icmp 1.2.3.4 > 10.0.0.2 in", "ACCEPT r1"),
                ("icmpv6 fd00::9 > fd00::2 in", "REJECT default"),
                ("tcp 1.2.3.4:1 > 10.0.0.2:1 in", "REJECT default"),
            ],
        ),
        (
            &[
                "direction = 'ingress'; ip-protocol = 'ICMPv6'; ipv6-source-cidr-ip = '::/0'",
                "direction = 'ingress'; ip-protocol = 'GRE'; source-cidr-ip = '0.0.0.0/0'",
            ],
            &[
                ("icmpv6 fd00::9 > fd00::2 in", "ACCEPT r1"),
                ("gre 1.2.3.4 > 10.0.0.2 in", "ACCEPT r2"),
                ("icmp 1.2.3.4 > 10.0.0.2 in", "REJECT default"),
            ],
        ),
        (
            &[
                "direction = 'ingress'; ip-protocol = 50; source-cidr-ip = '1.2.3.4'",
                "direction = 'ingress'; ip-protocol = '132'; port-range = '2905/2905'; source-cidr-ip = '1.2.3.4'",
            ],
            &[
                ("50 1.2.3.4 > 10.0.0.2 in", "ACCEPT r1"),
                ("51 1.2.3.4 > 10.0.0.2 in", "REJECT default"),
                ("50 1.2.3.5 > 10.0.0.2 in", "REJECT default"),
                ("132 1.2.3.4:1 > 10.0.0.2:2905 in", "ACCEPT r2"),
                ("132 1.2.3.4:1 > 10.0.0.2:2906 in", "REJECT default"),
            ],
        ),
        (
            &["direction = 'ingress'; ip-protocol = 'ALL'; source-cidr-ip = '10.1.0.0/16'"],
            &[
                ("tcp 10.1.0.1:1 > 10.0.0.2:1 in", "ACCEPT r1"),
                ("icmp 10.1.0.1 > 10.0.0.2 in", "ACCEPT r1"),
                ("255 10.1.0.1 > 10.0.0.2 in", "ACCEPT r1"),
            ],
        ),
        (
            &["direction = 'ingress'; ip-protocol = 'ALL'; source-group-id = 'sg-2'"],
            &[
                ("tcp 10.0.0.5:1 > 10.0.0.2:1 in", "ACCEPT r1"),
                ("tcp [fd00::5]:1 > [fd00::2]:1 in", "ACCEPT r1"),
                // A member that is on another host.
                ("tcp 10.0.9.9:1 > 10.0.0.2:1 in", "ACCEPT r1"),
                ("tcp 10.0.0.6:1 > 10.0.0.2:1 in", "REJECT default"),
            ],
        ),
        (
            &["direction = 'egress'; policy = 'drop'; ip-protocol = 'ALL'; dest-group-id = 'sg-2'"],
            &[
                ("tcp 10.0.0.2:1 > 10.0.0.5:1 out", "REJECT r1"),
                ("tcp 10.0.0.2:1 > 10.0.0.6:1 out", "ACCEPT default"),
            ],
        ),
        (
            &[
                "direction = 'ingress'; ip-protocol = 'ALL'; source-prefix-list-id = 'pl-4'",
                "direction = 'egress'; policy = 'drop'; ip-protocol = 'ALL'; dest-prefix-list-id = 'pl-6'",
            ],
            &[
                ("icmp 192.0.2.255 > 10.0.0.2 in", "ACCEPT r1"),
                ("icmp 198.51.100.7 > 10.0.0.2 in", "ACCEPT r1"),
                ("icmp 198.51.100.8 > 10.0.0.2 in", "REJECT default"),
                ("icmpv6 fd00::2 > 2001:db8::1 out", "REJECT r2"),
                ("icmpv6 fd00::2 > 2001:db9::1 out", "ACCEPT default"),
            ],
        ),
        (
            &[
                "direction = 'ingress'; ip-protocol = 'TCP'; port-range = '80/80'; source-cidr-ip = '1.2.3.4'; source-port-range = '1000/2000'; dest-cidr-ip = '10.0.0.2'",
            ],
            &[
                ("tcp 1.2.3.4:1000 > 10.0.0.2:80 in", "ACCEPT r1"),
                ("tcp 1.2.3.4:2000 > 10.0.0.2:80 in", "ACCEPT r1"),
                ("tcp 1.2.3.4:999 > 10.0.0.2:80 in", "REJECT default"),
                ("tcp 1.2.3.4:2001 > 10.0.0.2:80 in", "REJECT default"),
                ("tcp 1.2.3.4:1000 > 10.0.0.3:80 in", "REJECT default"),
                ("tcp 1.2.3.4:1000 > 10.0.0.2:81 in", "REJECT default"),
            ],
        ),
        (
            &[
                "direction = 'egress'; policy = 'drop'; ip-protocol = 'UDP'; port-range = '-1/-1'; ipv6-dest-cidr-ip = '::/0'; ipv6-source-cidr-ip = 'fd00::2'; source-port-range = '53/53'",
            ],
            &[
                ("udp [fd00::2]:53 > [fd00::9]:9 out", "REJECT r1"),
                ("udp [fd00::3]:53 > [fd00::9]:9 out", "ACCEPT default"),
                ("udp [fd00::2]:54 > [fd00::9]:9 out", "ACCEPT default"),
            ],
        ),
    ];
    for (keys, packets) in cases {
        assert_verdicts(&of(&inventory(&rules(keys)), "own"), packets);
    }
}

/// Rules for everything from 1.2.3.4, of these policies and priorities, and which of them decides.
#[test]
fn priorities() {
    let cases: &[(&[(&str, u8)], &str)] = &[
        (&[("accept", 2), ("drop", 1)], "REJECT r2"),
        (&[("drop", 2), ("accept", 1)], "ACCEPT r2"),
        (&[("accept", 1), ("drop", 1)], "REJECT r2"),
        (&[("drop", 1), ("accept", 1)], "REJECT r1"),
        (&[("accept", 100), ("accept", 9)], "ACCEPT r2"),
        // Which of two rules that say the same is named does not change with their order.
        (&[("accept", 1), ("accept", 1), ("drop", 2)], "ACCEPT r1"),
        (&[("drop", 7), ("accept", 7), ("drop", 7)], "REJECT r1"),
    ];
    for (given, expected) in cases {
        let keys: Vec<String> = given
            .iter()
            .map(|(policy, priority)| {
                format!(
                    "direction = 'ingress'; policy = '{policy}'; priority = {priority}; ip-protocol = 'ALL'; source-cidr-ip = '1.2.3.4'"
                )
            })
            .collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let policy = of(&inventory(&rules(&keys)), "own");
        assert_eq!(
            verdict(&policy, "icmp 1.2.3.4 > 10.0.0.2 in"),
            *expected,
            "{given:?}"
        );
    }
}

#[test]
fn several_groups_are_merged_whatever_their_order() {
    let keys = rules(&["direction = 'ingress'; priority = 5; ip-protocol = 'ALL'; source-cidr-ip = '1.2.0.0/16'"])
        + "[[security-group]]\nsecurity-group-id = 'sg-4'\nvpc-id = 'vpc-1'\n"
        + &rules(&["direction = 'ingress'; policy = 'drop'; priority = 5; ip-protocol = 'ALL'; source-cidr-ip = '1.2.3.0/24'"])
            .replace("r1", "r9")
        + "[[security-group]]\nsecurity-group-id = 'sg-0'\nvpc-id = 'vpc-1'\n"
        + &rules(&["direction = 'ingress'; priority = 4; ip-protocol = 'ALL'; source-cidr-ip = '1.2.3.4'"]).replace("r1", "r5");
    let inventory = inventory(&keys);
    let ids = ["sg-1", "sg-4", "sg-0"].map(|id| id.parse::<Id>().unwrap());
    let [a, b, c] = &ids;
    let policy = inventory.security_groups().policy(&ids);
    for order in [[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
        let order = order.map(Id::clone);
        assert_eq!(inventory.security_groups().policy(&order), policy);
    }
    assert_verdicts(
        &policy,
        &[
            ("icmp 1.2.3.4 > 10.0.0.2 in", "ACCEPT r5"),
            ("icmp 1.2.3.5 > 10.0.0.2 in", "REJECT r9"),
            ("icmp 1.2.4.5 > 10.0.0.2 in", "ACCEPT r1"),
        ],
    );
    let (direction, flow) = packet("icmp 1.2.3.4 > 10.0.0.2 in");
    let matching: Vec<&str> = policy
        .matching(direction, &flow)
        .map(|rule| rule.rule.id.as_str())
        .collect();
    assert_eq!(matching, ["r5", "r9", "r1"]);
}

#[test]
fn without_rules() {
    let advanced = "security-group-type = 'enterprise'\n";
    let cases = [
        ("", "tcp 1.2.3.4:1 > 10.0.0.2:1 in", "REJECT default"),
        ("", "tcp 10.0.0.2:1 > 1.2.3.4:1 out", "ACCEPT default"),
        (advanced, "tcp 1.2.3.4:1 > 10.0.0.2:1 in", "REJECT default"),
        (advanced, "tcp 10.0.0.2:1 > 1.2.3.4:1 out", "REJECT default"),
        // Members of an advanced group are isolated.
        (
            advanced,
            "tcp 10.0.0.3:1 > 10.0.0.2:1 in",
            "REJECT inner-access-policy",
        ),
        (
            advanced,
            "tcp 10.0.0.2:1 > 10.0.0.3:1 out",
            "REJECT inner-access-policy",
        ),
    ];
    for (keys, packet, expected) in cases {
        let inventory = if keys.is_empty() {
            inventory(keys)
        } else {
            let text = format!(
                "[[security-group]]\nsecurity-group-id = 'sg-1'\nvpc-id = 'vpc-1'\n{keys}\
                 [[eni]]\neni-id = 'own'\nvswitch-id = 'v'\nvpc-id = 'vpc-1'\naccount-id = '1'\nmatch.name = 'a'\n\
                 security-group-ids = ['sg-1']\nprivate-ip-addresses = ['10.0.0.2']\n\
                 [[remote-eni]]\neni-id = 'friend'\nsecurity-group-ids = ['sg-1']\nprivate-ip-addresses = ['10.0.0.3']\n"
            );
            Inventory::parse(&text, "inventory.toml").unwrap()
        };
        assert_eq!(
            verdict(&of(&inventory, "own"), packet),
            expected,
            "{keys} {packet}"
        );
    }
    let none = Policy::default();
    assert_eq!(
        verdict(&none, "tcp 1.2.3.4:1 > 10.0.0.2:1 in"),
        "ACCEPT no-group"
    );
    assert_eq!(
        verdict(&none, "tcp 10.0.0.2:1 > 1.2.3.4:1 out"),
        "ACCEPT no-group"
    );
}

#[test]
fn inner_access_policy() {
    let drop_all = rules(&[
        "direction = 'ingress'; policy = 'drop'; ip-protocol = 'ALL'; source-cidr-ip = '0.0.0.0/0'",
        "direction = 'egress'; policy = 'drop'; ip-protocol = 'ALL'; dest-cidr-ip = '0.0.0.0/0'",
    ]);
    let open = inventory(&drop_all);
    assert_verdicts(
        &of(&open, "own"),
        &[
            // Whatever the rules.
            (
                "tcp 10.0.0.3:1 > 10.0.0.2:1 in",
                "ACCEPT inner-access-policy",
            ),
            (
                "tcp 10.0.0.2:1 > 10.0.0.3:1 out",
                "ACCEPT inner-access-policy",
            ),
            ("icmpv6 fd00::3 > fd00::2 in", "ACCEPT inner-access-policy"),
            // One group in common is enough.
            (
                "tcp 10.0.0.4:1 > 10.0.0.2:1 in",
                "ACCEPT inner-access-policy",
            ),
            ("tcp 10.0.0.5:1 > 10.0.0.2:1 in", "REJECT r1"),
            ("tcp 10.0.0.6:1 > 10.0.0.2:1 in", "REJECT r1"),
        ],
    );

    let accept_80 = rules(&[
        "direction = 'ingress'; ip-protocol = 'TCP'; port-range = '80/80'; source-group-id = 'sg-1'",
    ]);
    let isolated = inventory(&format!("inner-access-policy = 'drop'\n{accept_80}"));
    assert_verdicts(
        &of(&isolated, "own"),
        &[
            (
                "tcp 10.0.0.3:1 > 10.0.0.2:81 in",
                "REJECT inner-access-policy",
            ),
            (
                "tcp 10.0.0.2:1 > 10.0.0.3:81 out",
                "REJECT inner-access-policy",
            ),
            // Rules come before the isolation.
            ("tcp 10.0.0.3:1 > 10.0.0.2:80 in", "ACCEPT r1"),
            ("tcp 10.0.0.2:1 > 10.0.0.5:81 out", "ACCEPT default"),
            ("tcp 10.0.0.5:1 > 10.0.0.2:81 in", "REJECT default"),
        ],
    );
    // Isolated in one group and open in another that both are in: open.
    assert_verdicts(
        &of(&isolated, "both"),
        &[
            (
                "tcp 10.0.0.5:1 > 10.0.0.4:81 in",
                "ACCEPT inner-access-policy",
            ),
            (
                "tcp 10.0.0.3:1 > 10.0.0.4:81 in",
                "REJECT inner-access-policy",
            ),
        ],
    );
}

#[test]
fn members_of_another_vpc_are_strangers_though_they_have_the_same_addresses() {
    let inventory = inventory("");
    assert_eq!(
        verdict(
            &of(&inventory, "stranger"),
            "tcp 10.0.0.3:1 > 10.0.0.6:1 in"
        ),
        "REJECT default"
    );
}
