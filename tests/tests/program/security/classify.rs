//! A packet that opens a session, against [`Policy::decide`].
use std::{cell::RefCell, collections::BTreeSet};

use flowlog_model::{
    record::{Action, Direction},
    security_group::{
        Policy, SecurityMode,
        session::{ACK, Detail, Fragment, Packet, Query, WhenFull, reversed},
    },
};
use flowlog_tests::lab::skip_unless_root;
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{
    host::{Counted, Host, differences, note, reason},
    world::Random,
};

/// Policies of few rules, and packets that are tried on each.
const POLICIES: u32 = 70;
const PACKETS: usize = 1450;
/// Policies of as many rules as there can be, each of which takes the reference long, and packets that are tried on each.
const LARGE_POLICIES: u32 = 5;
const PACKETS_OF_LARGE: usize = 1000;

/// A packet for which there can be no session before it.
fn packet(random: &mut Random) -> Packet {
    let flow = random.flow();
    let detail = match flow.protocol {
        1 | 58 => match random.below(3) {
            0 => Detail::OtherIcmp,
            1 => Detail::Error(None),
            _ => Detail::Query(Query {
                identifier: random.next() as u16,
                is_reply: random.one_in(2),
            }),
        },
        6 => Detail::Tcp { flags: ACK },
        _ => Detail::None,
    };
    Packet {
        direction: random.direction(),
        flow,
        detail,
        fragment: Fragment::None,
    }
}

/// Sends so many packets, of which no two can be of one session, and holds each verdict and each flow against the policy.
fn hold_against(host: &mut Host, policy: &Policy, seed: u64, packets: usize) -> Result<(), String> {
    host.apply(policy);
    host.forget();
    let mut random = Random(seed);
    let mut seen = BTreeSet::new();
    let mut expected = Counted::new();
    while seen.len() < packets {
        let packet = packet(&mut random);
        let out = match packet.direction {
            Direction::Out => packet.flow,
            Direction::In => reversed(&packet.flow),
        };
        if !seen.insert(out) {
            continue;
        }
        let verdict = policy.decide(packet.direction, &packet.flow);
        let fate = host.send(&packet);
        if fate != host.fate(verdict.action) {
            return Err(format!("{packet:?}: {fate:?}, and must be {verdict:?}"));
        }
        let id = (packet.direction, packet.flow, verdict.action);
        note(&mut expected, id, reason(&verdict.reason));
    }
    let (found, aside) = host.drain();
    let differences = differences(&expected, &found);
    if !differences.is_empty() {
        return Err(differences.join("\n"));
    }
    if aside.iter().any(|aside| aside.without_session > 0) {
        return Err(format!("sessions without room: {aside:?}"));
    }
    Ok(())
}

/// Runs a test of policies of so many rules, and of one direction if one is given. It shrinks to fewer rules.
fn run(
    host: Host,
    cases: u32,
    rules: impl Strategy<Value = ([usize; 2], Option<Direction>)>,
    packets: usize,
) {
    let host = RefCell::new(host);
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let seeds = (rules, any::<u64>());
    let result = TestRunner::new(config).run(&seeds, |((rules, direction), seed)| {
        let policy = Random(seed).policy(rules, direction);
        hold_against(&mut host.borrow_mut(), &policy, !seed, packets).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// 101,500 pairs of a policy and a packet.
#[test]
fn a_packet_is_judged_as_the_policy_decides() {
    if skip_unless_root("a_packet_is_judged_as_the_policy_decides") {
        return;
    }
    let few = || 0..20_usize;
    let rules = prop_oneof![
        2 => (few(), few()).prop_map(|(a, b)| ([a, b], None)),
        1 => (20..120_usize, few()).prop_map(|(a, b)| ([a, b], None)),
    ];
    let host = Host::new(SecurityMode::Observe, WhenFull::Accept, 1 << 16);
    run(host, POLICIES, rules, PACKETS);
}

/// 5,000 pairs: as many rules as there can be in one direction, or nearly as many in each of both.
#[test]
fn a_packet_is_judged_as_the_largest_policies_decide() {
    if skip_unless_root("a_packet_is_judged_as_the_largest_policies_decide") {
        return;
    }
    let host = Host::new(SecurityMode::Enforce, WhenFull::Accept, 1 << 16);
    let rules = prop_oneof![
        Just(([1000, 0], Some(Direction::In))),
        Just(([1000, 0], Some(Direction::Out))),
        // Some 900 in each direction.
        (850..=900_usize, 850..=900_usize).prop_map(|(a, b)| ([a, b], None)),
    ];
    run(host, LARGE_POLICIES, rules, PACKETS_OF_LARGE);
}

/// Where an ENI has no policy, all is accepted, and nothing is remembered.
#[test]
fn without_a_policy_nothing_is_judged() {
    if skip_unless_root("without_a_policy_nothing_is_judged") {
        return;
    }
    let mut host = Host::new(SecurityMode::Enforce, WhenFull::Reject, 16);
    let mut random = Random(1);
    for _ in 0..100 {
        assert_eq!(host.send(&packet(&mut random)), Action::Accept);
    }
    let (found, aside) = host.drain();
    assert!(found.values().all(|(_, decided)| decided == "nothing"));
    assert_eq!(aside.map(|aside| aside.without_session), [0, 0]);
    assert_eq!(host.sweep().left, 0);
}
