//! A rule and a few packets each: what is dropped at which hook, by which tool, and what is counted of it.
use std::net::UdpSocket;

use flowlog_tests::lab::skip_unless_root;

use crate::{
    frames::{address, echo, frame, tagged, tcp, udp},
    rig::{Bench, chain},
};

const RIGHT_V4: &str = "10.77.0.2";
const RIGHT_V6: &str = "fd00:77::2";

/// Each hook that a packet passes on its way in, and what nftables calls it.
const ON_THE_WAY_IN: [(&str, &str); 4] = [
    ("netdev", "ingress device right0 priority 0"),
    ("inet", "prerouting priority -500"),
    ("inet", "prerouting priority -100"),
    ("inet", "input priority 0"),
];

/// Each hook that a packet passes on its way out.
const ON_THE_WAY_OUT: [(&str, &str); 3] = [
    ("inet", "output priority 0"),
    ("inet", "postrouting priority 0"),
    ("netdev", "egress device right0 priority 0"),
];

#[test]
fn what_is_dropped_on_its_way_in_is_told_beside_what_was_counted() {
    if skip_unless_root("what_is_dropped_on_its_way_in_is_told_beside_what_was_counted") {
        return;
    }
    let mut bench = Bench::new();
    for (family, hook) in ON_THE_WAY_IN {
        chain(
            bench.right(),
            family,
            hook,
            "udp dport 9 drop; tcp dport 9 drop",
        );
        let (v4, v6) = (address(RIGHT_V4), address(RIGHT_V6));
        for to in [v4, v6] {
            // To a port where nobody listens, but the answer is of the next test.
            bench.send(3, &frame(to, &udp(to, (4000, 9), 100)));
            bench.send(2, &frame(to, &tcp(to, (4000, 9), 2)));
            // Answered by a reset.
            bench.send(1, &frame(to, &tcp(to, (4000, 10), 2)));
        }
        bench.assert_flows(
            &format!("{family} {hook}"),
            &[
                ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept", 3, 384),
                ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after", 3, 384),
                ("7 in 6 10.77.0.1 4000 > 10.77.0.2 9 accept", 2, 80),
                ("7 in 6 10.77.0.1 4000 > 10.77.0.2 9 dropped after", 2, 80),
                ("7 in 6 10.77.0.1 4000 > 10.77.0.2 10 accept", 1, 40),
                ("7 out 6 10.77.0.2 10 > 10.77.0.1 4000 accept", 1, 40),
                ("7 in 17 fd00:77::1 4000 > fd00:77::2 9 accept", 3, 444),
                (
                    "7 in 17 fd00:77::1 4000 > fd00:77::2 9 dropped after",
                    3,
                    444,
                ),
                ("7 in 6 fd00:77::1 4000 > fd00:77::2 9 accept", 2, 120),
                (
                    "7 in 6 fd00:77::1 4000 > fd00:77::2 9 dropped after",
                    2,
                    120,
                ),
                ("7 in 6 fd00:77::1 4000 > fd00:77::2 10 accept", 1, 60),
                ("7 out 6 fd00:77::2 10 > fd00:77::1 4000 accept", 1, 60),
            ],
        );
    }
}

#[test]
fn what_is_dropped_on_its_way_out_appears() {
    if skip_unless_root("what_is_dropped_on_its_way_out_appears") {
        return;
    }
    let mut bench = Bench::new();
    for (family, hook) in ON_THE_WAY_OUT {
        chain(bench.right(), family, hook, "udp dport 9 drop");
        for (from, to) in [
            ("10.77.0.2:4000", "10.77.0.1"),
            ("[fd00:77::2]:4000", "[fd00:77::1]"),
        ] {
            let socket = bench.right().enter(|| UdpSocket::bind(from));
            let socket = socket.expect("the namespace").expect("a socket");
            for _ in 0..3 {
                // The kernel may tell the sender that it is not permitted.
                let _ = socket.send_to(&[0; 100], format!("{to}:9"));
            }
            socket.send_to(&[0; 100], format!("{to}:10")).expect("sent");
        }
        bench.assert_flows(
            &format!("{family} {hook}"),
            &[
                (
                    "7 out 17 10.77.0.2 4000 > 10.77.0.1 9 dropped before",
                    3,
                    384,
                ),
                ("7 out 17 10.77.0.2 4000 > 10.77.0.1 10 accept", 1, 128),
                ("7 in 1 10.77.0.1 0 > 10.77.0.2 0 accept", 1, 156),
                (
                    "7 out 17 fd00:77::2 4000 > fd00:77::1 9 dropped before",
                    3,
                    444,
                ),
                ("7 out 17 fd00:77::2 4000 > fd00:77::1 10 accept", 1, 148),
                ("7 in 58 fd00:77::1 0 > fd00:77::2 0 accept", 1, 196),
            ],
        );
    }
}

