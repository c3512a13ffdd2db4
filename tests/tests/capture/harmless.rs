//! Harmlessness: whatever the agent does, the host's network and what others have attached to it stay as they are.

use std::sync::atomic::{AtomicBool, Ordering};

use flowlog_agent::bpf::DeviceDirection;
use flowlog_tests::agent::{
    AgentPlan, AgentProcess, AttachMode, Direction, EniPlan, Hook, LogMark, Volume, conserved,
    volume,
};
use flowlog_tests::lab::{Family, FloodPlan, VethPair, skip_unless_root, traffic, udp_flood};

use crate::others::{Foreign, link, names, ours, programs};
use crate::support::{AGENT, LEFT, RIGHT, both_ends, start, stats, stop_after, tc, wire};

/// Traffic of several kinds, both ways. All of it has to arrive.
fn exchange(pair: &VethPair) {
    let (left, right) = (&pair.left().namespace, &pair.right().namespace);
    for (address, _) in &pair.right().addresses {
        let server = std::net::SocketAddr::new(*address, 0);
        assert_eq!(traffic::ping(left, *address, 50, 1000).expect("pings"), 50);
        let transfer = traffic::tcp_transfer(left, (right, server), 5_000_000).expect("a transfer");
        assert_eq!((transfer.sent, transfer.received), (5_000_000, 5_000_000));
        traffic::udp_exchange(left, (right, server), 50, 500).expect("an exchange");
    }
    let plan = FloodPlan {
        packets: 10_000,
        flows: 100,
        ..FloodPlan::default()
    };
    for end in [pair.left(), pair.right()] {
        udp_flood(&end.namespace, &end.name, &plan).expect("a flood");
    }
}

#[test]
fn filters_behind_see_every_packet_and_stay_as_they_were() {
    if skip_unless_root("filters_behind_see_every_packet_and_stay_as_they_were") {
        return;
    }
    for attach in [AttachMode::Tcx, AttachMode::Clsact] {
        let pair = wire(1500);
        // A filter counts the segments of a super-packet, and the device does not.
        pair.without_offloads().expect("offloads off");
        let foreign = Foreign::install(pair.right());
        let before = foreign.dump();
        let agent = start(&AgentPlan {
            attach,
            ..both_ends(&pair)
        });
        assert_eq!(foreign.dump(), before, "{attach:?}, while the agent runs");
        let [ingress, egress] = names(pair.right());
        assert_eq!(
            (ingress[0].as_str(), egress[0].as_str()),
            ("flowlog_ingress", "flowlog_egress")
        );
        exchange(&pair);
        let crossed = stats(pair.right());
        let received = Volume {
            packets: crossed.rx_packets,
            bytes: 0,
        };
        stop_after(agent, &[(RIGHT, Direction::In, received)]);
        assert_eq!(
            foreign.seen(),
            crossed.rx_packets + crossed.tx_packets,
            "{attach:?}"
        );
        assert_eq!(foreign.dump(), before, "{attach:?}, after the agent's end");
    }
}

#[test]
fn tcx_programs_share_the_chain() {
    if skip_unless_root("tcx_programs_share_the_chain") {
        return;
    }
    // Two agents that know nothing of each other: each is somebody else's program to the other.
    let pair = wire(1500);
    let plan = |position: &str| AgentPlan {
        attach: AttachMode::Tcx,
        capture: format!("position = {position:?}"),
        ..both_ends(&pair)
    };
    let behind = start(&plan("last"));
    let before = programs(pair.right(), DeviceDirection::Ingress);
    let ahead = start(&plan("first"));
    let after = programs(pair.right(), DeviceDirection::Ingress);
    assert_eq!((before.len(), after.len()), (1, 2));
    assert_eq!(
        after[1..],
        before[..],
        "the earlier program is not behind the later one"
    );

    let flood = FloodPlan {
        packets: 50_000,
        flows: 100,
        family: Family::V6,
        ..FloodPlan::default()
    };
    let sent = udp_flood(&pair.left().namespace, &pair.left().name, &flood).expect("a flood");
    let expected = [
        (
            LEFT,
            Direction::Out,
            Volume {
                packets: sent.packets,
                bytes: sent.bytes,
            },
        ),
        (RIGHT, Direction::In, Volume::received(&stats(pair.right()))),
    ];
    conserved(&stop_after(ahead, &expected).records, &expected);
    assert_eq!(programs(pair.right(), DeviceDirection::Ingress), before);
    conserved(&stop_after(behind, &expected).records, &expected);
}

