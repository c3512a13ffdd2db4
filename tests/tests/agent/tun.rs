//! Devices whose packets have no Ethernet header.
use std::{net::UdpSocket, process::Command};

use flowlog_tests::{
    agent::{Direction, EniPlan, Side, Volume, conserved},
    lab::{Family, Namespace, skip_unless_root},
};

use crate::wire::{Wire, flood, long_window, start, stop};

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

/// Adds a device without Ethernet headers that has a carrier without anyone at its other side, as a tun device has not, and has it
/// receive what `right0` receives. False if this kernel cannot do so.
fn redirect_into_headless(namespace: &Namespace) -> bool {
    let run = |command: &str| {
        let mut words = command.split(' ');
        let program = words.next().unwrap_or_default();
        let output = namespace
            .enter(|| Command::new(program).args(words).output())
            .expect("the namespace")
            .expect("iproute2");
        if !output.status.success() {
            eprintln!("{command}: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success()
    };
    let redirect = "action mirred ingress redirect dev gpe0";
    run("ip link add gpe0 addrgenmode none type vxlan dstport 4790 gpe external")
        && run("ip link set gpe0 up")
        && run("tc qdisc add dev right0 clsact")
        && run(&format!(
            "tc filter add dev right0 ingress protocol all u32 match u32 0 0 {redirect}"
        ))
}

#[test]
fn what_is_received_without_an_ethernet_header_is_counted() {
    const NAME: &str = "what_is_received_without_an_ethernet_header_is_counted";
    if skip_unless_root(NAME) {
        return;
    }
    let wire = Wire::new();
    if !redirect_into_headless(&wire.right) {
        eprintln!(
            "skipped {NAME}: it needs VXLAN-GPE and the redirection of packets (cls_u32, act_mirred)"
        );
        return;
    }
    let eni = EniPlan::device("eni-gpe", &wire.right, "gpe0");
    let mut agent = start(&long_window([eni]), &["eni-gpe"]);
    let mut received = wire.flood(200, 20);
    received += flood(&wire.left, "left0", 300, 30, Family::V6);
    let records = stop(&mut agent).records;
    conserved(&records, &[("eni-gpe", Direction::In, received)]);
    assert_eq!(records.len(), 50);
}
