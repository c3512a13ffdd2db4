//! Frames of packets as sessions see them.
use std::net::IpAddr;

use flowlog_model::record::FlowTuple;
use flowlog_model::security_group::{
    has_ports,
    session::{Detail, Fragment, Packet, Query, Quoted},
};
use flowlog_tests::packets::build;

const ICMP: u8 = 1;

/// The Ethernet frame of a packet.
pub(crate) fn frame(packet: &Packet) -> Vec<u8> {
    let payload = match packet.fragment {
        Fragment::Later(_) => vec![0x5a; 16],
        Fragment::None | Fragment::First(_) => upper_layer(&packet.flow, &packet.detail),
    };
    let ether_type = match packet.flow.src_addr {
        IpAddr::V4(_) => build::IPV4,
        IpAddr::V6(_) => build::IPV6,
    };
    build::ethernet(
        ether_type,
        &datagram(&packet.flow, packet.fragment, &payload),
    )
}

fn datagram(flow: &FlowTuple, fragment: Fragment, payload: &[u8]) -> Vec<u8> {
    // Offsets are in units of 8 octets.
    let (id, offset, more) = match fragment {
        Fragment::None => (0, 0, false),
        Fragment::First(id) => (id, 0, true),
        Fragment::Later(id) => (id, 8, false),
    };
    match (flow.src_addr, flow.dst_addr) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let flags = u16::from(more) << 13 | offset;
            let mut header = vec![0x45, 0];
            header.extend((20 + payload.len() as u16).to_be_bytes());
            header.extend((id as u16).to_be_bytes());
            header.extend(flags.to_be_bytes());
            header.extend([64, flow.protocol, 0, 0]);
            header.extend(src.octets());
            header.extend(dst.octets());
            [header, payload.to_vec()].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut rest = Vec::new();
            let mut next = flow.protocol;
            if fragment != Fragment::None {
                rest.extend([next, 0]);
                rest.extend((offset << 3 | u16::from(more)).to_be_bytes());
                rest.extend(id.to_be_bytes());
                next = build::FRAGMENT;
            }
            rest.extend(payload);
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((rest.len() as u16).to_be_bytes());
            header.extend([next, 64]);
            header.extend(src.octets());
            header.extend(dst.octets());
            [header, rest].concat()
        }
        ends => panic!("a packet from one family to the other: {ends:?}"),
    }
}

fn upper_layer(flow: &FlowTuple, detail: &Detail) -> Vec<u8> {
    let is_v4 = flow.protocol == ICMP;
    let icmp = |kind: u8, identifier: u16| {
        let mut octets = vec![kind, 0, 0, 0];
        octets.extend(identifier.to_be_bytes());
        octets.extend([0, 1]);
        octets
    };
    match detail {
        Detail::Tcp { flags } => {
            let mut octets = ports(flow);
            octets.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, *flags, 4, 0, 0, 0, 0, 0]);
            octets
        }
        Detail::None => {
            let mut octets = if has_ports(flow.protocol) {
                ports(flow)
            } else {
                vec![0; 4]
            };
            octets.extend([0; 12]);
            octets
        }
        Detail::Query(query) => icmp(query_type(flow.protocol, query), query.identifier),
        // Unreachable.
        Detail::Error(quoted) => {
            let mut octets = icmp(if is_v4 { 3 } else { 1 }, 0);
            octets.extend(quoted.as_ref().map_or(vec![0x45; 6], quote));
            octets
        }
        Detail::NeighborDiscovery => icmp(135, 0),
        // Redirects.
        Detail::OtherIcmp => icmp(if is_v4 { 5 } else { 137 }, 7),
    }
}

/// The header of the quoted packet and 8 octets more.
fn quote(quoted: &Quoted) -> Vec<u8> {
    let flow = &quoted.flow;
    let detail = match quoted.query {
        Some(query) => Detail::Query(query),
        None => Detail::None,
    };
    let mut upper = upper_layer(flow, &detail);
    upper.truncate(8);
    datagram(flow, Fragment::None, &upper)
}

fn query_type(protocol: u8, query: &Query) -> u8 {
    match (protocol == ICMP, query.is_reply) {
        (true, false) => 8,
        (true, true) => 0,
        (false, false) => 128,
        (false, true) => 129,
    }
}

fn ports(flow: &FlowTuple) -> Vec<u8> {
    [flow.src_port.to_be_bytes(), flow.dst_port.to_be_bytes()].concat()
}
