//! Conservation: the records of all windows add up to exactly what crossed the interfaces.

use std::collections::BTreeSet;
use std::time::Instant;

use flowlog_tests::agent::{
    AgentPlan, AgentProcess, Direction, LogStatus, PATIENCE, Record, Volume, conserved, metric,
    scrape,
};
use flowlog_tests::lab::{
    Distribution, Family, FloodPlan, FrameSender, Namespace, Sent, VethPair, skip_unless_root,
    udp_flood, udp_flood_until,
};
use flowlog_tests::packets::build::etherparse_frame;

use crate::support::{
    LEFT, RIGHT, both_ends, flood_counts, of_status, start, stats, stop_after, wire,
};

/// A flood that has been captured, window after window.
struct Captured {
    sent: Sent,
    family: Family,
    records: Vec<Record>,
}

/// Sends a flood from both CPUs over the wire, captured by an agent of this plan at both ends, and asserts conservation.
fn flood(pair: &VethPair, agent: &AgentPlan, plan: &FloodPlan) -> Captured {
    captured(pair, agent, plan.family, |_| send(pair, plan))
}

fn send(pair: &VethPair, plan: &FloodPlan) -> Sent {
    udp_flood(&pair.left().namespace, &pair.left().name, plan).expect("a flood")
}

/// Starts an agent of this plan at both ends of the wire, has `traffic` send over it, and asserts conservation.
fn captured(
    pair: &VethPair,
    agent: &AgentPlan,
    family: Family,
    traffic: impl FnOnce(&AgentProcess) -> Sent,
) -> Captured {
    let before = stats(pair.right());
    let agent = start(agent);
    let sent = traffic(&agent);
    let received = stats(pair.right()).since(&before);

    assert_eq!(sent.refused, 0, "a refused frame passes egress twice");
    let out = Volume {
        packets: sent.packets,
        bytes: sent.bytes,
    };
    let expected = [
        (LEFT, Direction::Out, out),
        // What the receiver's backlog had no room for has not crossed its interface; its device does not count it either.
        (RIGHT, Direction::In, Volume::received(&received)),
    ];
    let outcome = stop_after(agent, &expected);
    conserved(&outcome.records, &expected);
    Captured {
        sent,
        family,
        records: outcome.records,
    }
}

impl Captured {
    fn counts(&self, eni: &str, direction: Direction) -> Vec<u64> {
        let flows = self.sent.per_flow.len() as u32;
        flood_counts(&self.records, (eni, direction), self.family, flows)
    }

    /// Asserts that every flow has exactly the packets that were sent of it, at both ENIs.
    fn assert_every_flow_is_exact(&self) {
        assert!(
            self.counts(LEFT, Direction::Out) == self.sent.per_flow,
            "a flow has other packets at the sender than were sent of it"
        );
        let received = self.counts(RIGHT, Direction::In);
        if self.sent.device.tx_dropped == 0 {
            assert!(
                received == self.sent.per_flow,
                "a flow has other packets at the receiver than were sent of it"
            );
        } else {
            assert!(
                received
                    .iter()
                    .zip(&self.sent.per_flow)
                    .all(|(a, b)| a <= b)
            );
        }
    }

    /// Asserts that packets were skipped at both ENIs, that others were not, and that no flow has more packets than were sent.
    fn assert_some_was_skipped(&self) {
        for (eni, direction) in [(LEFT, Direction::Out), (RIGHT, Direction::In)] {
            let counted = self.counts(eni, direction);
            assert!(counted.iter().any(|&packets| packets > 0), "{eni}");
            assert!(
                counted.iter().zip(&self.sent.per_flow).all(|(a, b)| a <= b),
                "a flow of {eni} has more packets than were sent of it"
            );
            let of_eni = |record: &&Record| record.eni_id == eni;
            let skipped: u64 = of_status(&self.records, LogStatus::SkipData)
                .filter(of_eni)
                .filter_map(|record| record.packets)
                .sum();
            assert!(skipped > 0, "{eni} skipped nothing");
        }
    }

    /// Windows in which flows were recorded.
    fn windows(&self) -> usize {
        of_status(&self.records, LogStatus::Ok)
            .map(|record| record.start)
            .collect::<BTreeSet<u64>>()
            .len()
    }
}

fn one_million(family: Family, distribution: Distribution) -> FloodPlan {
    FloodPlan {
        family,
        distribution,
        ..FloodPlan::default()
    }
}

