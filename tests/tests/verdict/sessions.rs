//! What follows the first packet: replies, ICMP errors, fragments; and the examples of what a flow log says of them.
use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use flowlog_tests::{
    agent::{Action, Direction, Record, RejectReason},
    lab::{EndPlan, VethPair, skip_unless_root, traffic},
    packets::build::{self, Extension, Piece},
};

use crate::{
    frames::Senders,
    scene::{
        Mode, Told, address, flows, nft, packets, received, silent_wire, start, stop_after, vm,
        wire,
    },
};

/// Allows nothing but what its rules say.
const CLOSED: &str = r#"
[[security-group]]
security-group-id = "sg"
vpc-id = "vpc-test"
security-group-type = "enterprise"
"#;

fn closed_but(rules: &str) -> String {
    format!("{CLOSED}rule = [\n{rules}\n]\n")
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// One TCP connection gives two records: the reply inherits, and names the rule that let the request in.
#[test]
fn a_reply_inherits_the_verdict_on_the_request() {
    if skip_unless_root("a_reply_inherits_the_verdict_on_the_request") {
        return;
    }
    let rules = closed_but(
        r#"{ security-group-rule-id = "sgr-web", direction = "ingress", ip-protocol = "TCP", port-range = "80/80", source-cidr-ip = "10.77.0.0/24" },
           { security-group-rule-id = "sgr-api", direction = "egress", ip-protocol = "TCP", port-range = "8080/8080", ipv6-dest-cidr-ip = "fd00:77::/64" },"#,
    );
    for mode in Mode::BOTH {
        let pair = wire();
        let agent = start(vm(&pair, mode, &["sg"], &rules));
        let (outside, inside) = (&pair.left().namespace, &pair.right().namespace);
        let web = SocketAddr::new(address(pair.right(), false), 80);
        let api = SocketAddr::new(address(pair.left(), true), 8080);
        let incoming = traffic::tcp_transfer(outside, (inside, web), 100_000).expect("a transfer");
        let outgoing = traffic::tcp_transfer(inside, (outside, api), 100_000).expect("a transfer");
        let flows = flows(&stop_after(agent, 1, 1).records);
        assert_eq!(flows.len(), 4, "{flows:#?}");
        for (flow, told) in &flows {
            assert_eq!(flow.action, Action::Accept, "{flow:?}");
            let rule = if [flow.src, flow.dst].contains(&web) {
                "sgr-web"
            } else {
                "sgr-api"
            };
            assert_eq!((told.rule.as_deref(), told.reason), (Some(rule), None));
        }
        for transfer in [incoming, outgoing] {
            for (src, dst) in [
                (transfer.client, transfer.server),
                (transfer.server, transfer.client),
            ] {
                assert!(flows.keys().any(|flow| (flow.src, flow.dst) == (src, dst)));
            }
        }
    }
}

const PING: &str = r#"{ security-group-rule-id = "sgr-ping", direction = "ingress", ip-protocol = "ICMP", source-cidr-ip = "10.77.0.0/24" },
           { security-group-rule-id = "sgr-ping-6", direction = "ingress", ip-protocol = "ICMPv6", ipv6-source-cidr-ip = "fd00:77::/64" },"#;

/// Of each flow: direction, protocol, action, and what the records say.
fn lines(records: &[Record]) -> Vec<(Direction, u8, Action, Told)> {
    let flows = flows(records).into_iter();
    flows
        .map(|(flow, told)| (flow.direction, flow.protocol, flow.action, told))
        .collect()
}

/// An echo request to the VM, whose answer nobody waits for.
fn ping(pair: &VethPair, v6: bool) {
    let request = if v6 {
        "icmpv6 fd00:77::1 > fd00:77::2 in"
    } else {
        "icmp 10.77.0.1 > 10.77.0.2 in"
    };
    let taken = Senders::new(pair).send(&request.parse().expect("a packet"), 1);
    assert_eq!(taken, 1);
}

/// ACCEPT in, and REJECT out by the filter that is not stateful.
#[test]
fn a_ping_whose_reply_is_denied_on_the_way_out() {
    if skip_unless_root("a_ping_whose_reply_is_denied_on_the_way_out") {
        return;
    }
    for (mode, v6) in [
        (Mode::Observe, false),
        (Mode::Enforce, false),
        (Mode::Enforce, true),
    ] {
        let pair = wire();
        nft(
            &pair.right().namespace,
            "output",
            "icmp type echo-reply drop; icmpv6 type echo-reply drop;",
        );
        let agent = start(vm(&pair, mode, &["sg"], &closed_but(PING)));
        ping(&pair, v6);
        let (protocol, rule) = if v6 {
            (ICMPV6, "sgr-ping-6")
        } else {
            (ICMP, "sgr-ping")
        };
        let request = Told {
            packets: 1,
            reason: None,
            rule: Some(rule.to_owned()),
        };
        let reply = Told {
            packets: 1,
            reason: Some(RejectReason::Netfilter),
            rule: None,
        };
        assert_eq!(
            lines(&stop_after(agent, 1, 1).records),
            [
                (Direction::In, protocol, Action::Accept, request),
                (Direction::Out, protocol, Action::Reject, reply),
            ],
            "{mode:?}"
        );
    }
}

/// One REJECT only.
#[test]
fn a_ping_that_is_denied_in() {
    if skip_unless_root("a_ping_that_is_denied_in") {
        return;
    }
    for v6 in [false, true] {
        let pair = wire();
        let agent = start(vm(&pair, Mode::Enforce, &["sg"], CLOSED));
        ping(&pair, v6);
        let protocol = if v6 { ICMPV6 } else { ICMP };
        let request = Told {
            packets: 1,
            reason: Some(RejectReason::SecurityGroup),
            rule: None,
        };
        assert_eq!(
            lines(&stop_after(agent, 1, 0).records),
            [(Direction::In, protocol, Action::Reject, request)]
        );
    }
}

/// Where it is only observed, it passes, and so does its reply: both are as they would have been.
#[test]
fn a_ping_that_would_be_denied_is_answered_and_both_are_rejects() {
    if skip_unless_root("a_ping_that_would_be_denied_is_answered_and_both_are_rejects") {
        return;
    }
    let pair = wire();
    let agent = start(vm(&pair, Mode::Observe, &["sg"], CLOSED));
    for v6 in [false, true] {
        let target = address(pair.right(), v6);
        let answered = traffic::ping(&pair.left().namespace, target, 5, 56).expect("answers");
        assert_eq!(answered, 5);
    }
    let flows = flows(&stop_after(agent, 10, 10).records);
    assert_eq!(flows.len(), 4, "{flows:#?}");
    for (flow, told) in &flows {
        assert_eq!(
            (flow.action, told.packets, told.reason),
            (Action::Reject, 5, Some(RejectReason::SecurityGroup))
        );
    }
}

/// An answer that the rules would not let out, about a packet that they let in.
#[test]
fn an_icmp_error_passes_as_the_session_that_it_is_about() {
    if skip_unless_root("an_icmp_error_passes_as_the_session_that_it_is_about") {
        return;
    }
    let rules = closed_but(
        r#"{ security-group-rule-id = "sgr-udp", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", source-cidr-ip = "0.0.0.0/0" },
           { security-group-rule-id = "sgr-udp-6", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", ipv6-source-cidr-ip = "::/0" },"#,
    );
    for mode in Mode::BOTH {
        for v6 in [false, true] {
            let pair = wire();
            let agent = start(vm(&pair, mode, &["sg"], &rules));
            // Nobody listens there.
            let target = SocketAddr::new(address(pair.right(), v6), 7000);
            let socket = connected(pair.left(), target);
            socket.send(b"is anybody there").expect("sent");
            let error = socket.recv(&mut [0; 8]).expect_err("nobody is");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            let flows = flows(&stop_after(agent, 1, 1).records);
            let rule = if v6 { "sgr-udp-6" } else { "sgr-udp" };
            assert_eq!(flows.len(), 2, "{flows:#?}");
            for (flow, told) in &flows {
                assert_eq!((flow.action, told.packets), (Action::Accept, 1), "{flow:?}");
                assert_eq!(told.rule.as_deref(), Some(rule), "{flow:?}");
            }
        }
    }
}

fn connected(end: &EndPlan, target: SocketAddr) -> UdpSocket {
    let any = SocketAddr::new(address(end, target.is_ipv6()), 0);
    let socket = end.namespace.enter(|| UdpSocket::bind(any));
    let socket = socket.expect("the namespace").expect("a socket");
    socket.connect(target).expect("connected");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a time limit");
    socket
}

/// Later fragments have no ports, and are judged by those of the first.
#[test]
fn fragments_are_judged_by_the_ports_of_their_first() {
    if skip_unless_root("fragments_are_judged_by_the_ports_of_their_first") {
        return;
    }
    let rules = closed_but(
        r#"{ security-group-rule-id = "sgr-udp", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", source-cidr-ip = "0.0.0.0/0" },
           { security-group-rule-id = "sgr-udp-6", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", ipv6-source-cidr-ip = "::/0" },"#,
    );
    for mode in Mode::BOTH {
        for v6 in [false, true] {
            let pair = silent_wire();
            let agent = start(vm(&pair, mode, &["sg"], &rules));
            let mut senders = Senders::new(&pair);
            for (id, port) in [(1, 7000), (2, 7001)] {
                for frame in fragments(pair.right(), v6, id, port) {
                    senders.send_in(&frame, 1);
                }
            }
            let flows = flows(&stop_after(agent, 6, 0).records);
            let of = |port: u16, action: Action| {
                packets(&flows, |flow, _| {
                    flow.dst.port() == port && flow.action == action && flow.protocol == UDP
                })
            };
            assert_eq!(
                (of(7000, Action::Accept), of(7001, Action::Reject)),
                (3, 3),
                "{flows:#?}"
            );
            assert_eq!(flows.len(), 2, "{flows:#?}");
            let passed = if mode == Mode::Enforce { 3 } else { 6 };
            assert_eq!(received(&pair.right().namespace), passed);
        }
    }
}

/// Three fragments of one UDP datagram to a port, in frames to an end.
fn fragments(to: &EndPlan, v6: bool, id: u32, port: u16) -> [Vec<u8>; 3] {
    let mut datagram = build::udp(&[0x5a; 64]);
    datagram[2..4].copy_from_slice(&port.to_be_bytes());
    [0, 1, 2].map(|index| {
        let piece = Piece {
            id,
            offset: index * 3,
            more: index < 2,
        };
        let part = &datagram[usize::from(index) * 24..][..24];
        let mut frame = if v6 {
            let chain = [Extension::Fragment(piece)];
            build::ethernet(build::IPV6, &build::ipv6(&chain, UDP, part))
        } else {
            build::ethernet(build::IPV4, &build::ipv4(UDP, &[], piece, part))
        };
        frame[..6].copy_from_slice(&to.mac);
        frame
    })
}

/// The agent watches, and nothing else changes: what passes without it passes with it, though every packet is a REJECT.
#[test]
fn observing_changes_the_fate_of_no_packet() {
    if skip_unless_root("observing_changes_the_fate_of_no_packet") {
        return;
    }
    let pair = wire();
    let (outside, inside) = (&pair.left().namespace, &pair.right().namespace);
    let exchange = || {
        let before = received(inside);
        for v6 in [false, true] {
            let target = SocketAddr::new(address(pair.right(), v6), 0);
            let done = traffic::udp_exchange(outside, (inside, target), 20, 100).expect("answers");
            assert_eq!(done.round_trips, 20);
            assert_eq!(
                traffic::ping(outside, target.ip(), 20, 56).expect("answers"),
                20
            );
            let done =
                traffic::tcp_transfer(outside, (inside, target), 100_000).expect("a transfer");
            assert_eq!(done.received, 100_000);
        }
        received(inside) - before
    };
    exchange();
    let agent = start(vm(&pair, Mode::Observe, &["sg"], CLOSED));
    exchange();
    let flows = flows(&stop_after(agent, 80, 80).records);
    let rejected = packets(&flows, |flow, told| {
        flow.action == Action::Reject && told.reason == Some(RejectReason::SecurityGroup)
    });
    assert_eq!(rejected, packets(&flows, |_, _| true), "{flows:#?}");
    let of = |protocol| packets(&flows, |flow, _| flow.protocol == protocol);
    assert_eq!(of(UDP), 2 * 40);
    assert!(of(TCP) > 0);
}
