//! Rules and modes that change while packets go on.
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use flowlog_model::record::FlowTuple;
use flowlog_tests::{
    agent::{Action, AgentProcess, Direction, EniPlan, volume},
    lab::{TellAtTheEnd, VethPair, device_stats, skip_unless_root},
};

use crate::{
    frames::{Senders, frame},
    scene::{
        Flow, Mode, Told, VM, flows, packets, received, silent_wire, start, stop_after, verdicts,
        vm,
    },
};

const UDP: u8 = 17;

/// A group that accepts what comes to these ports, each by a rule of its own, of this name.
fn group(rules: &[(&str, u16)]) -> String {
    let rules = rules.iter().map(|(id, port)| {
        format!(
            "{{ security-group-rule-id = {id:?}, direction = \"ingress\", ip-protocol = \"UDP\", port-range = \"{port}/{port}\", \
             source-cidr-ip = \"0.0.0.0/0\" }},"
        )
    });
    let rules: String = rules.collect();
    format!(
        "\n[[security-group]]\nsecurity-group-id = \"sg\"\nvpc-id = \"vpc-test\"\nrule = [ {rules} ]\n"
    )
}

/// A flow to a port, from the port of the same number.
fn flow(port: u16) -> FlowTuple {
    FlowTuple {
        src_addr: [198, 51, 100, 1].into(),
        src_port: port,
        dst_addr: [10, 88, 0, 10].into(),
        dst_port: port,
        protocol: UDP,
    }
}

fn of(flows: &std::collections::BTreeMap<Flow, Told>, port: u16, action: Action) -> u64 {
    packets(flows, |flow, _| {
        flow.dst.port() == port && flow.action == action
    })
}

/// Replaces the inventory, and waits until it is in force: a status is told after it was followed.
pub(crate) fn follow(agent: &AgentProcess, eni: EniPlan) {
    let mark = agent.log_mark().expect("it runs");
    agent.replace_inventory([eni]).expect("an inventory");
    agent
        .wait_for_log(mark, "the inventory has changed")
        .expect("read");
    agent.status().expect("a status");
}

/// Sends packets of these flows in turn, until it is told to stop; tells how many of each.
fn send_until(pair: &VethPair, ports: &[u16], stop: &AtomicBool) -> u64 {
    let mut senders = Senders::new(pair);
    let frames: Vec<_> = ports
        .iter()
        .map(|port| frame(pair.left(), pair.right(), &flow(*port)))
        .collect();
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        for frame in &frames {
            senders.send_in(frame, 1);
        }
        rounds += 1;
        // There is no hurry, and a thousand packets are as good as a million.
        thread::yield_now();
    }
    rounds
}

/// Every packet is judged by the old policy or by the new one, and those that come after the change by the new one.
#[test]
fn a_changed_rule_takes_effect_under_traffic() {
    if skip_unless_root("a_changed_rule_takes_effect_under_traffic") {
        return;
    }
    for mode in Mode::BOTH {
        let pair = silent_wire();
        let eni = |rules: &[(&str, u16)]| vm(&pair, mode, &["sg"], &group(rules));
        let agent = start(eni(&[("sgr-a", 7000), ("sgr-b", 7001)]));
        let stop = AtomicBool::new(false);
        let rounds = thread::scope(|scope| {
            let told_at_the_end = TellAtTheEnd(&stop);
            let sender = scope.spawn(|| send_until(&pair, &[7000, 7001, 7002], &stop));
            agent
                .wait_for_packets(VM, Direction::In, 300)
                .expect("traffic");
            for _ in 0..5 {
                // 7000 is allowed no more, 7002 is; 7001 is all the time, by another rule.
                follow(&agent, eni(&[("sgr-c", 7001), ("sgr-d", 7002)]));
                follow(&agent, eni(&[("sgr-a", 7000), ("sgr-b", 7001)]));
            }
            follow(&agent, eni(&[("sgr-c", 7001), ("sgr-d", 7002)]));
            drop(told_at_the_end);
            sender.join().expect("no panic")
        });
        // From here on, nothing is judged as before.
        let mut senders = Senders::new(&pair);
        for port in 7000..=7002 {
            senders.send_in(&frame(pair.left(), pair.right(), &flow(port)), 10_000);
        }
        let sent = 3 * (rounds + 10_000);
        agent
            .wait_for_packets(VM, Direction::In, sent)
            .expect("records");
        let records = agent.records_so_far().expect("it runs");
        let outcome = stop_after(agent, sent, 0);
        assert_eq!(volume(&outcome.records, VM, Direction::In).packets, sent);
        for record in &records {
            let Some(port) = record.dstport else { continue };
            // By all of one policy, or all of the other.
            let rule = record.security_group_rule_id.as_deref();
            let whole = match (port, record.action) {
                (7000, Some(Action::Accept)) => [Some("sgr-a"); 2],
                (7001, Some(Action::Accept)) => [Some("sgr-b"), Some("sgr-c")],
                (7002, Some(Action::Accept)) => [Some("sgr-d"); 2],
                (7000 | 7002, Some(Action::Reject)) => [None; 2],
                _ => panic!("{record:?}"),
            };
            assert!(whole.contains(&rule), "{record:?}");
        }
        let flows = verdicts(&records);
        let each = rounds + 10_000;
        assert_eq!(
            of(&flows, 7000, Action::Accept) + of(&flows, 7000, Action::Reject),
            each
        );
        assert!(of(&flows, 7000, Action::Reject) >= 10_000, "{flows:#?}");
        assert!(of(&flows, 7000, Action::Accept) > 0);
        assert_eq!(of(&flows, 7001, Action::Accept), each, "{flows:#?}");
        assert_eq!(
            of(&flows, 7002, Action::Accept) + of(&flows, 7002, Action::Reject),
            each
        );
        assert!(of(&flows, 7002, Action::Accept) >= 10_000);
        let rejected = packets(&flows, |flow, _| flow.action == Action::Reject);
        let passed = if mode == Mode::Enforce {
            sent - rejected
        } else {
            sent
        };
        assert_eq!(received(&pair.right().namespace), passed);
    }
}