/// A million packets over 100,000 flows from two CPUs, in windows of 1 s; and as many again until a window has been closed, and
/// written, while they were sent.
fn million_is_exact(test: &str, family: Family, distribution: Distribution) {
    if skip_unless_root(test) {
        return;
    }
    let pair = wire(1500);
    // Both ENIs' flows share the maps.
    let agent = AgentPlan {
        flow_map_entries: Some((1 << 19, 1 << 20)),
        ..both_ends(&pair)
    };
    let plan = one_million(family, distribution);
    let captured = captured(&pair, &agent, family, |agent| {
        let written = || {
            let of_flow = |record: &Record| record.log_status == LogStatus::Ok;
            agent.has_record(of_flow).expect("it runs")
        };
        let (namespace, device) = (&pair.left().namespace, &pair.left().name);
        udp_flood_until(namespace, device, &plan, written).expect("a flood")
    });
    assert!(captured.sent.packets >= 1_000_000);
    captured.assert_every_flow_is_exact();
    assert_eq!(of_status(&captured.records, LogStatus::SkipData).count(), 0);
    assert!(captured.windows() > 1, "no window was closed under load");
    eprintln!(
        "{test}: {:.0} packets/s, {} windows, {} records",
        captured.sent.rate(),
        captured.windows(),
        captured.records.len()
    );
}

#[test]
fn even_ipv4_flood_is_exact() {
    million_is_exact("even_ipv4_flood_is_exact", Family::V4, Distribution::Even);
}

#[test]
fn even_ipv6_flood_is_exact() {
    million_is_exact("even_ipv6_flood_is_exact", Family::V6, Distribution::Even);
}

#[test]
fn zipf_ipv4_flood_is_exact() {
    million_is_exact(
        "zipf_ipv4_flood_is_exact",
        Family::V4,
        Distribution::Zipf(1.0),
    );
}

#[test]
fn zipf_ipv6_flood_is_exact() {
    million_is_exact(
        "zipf_ipv6_flood_is_exact",
        Family::V6,
        Distribution::Zipf(1.0),
    );
}

#[test]
fn flow_map_far_too_small_skips_and_says_so() {
    if skip_unless_root("flow_map_far_too_small_skips_and_says_so") {
        return;
    }
    for (family, entries) in [(Family::V4, 64), (Family::V4, 1024), (Family::V6, 256)] {
        let pair = wire(1500);
        let agent = AgentPlan {
            flow_map_entries: Some((entries, entries)),
            capture: "overflow-ring-kib = 4".to_owned(),
            ..both_ends(&pair)
        };
        let plan = FloodPlan {
            packets: 200_000,
            ..one_million(family, Distribution::Even)
        };
        let captured = captured(&pair, &agent, family, |agent| {
            let mut sent = send(&pair, &plan);
            // However quick the agent is otherwise.
            sent += agent.paused(|| send(&pair, &plan)).expect("it runs");
            sent
        });
        captured.assert_some_was_skipped();
    }
}

/// The ring has room for every packet, however late the agent comes to it.
#[test]
fn what_has_no_room_in_the_flow_map_waits_in_the_ring() {
    if skip_unless_root("what_has_no_room_in_the_flow_map_waits_in_the_ring") {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let pair = wire(1500);
        let agent = AgentPlan {
            flow_map_entries: Some((1024, 1024)),
            capture: "overflow-ring-kib = 131072".to_owned(),
            ..both_ends(&pair)
        };
        let plan = FloodPlan {
            packets: 400_000,
            flows: 200_000,
            ..one_million(family, Distribution::Even)
        };
        flood(&pair, &agent, &plan).assert_every_flow_is_exact();
    }
}

#[test]
fn flow_map_grows_until_nothing_is_skipped() {
    const MAX_ROUNDS: u64 = 10;
    if skip_unless_root("flow_map_grows_until_nothing_is_skipped") {
        return;
    }
    let pair = wire(1500);
    let agent = start(&AgentPlan {
        flow_map_entries: Some((64, 1 << 20)),
        capture: "overflow-ring-kib = 4".to_owned(),
        ..both_ends(&pair)
    });
    let plan = FloodPlan {
        packets: 50_000,
        flows: 5000,
        threads: 1,
        ..FloodPlan::default()
    };
    agent.paused(|| send(&pair, &plan)).expect("it runs");
    let (mut skipped, mut rounds) = (0, 1);
    loop {
        rounds += 1;
        send(&pair, &plan);
        agent
            .wait_for_packets(RIGHT, Direction::In, rounds * plan.packets)
            .expect("all packets in records");
        let records = agent.records_so_far().expect("records");
        let before = std::mem::replace(&mut skipped, skipped_packets(&records));
        if skipped == before {
            break;
        }
        assert!(
            rounds < MAX_ROUNDS,
            "the map does not grow: {skipped} packets were skipped"
        );
    }
    assert!(skipped > 0, "64 entries were enough for 5,000 flows");
    let sent = Volume::sent(&stats(pair.left()));
    assert_eq!(sent.packets, rounds * plan.packets);
    let expected = [(LEFT, Direction::Out, sent), (RIGHT, Direction::In, sent)];
    conserved(&stop_after(agent, &expected).records, &expected);
}

