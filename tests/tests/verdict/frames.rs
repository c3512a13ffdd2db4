//! Frames as they are described, and sending them.
use std::net::IpAddr;

use etherparse::{IpNumber, PacketBuilder};
use flowlog_model::{
    record::{Direction, FlowTuple},
    security_group::DescribedPacket,
};
use flowlog_tests::{
    lab::{EndPlan, FrameSender, VethPair},
    packets::build,
};

/// Identifier of echo requests.
const ECHO_ID: u16 = 77;

/// A frame with such a packet, which opens a session: a SYN, an echo request.
pub(crate) fn frame(from: &EndPlan, to: &EndPlan, flow: &FlowTuple) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(from.mac, to.mac);
    let ip = match (flow.src_addr, flow.dst_addr) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("two families in {flow:?}"),
    };
    let mut frame = Vec::new();
    let payload = [0x5a; 20];
    match flow.protocol {
        1 => ip
            .icmpv4_echo_request(ECHO_ID, 1)
            .write(&mut frame, &payload),
        6 => ip
            .tcp(flow.src_port, flow.dst_port, 1, 1024)
            .syn()
            .write(&mut frame, &payload),
        17 => ip
            .udp(flow.src_port, flow.dst_port)
            .write(&mut frame, &payload),
        58 => ip
            .icmpv6_echo_request(ECHO_ID, 1)
            .write(&mut frame, &payload),
        other => {
            let ports = [flow.src_port.to_be_bytes(), flow.dst_port.to_be_bytes()].concat();
            let payload = [&ports[..], &payload].concat();
            ip.write(&mut frame, IpNumber(other), &payload)
        }
    }
    .expect("a frame");
    frame
}

/// ICMP errors about the crafted TCP and UDP packets: whole, with as little of these as an error may quote, and with too little.
pub(crate) fn errors() -> impl Iterator<Item = Vec<u8>> {
    let quoted = [
        (6, build::tcp(2, b"a question")),
        (17, build::udp(b"a question")),
    ];
    quoted.into_iter().flat_map(|(protocol, upper)| {
        let v4 = build::plain_ipv4(protocol, &upper);
        let v6 = build::ipv6(&[], protocol, &upper);
        // Unreachable, and too big. Whoever answers a packet is at its other end.
        let about_v4 = [v4.len(), 28, 20].map(|octets| {
            let message = [&[3, 3, 0, 0, 0, 0, 0, 0], &v4[..octets]].concat();
            let mut error = build::plain_ipv4(1, &message);
            swap(&mut error[12..20]);
            build::ethernet(build::IPV4, &error)
        });
        let about_v6 = [v6.len(), 48, 40].map(|octets| {
            let message = [&[2, 0, 0, 0, 0, 0, 5, 0], &v6[..octets]].concat();
            let mut error = build::ipv6(&[], 58, &message);
            swap(&mut error[8..40]);
            build::ethernet(build::IPV6, &error)
        });
        [about_v4, about_v6].into_iter().flatten()
    })
}

/// Exchanges both halves: of two addresses, which leaves checksums right.
fn swap(addresses: &mut [u8]) {
    let half = addresses.len() / 2;
    addresses.rotate_left(half);
}

/// Sends what comes to the VM from outside, and what it sends itself.
pub(crate) struct Senders {
    pair: (EndPlan, EndPlan),
    outside: FrameSender,
    vm: FrameSender,
}

impl Senders {
    pub(crate) fn new(pair: &VethPair) -> Self {
        let open = |end: &EndPlan| FrameSender::open(&end.namespace, &end.name).expect("a sender");
        Self {
            pair: (pair.left().clone(), pair.right().clone()),
            outside: open(pair.left()),
            vm: open(pair.right()),
        }
    }

    /// Sends a packet in its direction, so many times; gives how many the device took.
    pub(crate) fn send(&mut self, packet: &DescribedPacket, times: u64) -> u64 {
        let (outside, vm) = &self.pair;
        let (sender, frame) = match packet.direction {
            Direction::In => (&mut self.outside, frame(outside, vm, &packet.flow)),
            Direction::Out => (&mut self.vm, frame(vm, outside, &packet.flow)),
        };
        let taken = (0..times).filter(|_| sender.offer(&frame).expect("offered"));
        taken.count() as u64
    }

    /// Sends a frame from outside, so many times.
    pub(crate) fn send_in(&mut self, frame: &[u8], times: u64) -> u64 {
        for _ in 0..times {
            self.outside.send(frame).expect("sent");
        }
        times
    }
}
