//! Packets that go through the host, and those that are of nobody.
use flowlog_tests::lab::{EndPlan, FrameSender, Namespace, VethPair, VethPlan, skip_unless_root};

use crate::{
    frames::{Carried, address, frame, frame_from, tcp, udp},
    rig::{Host, chain, device, flush, wire},
};

/// Two wires with a host between them: left — middle0 on it, and middle1 — far.
struct Router {
    near: VethPair,
    far: VethPair,
    sender: FrameSender,
}

impl Router {
    fn new() -> Self {
        let near = wire();
        let middle = near.right().namespace.clone();
        let beyond = Namespace::create("far").expect("a namespace");
        let end = |namespace: &Namespace, name: &str, host: u8| EndPlan {
            namespace: namespace.clone(),
            name: name.to_owned(),
            mac: [0x02, 0xf1, 0, 0, 1, host],
            addresses: vec![
                (address(&format!("10.78.0.{host}")), 24),
                (address(&format!("fd00:78::{host}")), 64),
            ],
        };
        let far = VethPlan::new(end(&middle, "middle1", 1), end(&beyond, "far0", 2));
        let far = VethPair::create(far).expect("a veth pair");
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            middle.set_sysctl(path, "1").expect("forwarding");
        }
        let sender = FrameSender::open(&near.left().namespace, &near.left().name);
        Self {
            sender: sender.expect("a sender"),
            near,
            far,
        }
    }

    /// Three datagrams over IPv4 and two over IPv6 to the far end.
    fn send(&mut self) {
        for (to, times) in [("10.78.0.2", 3), ("fd00:78::2", 2)] {
            let to = address(to);
            for _ in 0..times {
                self.sender
                    .send(&frame(to, &udp(to, (4000, 9), 100)))
                    .expect("sent");
            }
        }
    }

    fn host(&self) -> &Namespace {
        &self.near.right().namespace
    }
}

const AFTER: [(&str, u64, u64); 4] = [
    ("7 in 17 10.77.0.1 4000 > 10.78.0.2 9 accept", 3, 384),
    ("7 in 17 10.77.0.1 4000 > 10.78.0.2 9 dropped after", 3, 384),
    ("7 in 17 fd00:77::1 4000 > fd00:78::2 9 accept", 2, 296),
    (
        "7 in 17 fd00:77::1 4000 > fd00:78::2 9 dropped after",
        2,
        296,
    ),
];

#[test]
fn what_is_dropped_on_its_way_through_is_of_the_eni_that_it_came_in_by() {
    if skip_unless_root("what_is_dropped_on_its_way_through_is_of_the_eni_that_it_came_in_by") {
        return;
    }
    let mut router = Router::new();
    let mut host = Host::new();
    host.capture(router.near.right(), 7, false);
    host.capture(router.far.left(), 8, false);
    for (family, hook) in [
        ("inet", "forward priority 0"),
        ("inet", "postrouting priority 0"),
        ("netdev", "egress device middle1 priority 0"),
    ] {
        chain(router.host(), family, hook, "udp dport 9 drop");
        router.send();
        host.assert_flows(hook, &AFTER);
        host.forget();
        flush(router.host());
    }
}

#[test]
fn what_would_have_gone_to_an_eni_appears() {
    if skip_unless_root("what_would_have_gone_to_an_eni_appears") {
        return;
    }
    let mut router = Router::new();
    let mut host = Host::new();
    // The host's end of a VM's link, so that what the host sends goes in.
    host.capture(router.far.left(), 8, true);
    for hook in ["forward priority 0", "postrouting priority 0"] {
        chain(router.host(), "inet", hook, "udp dport 9 drop");
        router.send();
        host.assert_flows(
            hook,
            &[
                (
                    "8 in 17 10.77.0.1 4000 > 10.78.0.2 9 dropped before",
                    3,
                    384,
                ),
                (
                    "8 in 17 fd00:77::1 4000 > fd00:78::2 9 dropped before",
                    2,
                    296,
                ),
            ],
        );
        host.forget();
        flush(router.host());
    }
}

#[test]
fn what_comes_from_a_vm_goes_out() {
    if skip_unless_root("what_comes_from_a_vm_goes_out") {
        return;
    }
    let mut router = Router::new();
    let mut host = Host::new();
    host.capture(router.near.right(), 7, true);
    chain(
        router.host(),
        "inet",
        "forward priority 0",
        "udp dport 9 drop",
    );
    router.send();
    let out = AFTER.map(|(flow, packets, octets)| (flow.replace("7 in", "7 out"), packets, octets));
    let out: Vec<(&str, u64, u64)> = out
        .iter()
        .map(|(flow, packets, octets)| (flow.as_str(), *packets, *octets))
        .collect();
    host.assert_flows("the host's end of a VM's link", &out);
}

