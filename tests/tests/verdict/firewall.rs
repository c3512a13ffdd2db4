//! What the host's firewall drops is REJECT, to the packet, whatever its rules are written with; and nothing else is.
use std::net::{IpAddr, SocketAddr, UdpSocket};

use flowlog_model::record::FlowTuple;
use flowlog_tests::{
    agent::{Action, AgentPlan, Direction, EniPlan, RejectReason, conserved, volume},
    lab::{EndPlan, Namespace, VethPair, VethPlan, device_stats, skip_unless_root},
};

use crate::{
    frames::{Senders, frame},
    scene::{Told, VM, address, flows, nft, packets, start, start_plan, stop_after, wire},
};

const UDP: u8 = 17;

/// The same rules, for either program.
#[derive(Clone, Copy, Debug)]
enum Firewall {
    Nft,
    Iptables,
}

impl Firewall {
    const BOTH: [Self; 2] = [Self::Nft, Self::Iptables];

    /// Drops UDP to port 7000 and rejects what is to port 7001, at a hook.
    fn set(self, namespace: &Namespace, hook: &str) {
        match self {
            Self::Nft => nft(
                namespace,
                hook,
                "udp dport 7000 drop; udp dport 7001 reject;",
            ),
            Self::Iptables => {
                let chain = hook.to_uppercase();
                for (program, port, verdict) in [
                    ("iptables", 7000, "DROP"),
                    ("iptables", 7001, "REJECT"),
                    ("ip6tables", 7000, "DROP"),
                    ("ip6tables", 7001, "REJECT"),
                ] {
                    let rule =
                        format!("{program} -w -A {chain} -p udp --dport {port} -j {verdict}");
                    namespace.run(&rule, "").expect("a rule");
                }
            }
        }
    }
}

/// Sends so many datagrams from one end to a port of an address. What answers is of no concern.
fn send(end: &EndPlan, target: SocketAddr, datagrams: u64) -> SocketAddr {
    let any = SocketAddr::new(address(end, target.is_ipv6()), 0);
    let socket = end.namespace.enter(|| UdpSocket::bind(any));
    let socket = socket.expect("the namespace").expect("a socket");
    for _ in 0..datagrams {
        // What the firewall drops here is an error to whoever sends it.
        let _ = socket.send_to(b"twenty octets of it.", target);
    }
    socket.local_addr().expect("an address")
}

fn rejected(packets: u64) -> Told {
    Told {
        packets,
        reason: Some(RejectReason::Netfilter),
        rule: None,
    }
}

fn accepted(packets: u64) -> Told {
    Told {
        packets,
        ..Told::default()
    }
}

/// What is told of the UDP flow to a target, accepted and rejected.
fn told(
    flows: &std::collections::BTreeMap<crate::scene::Flow, Told>,
    direction: Direction,
    (src, dst): (SocketAddr, SocketAddr),
) -> [Option<Told>; 2] {
    [Action::Accept, Action::Reject].map(|action| {
        let flow = crate::scene::Flow {
            direction,
            protocol: UDP,
            src,
            dst,
            action,
        };
        flows.get(&flow).cloned()
    })
}

#[test]
fn what_is_dropped_on_its_way_in_is_a_reject_and_no_accept() {
    if skip_unless_root("what_is_dropped_on_its_way_in_is_a_reject_and_no_accept") {
        return;
    }
    for firewall in Firewall::BOTH {
        for v6 in [false, true] {
            let pair = wire();
            firewall.set(&pair.right().namespace, "input");
            let agent = start(EniPlan::end(VM, pair.right()));
            let to = |port| SocketAddr::new(address(pair.right(), v6), port);
            // Of 7002 there is no socket, which is no verdict of a firewall.
            let sent = [(7000, 50), (7001, 3), (7002, 4)].map(|(port, datagrams)| {
                (
                    (send(pair.left(), to(port), datagrams), to(port)),
                    datagrams,
                )
            });
            let outcome = stop_after(agent, 57, 0);
            let flows = flows(&outcome.records);
            for (ends, datagrams) in sent {
                let expected = if ends.1.port() == 7002 {
                    [Some(accepted(datagrams)), None]
                } else {
                    [None, Some(rejected(datagrams))]
                };
                assert_eq!(
                    told(&flows, Direction::In, ends),
                    expected,
                    "{firewall:?} {ends:?}"
                );
            }
            let answers = packets(&flows, |flow, _| {
                flow.direction == Direction::Out && flow.action == Action::Reject
            });
            assert_eq!(answers, 0, "the answers are ordinary traffic");
            let stats =
                device_stats(&pair.right().namespace, &pair.right().name).expect("statistics");
            let total = [Direction::In, Direction::Out]
                .map(|way| volume(&outcome.records, VM, way).packets);
            assert_eq!(total, [stats.rx_packets, stats.tx_packets]);
        }
    }
}