#[test]
fn an_xdp_program_is_not_displaced() {
    if skip_unless_root("an_xdp_program_is_not_displaced") {
        return;
    }
    let pair = wire(1500);
    let mut theirs = EniPlan::end("eni-theirs", pair.right());
    theirs.hook = Hook::Xdp;
    let holder = start(&AgentPlan::capturing([theirs]));
    let before = link(pair.right());
    assert!(before.contains("prog/xdp"), "{before}");

    let mut plan = both_ends(&pair);
    plan.enis[1].hook = Hook::Xdp;
    let mut agent = AgentProcess::start(AGENT, &plan).expect("an agent");
    let why = "another XDP program is attached to it";
    let said = agent
        .wait_for_log(LogMark::default(), why)
        .expect("the reason");
    assert!(said.contains(RIGHT) && said.contains("right0"), "{said}");
    agent
        .wait_until_captured(&[LEFT])
        .expect("the other one is captured");
    assert_eq!(link(pair.right()), before);

    let address = pair.right().addresses[0].0;
    traffic::ping(&pair.left().namespace, address, 10, 56).expect("pings");
    let crossed = Volume {
        packets: 10,
        bytes: 10 * (20 + 8 + 56),
    };
    let expected = [
        ("eni-theirs", Direction::In, crossed),
        ("eni-theirs", Direction::Out, crossed),
    ];
    conserved(&stop_after(holder, &expected).records, &expected);

    // The next try succeeds, for the place is free.
    agent
        .wait_until_captured(&[RIGHT])
        .expect("captured in the end");
    let outcome = agent.stop().expect("the agent's end");
    assert_eq!(volume(&outcome.records, LEFT, Direction::Out).packets, 10);
    assert!(!link(pair.right()).contains("prog/xdp"));
}

#[test]
fn a_device_that_cannot_be_captured_is_tried_again_and_stops_no_other() {
    if skip_unless_root("a_device_that_cannot_be_captured_is_tried_again_and_stops_no_other") {
        return;
    }
    let pair = wire(1500);
    let right = pair.right();
    // The older qdisc stands where clsact would, and has no egress hook.
    tc(&right.namespace, "qdisc add dev right0 ingress");
    let before = tc(&right.namespace, "qdisc show");
    let plan = AgentPlan {
        attach: AttachMode::Clsact,
        ..both_ends(&pair)
    };
    let mut agent = AgentProcess::start(AGENT, &plan).expect("an agent");
    agent
        .wait_until_captured(&[LEFT])
        .expect("the other one is captured");
    for retry in ["retry=1s", "retry=2s"] {
        let said = agent
            .wait_for_log(LogMark::default(), retry)
            .expect("a report");
        assert!(
            said.contains(RIGHT) && said.contains("not captured: "),
            "{said}"
        );
    }
    assert_eq!(tc(&right.namespace, "qdisc show"), before);
    assert_eq!(ours(&names(right)), 0, "half of it is attached");
    let address = right.addresses[0].0;
    traffic::ping(&pair.left().namespace, address, 10, 56).expect("pings");

    tc(&right.namespace, "qdisc del dev right0 ingress");
    agent
        .wait_until_captured(&[RIGHT])
        .expect("captured in the end");
    let outcome = agent.stop().expect("the agent's end");
    assert_eq!(volume(&outcome.records, LEFT, Direction::Out).packets, 10);
    assert_eq!(volume(&outcome.records, RIGHT, Direction::In).packets, 0);
}

#[test]
fn agents_that_come_and_go_lose_no_packet() {
    if skip_unless_root("agents_that_come_and_go_lose_no_packet") {
        return;
    }
    let pair = wire(1500);
    let foreign = Foreign::install(pair.right());
    let plan = FloodPlan {
        packets: 50_000,
        flows: 1000,
        threads: 1,
        ..FloodPlan::default()
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let left = pair.left();
        let floods = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let sent = udp_flood(&left.namespace, &left.name, &plan).expect("a flood");
                assert_eq!(sent.refused, 0);
            }
        });
        let agents = scope.spawn(|| {
            for attach in [AttachMode::Tcx, AttachMode::Clsact] {
                let agent = start(&AgentPlan {
                    attach,
                    ..both_ends(&pair)
                });
                let some = Volume {
                    packets: 1,
                    bytes: 0,
                };
                stop_after(agent, &[(RIGHT, Direction::In, some)]);
            }
        });
        let agents = agents.join();
        done.store(true, Ordering::Relaxed);
        floods.join().expect("the floods");
        agents.expect("the agents");
    });
    let (sent, received) = (stats(pair.left()), stats(pair.right()).rx_packets);
    assert_eq!(sent.tx_packets, received);
    assert_eq!(foreign.seen(), received);
}
