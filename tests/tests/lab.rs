//! The lab keeps its promises: what it makes is there, carries exactly what is sent, and is gone afterwards.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use flowlog_tests::Result;
use flowlog_tests::lab::{
    DeviceStats, Distribution, Family, FloodPlan, FrameSender, Namespace, Offload, VethPair,
    VethPlan, device_stats, flow_tuple, set_offload, skip_unless_root, traffic, udp_flood,
};
use flowlog_tests::packets::build::etherparse_frame;

/// Octets of an Ethernet header, which a device counts and a flow log does not.
const ETHERNET: u64 = 14;

fn wire(mtu: u32) -> Result<VethPair> {
    let (left, right) = (Namespace::create("left")?, Namespace::create("right")?);
    VethPair::create(VethPlan {
        mtu,
        ..VethPlan::between(&left, &right)
    })
}

fn stats(pair: &VethPair) -> Result<(DeviceStats, DeviceStats)> {
    let (left, right) = (pair.left(), pair.right());
    Ok((
        device_stats(&left.namespace, &left.name)?,
        device_stats(&right.namespace, &right.name)?,
    ))
}

fn v4_of(pair: &VethPair) -> SocketAddr {
    SocketAddr::new(pair.right().addresses[0].0, 0)
}

fn v6_of(pair: &VethPair) -> SocketAddr {
    SocketAddr::new(pair.right().addresses[1].0, 0)
}

#[test]
fn namespace_is_gone_after_its_last_clone() {
    if skip_unless_root("namespace_is_gone_after_its_last_clone") {
        return;
    }
    let namespace = Namespace::create("gone").expect("a namespace");
    let name = namespace.name().expect("it has a name").to_owned();
    let path = Path::new("/run/netns").join(&name);
    let clone = namespace.clone();
    drop(namespace);
    assert!(path.exists(), "{name} went while a clone was left");
    let devices = clone.ip(&["-oneline", "link", "show", "up"]).expect("ip");
    assert!(devices.contains("lo:"), "lo is not up: {devices}");

    let process = clone
        .spawn(Command::new("sleep").arg("600"))
        .expect("a process");
    drop(clone);
    assert!(path.exists(), "{name} went while a process was in it");
    drop(process);
    assert!(!path.exists(), "{name} is left behind");
}

#[test]
fn failures_say_what_and_where() {
    if skip_unless_root("failures_say_what_and_where") {
        return;
    }
    let namespace = Namespace::create("errors").expect("a namespace");
    let name = namespace.name().expect("it has a name");
    let error = namespace
        .ip(&["link", "show", "nothing0"])
        .expect_err("there is no such device")
        .to_string();
    assert!(
        error.starts_with(&format!("`ip -n {name} link show nothing0` failed: ")),
        "{error}"
    );
    assert!(error.contains("does not exist"), "{error}");
    let error = FrameSender::open(&namespace, "nothing0")
        .expect_err("there is no such device")
        .to_string();
    assert!(error.contains("nothing0"), "{error}");
    assert!(Namespace::create("Not Allowed").is_err());
    assert!(
        udp_flood(
            &namespace,
            "lo",
            &FloodPlan {
                flows: 0,
                ..FloodPlan::default()
            }
        )
        .is_err()
    );
}

#[test]
fn veth_passes_exactly_the_frames_that_were_sent() {
    if skip_unless_root("veth_passes_exactly_the_frames_that_were_sent") {
        return;
    }
    let pair = wire(1500).expect("a pair");
    let mut sender = FrameSender::open(&pair.left().namespace, "left0").expect("a sender");
    let frame = etherparse_frame(false, false, &[0; 58]);
    for _ in 0..1000 {
        sender.send(&frame).expect("sent");
    }
    // Compared with zero, not with an earlier reading: nothing but the frames has ever crossed the pair.
    let crossed = 1000 * frame.len() as u64;
    let sent = DeviceStats {
        tx_packets: 1000,
        tx_bytes: crossed,
        ..DeviceStats::default()
    };
    let received = DeviceStats {
        rx_packets: 1000,
        rx_bytes: crossed,
        ..DeviceStats::default()
    };
    assert_eq!(stats(&pair).expect("statistics"), (sent, received));
    assert_eq!(sender.refused(), 0);

    let too_long = vec![0; 1519];
    let error = sender
        .send(&too_long)
        .expect_err("longer than the MTU")
        .to_string();
    assert!(error.contains("1519 octets out of left0"), "{error}");
}

#[test]
fn pair_may_have_one_end_in_the_current_namespace() {
    if skip_unless_root("pair_may_have_one_end_in_the_current_namespace") {
        return;
    }
    let (here, there) = (
        Namespace::current().expect("here"),
        Namespace::create("there").expect("there"),
    );
    let mut plan = VethPlan::between(&here, &there);
    plan.left.name = format!("fl{}", std::process::id());
    let device = plan.left.name.clone();
    let pair = VethPair::create(plan).expect("a pair");
    let reached = traffic::ping(&there, pair.left().addresses[0].0, 3, 56).expect("pings");
    assert_eq!(reached, 3);
    drop(pair);
    assert!(
        device_stats(&here, &device).is_err(),
        "{device} is left behind"
    );
}

