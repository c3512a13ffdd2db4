//! Fragments, which lack ports but for the first.
use std::{cell::RefCell, collections::BTreeMap};

use flowlog_agent::bpf::trial::{SkbMetadata, TrialProgram};
use flowlog_common::{MAX_FRAGMENTED_DATAGRAMS, Volume};
use flowlog_tests::{
    lab::skip_unless_root,
    packets::{
        build::{self, Extension, IPV4, IPV6, Piece},
        sequences,
    },
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use crate::rig::{ROOMY, Rig, eni};

/// Where the source address is in an IPv4 and in an IPv6 frame without tags.
const SRC_V4: usize = 14 + 12;
const SRC_V6: usize = 14 + 8;

#[test]
fn each_sequence_of_fragments_is_counted_as_the_oracle_reads_it() {
    if skip_unless_root("each_sequence_of_fragments_is_counted_as_the_oracle_reads_it") {
        return;
    }
    let mut rig = Rig::of_all_programs();
    for sequence in sequences() {
        for (number, frame) in sequence.frames.iter().enumerate() {
            rig.send(frame);
            if let Err(differences) = rig.check() {
                panic!("{}, fragment {number}: {differences}", sequence.name);
            }
        }
    }
}

/// The fragments of all sequences, and the same from another address, in any order.
#[test]
fn interleaved_datagrams_keep_their_own_ports() {
    if skip_unless_root("interleaved_datagrams_keep_their_own_ports") {
        return;
    }
    let mut frames: Vec<_> = sequences().into_iter().flat_map(|s| s.frames).collect();
    let elsewhere = frames.clone().into_iter().map(from_another_address);
    frames.extend(elsewhere.collect::<Vec<_>>());
    let rig = RefCell::new(Rig::of_all_programs());
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&Just(frames).prop_shuffle(), |frames| {
        let mut rig = rig.borrow_mut();
        rig.forget_fragments();
        frames.iter().for_each(|frame| rig.send(frame));
        rig.check().map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// The same fragment from another source and, where it is a first one, with another source port.
fn from_another_address(mut frame: Vec<u8>) -> Vec<u8> {
    let (src, ports) = if frame[12..14] == IPV4.to_be_bytes() {
        (SRC_V4, 14 + 20)
    } else {
        (SRC_V6, 14 + 40 + 8)
    };
    frame[src] ^= 0x0f;
    // In a later fragment this is payload.
    frame[ports] ^= 0x55;
    frame
}

/// What went out does not tell of what comes in, and one ENI's fragments not of another's.
#[test]
fn a_first_fragment_counts_for_its_own_eni_and_direction_alone() {
    if skip_unless_root("a_first_fragment_counts_for_its_own_eni_and_direction_alone") {
        return;
    }
    use TrialProgram::{Egress, Ingress};
    let enis = [0, 1].map(|slot| (eni(slot, false), &[Ingress, Egress][..]));
    for name in ["ipv4-tcp-in-order", "ipv6-tcp-in-order"] {
        let mut rig = Rig::new(ROOMY, &enis);
        let sequences = sequences();
        let sequence = sequences.iter().find(|sequence| sequence.name == name);
        let [first, middle, last] = &sequence.expect("the sequence").frames[..] else {
            panic!("{name} has three fragments");
        };
        rig.send_through(0, Egress, first);
        for (slot, program) in [(0, Ingress), (1, Ingress), (1, Egress), (0, Egress)] {
            rig.send_through(slot, program, middle);
            rig.send_through(slot, program, last);
        }
        if let Err(differences) = rig.check() {
            panic!("{name}: {differences}");
        }
    }
}

/// With more datagrams than are remembered, a later fragment is counted with its own first one's ports or with none, and in any
/// case.
#[test]
fn a_forgotten_first_fragment_leaves_its_later_ones_without_ports() {
    if skip_unless_root("a_forgotten_first_fragment_leaves_its_later_ones_without_ports") {
        return;
    }
    let datagrams = 2 * MAX_FRAGMENTED_DATAGRAMS as u16;
    let mut rig = Rig::new(ROOMY, &[(eni(0, false), &[TrialProgram::Ingress])]);
    let mut sent = Volume::default();
    let mut send = |rig: &mut Rig, frame: &[u8]| {
        rig.send_unjudged(frame, SkbMetadata::default());
        sent.packets += 1;
        sent.bytes += frame.len() as u64 - 14;
    };
    for number in 1..=datagrams {
        send(&mut rig, &fragment_of(number, true));
    }
    for number in 1..=datagrams {
        send(&mut rig, &fragment_of(number, false));
    }
    let found = rig.drain();
    assert_eq!(found.total(), sent);
    assert!(found.aside.is_empty() && found.v4.is_empty());

    let packets: BTreeMap<u16, u64> = found
        .v6
        .iter()
        .map(|(key, counters)| (u16::from_be_bytes(key.src_port), counters.packets))
        .collect();
    let without_ports = packets.get(&0).copied().unwrap_or(0);
    let with_ports = packets.iter().filter(|(port, _)| **port != 0);
    // Of each its first fragment, and perhaps its later one.
    assert!(
        with_ports
            .clone()
            .all(|(_, packets)| (1..=2).contains(packets))
    );
    assert_eq!(with_ports.count(), usize::from(datagrams));
    let remembered = u64::from(datagrams) - without_ports;
    let room = u64::from(MAX_FRAGMENTED_DATAGRAMS);
    assert!(
        (1..=room).contains(&remembered),
        "{remembered} of {datagrams} datagrams were remembered, where there is room for {room}"
    );
}

/// The first fragment of a datagram, which has the source port `number`, or its last. All are alike but for this and their
/// identification.
fn fragment_of(number: u16, first: bool) -> Vec<u8> {
    let piece = Piece {
        id: 0x000a_0000 + u32::from(number),
        offset: if first { 0 } else { 2 },
        more: first,
    };
    let mut payload = if first {
        build::udp(&[0x5a; 8])
    } else {
        vec![0x5a; 16]
    };
    if first {
        payload[..2].copy_from_slice(&number.to_be_bytes());
    }
    let datagram = build::ipv6(&[Extension::Fragment(piece)], 17, &payload);
    build::ethernet(IPV6, &datagram)
}
