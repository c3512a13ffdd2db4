//! Which records there are: by ENI, VSwitch and VPC, by direction, by traffic type, and when there is no traffic.
use std::{collections::BTreeMap, net::SocketAddr};

use flowlog_tests::{
    agent::{
        Action, AgentPlan, DestinationPlan, Direction, EniPlan, FlowLogPlan, IpType, LogStatus,
        PATIENCE, Record, Resource, Side, TrafficType, Volume, conserved, records_of, volumes,
    },
    lab::{Family, device_stats, skip_unless_root, traffic},
};

use crate::wire::{
    Wire, assert_follow_each_other, flood, long_window, of, orderly, start, statuses, stop,
};

#[test]
fn a_silent_eni_has_one_nodata_record_a_window_and_the_agent_ends_after_its_windows() {
    const WINDOWS: u64 = 6;
    if skip_unless_root(
        "a_silent_eni_has_one_nodata_record_a_window_and_the_agent_ends_after_its_windows",
    ) {
        return;
    }
    let wire = Wire::new();
    let [left, mut right] = wire.enis();
    right.vm_id = Some("i-right".to_owned());
    right.region = Some("eu-1".to_owned());
    let plan = AgentPlan {
        windows: Some(WINDOWS),
        ..AgentPlan::capturing([left, right])
    };
    let mut agent = start(&plan, &["eni-left", "eni-right"]);
    let outcome = orderly(agent.wait().expect("an end by itself"));
    let expected = Record {
        version: 1,
        vswitch_id: "vsw-test".to_owned(),
        vm_id: Some("i-right".to_owned()),
        vpc_id: "vpc-test".to_owned(),
        account_id: "100000000001".to_owned(),
        eni_id: "eni-right".to_owned(),
        srcaddr: None,
        srcport: None,
        dstaddr: None,
        dstport: None,
        protocol: None,
        direction: None,
        packets: None,
        bytes: None,
        start: 0,
        end: 1,
        log_status: LogStatus::NoData,
        action: None,
        region: Some("eu-1".to_owned()),
        tcp_flags: None,
        r#type: None,
        reject_reason: None,
        security_group_rule_id: None,
    };
    for eni in ["eni-left", "eni-right"] {
        let records: Vec<&Record> = of(&outcome.records, eni).collect();
        // The first windows may have closed before the ENI was captured.
        assert!(
            (1..=WINDOWS).contains(&(records.len() as u64)),
            "{records:?}"
        );
        assert_follow_each_other(&records);
    }
    for record in of(&outcome.records, "eni-right") {
        let expected = Record {
            start: record.start,
            end: record.end,
            ..expected.clone()
        };
        assert_eq!(*record, expected);
    }
    assert!(!agent.pin_path().exists(), "pins are left behind");
}

#[test]
fn a_window_with_traffic_has_no_nodata_and_the_others_have() {
    if skip_unless_root("a_window_with_traffic_has_no_nodata_and_the_others_have") {
        return;
    }
    let wire = Wire::new();
    let mut agent = start(
        &AgentPlan::capturing(wire.enis()),
        &["eni-left", "eni-right"],
    );
    let sent = wire.flood(100, 10);
    agent
        .wait_for_packets("eni-right", Direction::In, 100)
        .expect("records");
    agent
        .wait_for_records(PATIENCE, |records| {
            statuses(records, "eni-right").ends_with(&[LogStatus::NoData])
        })
        .expect("a silent window");
    let outcome = stop(&mut agent);
    for eni in ["eni-left", "eni-right"] {
        let mut windows: BTreeMap<u64, Vec<LogStatus>> = BTreeMap::new();
        for record in of(&outcome.records, eni) {
            windows
                .entry(record.start)
                .or_default()
                .push(record.log_status);
        }
        for (start, statuses) in windows {
            let silent = statuses == [LogStatus::NoData];
            let flows = statuses.iter().all(|status| *status == LogStatus::Ok);
            assert!(silent || flows, "{eni} at {start}: {statuses:?}");
        }
    }
    conserved(
        &outcome.records,
        &[
            ("eni-left", Direction::Out, sent),
            ("eni-right", Direction::In, sent),
        ],
    );
}

/// What of a flow does not depend on where it was seen.
type Flow = (
    Option<SocketAddr>,
    Option<SocketAddr>,
    Option<u8>,
    Volume,
    Option<u8>,
);

fn flows(records: &[Record], eni: &str, direction: Direction) -> Vec<Flow> {
    let address = |address: Option<_>, port: Option<_>| Some(SocketAddr::new(address?, port?));
    let mut flows: Vec<Flow> = of(records, eni)
        .filter(|record| record.direction == Some(direction))
        .map(|record| {
            let volume = Volume {
                packets: record.packets.unwrap_or_default(),
                bytes: record.bytes.unwrap_or_default(),
            };
            (
                address(record.srcaddr, record.srcport),
                address(record.dstaddr, record.dstport),
                record.protocol,
                volume,
                record.tcp_flags,
            )
        })
        .collect();
    flows.sort_unstable();
    flows
}

