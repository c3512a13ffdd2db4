//! Crafted packets.
use flowlog_agent::bpf::trial::{SkbMetadata, TrialProgram};
use flowlog_common::{DIRECTION_IN, DIRECTION_OUT};
use flowlog_tests::{
    lab::{skip, skip_unless_root},
    packets::{self, NamedPacket, build, oracle},
};

use crate::rig::{MAX_LINEAR_FRAME, ROOMY, Rig, eni};

/// Packets of which the counters are checked at once.
const AT_ONCE: usize = 6;

#[test]
fn each_packet_of_the_corpus_is_counted_as_the_oracle_reads_it() {
    let test = "each_packet_of_the_corpus_is_counted_as_the_oracle_reads_it";
    if skip_unless_root(test) {
        return;
    }
    let mut rig = Rig::of_all_programs();
    send_all(&mut rig, &packets::corpus());
    if !Rig::can_split(TrialProgram::Ingress) {
        skip(
            test,
            &format!(
                "the frames over {MAX_LINEAR_FRAME} octets at TC, which this kernel's BPF_PROG_TEST_RUN does not take"
            ),
        );
    }
}

/// What a tun device hands over: the packet begins with the IP header.
#[test]
fn each_packet_of_the_corpus_is_counted_on_an_eni_without_ethernet_header() {
    if skip_unless_root("each_packet_of_the_corpus_is_counted_on_an_eni_without_ethernet_header") {
        return;
    }
    let mut bare = packets::corpus();
    bare.retain(|packet| packet.frame.len() > 14);
    for packet in &mut bare {
        packet.frame.drain(..14);
    }
    send_all(&mut Rig::without_ethernet_header(), &bare);
}

/// Sends each packet of a few as often as those before it together and once more, so that no miscount makes up for another.
fn send_all(rig: &mut Rig, packets: &[NamedPacket]) {
    let mut wrong = Vec::new();
    for several in packets.chunks(AT_ONCE) {
        for (number, packet) in several.iter().enumerate() {
            for _ in 0..1 << number {
                rig.send(&packet.frame);
            }
        }
        if let Err(differences) = rig.check() {
            let names: Vec<_> = several.iter().map(|packet| &*packet.name).collect();
            wrong.push(format!("{}:\n{differences}", names.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rig itself: what is counted and must not be, and what must be and is not, is told.
#[test]
fn a_difference_from_the_oracle_is_noticed() {
    if skip_unless_root("a_difference_from_the_oracle_is_noticed") {
        return;
    }
    let mut rig = Rig::of_all_programs();
    let [packet, other] =
        [b"one", b"two"].map(|payload| build::etherparse_frame(true, true, payload));
    rig.send(&packet);
    rig.send_unjudged(&packet, SkbMetadata::default());
    let differences = rig.check().expect_err("one packet more than there must be");
    assert_eq!(differences.lines().count(), 6, "{differences}");
    // The wire is said to carry another frame twice, of which nothing is counted.
    rig.send_super_packet(&packet, SkbMetadata::default(), &[&other, &other]);
    assert!(rig.check().is_err());
    // And it is not told again of the next.
    rig.send(&packet);
    assert_eq!(rig.check(), Ok(()));
    rig.send(&other);
    assert_eq!(rig.check(), Ok(()));
}

/// Whatever it is taken for, it is counted, and once.
#[test]
fn what_the_oracle_does_not_judge_is_counted_once() {
    if skip_unless_root("what_the_oracle_does_not_judge_is_counted_once") {
        return;
    }
    let mut rig = Rig::of_all_programs();
    let mut sent = 0;
    for packet in packets::corpus() {
        if !oracle::comparable(&packet.frame) {
            sent += rig.send_unjudged(&packet.frame, SkbMetadata::default());
        }
    }
    let found = rig.drain();
    assert!(sent > 0);
    assert_eq!(found.total().packets, sent);
    assert!(found.v4.is_empty() && found.aside.values().all(|aside| aside.not_ip.packets == 0));
}

/// The guest's device receives what goes in; the host's end of the same link receives what comes out.
#[test]
fn directions_are_the_owners_and_mirrored_on_the_hosts_side() {
    if skip_unless_root("directions_are_the_owners_and_mirrored_on_the_hosts_side") {
        return;
    }
    use TrialProgram::{Egress, Ingress, Xdp};
    let packet = build::etherparse_frame(false, true, b"direction");
    let not_ip = build::ethernet(0x0806, &[0; 28]);
    for (host_side, program, direction) in [
        (false, Ingress, DIRECTION_IN),
        (false, Egress, DIRECTION_OUT),
        (false, Xdp, DIRECTION_IN),
        (true, Ingress, DIRECTION_OUT),
        (true, Egress, DIRECTION_IN),
        (true, Xdp, DIRECTION_OUT),
    ] {
        let mut rig = Rig::new(ROOMY, &[(eni(7, host_side), &[program])]);
        rig.send_unjudged(&packet, SkbMetadata::default());
        rig.send_unjudged(&not_ip, SkbMetadata::default());
        let found = rig.drain();
        let flows: Vec<_> = found
            .v4
            .keys()
            .map(|key| (key.eni, key.direction))
            .collect();
        let aside: Vec<_> = found.aside.keys().copied().collect();
        let expected = vec![(7, direction)];
        assert_eq!(
            (flows, aside),
            (expected.clone(), expected),
            "{program:?}, host's side: {host_side}"
        );
    }
}

/// What tc redirects from a device with Ethernet headers to the ingress of one without comes with its header all the same.
#[test]
fn ethernet_frame_on_an_eni_without_ethernet_header_is_read() {
    if skip_unless_root("ethernet_frame_on_an_eni_without_ethernet_header_is_read") {
        return;
    }
    use TrialProgram::{Egress, Ingress};
    let bare = flowlog_agent::bpf::EniConstants {
        ethernet: false,
        ..eni(3, false)
    };
    let mut rig = Rig::new(ROOMY, &[(bare, &[Ingress, Egress])]);
    for v6 in [false, true] {
        let frame = build::etherparse_frame(v6, false, b"redirected");
        rig.send_unjudged(&frame, SkbMetadata::default());
    }
    rig.send_unjudged(&build::ethernet(0x0806, &[0; 28]), SkbMetadata::default());
    let found = rig.drain();
    let ports = |port: u16| port.to_be_bytes();
    let both = [DIRECTION_IN, DIRECTION_OUT];
    let v4: Vec<_> = found
        .v4
        .iter()
        .map(|(key, of)| (key.direction, key.src_port, of.packets, of.bytes))
        .collect();
    let v6: Vec<_> = found
        .v6
        .iter()
        .map(|(key, of)| (key.direction, key.src_port, of.packets, of.bytes))
        .collect();
    let port = ports(build::SRC_PORT);
    assert_eq!(v4, both.map(|direction| (direction, port, 1, 38)));
    assert_eq!(v6, both.map(|direction| (direction, port, 1, 58)));
    let aside: Vec<_> = found
        .aside
        .values()
        .map(|aside| aside.not_ip.packets)
        .collect();
    assert_eq!(aside, [1, 1]);
}