/// Off, observed, enforced and back, under traffic: no packet is missed or counted twice, and the device sees all of them.
#[test]
fn another_mode_takes_effect_without_a_gap() {
    if skip_unless_root("another_mode_takes_effect_without_a_gap") {
        return;
    }
    let pair = silent_wire();
    let tables = group(&[("sgr-a", 7000)]);
    let observed = vm(&pair, Mode::Observe, &["sg"], &tables);
    let off = EniPlan {
        extra: observed.extra.replace("\"observe\"", "\"off\""),
        ..observed.clone()
    };
    let enforced = vm(&pair, Mode::Enforce, &["sg"], &tables);
    let agent = start(off.clone());
    let stop = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let told_at_the_end = TellAtTheEnd(&stop);
        let sender = scope.spawn(|| send_until(&pair, &[7000, 7001], &stop));
        for _ in 0..3 {
            for eni in [&observed, &enforced, &observed, &off, &enforced] {
                follow(&agent, eni.clone());
            }
        }
        drop(told_at_the_end);
        sender.join().expect("no panic")
    });
    let outcome = stop_after(agent, 2 * rounds, 0);
    assert!(
        !outcome.stderr.contains("no longer captured: "),
        "{}",
        outcome.stderr
    );
    assert_eq!(
        volume(&outcome.records, VM, Direction::In).packets,
        2 * rounds
    );
    let device = device_stats(&pair.right().namespace, &pair.right().name).expect("statistics");
    assert_eq!(device.rx_packets, 2 * rounds);
    let flows = verdicts(&outcome.records);
    assert_eq!(of(&flows, 7000, Action::Accept), rounds);
    assert_eq!(
        of(&flows, 7001, Action::Accept) + of(&flows, 7001, Action::Reject),
        rounds
    );
    assert!(of(&flows, 7001, Action::Reject) > 0);
}

/// Rules by the addresses of the members of a group: who joins it is allowed at once.
#[test]
fn who_joins_a_group_is_a_member_at_once() {
    if skip_unless_root("who_joins_a_group_is_a_member_at_once") {
        return;
    }
    let pair = silent_wire();
    let tables = |members: &str| {
        format!(
            r#"
[[remote-eni]]
eni-id = "eni-client"
security-group-ids = ["sg-clients"]
private-ip-addresses = [{members}]

[[security-group]]
security-group-id = "sg-clients"
vpc-id = "vpc-test"

[[security-group]]
security-group-id = "sg"
vpc-id = "vpc-test"
rule = [{{ security-group-rule-id = "sgr-clients", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", source-group-id = "sg-clients" }}]
"#
        )
    };
    let eni = |members: &str| vm(&pair, Mode::Enforce, &["sg"], &tables(members));
    let agent = start(eni(""));
    let mut senders = Senders::new(&pair);
    let datagram = frame(pair.left(), pair.right(), &flow(7000));
    for (members, sent) in [("\"198.51.100.1\"", 10), ("\"198.51.100.2\"", 20)] {
        senders.send_in(&datagram, 5);
        agent
            .wait_for_packets(VM, Direction::In, sent - 5)
            .expect("records");
        follow(&agent, eni(members));
        senders.send_in(&datagram, 5);
        agent
            .wait_for_packets(VM, Direction::In, sent)
            .expect("records");
    }
    let flows = flows(&stop_after(agent, 20, 0).records);
    let ends: (SocketAddr, SocketAddr) = (
        ([198, 51, 100, 1], 7000).into(),
        ([10, 88, 0, 10], 7000).into(),
    );
    assert!(flows.keys().all(|flow| (flow.src, flow.dst) == ends));
    // Not yet, then, still, and no more.
    assert_eq!(
        (
            of(&flows, 7000, Action::Reject),
            of(&flows, 7000, Action::Accept)
        ),
        (10, 10)
    );
    assert_eq!(received(&pair.right().namespace), 10);
}
