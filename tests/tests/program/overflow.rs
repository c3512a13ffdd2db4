//! What has no room in the flow maps: it waits in the ring, for as long as it takes, or is counted aside.
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use flowlog_agent::bpf::{
    Counters, MapSizes, OverflowPacket, OverflowRing,
    trial::{Programs, SkbMetadata, TrialProgram},
};
use flowlog_common::{FlowCounters, Volume};
use flowlog_tests::{
    lab::{TellAtTheEnd, skip_unless_root},
    packets::build,
};

use crate::{
    ledger::Ledger,
    limits::flow,
    rig::{PinFolder, Rig, eni},
};

/// Room for one flow of each family.
const TINY: MapSizes = MapSizes { v4: 1, v6: 1 };

/// A rig whose flow maps are full: what comes has no room.
fn full_rig() -> Rig {
    let mut rig = Rig::new(TINY, &[(eni(5, false), &[TrialProgram::Ingress])]);
    for v6 in [false, true] {
        rig.send_unjudged(&flow(v6, u16::MAX), SkbMetadata::default());
    }
    rig
}

fn ring(rig: &Rig) -> OverflowRing {
    OverflowRing::open(rig.folder()).expect("the ring")
}

/// Sends a packet of each of these flows, every third of which is IPv6.
fn send(rig: &mut Rig, numbers: std::ops::Range<u16>) {
    for number in numbers {
        rig.send_unjudged(&flow(is_v6(number), number), SkbMetadata::default());
    }
}

fn is_v6(number: u16) -> bool {
    number.is_multiple_of(3)
}

/// Family and number of a packet's flow. Each is of the size of its frame.
fn told(packet: &OverflowPacket) -> (bool, u16) {
    match packet {
        OverflowPacket::V4(packet) => {
            assert_eq!((packet.packets, packet.bytes, packet.key.eni), (1, 28, 5));
            (false, u16::from_be_bytes(packet.key.src_port))
        }
        OverflowPacket::V6(packet) => {
            assert_eq!((packet.packets, packet.bytes, packet.key.eni), (1, 48, 5));
            (true, u16::from_be_bytes(packet.key.src_port))
        }
    }
}

/// What is in the ring from a position on, and where that ends.
fn read_from(ring: &OverflowRing, position: u64) -> (Vec<(bool, u16)>, u64) {
    let mut packets = Vec::new();
    let end = ring.read_from(position, |packet| packets.push(told(&packet)));
    (packets, end)
}

/// What [`send`] has sent of these flows.
fn sent(numbers: std::ops::Range<u16>) -> Vec<(bool, u16)> {
    numbers.map(|number| (is_v6(number), number)).collect()
}

#[test]
fn what_finds_no_room_in_the_flow_map_waits_in_the_ring_or_is_counted_aside() {
    if skip_unless_root("what_finds_no_room_in_the_flow_map_waits_in_the_ring_or_is_counted_aside")
    {
        return;
    }
    const ROOM: u16 = 16;
    const FLOWS: u16 = 100;
    const ROUNDS: u16 = 3;
    let sizes = MapSizes {
        v4: u32::from(ROOM),
        v6: u32::from(ROOM),
    };
    for program in [
        TrialProgram::Ingress,
        TrialProgram::Egress,
        TrialProgram::Xdp,
    ] {
        let mut rig = Rig::new(sizes, &[(eni(5, false), &[program])]);
        for _ in 0..ROUNDS {
            for (number, v6) in (0..FLOWS).flat_map(|number| [(number, false), (number, true)]) {
                rig.send_unjudged(&flow(v6, number), SkbMetadata::default());
            }
        }
        let found = rig.drain();
        // The first to come are in the map, with all of their packets.
        let ports = |number: u16| number.to_be_bytes();
        let v4: Vec<_> = found.v4.keys().map(|key| key.src_port).collect();
        let v6: Vec<_> = found.v6.keys().map(|key| key.src_port).collect();
        let first: Vec<_> = (0..ROOM).map(ports).collect();
        assert_eq!((&v4, &v6), (&first, &first), "{program:?}");
        let of = |octets: u64| FlowCounters {
            packets: u64::from(ROUNDS),
            bytes: u64::from(ROUNDS) * octets,
            ..FlowCounters::default()
        };
        assert!(found.v4.values().all(|counters| *counters == of(28)));
        assert!(found.v6.values().all(|counters| *counters == of(48)));
        let others = u64::from(FLOWS - ROOM) * u64::from(ROUNDS);
        let aside: Vec<_> = found.aside.values().collect();
        let [aside] = aside[..] else {
            panic!("{program:?}: {aside:?}");
        };
        // The next to come wait in the ring, and what finds these full too is aside.
        let (waiting_v4, waiting_v6) = waiting(&rig);
        for waiting in [waiting_v4, waiting_v6] {
            assert!(
                (10..others).contains(&waiting),
                "{program:?}: {waiting} packets wait"
            );
        }
        let map_full = Volume {
            packets: 2 * others - waiting_v4 - waiting_v6,
            bytes: others * (28 + 48) - waiting_v4 * 28 - waiting_v6 * 48,
        };
        assert_eq!(aside.map_full, map_full, "{program:?}");
        assert_eq!((aside.unparsable, aside.not_ip), Default::default());
    }
}

