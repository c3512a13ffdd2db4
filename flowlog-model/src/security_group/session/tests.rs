use std::net::IpAddr;

use super::*;
use crate::inventory::Inventory;

mod random;

use Direction::{In, Out};

const CONFIG: SessionConfig = SessionConfig {
    max_sessions: 1000,
    max_fragmented_datagrams: 8,
    when_full: WhenFull::Accept,
    mode: SecurityMode::Enforce,
};

const OBSERVE: SessionConfig = SessionConfig {
    mode: SecurityMode::Observe,
    ..CONFIG
};

const VM: &str = "10.0.0.2";
const PEER: &str = "192.0.2.1";
const ROUTER: &str = "198.51.100.1";

/// A policy of one group: `keys` of the group, and rules as in `ingress accept TCP 80/80`, all for 0.0.0.0/0.
fn policy(keys: &str, rules: &[&str]) -> Policy {
    let rule = |(number, rule): (usize, &&str)| {
        let words: Vec<&str> = rule.split(' ').collect();
        let &[direction, policy, protocol, ports] = words.as_slice() else {
            panic!("{rule}")
        };
        let peer = if direction == "ingress" {
            "source"
        } else {
            "dest"
        };
        format!(
            "[[security-group.rule]]\nsecurity-group-rule-id = 'r{number}'\ndirection = '{direction}'\npolicy = '{policy}'\n\
             ip-protocol = '{protocol}'\nport-range = '{ports}'\n{peer}-cidr-ip = '0.0.0.0/0'\n"
        )
    };
    let rules: String = (1..).zip(rules).map(rule).collect();
    let text = format!(
        "[[eni]]\neni-id = 'eni-1'\nvswitch-id = 'v'\nvpc-id = 'p'\naccount-id = '1'\nmatch.name = 'a'\nsecurity-group-ids = ['sg-1']\n\
         [[security-group]]\nsecurity-group-id = 'sg-1'\nvpc-id = 'p'\n{keys}\n{rules}"
    );
    let inventory = Inventory::parse(&text, "inventory.toml").unwrap();
    inventory.policy(&inventory.entries()[0])
}

const ADVANCED: &str = "security-group-type = 'enterprise'";

fn flow(protocol: u8, src: (&str, u16), dst: (&str, u16)) -> FlowTuple {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    FlowTuple {
        src_addr: address(src.0),
        src_port: src.1,
        dst_addr: address(dst.0),
        dst_port: dst.1,
        protocol,
    }
}

fn packet(direction: Direction, flow: FlowTuple, detail: Detail) -> Packet {
    Packet {
        direction,
        flow,
        detail,
        fragment: Fragment::None,
    }
}

/// From the peer's port 5000 to the VM's `port`, or the way back.
fn tcp(direction: Direction, port: u16, flags: u8) -> Packet {
    let inward = flow(6, (PEER, 5000), (VM, port));
    let flow = match direction {
        In => inward,
        Out => reversed(&inward),
    };
    packet(direction, flow, Detail::Tcp { flags })
}

fn udp(direction: Direction, port: u16) -> Packet {
    let Packet { flow, .. } = tcp(direction, port, 0);
    packet(
        direction,
        FlowTuple {
            protocol: 17,
            ..flow
        },
        Detail::None,
    )
}

fn icmp(direction: Direction, identifier: u16, is_reply: bool) -> Packet {
    let Packet { flow, .. } = tcp(direction, 0, 0);
    let flow = FlowTuple {
        src_port: 0,
        dst_port: 0,
        protocol: 1,
        ..flow
    };
    packet(
        direction,
        flow,
        Detail::Query(Query {
            identifier,
            is_reply,
        }),
    )
}

/// An error from a router, about a packet that went the other way.
fn error(direction: Direction, about: &Packet) -> Packet {
    let query = match about.detail {
        Detail::Query(query) => Some(query),
        _ => None,
    };
    let flow = match direction {
        In => flow(1, (ROUTER, 0), (VM, 0)),
        Out => flow(1, (VM, 0), (PEER, 0)),
    };
    let quoted = Quoted {
        flow: about.flow,
        query,
    };
    packet(direction, flow, Detail::Error(Some(quoted)))
}

fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What happens at an ENI: at which second, which packet, and the action with its basis: `P` for the packet's own rules, `S` for the
/// session's, and the rule, `-` for none.
type Event = (u64, Packet, &'static str);

fn shown(judgement: &Judgement) -> String {
    let basis = match judgement.basis {
        Basis::Packet(_) => "P",
        Basis::Session(_) => "S",
        Basis::NotJudged => "not judged",
        Basis::NoRoom => "no room",
    };
    let rule = judgement.rule().map_or("-", |rule| rule.rule.id.as_str());
    format!("{} {basis} {rule}", judgement.action.as_str())
}

fn run(config: SessionConfig, policy: &Policy, events: &[Event]) {
    let mut sessions = Sessions::new(config);
    let current = Current {
        policy,
        generation: 1,
    };
    for (number, (seconds, packet, expected)) in events.iter().enumerate() {
        let judgement = sessions.judge(packet, current, second(*seconds));
        assert_eq!(shown(&judgement), *expected, "event {number}: {packet:?}");
    }
}

/// The examples at the end of the reference's page on flow logs.
#[test]
fn a_reply_inherits_accept() {
    let policy = policy(ADVANCED, &["ingress accept TCP 80/80"]);
    run(
        CONFIG,
        &policy,
        &[
            (0, tcp(In, 80, SYN), "ACCEPT P r1"),
            (0, tcp(Out, 80, SYN | ACK), "ACCEPT S r1"),
            (0, tcp(In, 80, ACK), "ACCEPT S r1"),
            // Another port is another session.
            (0, tcp(Out, 81, SYN | ACK), "REJECT P -"),
        ],
    );
}

#[test]
fn a_ping_that_a_stateless_filter_drops_on_the_way_out() {
    let policy = policy("", &["ingress accept ICMP -1/-1", "egress drop ICMP -1/-1"]);
    let (request, reply) = (icmp(In, 7, false), icmp(Out, 7, true));
    // Groups are stateful.
    run(
        CONFIG,
        &policy,
        &[(0, request, "ACCEPT P r1"), (0, reply, "ACCEPT S r1")],
    );
    // The rules by themselves are the stateless filter: ACCEPT `in`, REJECT `out`.
    let stateless =
        [request, reply].map(|packet| policy.decide(packet.direction, &packet.flow).action);
    assert_eq!(stateless, [Action::Accept, Action::Reject]);
}

#[test]
fn a_ping_that_is_denied_in_gives_one_reject() {
    let policy = policy("", &["ingress drop ICMP -1/-1"]);
    // It is dropped, so there is nothing else.
    run(CONFIG, &policy, &[(0, icmp(In, 7, false), "REJECT P r1")]);
}

#[test]
fn a_ping_that_is_denied_out_is_rejected_and_its_answer_is_a_stranger_s() {
    let policy = policy(ADVANCED, &["egress drop ICMP -1/-1"]);
    run(
        CONFIG,
        &policy,
        &[
            (0, icmp(Out, 7, false), "REJECT P r1"),
            (0, icmp(In, 7, true), "REJECT P -"),
        ],
    );
}

#[test]
fn pings_are_sessions_by_identifier_and_direction() {
    let policy = policy("", &[]);
    run(
        CONFIG,
        &policy,
        &[
            (0, icmp(Out, 7, false), "ACCEPT P -"),
            (0, icmp(In, 7, true), "ACCEPT S -"),
            (0, icmp(In, 8, true), "REJECT P -"),
            // That the VM asks the peer does not allow the peer to ask.
            (0, icmp(In, 7, false), "REJECT P -"),
        ],
    );
}

#[test]
fn a_reply_that_nobody_asked_for_opens_nothing() {
    let policy = policy("", &["ingress accept ICMP -1/-1", "egress drop ICMP -1/-1"]);
    run(
        CONFIG,
        &policy,
        &[
            (0, icmp(In, 7, true), "ACCEPT P r1"),
            (0, icmp(Out, 7, false), "REJECT P r2"),
        ],
    );
}

#[test]
fn errors_pass_as_the_session_that_they_are_about() {
    let policy = policy(
        ADVANCED,
        &["ingress accept UDP 53/53", "egress accept ICMP -1/-1"],
    );
    let (ask, answer) = (udp(In, 53), udp(Out, 53));
    run(
        CONFIG,
        &policy,
        &[
            (0, error(In, &answer), "REJECT P -"),
            (0, ask, "ACCEPT P r1"),
            (0, answer, "ACCEPT S r1"),
            (0, error(In, &answer), "ACCEPT S r1"),
            (0, error(Out, &ask), "ACCEPT S r1"),
            // What it quotes went the other way than the error, or it is forged.
            (0, error(In, &ask), "REJECT P -"),
            (0, error(In, &udp(Out, 54)), "REJECT P -"),
            (1, icmp(Out, 9, false), "ACCEPT P r2"),
            (1, error(In, &icmp(Out, 9, false)), "ACCEPT S r2"),
            (1, error(In, &icmp(Out, 10, false)), "REJECT P -"),
            // Errors do not keep a session alive.
            (300, error(In, &answer), "ACCEPT S r1"),
            (301, error(In, &answer), "REJECT P -"),
        ],
    );
}

#[test]
fn an_error_that_quotes_too_little_and_other_icmp_are_judged_by_the_rules() {
    let policy = policy("", &["ingress accept ICMP -1/-1"]);
    let bare = |direction, detail| packet(direction, icmp(direction, 0, false).flow, detail);
    let mut sessions = Sessions::new(CONFIG);
    let current = Current {
        policy: &policy,
        generation: 1,
    };
    for detail in [Detail::Error(None), Detail::OtherIcmp] {
        assert_eq!(
            shown(&sessions.judge(&bare(In, detail), current, second(0))),
            "ACCEPT P r1"
        );
    }
    assert!(sessions.is_empty());
}

#[test]
fn neighbour_discovery_is_not_judged() {
    let policy = policy(ADVANCED, &[]);
    let solicitation = flow(58, ("fe80::1", 0), ("ff02::1:ff00:2", 0));
    let packet = packet(In, solicitation, Detail::NeighborDiscovery);
    run(CONFIG, &policy, &[(0, packet, "ACCEPT not judged -")]);
    let kinds =
        [133, 134, 135, 136, 137, 128, 129, 1, 4, 130].map(|icmp_type| IcmpKind::of(58, icmp_type));
    use IcmpKind::{Error, NeighborDiscovery as Nd, Other, Reply, Request};
    assert_eq!(
        kinds,
        [Nd, Nd, Nd, Nd, Other, Request, Reply, Error, Error, Other]
    );
    let kinds = [8, 0, 3, 11, 12, 5, 133].map(|icmp_type| IcmpKind::of(1, icmp_type));
    assert_eq!(kinds, [Request, Reply, Error, Error, Error, Other, Other]);
}

#[test]
fn fragments_follow_their_first() {
    let policy = policy(
        ADVANCED,
        &["ingress accept UDP 53/53", "egress accept ALL -1/-1"],
    );
    let first = |packet: Packet, id| Packet {
        fragment: Fragment::First(id),
        ..packet
    };
    let later = |packet: Packet, id| Packet {
        flow: FlowTuple {
            src_port: 0,
            dst_port: 0,
            ..packet.flow
        },
        fragment: Fragment::Later(id),
        ..packet
    };
    let (ask, answer, other) = (udp(In, 53), udp(Out, 53), udp(In, 54));
    run(
        CONFIG,
        &policy,
        &[
            // Before its first it has no ports.
            (0, later(ask, 1), "REJECT P -"),
            (0, first(ask, 1), "ACCEPT P r1"),
            (0, later(ask, 1), "ACCEPT S r1"),
            (0, later(ask, 2), "REJECT P -"),
            (0, first(other, 3), "REJECT P -"),
            (0, later(other, 3), "REJECT P -"),
            // The reply's fragments; the same identification the other way is another datagram.
            (0, first(answer, 1), "ACCEPT S r1"),
            (0, later(answer, 1), "ACCEPT S r1"),
            // A ping that is too long for one packet.
            (0, first(icmp(Out, 5, false), 9), "ACCEPT P r2"),
            (0, first(icmp(In, 5, true), 10), "ACCEPT S r2"),
            (0, later(icmp(In, 5, true), 10), "ACCEPT S r2"),
        ],
    );
    let mut sessions = Sessions::new(CONFIG);
    let current = Current {
        policy: &policy,
        generation: 1,
    };
    let mut judge = |packet| shown(&sessions.judge(&packet, current, second(0)));
    // Only so many datagrams are remembered.
    for id in 0..9 {
        judge(first(ask, id));
    }
    assert_eq!(judge(later(ask, 0)), "REJECT P -");
    assert_eq!(judge(later(ask, 1)), "ACCEPT S r1");
}

#[test]
fn sessions_end_by_protocol_and_stage() {
    let policy = policy(ADVANCED, &["ingress accept ALL -1/-1"]);
    let (ask, answer) = (tcp(In, 80, SYN), tcp(Out, 80, ACK));
    let fin = |direction| tcp(direction, 80, FIN | ACK);
    let cases: &[&[Event]] = &[
        &[
            (0, ask, "ACCEPT P r1"),
            (60, answer, "ACCEPT S r1"),
            (970, answer, "ACCEPT S r1"),
            (1881, answer, "REJECT P -"),
        ],
        &[(0, ask, "ACCEPT P r1"), (61, answer, "REJECT P -")],
        // The opener alone never opens it.
        &[
            (0, ask, "ACCEPT P r1"),
            (1, ask, "ACCEPT S r1"),
            (62, answer, "REJECT P -"),
        ],
        &[
            (0, ask, "ACCEPT P r1"),
            (0, fin(Out), "ACCEPT S r1"),
            (900, fin(In), "ACCEPT S r1"),
            (961, answer, "REJECT P -"),
        ],
        &[
            (0, ask, "ACCEPT P r1"),
            (0, tcp(Out, 80, RST), "ACCEPT S r1"),
            (60, answer, "ACCEPT S r1"),
            (121, answer, "REJECT P -"),
        ],
        &[
            (0, udp(In, 53), "ACCEPT P r1"),
            (61, udp(Out, 53), "REJECT P -"),
        ],
        &[
            (0, udp(In, 53), "ACCEPT P r1"),
            (60, udp(Out, 53), "ACCEPT S r1"),
            (360, udp(Out, 53), "ACCEPT S r1"),
            (661, udp(Out, 53), "REJECT P -"),
        ],
        &[
            (0, icmp(In, 1, false), "ACCEPT P r1"),
            (60, icmp(Out, 1, true), "ACCEPT S r1"),
            (121, icmp(Out, 1, true), "REJECT P -"),
        ],
    ];
    for events in cases {
        run(CONFIG, &policy, events);
    }
    for protocol in 0..=u8::MAX {
        for stage in [Stage::Opening, Stage::Open, Stage::Closing] {
            assert!(stage.max_idle(protocol) <= MAX_IDLE);
        }
    }
}

#[test]
fn a_syn_on_a_closing_session_is_judged_anew() {
    let policy = policy(ADVANCED, &["ingress accept TCP 80/80"]);
    run(
        CONFIG,
        &policy,
        &[
            (0, tcp(In, 80, SYN), "ACCEPT P r1"),
            (0, tcp(Out, 80, SYN | ACK), "ACCEPT S r1"),
            (0, tcp(Out, 80, RST), "ACCEPT S r1"),
            (0, tcp(Out, 80, SYN), "REJECT P -"),
            (0, tcp(In, 80, SYN), "ACCEPT P r1"),
        ],
    );
}

#[test]
fn a_rejected_packet_opens_nothing_where_it_is_dropped() {
    let policy = policy("", &[]);
    run(
        CONFIG,
        &policy,
        &[
            (0, udp(In, 123), "REJECT P -"),
            (0, udp(Out, 123), "ACCEPT P -"),
            (0, udp(In, 123), "ACCEPT S -"),
        ],
    );
}

#[test]
fn where_a_rejected_packet_passes_its_answers_are_rejected_too() {
    let policy = policy("", &["ingress drop ALL -1/-1"]);
    run(
        OBSERVE,
        &policy,
        &[
            (0, tcp(In, 22, SYN), "REJECT P r1"),
            (0, tcp(Out, 22, SYN | ACK), "REJECT S r1"),
            (0, tcp(In, 22, ACK), "REJECT S r1"),
            (0, icmp(In, 1, false), "REJECT P r1"),
            (0, icmp(Out, 1, true), "REJECT S r1"),
            // A session of the VM's own, on the same ports.
            (1, tcp(Out, 22, SYN), "ACCEPT P -"),
            (1, tcp(In, 22, SYN | ACK), "ACCEPT S -"),
        ],
    );
}

#[test]
fn a_changed_policy_cuts_only_sessions_whose_outcome_changes() {
    let before = policy(
        ADVANCED,
        &["ingress accept TCP 22/22", "ingress accept TCP 80/80"],
    );
    let after = policy(
        ADVANCED,
        &[
            "ingress drop TCP 22/22",
            "egress accept ALL -1/-1",
            "ingress accept TCP 1/100",
        ],
    );
    let mut sessions = Sessions::new(CONFIG);
    let mut judge = |packet: Packet, policy, generation| {
        shown(&sessions.judge(&packet, Current { policy, generation }, second(0)))
    };
    for port in [22, 80] {
        judge(tcp(In, port, SYN), &before, 1);
        judge(tcp(Out, port, SYN | ACK), &before, 1);
    }
    // Allowed still, by another rule, also for a reply.
    assert_eq!(judge(tcp(Out, 80, ACK), &after, 2), "ACCEPT S r3");
    // Cut, both ways: the new egress rule is about what the VM opens, and this is an answer.
    assert_eq!(judge(tcp(Out, 22, ACK), &after, 2), "REJECT S r1");
    assert_eq!(judge(tcp(In, 22, ACK), &after, 2), "REJECT S r1");
    // And back.
    assert_eq!(judge(tcp(Out, 22, ACK), &before, 3), "ACCEPT S r1");
}

#[test]
fn a_full_table_clears_what_is_over_and_then_does_as_it_is_told() {
    let policy = policy("", &["ingress accept UDP -1/-1"]);
    for (when_full, expected) in [
        (WhenFull::Accept, "ACCEPT P r1"),
        (WhenFull::Reject, "REJECT no room -"),
    ] {
        let mut sessions = Sessions::new(SessionConfig {
            max_sessions: 2,
            when_full,
            ..CONFIG
        });
        let current = Current {
            policy: &policy,
            generation: 1,
        };
        for port in [1, 2] {
            sessions.judge(&udp(In, port), current, second(0));
        }
        assert_eq!(
            shown(&sessions.judge(&udp(In, 3), current, second(1))),
            expected
        );
        assert_eq!((sessions.len(), sessions.without_room()), (2, 1));
        // A session that is there goes on.
        assert_eq!(
            shown(&sessions.judge(&udp(Out, 1), current, second(1))),
            "ACCEPT S r1"
        );
        // The other one is over after its minute.
        assert_eq!(
            shown(&sessions.judge(&udp(In, 3), current, second(61))),
            "ACCEPT P r1"
        );
        assert_eq!((sessions.len(), sessions.without_room()), (2, 1));
    }
}

#[test]
fn off_and_without_groups_nothing_is_judged() {
    let drop = policy("", &["ingress drop ALL -1/-1"]);
    let off = SessionConfig {
        mode: SecurityMode::Off,
        ..CONFIG
    };
    run(off, &drop, &[(0, tcp(In, 80, SYN), "ACCEPT not judged -")]);
    run(
        CONFIG,
        &Policy::default(),
        &[(0, tcp(In, 80, SYN), "ACCEPT not judged -")],
    );
}
