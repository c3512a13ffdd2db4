//! Devices whose packets have no Ethernet header.
use std::net::UdpSocket;

use etherparse::PacketBuilder;
use flowlog_tests::{
    agent::{Direction, EniPlan, IpType, Side, Volume, conserved},
    lab::{Namespace, skip, skip_unless_root},
};

use crate::wire::{Wire, long_window, start, stop};

/// Octets of an IPv4 header without options and a UDP header.
const HEADERS: usize = 20 + 8;

/// Adds a tun device `tun0` (10.9.0.1/24, no IPv6) to the namespace.
fn add_tun(namespace: &Namespace) {
    namespace
        .ip(&["tuntap", "add", "dev", "tun0", "mode", "tun"])
        .expect("a tun device");
    namespace
        .set_sysctl("ipv6/conf/tun0/disable_ipv6", "1")
        .expect("no IPv6");
    namespace
        .ip(&["address", "add", "10.9.0.1/24", "dev", "tun0"])
        .expect("an address");
    namespace
        .ip(&["link", "set", "tun0", "up"])
        .expect("tun0 up");
}

/// Sends UDP datagrams into `tun0`, and returns their volume. That nobody reads them from the device is no matter: they have passed
/// TC egress then.
fn send_through(namespace: &Namespace, datagrams: u64, payload: usize) -> Volume {
    let socket = namespace
        .enter(|| UdpSocket::bind("10.9.0.1:0"))
        .expect("the namespace")
        .expect("a socket");
    for _ in 0..datagrams {
        socket
            .send_to(&vec![0; payload], "10.9.0.2:9")
            .expect("sent");
    }
    Volume {
        packets: datagrams,
        bytes: datagrams * (payload + HEADERS) as u64,
    }
}

#[test]
fn what_is_routed_into_a_tun_device_is_counted_without_an_ethernet_header() {
    if skip_unless_root("what_is_routed_into_a_tun_device_is_counted_without_an_ethernet_header") {
        return;
    }
    let namespace = Namespace::create("tun").expect("a namespace");
    add_tun(&namespace);
    for (side, direction) in [
        (Side::Guest, Direction::Out),
        // A VM's tun: what the host sends into it is what the VM receives.
        (Side::Host, Direction::In),
    ] {
        let eni = EniPlan {
            side,
            ..EniPlan::device("eni-tun", &namespace, "tun0")
        };
        let mut agent = start(&long_window([eni]), &["eni-tun"]);
        let sent = send_through(&namespace, 40, 333);
        let records = stop(&mut agent).records;
        conserved(&records, &[("eni-tun", direction, sent)]);
        let [record] = records.as_slice() else {
            panic!("one flow: {records:?}");
        };
        assert_eq!(
            (record.srcaddr, record.dstaddr, record.dstport),
            (
                Some([10, 9, 0, 1].into()),
                Some([10, 9, 0, 2].into()),
                Some(9)
            )
        );
    }
}

/// Adds `gpe0`, a VXLAN-GPE device: it receives what comes to UDP port 4790, without the outer headers, and the inner packets have no
/// Ethernet headers. Writing to a tun device, the more common case, takes an ioctl.
fn add_gpe(namespace: &Namespace) -> flowlog_tests::Result<()> {
    let kind = ["type", "vxlan", "dstport", "4790", "gpe", "external"];
    namespace.ip(&[&["link", "add", "gpe0"], &kind[..]].concat())?;
    namespace.set_sysctl("ipv6/conf/gpe0/disable_ipv6", "1")?;
    namespace
        .ip(&["link", "set", "gpe0", "up"])
        .map(|_output| ())
}

/// An IP packet in a VXLAN-GPE header (draft-ietf-nvo3-vxlan-gpe): VNI and next protocol are valid, the next protocol is
/// IPv4 (1) or IPv6 (2), the VNI is 7.
fn encapsulated(packet: &[u8], next_protocol: u8) -> Vec<u8> {
    let mut datagram = vec![0x0c, 0, 0, next_protocol, 0, 0, 7, 0];
    datagram.extend_from_slice(packet);
    datagram
}

#[test]
fn what_is_received_without_an_ethernet_header_is_counted() {
    const NAME: &str = "what_is_received_without_an_ethernet_header_is_counted";
    if skip_unless_root(NAME) {
        return;
    }
    let wire = Wire::new();
    if let Err(error) = add_gpe(&wire.right) {
        skip(NAME, &format!("it needs VXLAN-GPE: {error}"));
        return;
    }
    let eni = EniPlan::device("eni-gpe", &wire.right, "gpe0");
    let mut agent = start(&long_window([eni]), &["eni-gpe"]);
    let socket = wire
        .left
        .enter(|| UdpSocket::bind("10.77.0.1:0"))
        .expect("the namespace")
        .expect("a socket");
    let mut received = Volume::default();
    for (builder, next_protocol) in [
        (PacketBuilder::ipv4([10, 9, 0, 2], [10, 9, 0, 1], 64), 1),
        (PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64), 2),
    ] {
        let mut packet = Vec::new();
        let payload = [0x5a; 100];
        let written = builder.udp(1000, 2000).write(&mut packet, &payload);
        written.expect("a packet");
        for _ in 0..50 {
            let datagram = encapsulated(&packet, next_protocol);
            socket.send_to(&datagram, "10.77.0.2:4790").expect("sent");
            received += Volume {
                packets: 1,
                bytes: packet.len() as u64,
            };
        }
    }
    let records = stop(&mut agent).records;
    conserved(&records, &[("eni-gpe", Direction::In, received)]);
    let [v4, v6] = records.as_slice() else {
        panic!("two flows: {records:?}");
    };
    assert_eq!((v4.r#type, v4.srcport), (Some(IpType::V4), Some(1000)));
    assert_eq!((v6.r#type, v6.dstport), (Some(IpType::V6), Some(2000)));
}
