//! At every hook, and behind whatever headers: what is judged is the packet, and what is dropped is counted.
use flowlog_agent::bpf::trial::{Programs, SkbMetadata, TrialProgram};
use flowlog_common::{DIRECTION_OUT, Volume};
use flowlog_model::{
    record::{Action, Direction},
    security_group::{
        Access, GroupType, IpProtocol, Peer, Policy, PortRange, Rule, SecurityGroup,
        SecurityGroups, SecurityMode, session::WhenFull,
    },
};
use flowlog_tests::{
    lab::skip_unless_root,
    packets::build::{self, Extension, Piece},
};

use super::{
    host::{Host, constants},
    world::id,
};
use crate::rig::PASS;

/// `XDP_DROP`.
const XDP_DROP: u32 = 1;
/// `TC_ACT_SHOT`.
const SHOT: u32 = 2;

/// A basic group that lets one TCP port in.
fn policy(port: u16) -> Policy {
    let rule = |(rule_id, block): (&str, &str)| Rule {
        id: id(rule_id),
        direction: Direction::In,
        policy: Access::Accept,
        protocol: IpProtocol::from_number(6),
        priority: 1,
        peer: Peer::Cidr(block.parse().expect("a block")),
        local: None,
        src_ports: PortRange::ALL,
        dst_ports: PortRange::new(port..=port).expect("a port"),
        description: None,
    };
    let group = SecurityGroup {
        id: id("sg-1"),
        vpc_id: id("vpc-1"),
        group_type: GroupType::Normal,
        inner_access_policy: Access::Drop,
        description: None,
        rules: [("sgr-4", "0.0.0.0/0"), ("sgr-6", "::/0")].map(rule).into(),
    };
    SecurityGroups::new([group], []).policy(&[id("sg-1")])
}

/// A TCP packet to a port, with VLAN tags or extension headers before it.
fn frames(port: u16) -> Vec<Vec<u8>> {
    let mut tcp = build::tcp(0x10, b"payload");
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    let v4 = build::plain_ipv4(6, &tcp);
    let chain = [
        Extension::Plain(build::HOP_BY_HOP, 0),
        Extension::Plain(build::DESTINATION, 3),
        Extension::Plain(build::ROUTING, 1),
        Extension::Auth(2),
    ];
    vec![
        build::ethernet(build::IPV4, &v4),
        build::tagged(&[(0x88a8, 5), (0x8100, 7)], build::IPV4, &v4),
        build::ethernet(
            build::IPV4,
            &build::ipv4(6, &[1; 8], Piece::default(), &tcp),
        ),
        build::ethernet(build::IPV6, &build::ipv6(&[], 6, &tcp)),
        build::ethernet(build::IPV6, &build::ipv6(&chain, 6, &tcp)),
    ]
}

fn verdict(programs: &mut Programs, program: TrialProgram, frame: &[u8]) -> u32 {
    let run = programs.run(program, frame, SkbMetadata::default(), 1);
    run.expect("a run").verdict
}

#[test]
fn xdp_drops_what_is_rejected_behind_whatever_headers() {
    if skip_unless_root("xdp_drops_what_is_rejected_behind_whatever_headers") {
        return;
    }
    let mut host = Host::new(SecurityMode::Enforce, WhenFull::Accept, 64);
    host.apply(&policy(443));
    for (port, xdp, action) in [(443, PASS, Action::Accept), (444, XDP_DROP, Action::Reject)] {
        for frame in frames(port) {
            let found = verdict(&mut host.programs, TrialProgram::Xdp, &frame);
            assert_eq!(found, xdp, "XDP, port {port}: {frame:02x?}");
            let found = host.send_frame(Direction::In, &frame);
            assert_eq!(found, action, "TC, port {port}: {frame:02x?}");
        }
    }
    let (counted, _) = host.drain();
    let told = |(_, flow, action): &(Direction, _, Action)| {
        let flow: &flowlog_model::record::FlowTuple = flow;
        (flow.dst_port, flow.src_addr.is_ipv6(), *action)
    };
    let flows: Vec<_> = counted
        .iter()
        .map(|(id, (packets, decided))| (told(id), *packets, decided.as_str()))
        .collect();
    assert_eq!(
        flows,
        [
            ((443, false, Action::Accept), 6, "sgr-4"),
            ((444, false, Action::Reject), 6, "default"),
            ((443, true, Action::Accept), 4, "sgr-6"),
            ((444, true, Action::Reject), 4, "default"),
        ]
    );
}