/// Packets that wait in the ring: IPv4 and IPv6.
fn waiting(rig: &Rig) -> (u64, u64) {
    let (mut v4, mut v6) = (0, 0);
    ring(rig).read(|packet| *if told(&packet).0 { &mut v6 } else { &mut v4 } += 1);
    (v4, v6)
}

#[test]
fn what_was_read_stays_in_the_ring_until_it_is_given_back() {
    if skip_unless_root("what_was_read_stays_in_the_ring_until_it_is_given_back") {
        return;
    }
    let mut rig = full_rig();
    let mut ring = ring(&rig);
    assert_eq!(read_from(&ring, 0), (vec![], 0));
    send(&mut rig, 0..10);
    let (packets, first_end) = read_from(&ring, ring.consumed());
    assert_eq!(packets, sent(0..10));
    assert_eq!(read_from(&ring, 0), (packets, first_end));
    assert_eq!(ring.consumed(), 0);
    send(&mut rig, 10..15);
    let (packets, second_end) = read_from(&ring, 0);
    assert_eq!(packets, sent(0..15));
    assert_eq!(read_from(&ring, first_end), (sent(10..15), second_end));
    ring.advance(first_end);
    assert_eq!(ring.consumed(), first_end);
    // From before the start is from the start.
    assert_eq!(read_from(&ring, 0), (sent(10..15), second_end));
    ring.advance(0);
    ring.advance(u64::MAX - 7);
    assert_eq!(ring.consumed(), first_end);
    ring.advance(second_end);
    assert_eq!(read_from(&ring, 0), (vec![], second_end));
    assert_eq!(read_from(&ring, u64::MAX), (vec![], second_end));
}

#[test]
fn the_ring_goes_round_and_no_packet_is_lost_or_told_twice() {
    if skip_unless_root("the_ring_goes_round_and_no_packet_is_lost_or_told_twice") {
        return;
    }
    let mut rig = full_rig();
    let mut ring = ring(&rig);
    // So few at once that there is room; of no even number, so that items lie over the ring's end in many ways.
    for first in (0..3000).step_by(53) {
        send(&mut rig, first..first + 53);
        let (packets, end) = read_from(&ring, ring.consumed());
        assert_eq!(packets, sent(first..first + 53));
        ring.advance(end);
    }
    assert!(ring.consumed() > 20 * 4096);
    assert_eq!(rig.drain().aside, BTreeMap::new());
}

/// As after kill -9: whoever comes next finds the ring as it was.
#[test]
fn the_ring_is_the_same_for_who_opens_it_next() {
    if skip_unless_root("the_ring_is_the_same_for_who_opens_it_next") {
        return;
    }
    let mut rig = full_rig();
    send(&mut rig, 0..20);
    let mut killed = ring(&rig);
    let (_, end) = read_from(&killed, 0);
    send(&mut rig, 20..30);
    killed.advance(end);
    drop(killed);
    send(&mut rig, 30..40);
    let next = ring(&rig);
    assert_eq!(next.consumed(), end);
    assert_eq!(read_from(&next, 0).0, sent(20..40));
    // And with all that is in memory gone, but for the pins.
    let taken_over = Counters::take_over(rig.folder()).expect("the counters");
    drop((next, taken_over));
    assert_eq!(read_from(&ring(&rig), 0).0, sent(20..40));
}

#[test]
fn a_full_ring_has_room_again_once_packets_are_given_back() {
    if skip_unless_root("a_full_ring_has_room_again_once_packets_are_given_back") {
        return;
    }
    let mut rig = full_rig();
    let mut ring = ring(&rig);
    send(&mut rig, 0..500);
    let (packets, end) = read_from(&ring, 0);
    // An IPv4 packet may find the room that an IPv6 packet did not.
    assert!(packets.starts_with(&sent(0..50)) && packets.is_sorted_by_key(|(_, number)| number));
    let aside = rig.drain().aside;
    let lost: u64 = aside.values().map(|aside| aside.map_full.packets).sum();
    assert_eq!(lost + packets.len() as u64, 500);
    for v6 in [false, true] {
        rig.send_unjudged(&flow(v6, u16::MAX), SkbMetadata::default());
    }
    ring.advance(end);
    send(&mut rig, 500..520);
    assert_eq!(read_from(&ring, 0).0, sent(500..520));
    assert_eq!(rig.drain().aside, BTreeMap::new());
}

