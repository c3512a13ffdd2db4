//! Packets that are not what they were when they came in: put together from fragments, merged, or with other addresses.
use std::net::IpAddr;

use flowlog_tests::lab::skip_unless_root;

use crate::{
    frames::{address, fragments, udp},
    rig::{Bench, chain},
};

const RIGHT_V4: &str = "10.77.0.2";
const RIGHT_V6: &str = "fd00:77::2";

/// Sends datagrams of 3,008 octets over IP in fragments of these lengths.
fn send(bench: &mut Bench, to: &str, lengths: &[usize]) {
    let to: IpAddr = address(to);
    for frame in fragments(to, &udp(to, (4000, 9), 3_000), lengths) {
        bench.send(1, &frame);
    }
}

#[test]
fn a_datagram_is_as_many_packets_as_its_fragments_were() {
    if skip_unless_root("a_datagram_is_as_many_packets_as_its_fragments_were") {
        return;
    }
    let mut bench = Bench::new();
    // As senders make them: all but the last of one length. Connection tracking keeps fragments apart, so of whatever lengths they are.
    let even = &[1400, 1400][..];
    let uneven = &[800, 1400, 400][..];
    // Without connection tracking, INPUT has IPv4's datagrams, and IPv6's fragments each by itself.
    let alone = "ip saddr 10.77.0.1 drop; ip6 saddr fd00:77::1 drop";
    let tracked = "ct state invalid drop; udp dport 9 drop";
    for (rules, lengths) in [(alone, even), (tracked, even), (tracked, uneven)] {
        chain(bench.right(), "inet", "input priority 0", rules);
        for to in [RIGHT_V4, RIGHT_V6] {
            send(&mut bench, to, lengths);
        }
        let packets = lengths.len() as u64 + 1;
        let (v4, v6) = (3_008 + 20 * packets, 3_008 + 48 * packets);
        bench.assert_flows(
            &format!("{rules}, fragments of {lengths:?}"),
            &[
                ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept", packets, v4),
                (
                    "7 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after",
                    packets,
                    v4,
                ),
                ("7 in 17 fd00:77::1 4000 > fd00:77::2 9 accept", packets, v6),
                (
                    "7 in 17 fd00:77::1 4000 > fd00:77::2 9 dropped after",
                    packets,
                    v6,
                ),
            ],
        );
    }
}

#[test]
fn a_fragment_that_is_dropped_by_itself_has_the_ports_of_the_first() {
    if skip_unless_root("a_fragment_that_is_dropped_by_itself_has_the_ports_of_the_first") {
        return;
    }
    let mut bench = Bench::new();
    let rules = "ip saddr 10.77.0.1 drop; ip6 saddr fd00:77::1 drop";
    chain(bench.right(), "inet", "prerouting priority -500", rules);
    for to in [RIGHT_V4, RIGHT_V6] {
        send(&mut bench, to, &[1400, 1400]);
    }
    bench.assert_flows(
        "before fragments are put together",
        &[
            ("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept", 3, 3_068),
            (
                "7 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after",
                3,
                3_068,
            ),
            ("7 in 17 fd00:77::1 4000 > fd00:77::2 9 accept", 3, 3_152),
            (
                "7 in 17 fd00:77::1 4000 > fd00:77::2 9 dropped after",
                3,
                3_152,
            ),
        ],
    );
}

#[test]
fn a_translated_packet_is_of_the_flow_that_came_in() {
    if skip_unless_root("a_translated_packet_is_of_the_flow_that_came_in") {
        return;
    }
    let mut bench = Bench::new();
    let rules = "table inet t {
            chain translate {
                type nat hook prerouting priority -100
                ip daddr 10.77.0.9 udp dport 99 dnat ip to 10.77.0.2:9
                ip6 daddr fd00:77::9 udp dport 99 dnat ip6 to [fd00:77::2]:9
            }
            chain c {
                type filter hook input priority 0
                udp dport 9 drop
            }
        }";
    bench.right().nft(rules).expect("rules");
    for (to, count) in [("10.77.0.9", 3), ("fd00:77::9", 2)] {
        let to = address(to);
        bench.send(count, &crate::frames::frame(to, &udp(to, (4000, 99), 100)));
    }
    bench.assert_flows(
        "destinations that are translated",
        &[
            ("7 in 17 10.77.0.1 4000 > 10.77.0.9 99 accept", 3, 384),
            (
                "7 in 17 10.77.0.1 4000 > 10.77.0.9 99 dropped after",
                3,
                384,
            ),
            ("7 in 17 fd00:77::1 4000 > fd00:77::9 99 accept", 2, 296),
            (
                "7 in 17 fd00:77::1 4000 > fd00:77::9 99 dropped after",
                2,
                296,
            ),
        ],
    );
}
