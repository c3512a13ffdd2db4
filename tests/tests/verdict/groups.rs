//! Every kind of rule: each packet by the rule that says so, wherever the ENI is captured, in `observe` as in `enforce`, and as the
//! reference in user space says.
use std::collections::BTreeMap;

use flowlog_model::{
    inventory::Inventory,
    record,
    security_group::{DescribedPacket, Policy, Reason},
};
use flowlog_tests::{
    agent::{Action, Direction, Record, RejectReason, conserved, volume},
    lab::{device_stats, skip_unless_root},
};

use crate::{
    cases::{ADVANCED, BASIC, Case, DEFAULT, INNER},
    frames::Senders,
    scene::{
        Flow, Mode, Place, Told, VM, WAYS, flows, received, silent_wire, start, stop_after, unseen,
        untimed,
    },
};

/// What the reference says, in the words of the tables.
fn reference(policy: &Policy, packet: &DescribedPacket) -> (bool, String) {
    let verdict = policy.decide(packet.direction, &packet.flow);
    let by = match &verdict.reason {
        Reason::Rule(rule) => rule.rule.id.as_str().to_owned(),
        other => other.as_str().to_owned(),
    };
    (verdict.action == record::Action::Accept, by)
}

/// How often a packet of the table is sent.
fn times(index: usize) -> u64 {
    index as u64 % 3 + 1
}

fn expected(index: usize, packet: &DescribedPacket, accept: bool, by: &str) -> (Flow, Told) {
    let action = if accept {
        Action::Accept
    } else {
        Action::Reject
    };
    let told = Told {
        packets: times(index),
        reason: (!accept).then_some(RejectReason::SecurityGroup),
        rule: (by != DEFAULT && by != INNER).then(|| by.to_owned()),
    };
    (Flow::of(packet, action), told)
}

/// Sends the packets of a case, and gives the records as if they were of one window.
fn judged(case: &Case, place: Place, mode: Mode) -> Vec<Record> {
    let name = format!("{}, {place:?}, {mode:?}", case.name);
    let pair = silent_wire();
    let agent = start(place.eni(&pair, mode, case.groups, case.tables));
    let text = std::fs::read_to_string(agent.inventory_path()).expect("the inventory");
    let inventory = Inventory::parse(&text, "inventory.toml").expect("an inventory");
    let policy = inventory.policy(&inventory.entries()[0]);
    let ends = [&pair.right().namespace, &pair.left().namespace];
    let before = ends.map(received);
    let mut senders = Senders::new(&pair);
    let mut wanted: BTreeMap<Flow, Told> = BTreeMap::new();
    // What was sent to the VM and what by it, and what of that is to arrive.
    let (mut sent, mut passed) = ([0; 2], [0; 2]);
    for (index, (text, accept, by)) in case.packets.iter().enumerate() {
        let packet: DescribedPacket = text.parse().expect("a packet");
        assert_eq!(
            reference(&policy, &packet),
            (*accept, (*by).to_owned()),
            "{text}"
        );
        let (flow, told) = expected(index, &packet, *accept, by);
        let passes = if *accept || mode == Mode::Observe {
            told.packets
        } else {
            0
        };
        let taken = senders.send(&packet, told.packets);
        let takes = if place.drops_at_egress(flow.direction) {
            passes
        } else {
            told.packets
        };
        assert_eq!(taken, takes, "{name}: {text}");
        let way = usize::from(flow.direction == Direction::Out);
        sent[way] += told.packets;
        passed[way] += passes;
        wanted.extend([(flow, told)]);
    }
    for (way, packets) in WAYS.into_iter().zip(sent) {
        agent.wait_for_packets(VM, way, packets).expect("records");
    }
    assert_eq!(unseen(&agent), place.unseen(sent, passed), "{name}");
    let outcome = stop_after(agent, sent[0], sent[1]);
    let told = flows(&outcome.records);
    for (flow, told) in &told {
        assert_eq!(Some(told), wanted.get(flow), "{flow:?} of {name}");
    }
    assert_eq!(told, wanted, "{name}");
    // What is rejected does not arrive where that is enforced, and everything does where it is not.
    let after = ends.map(received);
    assert_eq!(
        [after[0] - before[0], after[1] - before[1]],
        passed,
        "{name}"
    );
    if place != Place::Host {
        let outside = device_stats(&pair.left().namespace, &pair.left().name).expect("statistics");
        assert_eq!(outside.rx_packets, passed[1]);
    }
    let both = WAYS.map(|way| (VM, way, volume(&outcome.records, VM, way)));
    conserved(&outcome.records, &both);
    assert_eq!([both[0].2.packets, both[1].2.packets], sent);
    untimed(&outcome.records)
}

/// The records are the same, wherever the programs are and whatever becomes of the packets.
fn is_judged_alike(case: &Case) {
    let mut first = None;
    for place in Place::ALL {
        for mode in Mode::BOTH {
            let records = judged(case, place, mode);
            let first = first.get_or_insert_with(|| records.clone());
            assert_eq!(records, *first, "{place:?}, {mode:?}");
        }
    }
}

#[test]
fn every_kind_of_rule_of_basic_groups() {
    if skip_unless_root("every_kind_of_rule_of_basic_groups") {
        return;
    }
    is_judged_alike(&BASIC);
}

#[test]
fn an_advanced_group_denies_both_ways() {
    if skip_unless_root("an_advanced_group_denies_both_ways") {
        return;
    }
    is_judged_alike(&ADVANCED);
}