#[test]
fn what_is_dropped_before_it_goes_out_appears() {
    if skip_unless_root("what_is_dropped_before_it_goes_out_appears") {
        return;
    }
    for firewall in Firewall::BOTH {
        for v6 in [false, true] {
            let pair = wire();
            firewall.set(&pair.right().namespace, "output");
            let agent = start(EniPlan::end(VM, pair.right()));
            let to = |port| SocketAddr::new(address(pair.left(), v6), port);
            let sent = [(7000, 5), (7001, 3), (7002, 4)].map(|(port, datagrams)| {
                (
                    (send(pair.right(), to(port), datagrams), to(port)),
                    datagrams,
                )
            });
            agent
                .wait_for_packets(VM, Direction::Out, 12)
                .expect("records");
            let status = agent.status().expect("a status");
            let outcome = stop_after(agent, 0, 12);
            let flows = flows(&outcome.records);
            for (ends, datagrams) in sent {
                let expected = if ends.1.port() == 7002 {
                    [Some(accepted(datagrams)), None]
                } else {
                    [None, Some(rejected(datagrams))]
                };
                assert_eq!(
                    told(&flows, Direction::Out, ends),
                    expected,
                    "{firewall:?} {ends:?}"
                );
            }
            // The device has not seen them, and the ledger knows.
            let out = status["conservation"].as_array().expect("a list").iter();
            let mut out = out.filter(|of| of["direction"] == "out");
            let out = out.next().expect("the ENI");
            assert_eq!(
                (&out["difference"], &out["unseen"]),
                (&0.into(), &8.into()),
                "{out}"
            );
        }
    }
}

/// A router's device as the ENI: what it does not forward is a reject where it came in, and nowhere else.
#[test]
fn what_is_not_forwarded_is_a_reject_of_where_it_came_in() {
    if skip_unless_root("what_is_not_forwarded_is_a_reject_of_where_it_came_in") {
        return;
    }
    for firewall in Firewall::BOTH {
        let pair = wire();
        let router = &pair.right().namespace;
        let beyond = Namespace::create("beyond").expect("a namespace");
        let end = |namespace: &Namespace, name: &str, host: u8| EndPlan {
            namespace: namespace.clone(),
            name: name.to_owned(),
            mac: [2, 0xf1, 0, 0, 1, host],
            addresses: vec![
                (IpAddr::from([10, 78, 0, host]), 24),
                (IpAddr::from([0xfd00, 0x78, 0, 0, 0, 0, 0, host.into()]), 64),
            ],
        };
        let second = VethPair::create(VethPlan::new(
            end(router, "back0", 1),
            end(&beyond, "far0", 2),
        ));
        let second = second.expect("a wire");
        for (path, route, via) in [
            ("ipv4/ip_forward", "10.78.0.0/24", "10.77.0.2"),
            ("ipv6/conf/all/forwarding", "fd00:78::/64", "fd00:77::2"),
        ] {
            router.set_sysctl(path, "1").expect("a router");
            let route = ["route", "add", route, "via", via];
            pair.left().namespace.ip(&route).expect("a route");
        }
        firewall.set(router, "forward");
        let back = "eni-back";
        let agent = start_plan(&AgentPlan::capturing([
            EniPlan::end(VM, pair.right()),
            EniPlan::end(back, second.left()),
        ]));
        agent.wait_until_captured(&[back]).expect("captured");
        let sent = [false, true].map(|v6| {
            [(7000, 5), (7001, 3), (7002, 4)].map(|(port, datagrams)| {
                let to = SocketAddr::new(address(second.right(), v6), port);
                ((send(pair.left(), to, datagrams), to), datagrams)
            })
        });
        let outcome = stop_after(agent, 24, 0);
        let of = |eni: &str| {
            let records = outcome.records.iter().filter(|record| record.eni_id == eni);
            flows(&records.cloned().collect::<Vec<_>>())
        };
        let (front, behind) = (of(VM), of(back));
        for (ends, datagrams) in sent.into_iter().flatten() {
            let (at_front, at_back) = if ends.1.port() == 7002 {
                let forwarded = [Some(accepted(datagrams)), None];
                (forwarded.clone(), forwarded)
            } else {
                ([None, Some(rejected(datagrams))], [None, None])
            };
            let case = format!("{firewall:?} {ends:?}");
            assert_eq!(told(&front, Direction::In, ends), at_front, "{case}");
            assert_eq!(told(&behind, Direction::Out, ends), at_back, "{case}");
        }
    }
}

