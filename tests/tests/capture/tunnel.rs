//! Tunnels: what is wrapped is counted at the ENI as the wire carries it, outer headers and all.

use std::net::{IpAddr, SocketAddr};

use flowlog_tests::agent::{Direction, Hook, Volume, conserved, volume};
use flowlog_tests::lab::traffic::tcp_transfer;
use flowlog_tests::lab::{EndPlan, VethPair, device_stats, skip_unless_root};

use crate::gso::{ip_header, polled, segments_sent};
use crate::support::{LEFT, RIGHT, both_ends, quiet_up, start, stats, stop_after, wire};

/// Payload of the transfers, in octets.
const TRANSFER: u64 = 20_000_000;
const ETHERNET: u64 = 14;
/// Of TCP with timestamps.
const TCP: u64 = 32;
/// UDP and VXLAN.
const WRAPPING: u64 = 8 + 8;
const DEVICE: &str = "vxlan0";
/// Transfers of which one has to lose nothing.
const MAX_TRIES: usize = 5;

/// Makes a VXLAN device at one end, on top of the addresses of the family with this index.
fn vxlan(end: &EndPlan, host: u8, other: &EndPlan, family: usize) {
    let ip = |text: String| {
        let words: Vec<&str> = text.split(' ').collect();
        end.namespace.ip(&words).expect("a VXLAN device")
    };
    let (local, remote) = (end.addresses[family].0, other.addresses[family].0);
    ip(format!(
        "link add {DEVICE} address 02:f1:00:00:01:0{host} type vxlan id 7 local {local} remote {remote} dstport 4789 dev {} nolearning",
        end.name
    ));
    quiet_up(&end.namespace, DEVICE);
    ip(format!("address add 10.78.0.{host}/24 dev {DEVICE}"));
    let peer = 3 - host;
    ip(format!(
        "neighbour replace 10.78.0.{peer} lladdr 02:f1:00:00:01:0{peer} dev {DEVICE} nud permanent"
    ));
}

/// A wire with a VXLAN over its addresses of the family with this index, and where the right end listens inside it.
fn wrapped(family: usize) -> (VethPair, SocketAddr) {
    let pair = wire(1500);
    vxlan(pair.left(), 1, pair.right(), family);
    vxlan(pair.right(), 2, pair.left(), family);
    (pair, SocketAddr::new(IpAddr::from([10, 78, 0, 2]), 0))
}

#[test]
fn wrapped_super_packets_count_as_the_wire_would_carry_them() {
    if skip_unless_root("wrapped_super_packets_count_as_the_wire_would_carry_them") {
        return;
    }
    for (family, hook) in [(0, Hook::Tc), (1, Hook::Tc), (0, Hook::Xdp)] {
        // With XDP the wire has room for 256 packets, which a busy CPU does not always take in time.
        let whole = (0..MAX_TRIES).any(|_| whole_transfer(family, hook));
        assert!(whole, "the wire lost packets each time");
    }
}

/// Compares one transfer; false if the wire lost packets, for then one does not know how many arrived.
fn whole_transfer(family: usize, hook: Hook) -> bool {
    let (pair, server) = wrapped(family);
    let (left, right) = (pair.left(), pair.right());
    let mut plan = both_ends(&pair);
    plan.enis[1].hook = hook;
    let before = segments_sent(&left.namespace);
    let agent = start(&plan);
    tcp_transfer(&left.namespace, (&right.namespace, server), TRANSFER).expect("a transfer");
    let inner = device_stats(&left.namespace, DEVICE).expect("statistics");
    let segments = segments_sent(&left.namespace) - before;
    let each = ip_header(server.ip()) + TCP;
    // A VXLAN device counts what it sends without the inner Ethernet header.
    let payload = inner.tx_bytes - inner.tx_packets * each;
    let outer = ip_header(left.addresses[family].0) + WRAPPING + ETHERNET;
    let wire = Volume {
        packets: segments,
        bytes: payload + segments * (outer + each),
    };
    let crossed = (stats(left), stats(right));
    let offloaded = crossed.0.tx_packets * 2 < segments;
    assert_eq!(offloaded, hook == Hook::Tc, "{:?}", crossed.0);
    if crossed.0.tx_dropped > 0 {
        return false;
    }
    // The left end does not poll: it receives what the right end sends as it is.
    let acks = Volume::sent(&crossed.1);
    let expected = [
        (LEFT, Direction::Out, wire),
        (RIGHT, Direction::In, wire),
        (RIGHT, Direction::Out, acks),
        (LEFT, Direction::In, acks),
    ];
    let records = stop_after(agent, &expected[1..]).records;
    if hook == Hook::Xdp {
        assert_eq!(volume(&records, RIGHT, Direction::In), polled(&crossed.1));
    }
    conserved(&records, &expected);
    true
}