#[test]
fn an_answer_to_what_is_rejected_is_ordinary_traffic() {
    if skip_unless_root("an_answer_to_what_is_rejected_is_ordinary_traffic") {
        return;
    }
    let mut bench = Bench::new();
    chain(
        bench.right(),
        "inet",
        "input priority 0",
        "udp dport 9 reject; tcp dport 9 reject with tcp reset",
    );
    for to in [address(RIGHT_V4), address(RIGHT_V6)] {
        bench.send(3, &frame(to, &udp(to, (4000, 9), 100)));
        bench.send(2, &frame(to, &tcp(to, (4000, 9), 2)));
    }
    bench.assert_flows(
        "reject",
        &[
            ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept", 3, 384),
            ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after", 3, 384),
            ("7 out 1 10.77.0.2 0 > 10.77.0.1 0 accept", 3, 468),
            ("7 in 6 10.77.0.1 4000 > 10.77.0.2 9 accept", 2, 80),
            ("7 in 6 10.77.0.1 4000 > 10.77.0.2 9 dropped after", 2, 80),
            ("7 out 6 10.77.0.2 9 > 10.77.0.1 4000 accept", 2, 80),
            ("7 in 17 fd00:77::1 4000 > fd00:77::2 9 accept", 3, 444),
            (
                "7 in 17 fd00:77::1 4000 > fd00:77::2 9 dropped after",
                3,
                444,
            ),
            ("7 out 58 fd00:77::2 0 > fd00:77::1 0 accept", 3, 588),
            ("7 in 6 fd00:77::1 4000 > fd00:77::2 9 accept", 2, 120),
            (
                "7 in 6 fd00:77::1 4000 > fd00:77::2 9 dropped after",
                2,
                120,
            ),
            ("7 out 6 fd00:77::2 9 > fd00:77::1 4000 accept", 2, 120),
        ],
    );
}

#[test]
fn iptables_of_either_kind() {
    if skip_unless_root("iptables_of_either_kind") {
        return;
    }
    let mut bench = Bench::new();
    for program in ["iptables-nft", "iptables-legacy"] {
        let v6 = program.replacen("ip", "ip6", 1);
        for program in [program, v6.as_str()] {
            for chain in ["INPUT", "OUTPUT"] {
                let rule = format!("{program} -A {chain} -p udp --dport 9 -j DROP");
                bench.right().run(&rule, "").expect("a rule");
            }
        }
        let (v4, v6_address) = (address(RIGHT_V4), address(RIGHT_V6));
        for to in [v4, v6_address] {
            bench.send(3, &frame(to, &udp(to, (4000, 9), 100)));
        }
        for (from, to) in [
            ("10.77.0.2:4000", "10.77.0.1:9"),
            ("[fd00:77::2]:4000", "[fd00:77::1]:9"),
        ] {
            let socket = bench.right().enter(|| UdpSocket::bind(from));
            let _ = socket
                .expect("the namespace")
                .expect("a socket")
                .send_to(&[0; 100], to);
        }
        bench.assert_flows(
            program,
            &[
                ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept", 3, 384),
                ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after", 3, 384),
                (
                    "7 out 17 10.77.0.2 4000 > 10.77.0.1 9 dropped before",
                    1,
                    128,
                ),
                ("7 in 17 fd00:77::1 4000 > fd00:77::2 9 accept", 3, 444),
                (
                    "7 in 17 fd00:77::1 4000 > fd00:77::2 9 dropped after",
                    3,
                    444,
                ),
                (
                    "7 out 17 fd00:77::2 4000 > fd00:77::1 9 dropped before",
                    1,
                    148,
                ),
            ],
        );
        for program in [program, v6.as_str()] {
            let flush = format!("{program} -F");
            bench.right().run(&flush, "").expect("no rules");
        }
    }
}

#[test]
fn of_one_flow_some_are_dropped() {
    if skip_unless_root("of_one_flow_some_are_dropped") {
        return;
    }
    let mut bench = Bench::new();
    chain(
        bench.right(),
        "inet",
        "input priority 0",
        "icmp type echo-request icmp id 9 drop; icmpv6 type echo-request icmpv6 id 9 drop",
    );
    for to in [address(RIGHT_V4), address(RIGHT_V6)] {
        bench.send(3, &frame(to, &echo(to, 9, 56)));
        bench.send(2, &frame(to, &echo(to, 10, 56)));
    }
    bench.assert_flows(
        "echo requests",
        &[
            ("7 in 1 10.77.0.1 0 > 10.77.0.2 0 accept", 5, 420),
            ("7 in 1 10.77.0.1 0 > 10.77.0.2 0 dropped after", 3, 252),
            ("7 out 1 10.77.0.2 0 > 10.77.0.1 0 accept", 2, 168),
            ("7 in 58 fd00:77::1 0 > fd00:77::2 0 accept", 5, 520),
            ("7 in 58 fd00:77::1 0 > fd00:77::2 0 dropped after", 3, 312),
            ("7 out 58 fd00:77::2 0 > fd00:77::1 0 accept", 2, 208),
        ],
    );
}

#[test]
fn headers_of_every_kind_are_read() {
    if skip_unless_root("headers_of_every_kind_are_read") {
        return;
    }
    let mut bench = Bench::new();
    chain(
        bench.right(),
        "netdev",
        "ingress device right0 priority 0",
        "drop",
    );
    let (v4, v6) = (address(RIGHT_V4), address(RIGHT_V6));
    let plain = frame(v4, &udp(v4, (4000, 9), 100));
    // The first tag is taken off the frame, and the second stays in it.
    bench.send(1, &tagged(&[5], &plain));
    bench.send(1, &tagged(&[5, 6], &plain));
    bench.send(1, &frame(v6, &udp(v6, (4000, 9), 100).behind_options()));
    bench.assert_flows(
        "tags and extension headers",
        &[
            ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept", 2, 256),
            ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after", 2, 256),
            ("7 in 17 fd00:77::1 4000 > fd00:77::2 9 accept", 1, 156),
            (
                "7 in 17 fd00:77::1 4000 > fd00:77::2 9 dropped after",
                1,
                156,
            ),
        ],
    );
}
