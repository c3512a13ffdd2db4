//! Where something ends: room in the flow maps, one CPU at a time, the verifier's patience.
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use flowlog_agent::bpf::{
    Counters, EniConstants,
    trial::{Programs, SkbMetadata, Trial, TrialProgram},
};
use flowlog_common::{DIRECTION_IN, FlowCounters, Volume};
use flowlog_model::security_group::{SecurityMode, session::WhenFull};
use flowlog_tests::{
    lab::{TellAtTheEnd, skip, skip_unless_root},
    packets::build,
};

use crate::{
    ledger::Ledger,
    rig::{PinFolder, ROOMY, eni},
};

/// Instructions that the verifier may walk for a program: over twice what it walks now. The kernel's own limit is a million, and
/// a program that comes near it may be refused by an older kernel.
const MAX_VERIFIED_INSTRUCTIONS: u32 = 100_000;

/// Likewise, of a program that judges.
const MAX_VERIFIED_OF_JUDGING: u32 = 250_000;

/// A UDP datagram of a flow of its own for each number, of 28 octets in IPv4 and 48 in IPv6.
pub(crate) fn flow(v6: bool, number: u16) -> Vec<u8> {
    let mut datagram = build::udp(&[]);
    datagram[..2].copy_from_slice(&number.to_be_bytes());
    if v6 {
        build::ethernet(build::IPV6, &build::ipv6(&[], 17, &datagram))
    } else {
        build::ethernet(build::IPV4, &build::plain_ipv4(17, &datagram))
    }
}

/// Two CPUs count into the same flows while the generations flip under them.
#[test]
fn nothing_is_lost_between_two_cpus_and_a_flip() {
    if skip_unless_root("nothing_is_lost_between_two_cpus_and_a_flip") {
        return;
    }
    const REPEAT: u32 = 500;
    const FLIPS: usize = 12;
    // Each with the octets that are counted of it: those of what is not IP with the Ethernet header.
    let kinds = [
        (build::etherparse_frame(false, true, b"v4"), 42),
        (build::etherparse_frame(true, true, b"v6"), 62),
        (build::ethernet(0x0806, &[0; 28]), 42),
        (build::ethernet(build::IPV4, &[0x41; 40]), 40),
    ];
    let folder = PinFolder::new();
    let mut counters = Counters::create(folder.path(), ROOMY).expect("counters");
    let loaded = [(); 2].map(|()| Programs::load(folder.path(), eni(0, false)).expect("programs"));
    let stop = AtomicBool::new(false);
    let mut found = Vec::new();
    let sent = thread::scope(|scope| {
        let told_at_the_end = TellAtTheEnd(&stop);
        let threads = loaded.map(|mut programs| {
            let (kinds, stop) = (&kinds, &stop);
            scope.spawn(move || {
                let mut sent = Volume::default();
                let mut kinds = kinds.iter().cycle();
                while !stop.load(Ordering::Relaxed) {
                    let (frame, octets) = kinds.next().expect("a cycle has no end");
                    programs
                        .run(TrialProgram::Ingress, frame, SkbMetadata::default(), REPEAT)
                        .expect("a run");
                    sent.packets += u64::from(REPEAT);
                    sent.bytes += u64::from(REPEAT) * octets;
                }
                sent
            })
        });
        for _ in 0..FLIPS {
            drain(&mut counters, &mut found);
        }
        drop(told_at_the_end);
        threads.map(|thread| thread.join().expect("a thread that sends"))
    });
    drain(&mut counters, &mut found);

    let sum = |volumes: &[Volume]| Volume {
        packets: volumes.iter().map(|volume| volume.packets).sum(),
        bytes: volumes.iter().map(|volume| volume.bytes).sum(),
    };
    let counted: Vec<_> = found.iter().map(Ledger::total).collect();
    assert_eq!(sum(&counted), sum(&sent));
    let under_load = counted.iter().filter(|volume| volume.packets > 0).count();
    assert!(
        under_load > FLIPS / 2,
        "all was counted in {under_load} generations: too few flips were under load"
    );
}

fn drain(counters: &mut Counters, found: &mut Vec<Ledger>) {
    let still = counters.flip().expect("a flip");
    found.push(Ledger::read(counters, &still));
    counters.renew(still, ROOMY).expect("renewal");
}

/// Two CPUs meet the same new flows at the same time: one adds the entry, the other must add to it.
#[test]
fn two_cpus_that_meet_a_new_flow_at_once_both_count() {
    if skip_unless_root("two_cpus_that_meet_a_new_flow_at_once_both_count") {
        return;
    }
    const FLOWS: u16 = 30_000;
    let folder = PinFolder::new();
    let mut counters = Counters::create(folder.path(), ROOMY).expect("counters");
    let load = || Programs::load(folder.path(), eni(0, false)).expect("programs");
    thread::scope(|scope| {
        for mut programs in [load(), load()] {
            scope.spawn(move || {
                for number in 0..FLOWS {
                    programs
                        .run(
                            TrialProgram::Ingress,
                            &flow(number % 2 == 1, number),
                            SkbMetadata::default(),
                            1,
                        )
                        .expect("a run");
                }
            });
        }
    });
    let still = counters.flip().expect("a flip");
    let found = Ledger::read(&counters, &still);
    let fill = counters.fill(&still).expect("how full the maps are");
    assert_eq!(found.flows(), (u64::from(FLOWS / 2), u64::from(FLOWS / 2)));
    assert_eq!((fill.v4, fill.v6), found.flows());
    let packets = |counters: &FlowCounters| counters.packets;
    let all = found.v4.values().chain(found.v6.values());
    assert!(all.map(packets).all(|packets| packets == 2));
    assert!(found.aside.is_empty());
    assert!(found.v4.keys().all(|key| key.direction == DIRECTION_IN));
}

#[test]
fn the_verifier_walks_no_more_instructions_than_it_should() {
    let test = "the_verifier_walks_no_more_instructions_than_it_should";
    if skip_unless_root(test) {
        return;
    }
    use SecurityMode::{Enforce, Observe, Off};
    for (host_side, ethernet, xdp_mtu, security_mode) in [
        (false, true, 0, Off),
        (true, true, 1500, Off),
        (false, false, 1500, Off),
        (false, true, 0, Observe),
        (true, true, 1500, Enforce),
        (false, false, 1500, Enforce),
    ] {
        let constants = EniConstants {
            ethernet,
            xdp_mtu,
            security_mode,
            when_full: WhenFull::Reject,
            ..eni(0, host_side)
        };
        let folder = PinFolder::new();
        let trial = Trial::new(folder.path(), constants, ROOMY).expect("programs");
        for program in [
            TrialProgram::Ingress,
            TrialProgram::Egress,
            TrialProgram::Xdp,
        ] {
            let walked = trial.verified_instructions(program).expect("information");
            let Some(walked) = walked else {
                return skip(test, "this kernel does not tell (5.16 does)");
            };
            println!("{program:?} with {constants:?}: {walked} instructions verified");
            let most = match security_mode {
                Off => MAX_VERIFIED_INSTRUCTIONS,
                Observe | Enforce => MAX_VERIFIED_OF_JUDGING,
            };
            assert!((1..most).contains(&walked));
        }
    }
}
