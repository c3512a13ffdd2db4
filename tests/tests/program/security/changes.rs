//! Policies that change: all at once, over restarts, and with numbers of rules that keep their meaning.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use flowlog_agent::bpf::{
    Counters, Policies, Sessions,
    trial::{Programs, SkbMetadata, TrialProgram},
};
use flowlog_common::DECIDED_BY_FIRST_RULE;
use flowlog_model::{
    record::{Action, Direction, FlowTuple},
    security_group::{
        Access, Attachment, GroupType, IpProtocol, Peer, Policy, PortRange, Rule, SecurityGroup,
        SecurityGroups, SecurityMode,
        session::{ACK, Detail, Fragment, Packet, SYN, WhenFull, reversed},
    },
};
use flowlog_tests::lab::{TellAtTheEnd, skip_unless_root};

use super::{
    frames::frame,
    host::{Host, SLOT, constants, reason},
    world::id,
};

/// A policy of one group of so many rules, which differ by port and peer, and of which each second one drops. Those of another `letter`
/// have other ports, other actions and other ids.
fn policy(letter: char, rules: u16) -> Policy {
    let shift = u16::from(letter == 'b');
    let rule = |index: u16| Rule {
        id: id(&format!("{letter}-{index}")),
        direction: Direction::In,
        policy: if (index + shift).is_multiple_of(2) {
            Access::Accept
        } else {
            Access::Drop
        },
        protocol: IpProtocol::from_number(6),
        priority: (index % 3) as u8 + 1,
        peer: Peer::Cidr(
            format!("10.0.{}.0/24", (index + shift) % 4)
                .parse()
                .expect("a block"),
        ),
        local: None,
        src_ports: PortRange::ALL,
        dst_ports: PortRange::new(index * 7 + shift + 1..=index * 7 + shift + 30)
            .expect("in order"),
        description: None,
    };
    let group = SecurityGroup {
        id: id("sg-1"),
        vpc_id: id("vpc-1"),
        group_type: GroupType::Normal,
        inner_access_policy: Access::Drop,
        description: None,
        rules: (0..rules).map(rule).collect(),
    };
    let nobody: [&Attachment; 0] = [];
    SecurityGroups::new([group], [])
        .with_members(nobody)
        .policy(&[id("sg-1")])
}

fn tcp(direction: Direction, number: u16, flags: u8) -> Packet {
    let inward = FlowTuple {
        src_addr: format!("10.0.{}.9", number % 5)
            .parse()
            .expect("an address"),
        src_port: number,
        dst_addr: "10.9.9.9".parse().expect("an address"),
        dst_port: number % 400 + 1,
        protocol: 6,
    };
    Packet {
        direction,
        flow: match direction {
            Direction::In => inward,
            Direction::Out => reversed(&inward),
        },
        detail: Detail::Tcp { flags },
        fragment: Fragment::None,
    }
}

/// Two CPUs send while the policy is now one, now the other: each packet is judged by all of one of them.
#[test]
fn no_packet_is_judged_by_half_a_policy() {
    if skip_unless_root("no_packet_is_judged_by_half_a_policy") {
        return;
    }
    const CHANGES: usize = 10;
    let mut host = Host::new(SecurityMode::Enforce, WhenFull::Accept, 1 << 17);
    let policies = [policy('a', 300), policy('b', 280)];
    host.apply(&policies[0]);
    let load = || {
        let constants = constants(SecurityMode::Enforce, WhenFull::Accept);
        Programs::load(host.folder.path(), constants).expect("programs")
    };
    let loaded = [load(), load()];
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let told_at_the_end = TellAtTheEnd(&stop);
        for (start, mut programs) in [0_u16, 1].into_iter().zip(loaded) {
            let stop = &stop;
            scope.spawn(move || {
                // Each of its own 30,000 flows again and again.
                for number in (start..60_000).step_by(2).cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let frame = frame(&tcp(Direction::In, number, ACK));
                    programs
                        .run(TrialProgram::Ingress, &frame, SkbMetadata::default(), 1)
                        .expect("a run");
                }
            });
        }
        for change in 0..CHANGES {
            host.apply(&policies[(change + 1) % 2]);
        }
        drop(told_at_the_end);
    });
    let (found, _) = host.drain();
    let mut seen = BTreeSet::new();
    for ((direction, flow, action), (_, decided)) in &found {
        let whole = policies.iter().map(|policy| {
            let verdict = policy.decide(*direction, flow);
            (verdict.action, reason(&verdict.reason))
        });
        let whole: Vec<(Action, String)> = whole.collect();
        let answer = (*action, decided.clone());
        assert!(
            whole.contains(&answer),
            "{flow:?}: {answer:?}, not one of {whole:?}"
        );
        seen.extend(decided.chars().next());
    }
    assert!(
        seen.contains(&'a') && seen.contains(&'b'),
        "both policies were asked: {seen:?} of {} flows",
        found.len()
    );
}