fn skipped_packets(records: &[Record]) -> u64 {
    of_status(records, LogStatus::SkipData)
        .filter_map(|record| record.packets)
        .sum()
}

#[test]
fn flow_map_is_drained_when_it_is_half_full() {
    const LISTEN: &str = "127.0.0.1:9464";
    const ROUNDS: u32 = 5;
    /// At both ENIs together, more than half of the map's 64 and less than all.
    const FLOWS_A_ROUND: u32 = 20;
    if skip_unless_root("flow_map_is_drained_when_it_is_half_full") {
        return;
    }
    let pair = wire(1500);
    let host = Namespace::create("host").expect("a namespace");
    let agent = start(&AgentPlan {
        flow_map_entries: Some((64, 64)),
        capture: "overflow-ring-kib = 4".to_owned(),
        window_seconds: Some(3600),
        metrics: Some(LISTEN.to_owned()),
        namespace: Some(host.clone()),
        ..both_ends(&pair)
    });
    let early_drains = || {
        let text = scrape(&host, LISTEN.parse().expect("an address")).expect("metrics");
        metric(&text, "flowlog_agent_early_drains_total", &[]).expect("the metric")
    };
    let mut sender =
        FrameSender::open(&pair.left().namespace, &pair.left().name).expect("a sender");
    for round in 0..ROUNDS {
        for flow in 0..FLOWS_A_ROUND {
            let port = 1024 + (round * FLOWS_A_ROUND + flow) as u16;
            sender.send(&udp_from(port)).expect("sent");
        }
        let deadline = Instant::now() + PATIENCE;
        while early_drains() < f64::from(round + 1) {
            assert!(
                Instant::now() < deadline,
                "round {round}: nothing was drained early"
            );
        }
    }
    let sent = Volume::sent(&stats(pair.left()));
    assert_eq!(sent.packets, u64::from(FLOWS_A_ROUND * ROUNDS));
    let expected = [(LEFT, Direction::Out, sent), (RIGHT, Direction::In, sent)];
    let records = stop_after(agent, &[]).records;
    conserved(&records, &expected);
    assert_eq!(skipped_packets(&records), 0);
}

/// A frame of a flow of this source port.
fn udp_from(port: u16) -> Vec<u8> {
    let mut frame = etherparse_frame(false, false, &[0; 18]);
    // Behind 14 octets of Ethernet and 20 of IPv4.
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame
}

#[test]
fn both_families_and_directions_add_up_together() {
    if skip_unless_root("both_families_and_directions_add_up_together") {
        return;
    }
    let pair = wire(1500);
    let (left, right) = (pair.left(), pair.right());
    let agent = start(&both_ends(&pair));
    let plan = |family| FloodPlan {
        packets: 150_000,
        flows: 3000,
        threads: 1,
        ..one_million(family, Distribution::Zipf(1.0))
    };
    // IPv4 one way and IPv6 the other, at the same time.
    let (v4, v6) = std::thread::scope(|scope| {
        let v4 = scope.spawn(|| udp_flood(&left.namespace, &left.name, &plan(Family::V4)));
        let v6 = scope.spawn(|| udp_flood(&right.namespace, &right.name, &plan(Family::V6)));
        (v4.join(), v6.join())
    });
    let (v4, v6) = (
        v4.expect("no panic").expect("a flood"),
        v6.expect("no panic").expect("a flood"),
    );
    assert_eq!((v4.refused, v6.refused), (0, 0));
    let volume = |sent: &Sent| Volume {
        packets: sent.packets,
        bytes: sent.bytes,
    };
    let expected = [
        (LEFT, Direction::Out, volume(&v4)),
        (RIGHT, Direction::In, Volume::received(&stats(right))),
        (RIGHT, Direction::Out, volume(&v6)),
        (LEFT, Direction::In, Volume::received(&stats(left))),
    ];
    let outcome = stop_after(agent, &expected);
    conserved(&outcome.records, &expected);
    let records = &outcome.records;
    assert!(flood_counts_of(records, (LEFT, Direction::Out), Family::V4) == v4.per_flow);
    assert!(flood_counts_of(records, (RIGHT, Direction::Out), Family::V6) == v6.per_flow);
}

fn flood_counts_of(records: &[Record], place: (&str, Direction), family: Family) -> Vec<u64> {
    flood_counts(records, place, family, 3000)
}