/// TCP, UDP and pings both ways between the ends.
fn talk(wire: &Wire) {
    for address in wire
        .pair
        .right()
        .addresses
        .iter()
        .map(|(address, _)| *address)
    {
        let server = (&wire.right, SocketAddr::new(address, 0));
        traffic::udp_exchange(&wire.left, server, 5, 100).expect("UDP");
        traffic::tcp_transfer(&wire.left, server, 20_000).expect("TCP");
        traffic::ping(&wire.left, address, 3, 56).expect("pings");
    }
}

#[test]
fn two_enis_of_one_host_each_have_a_record_of_their_traffic_in_mirrored_directions() {
    if skip_unless_root(
        "two_enis_of_one_host_each_have_a_record_of_their_traffic_in_mirrored_directions",
    ) {
        return;
    }
    let wire = Wire::new();
    let mut agent = start(&long_window(wire.enis()), &["eni-left", "eni-right"]);
    talk(&wire);
    let records = stop(&mut agent).records;
    for (here, there) in [
        (Direction::Out, Direction::In),
        (Direction::In, Direction::Out),
    ] {
        let left = flows(&records, "eni-left", here);
        assert_eq!(left, flows(&records, "eni-right", there));
        // Of UDP, TCP and ICMP, over IPv4 and IPv6.
        assert_eq!(left.len(), 6, "{left:?}");
    }
    let (out, back) = (
        flows(&records, "eni-left", Direction::Out),
        flows(&records, "eni-left", Direction::In),
    );
    let ends = |flows: &[Flow], reverse: bool| {
        let mut ends: Vec<_> = flows
            .iter()
            .filter(|flow| matches!(flow.2, Some(6 | 17)))
            .map(|flow| {
                if reverse {
                    (flow.1, flow.0)
                } else {
                    (flow.0, flow.1)
                }
            })
            .collect();
        ends.sort_unstable();
        ends
    };
    assert_eq!(ends(&out, false), ends(&back, true));
}

#[test]
fn host_side_and_guest_side_of_one_link_say_the_same() {
    if skip_unless_root("host_side_and_guest_side_of_one_link_say_the_same") {
        return;
    }
    let wire = Wire::new();
    // Left is the host's end of right's link: what left receives is what the VM sends.
    let host = EniPlan {
        side: Side::Host,
        ..EniPlan::end("eni-host", wire.pair.left())
    };
    let guest = EniPlan::end("eni-guest", wire.pair.right());
    let mut agent = start(&long_window([host, guest]), &["eni-host", "eni-guest"]);
    talk(&wire);
    let records = stop(&mut agent).records;
    for direction in [Direction::In, Direction::Out] {
        let guest = flows(&records, "eni-guest", direction);
        assert_eq!(guest, flows(&records, "eni-host", direction));
        assert_eq!(guest.len(), 6, "{guest:?}");
    }
    let addresses: Vec<_> = wire
        .pair
        .right()
        .addresses
        .iter()
        .map(|(address, _)| *address)
        .collect();
    for record in &records {
        let (own, direction) = (record.dstaddr, record.direction);
        let towards_vm = own.is_some_and(|own| addresses.contains(&own));
        assert_eq!(towards_vm, direction == Some(Direction::In), "{record:?}");
    }
}

#[test]
fn traffic_types_admit_their_action_and_every_one_tells_of_silence_and_of_what_was_skipped() {
    if skip_unless_root(
        "traffic_types_admit_their_action_and_every_one_tells_of_silence_and_of_what_was_skipped",
    ) {
        return;
    }
    let wire = Wire::new();
    let flow_log = |name: &str, eni: &str, traffic_type| FlowLogPlan {
        name: name.to_owned(),
        traffic_type,
        ..FlowLogPlan::of(Resource::Eni(eni.to_owned()))
    };
    let plan = AgentPlan {
        flow_logs: vec![
            flow_log("allowed", "eni-left", TrafficType::Allow),
            flow_log("dropped", "eni-right", TrafficType::Drop),
        ],
        // Far too small, so that much is skipped.
        flow_map_entries: Some((64, 64)),
        capture: "overflow-ring-kib = 4".to_owned(),
        ..AgentPlan::capturing(wire.enis())
    };
    let mut agent = start(&plan, &["eni-left", "eni-right"]);
    let silent = |records: &[Record]| {
        ["eni-left", "eni-right"]
            .iter()
            .all(|eni| statuses(records, eni).contains(&LogStatus::NoData))
    };
    agent
        .wait_for_records(PATIENCE, silent)
        .expect("NODATA by both");
    let mut sent = wire.flood(10_000, 10_000);
    // However quick the agent is otherwise.
    sent += agent
        .paused(|| wire.flood(10_000, 10_000))
        .expect("it runs");
    agent
        .wait_for_packets("eni-left", Direction::Out, sent.packets)
        .expect("records");
    let records = stop(&mut agent).records;
    let allowed = volumes(&records, |record| record.eni_id == "eni-left");
    assert_eq!(allowed[&("eni-left", Direction::Out)], sent);
    let statuses_left = statuses(&records, "eni-left");
    assert!(statuses_left.contains(&LogStatus::Ok));
    assert!(statuses_left.contains(&LogStatus::SkipData));
    let statuses_right = statuses(&records, "eni-right");
    assert!(!statuses_right.contains(&LogStatus::Ok), "all is ACCEPT");
    assert!(statuses_right.contains(&LogStatus::SkipData));
    for record in &records {
        let action = (record.log_status == LogStatus::Ok).then_some(Action::Accept);
        assert_eq!(record.action, action);
    }
}

