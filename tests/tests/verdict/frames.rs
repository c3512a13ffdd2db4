//! Frames as they are described, and sending them.
use std::net::IpAddr;

use etherparse::{IpNumber, PacketBuilder};
use flowlog_model::{
    record::{Direction, FlowTuple},
    security_group::DescribedPacket,
};
use flowlog_tests::lab::{EndPlan, FrameSender, VethPair};

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

    /// Sends a packet in its direction, so many times; of what the VM sends, how many the device took.
    pub(crate) fn send(&mut self, packet: &DescribedPacket, times: u64) -> u64 {
        let (outside, vm) = &self.pair;
        match packet.direction {
            Direction::In => self.send_in(&frame(outside, vm, &packet.flow), times),
            Direction::Out => {
                let frame = frame(vm, outside, &packet.flow);
                let taken = (0..times).filter(|_| self.vm.offer(&frame).expect("offered"));
                taken.count() as u64
            }
        }
    }

    /// Sends a frame from outside, so many times.
    pub(crate) fn send_in(&mut self, frame: &[u8], times: u64) -> u64 {
        for _ in 0..times {
            self.outside.send(frame).expect("sent");
        }
        times
    }
}