#[test]
fn a_bridge_has_its_own_hooks() {
    if skip_unless_root("a_bridge_has_its_own_hooks") {
        return;
    }
    let mut router = Router::new();
    let middle = router.host().clone();
    middle
        .ip(&["link", "add", "br0", "type", "bridge"])
        .expect("a bridge");
    middle
        .set_sysctl("ipv6/conf/br0/disable_ipv6", "1")
        .expect("no IPv6");
    middle.ip(&["link", "set", "br0", "up"]).expect("up");
    for port in ["right0", "middle1"] {
        middle
            .ip(&["link", "set", port, "master", "br0"])
            .expect("a port");
    }
    let far_mac = "02:f1:00:00:00:02";
    // What is sent to the right end's address of the wire is for the far end now.
    for (namespace, command) in [
        (
            &middle,
            vec!["link", "set", "right0", "address", "02:f1:00:00:00:03"],
        ),
        (
            &router.far.right().namespace,
            vec!["link", "set", "far0", "address", far_mac],
        ),
    ] {
        namespace.ip(&command).expect("an address");
    }
    let fdb = format!("bridge fdb replace {far_mac} dev middle1 master static");
    middle.run(&fdb, "").expect("an entry");
    let mut host = Host::new();
    host.capture(router.near.right(), 7, false);
    chain(
        &middle,
        "bridge",
        "forward priority 0",
        "ip protocol udp drop; ip6 nexthdr udp drop",
    );
    router.send();
    host.assert_flows("the port that it came in by", &AFTER);

    let mut host = Host::new();
    host.capture(router.far.left(), 8, true);
    router.send();
    host.assert_flows(
        "the port that it was to go out by",
        &[
            (
                "8 in 17 10.77.0.1 4000 > 10.78.0.2 9 dropped before",
                3,
                384,
            ),
            (
                "8 in 17 fd00:77::1 4000 > fd00:78::2 9 dropped before",
                2,
                296,
            ),
        ],
    );
}

#[test]
fn interfaces_of_two_namespaces_with_one_index_are_two() {
    if skip_unless_root("interfaces_of_two_namespaces_with_one_index_are_two") {
        return;
    }
    let pairs = [wire(), wire()];
    let mut host = Host::new();
    host.capture(pairs[0].right(), 7, false);
    host.capture(pairs[1].right(), 8, false);
    let indices = [0, 1].map(|pair: usize| device(pairs[pair].right()).1);
    assert_eq!(indices[0], indices[1], "the same index in both namespaces");
    chain(
        &pairs[1].right().namespace,
        "inet",
        "input priority 0",
        "udp dport 9 drop",
    );
    let to = address("10.77.0.2");
    for pair in &pairs {
        let mut sender = FrameSender::open(&pair.left().namespace, "left0").expect("a sender");
        sender
            .send(&frame(to, &udp(to, (4000, 9), 100)))
            .expect("sent");
    }
    host.assert_flows(
        "the same index in two namespaces",
        &[
            ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept", 1, 128),
            // It is not dropped there, but nobody listens.
            ("7 out 1 10.77.0.2 0 > 10.77.0.1 0 accept", 1, 156),
            ("8 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept", 1, 128),
            ("8 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after", 1, 128),
        ],
    );
}

#[test]
fn only_netfilter_rejects_and_only_enis_are_told_of() {
    if skip_unless_root("only_netfilter_rejects_and_only_enis_are_told_of") {
        return;
    }
    let mut router = Router::new();
    let right = router.host().clone();
    // No ENI but the near wire's right end: of the far wire, which drops as well, nothing is told.
    let mut host = Host::new();
    host.capture(router.near.right(), 7, false);
    chain(&right, "inet", "output priority 0", "oif middle1 drop");
    let elsewhere = right.enter(|| std::net::UdpSocket::bind("10.78.0.1:0"));
    let elsewhere = elsewhere.expect("the namespace").expect("a socket");
    assert!(
        elsewhere.send_to(&[0; 100], "10.78.0.2:9").is_err(),
        "it is dropped"
    );
    right
        .set_sysctl("ipv4/conf/right0/rp_filter", "1")
        .expect("strict");
    right
        .set_sysctl("ipv4/conf/all/rp_filter", "1")
        .expect("strict");
    let to = address("10.77.0.2");
    let listener = right.enter(|| std::net::UdpSocket::bind("10.77.0.2:10"));
    let _listener = listener.expect("the namespace").expect("a socket");
    let send = |router: &mut Router, frame: &[u8]| router.sender.send(frame).expect("sent");
    // Nobody listens; a wrong checksum; a source that is elsewhere; a reset of no connection.
    send(&mut router, &frame(to, &udp(to, (4000, 11), 100)));
    send(&mut router, &frame(to, &udp(to, (4000, 10), 100).damaged()));
    let carried: Carried = udp(to, (4000, 10), 100);
    send(
        &mut router,
        &frame_from(address("10.78.0.77"), to, &carried),
    );
    send(&mut router, &frame(to, &tcp(to, (4000, 10), 4)));
    host.assert_flows(
        "drops for other reasons",
        &[
            ("7 in 17 10.77.0.1 4000 > 10.77.0.2 11 accept", 1, 128),
            ("7 out 1 10.77.0.2 0 > 10.77.0.1 0 accept", 1, 156),
            ("7 in 17 10.77.0.1 4000 > 10.77.0.2 10 accept", 1, 128),
            ("7 in 17 10.78.0.77 4000 > 10.77.0.2 10 accept", 1, 128),
            ("7 in 6 10.77.0.1 4000 > 10.77.0.2 10 accept", 1, 40),
        ],
    );
}