/// What the host's end of the VM's link receives, the VM sends; and what is dropped before a device has sent it is counted as such.
#[test]
fn what_the_device_never_sends_is_counted_as_dropped() {
    if skip_unless_root("what_the_device_never_sends_is_counted_as_dropped") {
        return;
    }
    let mut host = Host::new(SecurityMode::Enforce, WhenFull::Accept, 64);
    host.apply(&policy(443));
    let on_host = flowlog_agent::bpf::EniConstants {
        host_side: true,
        ..constants(SecurityMode::Enforce, WhenFull::Accept)
    };
    let mut programs = Programs::load(host.folder.path(), on_host).expect("programs");
    let frames = frames(444);
    let [frame, ..] = frames.as_slice() else {
        panic!("there are frames");
    };
    let octets = frame.len() as u64 - 14;
    // Into the VM is out of the host's end.
    assert_eq!(verdict(&mut programs, TrialProgram::Egress, frame), SHOT);
    let super_packet = SkbMetadata {
        gso_size: 2,
        gso_segs: 4,
        ..SkbMetadata::default()
    };
    let run = programs.run(TrialProgram::Egress, frame, super_packet, 1);
    assert_eq!(run.expect("a run").verdict, SHOT);
    let (_, [inward, outward]) = host.drain();
    // Seven octets in segments of two, each with 40 octets of headers.
    let expected = Volume {
        packets: 1 + 4,
        bytes: octets + octets + 3 * 40,
    };
    assert_eq!((inward.dropped, inward.extra_segments), (expected, 0));
    assert_eq!(outward, flowlog_common::EniCounters::default());

    // At ingress the device has counted the frame already.
    let run = host
        .programs
        .run(TrialProgram::Ingress, frame, super_packet, 1);
    assert_eq!(run.expect("a run").verdict, SHOT);
    let (_, [inward, _]) = host.drain();
    assert_eq!(
        (inward.dropped, inward.extra_segments),
        (Volume::default(), 3)
    );

    // What the VM sends is allowed, and is its `out`.
    assert_ne!(verdict(&mut programs, TrialProgram::Ingress, frame), SHOT);
    let (counted, _) = host.drain();
    let directions: Vec<Direction> = counted.keys().map(|(direction, ..)| *direction).collect();
    assert_eq!(directions, [Direction::Out]);
    assert_eq!(DIRECTION_OUT, 1);
}

/// An error about a packet with extension headers, and one whose quote ends within them.
#[test]
fn an_error_finds_the_session_behind_extension_headers() {
    if skip_unless_root("an_error_finds_the_session_behind_extension_headers") {
        return;
    }
    let mut host = Host::new(SecurityMode::Enforce, WhenFull::Accept, 64);
    host.apply(&policy(443));
    let chain = [
        Extension::Plain(build::HOP_BY_HOP, 1),
        Extension::Plain(build::DESTINATION, 0),
    ];
    let udp = build::ipv6(&chain, 17, &build::udp(b"question"));
    assert_eq!(
        host.send_frame(Direction::Out, &build::ethernet(build::IPV6, &udp)),
        Action::Accept
    );
    for (quoted, action) in [
        (udp.len(), Action::Accept),
        (40 + 24 + 4, Action::Accept),
        (40 + 24 + 3, Action::Reject),
        (40 + 20, Action::Reject),
        (39, Action::Reject),
    ] {
        let mut error = vec![1, 4, 0, 0, 0, 0, 0, 0];
        error.extend(&udp[..quoted]);
        let frame = build::ethernet(build::IPV6, &build::ipv6(&[], 58, &error));
        let found = host.send_frame(Direction::In, &frame);
        assert_eq!(found, action, "{quoted} octets are quoted");
    }
}