#[test]
fn flood_sends_exactly_what_it_says() {
    if skip_unless_root("flood_sends_exactly_what_it_says") {
        return;
    }
    let pair = wire(1500).expect("a pair");
    for family in [Family::V4, Family::V6] {
        for distribution in [Distribution::Even, Distribution::Zipf(1.0)] {
            let plan = FloodPlan {
                packets: 100_003,
                flows: 1000,
                family,
                distribution,
                ..FloodPlan::default()
            };
            let (_, before) = stats(&pair).expect("statistics");
            let sent = udp_flood(&pair.left().namespace, "left0", &plan).expect("a flood");
            let (_, after) = stats(&pair).expect("statistics");
            eprintln!("{family:?} {distribution:?}: {:.0} packets/s", sent.rate());

            let header = if family == Family::V4 { 20 } else { 40 };
            assert_eq!((sent.packets, sent.refused), (100_003, 0));
            assert_eq!(sent.bytes, 100_003 * (header + 8 + 18));
            assert_eq!(sent.per_flow.iter().sum::<u64>(), 100_003);
            let octets = sent.bytes + ETHERNET * sent.packets;
            let left = DeviceStats {
                tx_packets: 100_003,
                tx_bytes: octets,
                ..DeviceStats::default()
            };
            let right = DeviceStats {
                rx_packets: 100_003,
                rx_bytes: octets,
                ..DeviceStats::default()
            };
            assert_eq!(sent.device, left);
            assert_eq!(after.since(&before), right);
            match distribution {
                Distribution::Even => assert!(
                    sent.per_flow
                        .iter()
                        .enumerate()
                        .all(|(i, &n)| n == 100 + u64::from(i < 3))
                ),
                Distribution::Zipf(_) => assert!(sent.per_flow[0] > 10 * sent.per_flow[99]),
            }
        }
    }
}

#[test]
fn flood_is_the_same_by_the_same_seed() {
    if skip_unless_root("flood_is_the_same_by_the_same_seed") {
        return;
    }
    let pair = wire(1500).expect("a pair");
    let plan = FloodPlan {
        packets: 5000,
        flows: 50,
        distribution: Distribution::Zipf(1.2),
        ..FloodPlan::default()
    };
    let counts = |plan: &FloodPlan| {
        udp_flood(&pair.left().namespace, "left0", plan)
            .expect("a flood")
            .per_flow
    };
    let first = counts(&plan);
    assert_eq!(
        first,
        counts(&FloodPlan {
            threads: 1,
            ..plan.clone()
        })
    );
    assert_ne!(
        first,
        counts(&FloodPlan {
            seed: 2,
            ..plan.clone()
        })
    );
}

#[test]
fn ordinary_traffic_has_the_packets_one_expects() {
    if skip_unless_root("ordinary_traffic_has_the_packets_one_expects") {
        return;
    }
    let pair = wire(1500).expect("a pair");
    let (left, right) = (&pair.left().namespace, &pair.right().namespace);
    for (server, header) in [(v4_of(&pair), 20), (v6_of(&pair), 40)] {
        let before = stats(&pair).expect("statistics").0;
        let done = traffic::udp_exchange(left, (right, server), 25, 100).expect("an exchange");
        assert_eq!((done.server.ip(), done.round_trips), (server.ip(), 25));
        let ip: IpAddr = server.ip();
        assert_eq!(traffic::ping(left, ip, 10, 56).expect("pings"), 10);
        let crossed = stats(&pair).expect("statistics").0.since(&before);
        let octets = 25 * (ETHERNET + header + 8 + 100) + 10 * (ETHERNET + header + 8 + 56);
        assert_eq!((crossed.tx_packets, crossed.tx_bytes), (35, octets));
        assert_eq!((crossed.rx_packets, crossed.rx_bytes), (35, octets));

        let transfer = traffic::tcp_transfer(left, (right, server), 3_000_000).expect("a transfer");
        assert_eq!((transfer.sent, transfer.received), (3_000_000, 3_000_000));
    }
}

#[test]
fn without_offloads_tcp_crosses_in_segments() {
    if skip_unless_root("without_offloads_tcp_crosses_in_segments") {
        return;
    }
    const BYTES: u64 = 3_000_000;
    let pair = wire(1500).expect("a pair");
    let (left, right) = (&pair.left().namespace, &pair.right().namespace);
    let packets = || {
        let before = stats(&pair).expect("statistics").0;
        traffic::tcp_transfer(left, (right, v4_of(&pair)), BYTES).expect("a transfer");
        stats(&pair)
            .expect("statistics")
            .0
            .since(&before)
            .tx_packets
    };
    // 1,500 less 20 of IPv4 and 32 of TCP with timestamps.
    let segments = BYTES.div_ceil(1448);
    let with = packets();
    assert!(
        with < segments / 2,
        "{with} packets with offloads, {segments} segments"
    );
    for (namespace, device) in [(left, "left0"), (right, "right0")] {
        set_offload(namespace, device, &Offload::ALL, false).expect("offloads off");
    }
    let without = packets();
    assert!(
        without >= segments,
        "{without} packets without offloads, {segments} segments"
    );
    set_offload(
        left,
        "left0",
        &[Offload::TxChecksum, Offload::Gso, Offload::Tso],
        true,
    )
    .expect("offloads on");
    let again = packets();
    assert!(
        again < segments / 2,
        "{again} packets with offloads again, {segments} segments"
    );
    let error =
        set_offload(left, "nothing0", &[Offload::Gso], false).expect_err("there is no such device");
    assert!(error.to_string().contains("nothing0"), "{error}");
}

#[test]
fn flow_tuples_are_those_of_the_frames() {
    let tuple = flow_tuple(Family::V4, 4097);
    assert_eq!(
        (tuple.src.to_string().as_str(), tuple.sport, tuple.dport),
        ("198.18.0.2", 1025, 9)
    );
}
