//! Every kind of rule: each packet by the rule that says so, in `observe` as in `enforce`, and as the reference in user space says.
use std::collections::BTreeMap;

use flowlog_model::{
    inventory::Inventory,
    record::{self, Direction as ModelDirection},
    security_group::{DescribedPacket, Policy, Reason},
};
use flowlog_tests::{
    agent::{Action, Direction, RejectReason, conserved, volume},
    lab::{device_stats, skip_unless_root},
};

use crate::{
    frames::Senders,
    scene::{Flow, Mode, Told, VM, flows, received, silent_wire, start, stop_after, vm},
};

/// What decides a packet of the tables below: a rule, or one of these.
const DEFAULT: &str = "default";
const INNER: &str = "inner-access-policy";

/// Group, rules, and who is a member of what; the tables end with packets and what decides each.
struct Case {
    name: &'static str,
    groups: &'static [&'static str],
    tables: &'static str,
    packets: &'static [(&'static str, bool, &'static str)],
}

const ACCEPT: bool = true;
const REJECT: bool = false;

const BASIC: Case = Case {
    name: "basic groups",
    groups: &["sg-a", "sg-b"],
    tables: r#"
private-ip-addresses = ["10.88.0.10"]
ipv6-addresses = ["fd00:88::10"]

[[remote-eni]]
eni-id = "eni-friend"
security-group-ids = ["sg-a"]
private-ip-addresses = ["10.88.0.11"]
ipv6-addresses = ["fd00:88::11"]

[[remote-eni]]
eni-id = "eni-isolated"
security-group-ids = ["sg-b"]
private-ip-addresses = ["10.88.0.12"]

[[remote-eni]]
eni-id = "eni-admin"
security-group-ids = ["sg-admin"]
private-ip-addresses = ["10.88.9.9"]

[[security-group]]
security-group-id = "sg-admin"
vpc-id = "vpc-test"

[[security-group]]
security-group-id = "sg-a"
vpc-id = "vpc-test"
rule = [
    { security-group-rule-id = "sgr-web", direction = "ingress", ip-protocol = "TCP", port-range = "80/443", source-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-web-6", direction = "ingress", ip-protocol = "TCP", port-range = "443/443", ipv6-source-cidr-ip = "2001:db8::/32" },
    { security-group-rule-id = "sgr-not-these", direction = "ingress", policy = "drop", ip-protocol = "TCP", port-range = "80/80", priority = 1, source-cidr-ip = "192.0.2.0/24" },
    { security-group-rule-id = "sgr-low", direction = "ingress", policy = "drop", ip-protocol = "TCP", port-range = "443/443", priority = 50, source-cidr-ip = "192.0.2.0/24" },
    { security-group-rule-id = "sgr-ssh", direction = "ingress", ip-protocol = "TCP", port-range = "22/22", source-group-id = "sg-admin" },
    { security-group-rule-id = "sgr-list", direction = "ingress", ip-protocol = "UDP", port-range = "53/53", source-prefix-list-id = "pl-dns" },
    { security-group-rule-id = "sgr-ntp", direction = "ingress", ip-protocol = "UDP", port-range = "123/123", source-cidr-ip = "10.0.0.0/8", source-port-range = "123/123", dest-cidr-ip = "10.88.0.10" },
    { security-group-rule-id = "sgr-ping", direction = "ingress", ip-protocol = "ICMP", source-cidr-ip = "198.51.100.0/24" },
    { security-group-rule-id = "sgr-ping-6", direction = "ingress", ip-protocol = "ICMPv6", ipv6-source-cidr-ip = "2001:db8::/32" },
    { security-group-rule-id = "sgr-gre", direction = "ingress", ip-protocol = "GRE", source-cidr-ip = "198.51.100.7" },
    { security-group-rule-id = "sgr-sctp", direction = "ingress", ip-protocol = "132", port-range = "2905/2905", source-cidr-ip = "198.51.100.0/24" },
    { security-group-rule-id = "sgr-esp", direction = "ingress", ip-protocol = "50", source-cidr-ip = "198.51.100.0/24" },
]

[[security-group]]
security-group-id = "sg-b"
vpc-id = "vpc-test"
inner-access-policy = "drop"
rule = [
    { security-group-rule-id = "sgr-all", direction = "ingress", ip-protocol = "ALL", priority = 100, source-cidr-ip = "203.0.113.0/24" },
    { security-group-rule-id = "sgr-no-smtp", direction = "egress", policy = "drop", ip-protocol = "TCP", port-range = "25/25", dest-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-blocked", direction = "egress", policy = "drop", ip-protocol = "ALL", dest-prefix-list-id = "pl-blocked" },
]

[[prefix-list]]
prefix-list-id = "pl-dns"
entry = [{ cidr = "198.51.100.53" }, { cidr = "203.0.113.128/25" }]

[[prefix-list]]
prefix-list-id = "pl-blocked"
address-family = "IPv6"
entry = [{ cidr = "2001:db8:bad::/48" }]
"#,
    packets: &[
        (
            "tcp 198.51.100.1:40001 > 10.88.0.10:80 in",
            ACCEPT,
            "sgr-web",
        ),
        (
            "tcp 198.51.100.1:40002 > 10.88.0.10:443 in",
            ACCEPT,
            "sgr-web",
        ),
        (
            "tcp 198.51.100.1:40003 > 10.88.0.10:444 in",
            REJECT,
            DEFAULT,
        ),
        ("tcp 198.51.100.1:40004 > 10.88.0.10:79 in", REJECT, DEFAULT),
        // Equal priority: drop wins. A lower priority does not.
        (
            "tcp 192.0.2.7:40005 > 10.88.0.10:80 in",
            REJECT,
            "sgr-not-these",
        ),
        ("tcp 192.0.2.7:40006 > 10.88.0.10:443 in", ACCEPT, "sgr-web"),
        (
            "tcp [2001:db8::7]:40007 > [fd00:88::10]:443 in",
            ACCEPT,
            "sgr-web-6",
        ),
        (
            "tcp [2001:db9::7]:40008 > [fd00:88::10]:443 in",
            REJECT,
            DEFAULT,
        ),
        ("tcp 10.88.9.9:40009 > 10.88.0.10:22 in", ACCEPT, "sgr-ssh"),
        ("tcp 10.88.9.8:40010 > 10.88.0.10:22 in", REJECT, DEFAULT),
        (
            "udp 198.51.100.53:40011 > 10.88.0.10:53 in",
            ACCEPT,
            "sgr-list",
        ),
        (
            "udp 203.0.113.200:40012 > 10.88.0.10:53 in",
            ACCEPT,
            "sgr-list",
        ),
        (
            "udp 203.0.113.100:40013 > 10.88.0.10:53 in",
            ACCEPT,
            "sgr-all",
        ),
        ("udp 10.1.2.3:123 > 10.88.0.10:123 in", ACCEPT, "sgr-ntp"),
        ("udp 10.1.2.3:124 > 10.88.0.10:123 in", REJECT, DEFAULT),
        ("udp 10.1.2.3:123 > 10.88.0.13:123 in", REJECT, DEFAULT),
        ("icmp 198.51.100.9 > 10.88.0.10 in", ACCEPT, "sgr-ping"),
        ("icmp 192.0.2.9 > 10.88.0.10 in", REJECT, DEFAULT),
        ("icmpv6 2001:db8::9 > fd00:88::10 in", ACCEPT, "sgr-ping-6"),
        ("icmpv6 2001:db9::9 > fd00:88::10 in", REJECT, DEFAULT),
        ("gre 198.51.100.7 > 10.88.0.10 in", ACCEPT, "sgr-gre"),
        ("gre 198.51.100.8 > 10.88.0.10 in", REJECT, DEFAULT),
        (
            "132 198.51.100.7:40014 > 10.88.0.10:2905 in",
            ACCEPT,
            "sgr-sctp",
        ),
        (
            "132 198.51.100.7:40015 > 10.88.0.10:2906 in",
            REJECT,
            DEFAULT,
        ),
        ("50 198.51.100.7 > 10.88.0.10 in", ACCEPT, "sgr-esp"),
        ("51 198.51.100.7 > 10.88.0.10 in", REJECT, DEFAULT),
        ("51 203.0.113.7 > 10.88.0.10 in", ACCEPT, "sgr-all"),
        // Members of a group that lets them, whatever the rules; members of one that does not, as the rules say.
        ("tcp 10.88.0.11:40016 > 10.88.0.10:9999 in", ACCEPT, INNER),
        (
            "udp [fd00:88::11]:40017 > [fd00:88::10]:9999 in",
            ACCEPT,
            INNER,
        ),
        ("tcp 10.88.0.12:40018 > 10.88.0.10:9999 in", REJECT, INNER),
        ("tcp 10.88.0.10:50001 > 10.88.0.11:25 out", ACCEPT, INNER),
        (
            "tcp 10.88.0.10:50002 > 198.51.100.1:25 out",
            REJECT,
            "sgr-no-smtp",
        ),
        (
            "tcp 10.88.0.10:50003 > 198.51.100.1:26 out",
            ACCEPT,
            DEFAULT,
        ),
        (
            "udp 10.88.0.10:50004 > 198.51.100.1:25 out",
            ACCEPT,
            DEFAULT,
        ),
        (
            "udp [fd00:88::10]:50005 > [2001:db8:bad::1]:1 out",
            REJECT,
            "sgr-blocked",
        ),
        (
            "udp [fd00:88::10]:50006 > [2001:db8:bae::1]:1 out",
            ACCEPT,
            DEFAULT,
        ),
        ("icmp 10.88.0.10 > 198.51.100.77 out", ACCEPT, DEFAULT),
        ("gre 10.88.0.10 > 198.51.100.77 out", ACCEPT, DEFAULT),
    ],
};

const ADVANCED: Case = Case {
    name: "an advanced group",
    groups: &["sg-e"],
    tables: r#"
private-ip-addresses = ["10.88.0.10"]

[[remote-eni]]
eni-id = "eni-member"
security-group-ids = ["sg-e"]
private-ip-addresses = ["10.88.0.11"]

[[security-group]]
security-group-id = "sg-e"
vpc-id = "vpc-test"
security-group-type = "enterprise"
rule = [
    { security-group-rule-id = "sgr-in", direction = "ingress", ip-protocol = "UDP", port-range = "1/200", source-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-out", direction = "egress", ip-protocol = "TCP", port-range = "-1/-1", dest-cidr-ip = "198.51.100.0/24" },
]
"#,
    packets: &[
        (
            "udp 198.51.100.1:40001 > 10.88.0.10:200 in",
            ACCEPT,
            "sgr-in",
        ),
        (
            "udp 198.51.100.1:40002 > 10.88.0.10:201 in",
            REJECT,
            DEFAULT,
        ),
        ("tcp 10.88.0.11:40003 > 10.88.0.10:80 in", REJECT, INNER),
        (
            "tcp 10.88.0.10:50001 > 198.51.100.1:80 out",
            ACCEPT,
            "sgr-out",
        ),
        (
            "udp 10.88.0.10:50002 > 198.51.100.1:80 out",
            REJECT,
            DEFAULT,
        ),
        ("tcp 10.88.0.10:50003 > 10.88.0.11:80 out", REJECT, INNER),
        ("icmp 10.88.0.10 > 198.51.100.1 out", REJECT, DEFAULT),
    ],
};

/// What the reference says, in the words of the tables.
fn reference(policy: &Policy, packet: &DescribedPacket) -> (bool, String) {
    let verdict = policy.decide(packet.direction, &packet.flow);
    let by = match &verdict.reason {
        Reason::Rule(rule) => rule.rule.id.as_str().to_owned(),
        other => other.as_str().to_owned(),
    };
    (verdict.action == record::Action::Accept, by)
}

/// How often a packet of the table is sent.
fn times(index: usize) -> u64 {
    index as u64 % 3 + 1
}

fn expected(index: usize, packet: &DescribedPacket, accept: bool, by: &str) -> (Flow, Told) {
    let flow = &packet.flow;
    let flow = Flow {
        direction: match packet.direction {
            ModelDirection::In => Direction::In,
            ModelDirection::Out => Direction::Out,
        },
        protocol: flow.protocol,
        src: (flow.src_addr, flow.src_port).into(),
        dst: (flow.dst_addr, flow.dst_port).into(),
        action: if accept {
            Action::Accept
        } else {
            Action::Reject
        },
    };
    let told = Told {
        packets: times(index),
        reason: (!accept).then_some(RejectReason::SecurityGroup),
        rule: (by != DEFAULT && by != INNER).then(|| by.to_owned()),
    };
    (flow, told)
}

fn is_judged(case: &Case, mode: Mode) {
    let pair = silent_wire();
    let agent = start(vm(&pair, mode, case.groups, case.tables));
    let text = std::fs::read_to_string(agent.inventory_path()).expect("the inventory");
    let inventory = Inventory::parse(&text, "inventory.toml").expect("an inventory");
    let policy = inventory.policy(&inventory.entries()[0]);
    let before = received(&pair.right().namespace);
    let mut senders = Senders::new(&pair);
    let mut wanted: BTreeMap<Flow, Told> = BTreeMap::new();
    let (mut came_in, mut went_out, mut passed_in, mut passed_out) = (0, 0, 0, 0);
    for (index, (text, accept, by)) in case.packets.iter().enumerate() {
        let packet: DescribedPacket = text.parse().expect("a packet");
        assert_eq!(
            reference(&policy, &packet),
            (*accept, (*by).to_owned()),
            "{text}"
        );
        wanted.extend([expected(index, &packet, *accept, by)]);
        let taken = senders.send(&packet, times(index));
        let passes = if *accept || mode == Mode::Observe {
            times(index)
        } else {
            0
        };
        if packet.direction == ModelDirection::In {
            came_in += times(index);
            passed_in += passes;
        } else {
            assert_eq!(taken, passes, "{text}");
            went_out += times(index);
            passed_out += passes;
        }
    }
    for (way, packets) in [(Direction::In, came_in), (Direction::Out, went_out)] {
        agent.wait_for_packets(VM, way, packets).expect("records");
    }
    // The devices' own counters agree, though what was dropped on its way out never came to one.
    let status = agent.status().expect("a status");
    for of in status["conservation"].as_array().expect("a list") {
        assert_eq!(of["difference"], 0, "{of}");
    }
    let outcome = stop_after(agent, came_in, went_out);
    let told = flows(&outcome.records);
    for (flow, told) in &told {
        assert_eq!(Some(told), wanted.get(flow), "{flow:?} of {}", case.name);
    }
    assert_eq!(told, wanted, "{}", case.name);
    // What is rejected does not arrive where that is enforced, and everything does where it is not.
    assert_eq!(received(&pair.right().namespace) - before, passed_in);
    let outside = device_stats(&pair.left().namespace, &pair.left().name).expect("statistics");
    assert_eq!(outside.rx_packets, passed_out);
    let both =
        [Direction::In, Direction::Out].map(|way| (VM, way, volume(&outcome.records, VM, way)));
    conserved(&outcome.records, &both);
    assert_eq!((both[0].2.packets, both[1].2.packets), (came_in, went_out));
}

#[test]
fn every_kind_of_rule_of_basic_groups() {
    if skip_unless_root("every_kind_of_rule_of_basic_groups") {
        return;
    }
    for mode in Mode::BOTH {
        is_judged(&BASIC, mode);
    }
}

#[test]
fn an_advanced_group_denies_both_ways() {
    if skip_unless_root("an_advanced_group_denies_both_ways") {
        return;
    }
    for mode in Mode::BOTH {
        is_judged(&ADVANCED, mode);
    }
}