/// What is in force and which sessions there are outlives the agent, and the next one knows them.
#[test]
fn policies_and_sessions_outlive_the_agent() {
    if skip_unless_root("policies_and_sessions_outlive_the_agent") {
        return;
    }
    let mut host = Host::new(SecurityMode::Enforce, WhenFull::Accept, 64);
    let first = policy('a', 40);
    host.apply(&first);
    let decide = |number| first.decide(Direction::In, &tcp(Direction::In, number, SYN).flow);
    let accepted = (0..400).find(|number| decide(*number).action == Action::Accept);
    let rejected = (0..400).find(|number| decide(*number).action == Action::Reject);
    let (accepted, rejected) = (accepted.expect("one"), rejected.expect("one"));
    assert_eq!(
        host.send(&tcp(Direction::In, accepted, SYN)),
        Action::Accept
    );
    let before = host.policies.in_force(SLOT).expect("a policy");

    let take_over = |host: &mut Host| {
        let folder = host.folder.path();
        host.sessions = Sessions::take_over(folder).expect("sessions");
        host.counters = Counters::take_over(folder).expect("counters");
        host.policies = Policies::take_over(folder).expect("policies");
    };
    take_over(&mut host);
    assert_eq!(host.sessions.limit(), 64);
    assert_eq!(host.policies.in_force(SLOT), Some(before));
    let check = |host: &mut Host| {
        assert_eq!(
            host.send(&tcp(Direction::Out, accepted, ACK)),
            Action::Accept
        );
        assert_eq!(
            host.send(&tcp(Direction::In, accepted, ACK)),
            Action::Accept
        );
        assert_eq!(
            host.send(&tcp(Direction::In, rejected, SYN)),
            Action::Reject
        );
        let (found, _) = host.drain();
        let rule = reason(&decide(accepted).reason);
        let decided = found.values().filter(|(_, decided)| *decided == rule);
        assert_eq!(decided.count(), 2, "{found:?}");
    };
    check(&mut host);
    // The same policy again is another to the next agent, and says the same of the session that there is.
    host.apply(&first);
    let after = host.policies.in_force(SLOT).expect("a policy");
    assert_ne!((after.policy, after.epoch), (before.policy, before.epoch));
    check(&mut host);
    assert_eq!(host.sweep().left, 1);
    // None after it has an epoch that was given out before.
    host.policies.apply(&BTreeMap::new()).expect("no policy");
    assert_eq!(host.policies.in_force(SLOT), None);
    assert_eq!(
        host.send(&tcp(Direction::In, rejected, SYN)),
        Action::Accept
    );
    take_over(&mut host);
    host.apply(&policy('b', 3));
    let last = host.policies.in_force(SLOT).expect("a policy");
    assert!(last.epoch > after.epoch + 1, "{last:?} after {after:?}");
}

/// ENIs with equal policies share tables, and what holds nowhere any more is gone.
#[test]
fn equal_policies_share_their_tables() {
    if skip_unless_root("equal_policies_share_their_tables") {
        return;
    }
    let mut host = Host::new(SecurityMode::Observe, WhenFull::Accept, 64);
    let (a, b) = (policy('a', 5), policy('b', 5));
    let desired = |slots: &[(u32, &Policy)]| -> BTreeMap<u32, Policy> {
        let slots = slots.iter();
        slots
            .map(|(slot, policy)| (*slot, (*policy).clone()))
            .collect()
    };
    let mut apply = |slots: &[(u32, &Policy)]| {
        let applied = host.policies.apply(&desired(slots)).expect("the policies");
        let numbers = [1, 2, 3].map(|slot| Some(host.policies.in_force(slot)?.policy));
        (
            (applied.installed, applied.removed),
            applied.changed,
            numbers,
        )
    };
    let (made, changed, [one, two, three]) = apply(&[(1, &a), (2, &a), (3, &b)]);
    assert_eq!((made, changed), ((2, 0), vec![1, 2, 3]));
    assert!(one == two && one != three && one.is_some() && three.is_some());
    let nothing = Policy::default();
    let (made, changed, numbers) = apply(&[(1, &a), (2, &b), (3, &nothing)]);
    assert_eq!((made, changed), ((0, 0), vec![2, 3]));
    assert_eq!(numbers, [one, three, None]);
    let (made, changed, numbers) = apply(&[(1, &a), (2, &a)]);
    assert_eq!((made, changed), ((0, 1), vec![2]));
    assert_eq!(numbers, [one, one, None]);
    assert_eq!(
        apply(&[(1, &a), (2, &a)]),
        ((0, 0), vec![], [one, one, None])
    );
}

#[test]
fn a_number_stands_for_one_rule_for_good() {
    if skip_unless_root("a_number_stands_for_one_rule_for_good") {
        return;
    }
    let mut host = Host::new(SecurityMode::Observe, WhenFull::Accept, 64);
    let all = |host: &Host| host.policies.rule_ids(0..DECIDED_BY_FIRST_RULE + 100);
    host.apply(&policy('a', 4));
    let first = all(&host);
    let ids: BTreeSet<&str> = first.values().map(String::as_str).collect();
    assert_eq!(ids, BTreeSet::from(["a-0", "a-1", "a-2", "a-3"]));
    assert!(first.keys().all(|number| *number >= DECIDED_BY_FIRST_RULE));

    host.apply(&policy('b', 2));
    let both = all(&host);
    assert_eq!(both.len(), 6);
    assert!(
        first
            .iter()
            .all(|(number, id)| both.get(number) == Some(id))
    );
    let newest = both.keys().max().copied();
    host.policies.forget_rules().expect("fewer rules");
    let kept = all(&host);
    assert_eq!(
        kept.values().map(String::as_str).collect::<BTreeSet<_>>(),
        BTreeSet::from(["b-0", "b-1"])
    );

    host.policies = Policies::take_over(host.folder.path()).expect("policies");
    assert_eq!(all(&host), kept);
    // Not known to be without use: a previous agent's policies may have them.
    host.policies.forget_rules().expect("no fewer rules");
    assert_eq!(all(&host), kept);
    host.apply(&policy('a', 1));
    let (number, _) = all(&host)
        .into_iter()
        .find(|(_, id)| id == "a-0")
        .expect("it");
    assert!(Some(number) > newest, "{number} is newer than {newest:?}");
}