/// The device has counted one frame, wherever its segments are counted.
#[test]
fn extra_segments_are_counted_of_every_super_packet() {
    if skip_unless_root("extra_segments_are_counted_of_every_super_packet") {
        return;
    }
    const FRAMES: u16 = 200;
    const SEGMENTS: u64 = 4;
    let metadata = SkbMetadata {
        gso_size: 250,
        gso_segs: SEGMENTS as u32,
        ..SkbMetadata::default()
    };
    for v6 in [false, true] {
        let mut rig = Rig::new(TINY, &[(eni(5, true), &[TrialProgram::Ingress])]);
        for number in 0..FRAMES {
            let mut datagram = build::udp(&[0; 1000]);
            datagram[..2].copy_from_slice(&number.to_be_bytes());
            let frame = if v6 {
                build::ethernet(build::IPV6, &build::ipv6(&[], 17, &datagram))
            } else {
                build::ethernet(build::IPV4, &build::plain_ipv4(17, &datagram))
            };
            assert_eq!(rig.send_unjudged(&frame, metadata), 1);
        }
        let mut waiting = 0;
        ring(&rig).read(|packet| {
            waiting += match packet {
                OverflowPacket::V4(packet) => packet.packets,
                OverflowPacket::V6(packet) => packet.packets,
            }
        });
        let found = rig.drain();
        let in_flow: u64 = found
            .v4
            .values()
            .chain(found.v6.values())
            .map(|flow| flow.packets)
            .sum();
        let aside: Vec<_> = found.aside.iter().collect();
        let [((5, flowlog_common::DIRECTION_OUT), aside)] = aside[..] else {
            panic!("{aside:?}");
        };
        let all = SEGMENTS * u64::from(FRAMES);
        assert!(waiting > 0 && aside.map_full.packets > 0);
        assert_eq!(in_flow, SEGMENTS);
        assert_eq!(in_flow + waiting + aside.map_full.packets, all);
        assert_eq!(aside.extra_segments, all - u64::from(FRAMES));
    }
}

/// Two CPUs write into the ring while generations flip, and it is read and given back.
#[test]
fn nothing_is_lost_between_two_cpus_and_a_reader_of_the_ring() {
    if skip_unless_root("nothing_is_lost_between_two_cpus_and_a_reader_of_the_ring") {
        return;
    }
    const FLIPS: usize = 12;
    let folder = PinFolder::new();
    let ring_bytes = 64 << 10;
    let mut counters =
        Counters::create_with_ring(folder.path(), TINY, ring_bytes).expect("counters");
    let mut ring = OverflowRing::open(folder.path()).expect("the ring");
    let loaded = [(); 2].map(|()| Programs::load(folder.path(), eni(5, false)).expect("programs"));
    let stop = AtomicBool::new(false);
    let (mut counted, mut overflowed) = (Volume::default(), Volume::default());
    let mut add_overflow = |ring: &mut OverflowRing| {
        let end = ring.read(|packet| {
            overflowed.packets += 1;
            overflowed.bytes += if told(&packet).0 { 48 } else { 28 };
        });
        ring.advance(end);
    };
    let mut drain = |ring: &mut OverflowRing| {
        let still = counters.flip().expect("a flip");
        add_overflow(ring);
        let total = Ledger::read(&counters, &still).total();
        counted.packets += total.packets;
        counted.bytes += total.bytes;
        counters.renew(still, TINY).expect("renewal");
    };
    let sent = thread::scope(|scope| {
        let told_at_the_end = TellAtTheEnd(&stop);
        let threads = loaded.map(|mut programs| {
            let stop = &stop;
            scope.spawn(move || {
                let mut sent = Volume::default();
                for (turn, number) in (0_u64..).zip((0..100).cycle()) {
                    // So many that some have no room, however late this thread was.
                    if turn > 10 && stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let frame = flow(is_v6(number), number);
                    programs
                        .run(TrialProgram::Ingress, &frame, SkbMetadata::default(), 20)
                        .expect("a run");
                    sent.packets += 20;
                    sent.bytes += 20 * if is_v6(number) { 48 } else { 28 };
                }
                sent
            })
        });
        for _ in 0..FLIPS {
            drain(&mut ring);
        }
        drop(told_at_the_end);
        threads.map(|thread| thread.join().expect("a thread that sends"))
    });
    drain(&mut ring);
    assert!(overflowed.packets > 0);
    assert_eq!(
        (
            counted.packets + overflowed.packets,
            counted.bytes + overflowed.bytes
        ),
        (
            sent[0].packets + sent[1].packets,
            sent[0].bytes + sent[1].bytes
        )
    );
}
