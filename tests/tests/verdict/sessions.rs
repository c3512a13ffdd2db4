//! What follows the first packet: replies, ICMP errors, fragments; and the examples of what a flow log says of them.
use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header};
use flowlog_tests::{
    agent::{Action, Direction, RejectReason},
    lab::{EndPlan, skip_unless_root, traffic},
};

use crate::{
    frames::Senders,
    scene::{
        Mode, address, flows, nft, packets, received, silent_wire, start, stop_after, vm, wire,
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

const PING: &str = r#"{ security-group-rule-id = "sgr-ping", direction = "ingress", ip-protocol = "ICMP", source-cidr-ip = "10.77.0.0/24" },"#;

/// ACCEPT in, and REJECT out by the filter that is not stateful.
#[test]
fn a_ping_whose_reply_is_denied_on_the_way_out() {
    if skip_unless_root("a_ping_whose_reply_is_denied_on_the_way_out") {
        return;
    }
    for mode in Mode::BOTH {
        let pair = wire();
        nft(
            &pair.right().namespace,
            "output",
            "icmp type echo-reply drop;",
        );
        let agent = start(vm(&pair, mode, &["sg"], &closed_but(PING)));
        let target = address(pair.right(), false);
        assert!(traffic::ping(&pair.left().namespace, target, 1, 56).is_err());
        let flows = flows(&stop_after(agent, 1, 1).records);
        let [(request, accepted), (reply, rejected)] = &flows.iter().collect::<Vec<_>>()[..] else {
            panic!("{flows:#?}");
        };
        assert_eq!(
            (request.direction, request.protocol, request.action),
            (Direction::In, ICMP, Action::Accept)
        );
        assert_eq!(
            (accepted.packets, accepted.reason, accepted.rule.as_deref()),
            (1, None, Some("sgr-ping"))
        );
        assert_eq!(
            (reply.direction, reply.protocol, reply.action),
            (Direction::Out, ICMP, Action::Reject)
        );
        assert_eq!(
            (rejected.packets, rejected.reason, rejected.rule.as_deref()),
            (1, Some(RejectReason::Netfilter), None)
        );
    }
}

/// One REJECT only.
#[test]
fn a_ping_that_is_denied_in() {
    if skip_unless_root("a_ping_that_is_denied_in") {
        return;
    }
    let pair = wire();
    let agent = start(vm(&pair, Mode::Enforce, &["sg"], CLOSED));
    let target = address(pair.right(), false);
    assert!(traffic::ping(&pair.left().namespace, target, 1, 56).is_err());
    let outcome = stop_after(agent, 1, 0);
    let flows = flows(&outcome.records);
    let [(request, rejected)] = &flows.iter().collect::<Vec<_>>()[..] else {
        panic!("{flows:#?}");
    };
    assert_eq!(
        (request.direction, request.protocol, request.action),
        (Direction::In, ICMP, Action::Reject)
    );
    assert_eq!(
        (rejected.packets, rejected.reason, rejected.rule.as_deref()),
        (1, Some(RejectReason::SecurityGroup), None)
    );
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
        r#"{ security-group-rule-id = "sgr-udp", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", source-cidr-ip = "0.0.0.0/0" },"#,
    );
    for mode in Mode::BOTH {
        let pair = silent_wire();
        let agent = start(vm(&pair, mode, &["sg"], &rules));
        let mut senders = Senders::new(&pair);
        for (id, port) in [(1, 7000), (2, 7001)] {
            for frame in fragments(pair.left(), pair.right(), id, port) {
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

/// Three fragments of one UDP datagram.
fn fragments(from: &EndPlan, to: &EndPlan, id: u16, port: u16) -> Vec<Vec<u8>> {
    (0..3_u16)
        .map(|index| {
            let mut header =
                Ipv4Header::new(24, 64, IpNumber::UDP, [198, 51, 100, 1], [10, 88, 0, 10])
                    .expect("a header");
            header.identification = id;
            header.more_fragments = index < 2;
            header.fragment_offset = IpFragOffset::try_new(index * 3).expect("an offset");
            header.header_checksum = header.calc_header_checksum();
            let mut frame = [&to.mac[..], &from.mac, &[0x08, 0x00]].concat();
            header.write(&mut frame).expect("written");
            let mut payload = [0x5a; 24];
            if index == 0 {
                payload[..2].copy_from_slice(&5000_u16.to_be_bytes());
                payload[2..4].copy_from_slice(&port.to_be_bytes());
                payload[4..8].copy_from_slice(&[0, 72, 0, 0]);
            }
            frame.extend(payload);
            frame
        })
        .collect()
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