#[test]
fn a_flow_log_has_the_enis_of_its_resource_and_an_inactive_one_none() {
    if skip_unless_root("a_flow_log_has_the_enis_of_its_resource_and_an_inactive_one_none") {
        return;
    }
    let wire = Wire::new();
    let more = wire.another("more-l", "more-r", 1);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let flow_log = |name: &str, resource, extra: &str| FlowLogPlan {
        name: name.to_owned(),
        destination: DestinationPlan::File {
            path: file(name),
            max_size: 1 << 20,
            max_files: 2,
        },
        extra: format!("format = \"json\"\n{extra}"),
        ..FlowLogPlan::of(resource)
    };
    let vpc = || Resource::Vpc("vpc-test".to_owned());
    let eni = |id, end, vswitch: &str, vpc: &str| EniPlan {
        vswitch_id: vswitch.to_owned(),
        vpc_id: vpc.to_owned(),
        ..EniPlan::end(id, end)
    };
    let plan = AgentPlan {
        flow_logs: vec![
            flow_log("of-vpc", vpc(), ""),
            flow_log("of-vswitch", Resource::VSwitch("vsw-2".to_owned()), ""),
            flow_log("of-eni", Resource::Eni("eni-a".to_owned()), ""),
            flow_log("inactive", vpc(), "status = \"Inactive\""),
        ],
        output: None,
        ..long_window([
            eni("eni-a", wire.pair.left(), "vsw-1", "vpc-test"),
            eni("eni-b", wire.pair.right(), "vsw-2", "vpc-test"),
            eni("eni-c", more.left(), "vsw-3", "vpc-test"),
            // A VSwitch of another VPC.
            eni("eni-d", more.right(), "vsw-2b", "vpc-other"),
        ])
    };
    let mut agent = start(&plan, &["eni-a", "eni-b", "eni-c", "eni-d"]);
    let first = wire.flood(300, 3);
    let second = flood(&wire.left, "more-l", 500, 5, Family::V4);
    stop(&mut agent);
    let recorded = |name: &str| records_of(&file(name)).expect("records");
    let a = ("eni-a", Direction::Out, first);
    let b = ("eni-b", Direction::In, first);
    conserved(
        &recorded("of-vpc"),
        &[a, b, ("eni-c", Direction::Out, second)],
    );
    conserved(&recorded("of-vswitch"), &[b]);
    conserved(&recorded("of-eni"), &[a]);
    assert!(!file("inactive").exists());
}

#[test]
fn ipv6_is_counted_as_ipv4_is() {
    if skip_unless_root("ipv6_is_counted_as_ipv4_is") {
        return;
    }
    let wire = Wire::new();
    let mut agent = start(&long_window(wire.enis()), &["eni-left", "eni-right"]);
    let sent = flood(&wire.left, "left0", 3000, 300, Family::V6);
    let records = stop(&mut agent).records;
    conserved(
        &records,
        &[
            ("eni-left", Direction::Out, sent),
            ("eni-right", Direction::In, sent),
        ],
    );
    assert_eq!(records.len(), 2 * 300);
    for record in &records {
        assert_eq!(
            (record.r#type, record.protocol),
            (Some(IpType::V6), Some(17))
        );
        assert!(record.srcaddr.is_some_and(|address| address.is_ipv6()));
        assert_eq!((record.packets, record.dstport), (Some(10), Some(9)));
    }
}

#[test]
fn what_the_devices_counted_is_what_the_records_say() {
    if skip_unless_root("what_the_devices_counted_is_what_the_records_say") {
        return;
    }
    let wire = Wire::new();
    let mut agent = start(&long_window(wire.enis()), &["eni-left", "eni-right"]);
    let before = device_stats(&wire.right, "right0").expect("statistics");
    let server = (
        &wire.right,
        SocketAddr::new(wire.pair.right().addresses[0].0, 0),
    );
    traffic::udp_exchange(&wire.left, server, 50, 333).expect("UDP");
    traffic::ping(&wire.left, server.1.ip(), 20, 1000).expect("pings");
    let crossed = device_stats(&wire.right, "right0")
        .expect("statistics")
        .since(&before);
    let (inward, outward) = (Volume::received(&crossed), Volume::sent(&crossed));
    conserved(
        &stop(&mut agent).records,
        &[
            ("eni-left", Direction::Out, inward),
            ("eni-left", Direction::In, outward),
            ("eni-right", Direction::In, inward),
            ("eni-right", Direction::Out, outward),
        ],
    );
}