/// A part of a flow is dropped: the rest of it is accepted, and both together are what came.
#[test]
fn of_a_flow_that_is_dropped_in_part_the_rest_is_accepted() {
    if skip_unless_root("of_a_flow_that_is_dropped_in_part_the_rest_is_accepted") {
        return;
    }
    let pair = wire();
    // By what no flow has: the length of the payload.
    nft(
        &pair.right().namespace,
        "input",
        "udp dport 7000 meta length 128 drop;",
    );
    let agent = start(EniPlan::end(VM, pair.right()));
    let target = SocketAddr::new(address(pair.right(), false), 7000);
    let listener = pair.right().namespace.enter(|| UdpSocket::bind(target));
    let _listener = listener.expect("the namespace").expect("a socket");
    let socket = pair
        .left()
        .namespace
        .enter(|| UdpSocket::bind((address(pair.left(), false), 0)));
    let socket = socket.expect("the namespace").expect("a socket");
    for index in 0..1000_usize {
        let octets = if index % 4 == 0 { 100 } else { 200 };
        socket.send_to(&vec![0; octets], target).expect("sent");
    }
    let outcome = stop_after(agent, 1000, 0);
    let ends = (socket.local_addr().expect("an address"), target);
    let flows = flows(&outcome.records);
    assert_eq!(
        told(&flows, Direction::In, ends),
        [Some(accepted(750)), Some(rejected(250))]
    );
    let octets = |action| {
        let of_action = outcome
            .records
            .iter()
            .filter(|record| record.action == Some(action));
        of_action.filter_map(|record| record.bytes).sum::<u64>()
    };
    assert_eq!(
        (octets(Action::Accept), octets(Action::Reject)),
        (750 * 228, 250 * 128)
    );
    let all = volume(&outcome.records, VM, Direction::In);
    conserved(&outcome.records, &[(VM, Direction::In, all)]);
}

/// Wrong checksums, no socket, no route: what the kernel drops for another reason is not the firewall's.
#[test]
fn what_is_dropped_for_another_reason_is_no_reject() {
    if skip_unless_root("what_is_dropped_for_another_reason_is_no_reject") {
        return;
    }
    let pair = wire();
    Firewall::Nft.set(&pair.right().namespace, "input");
    let agent = start(EniPlan::end(VM, pair.right()));
    let flow = |dst_addr: IpAddr, dst_port| FlowTuple {
        src_addr: address(pair.left(), false),
        src_port: 5000,
        dst_addr,
        dst_port,
        protocol: UDP,
    };
    let ours = address(pair.right(), false);
    let mut senders = Senders::new(&pair);
    let mut wrong_header = frame(pair.left(), pair.right(), &flow(ours, 7000));
    wrong_header[24] ^= 0xff;
    let mut wrong_datagram = frame(pair.left(), pair.right(), &flow(ours, 7002));
    wrong_datagram[41] ^= 0xff;
    let no_route = frame(
        pair.left(),
        pair.right(),
        &flow(IpAddr::from([192, 0, 2, 1]), 7000),
    );
    let no_socket = frame(pair.left(), pair.right(), &flow(ours, 7003));
    for frame in [&wrong_header, &wrong_datagram, &no_route, &no_socket] {
        senders.send_in(frame, 10);
    }
    let flows = flows(&stop_after(agent, 40, 0).records);
    assert_eq!(
        packets(&flows, |flow, _| flow.action == Action::Reject),
        0,
        "{flows:#?}"
    );
    assert_eq!(
        packets(&flows, |flow, _| flow.direction == Direction::In),
        40
    );
}

/// The switch of an ENI, turned while the agent runs.
#[test]
fn an_eni_that_does_not_want_it_has_no_verdict_of_the_firewall() {
    if skip_unless_root("an_eni_that_does_not_want_it_has_no_verdict_of_the_firewall") {
        return;
    }
    let pair = wire();
    Firewall::Nft.set(&pair.right().namespace, "input");
    let eni = |wanted: bool| EniPlan {
        extra: format!("netfilter = {wanted}\n"),
        ..EniPlan::end(VM, pair.right())
    };
    let agent = start(eni(false));
    let target = SocketAddr::new(address(pair.right(), false), 7000);
    let state = |agent: &flowlog_tests::agent::AgentProcess| {
        agent.status().expect("a status")["security"]["netfilter"].clone()
    };
    let mut expected = Vec::new();
    let (mut wanted, mut sent) = (false, 0);
    assert_eq!(state(&agent), "not wanted");
    for _ in 0..3 {
        let source = send(pair.left(), target, 7);
        sent += 7;
        expected.push((source, wanted));
        agent
            .wait_for_packets(VM, Direction::In, sent)
            .expect("records");
        wanted = !wanted;
        let mark = agent.log_mark().expect("it runs");
        agent
            .replace_inventory([eni(wanted)])
            .expect("an inventory");
        agent
            .wait_for_log(mark, "the inventory has changed")
            .expect("read");
        // It answers when it has followed it.
        assert_eq!(
            state(&agent),
            if wanted { "recorded" } else { "not wanted" }
        );
    }
    let flows = flows(&stop_after(agent, sent, 0).records);
    for (source, wanted) in expected {
        let verdicts = if wanted {
            [None, Some(rejected(7))]
        } else {
            [Some(accepted(7)), None]
        };
        assert_eq!(told(&flows, Direction::In, (source, target)), verdicts);
    }
}
