//! Where records go besides standard output as JSON: files, text, and the metrics about them.
use std::{collections::BTreeSet, fs, net::SocketAddr, time::Instant};

use flowlog_tests::{
    agent::{
        AgentPlan, DestinationPlan, Direction, EniPlan, FlowLogPlan, LogStatus, OutputForm,
        PATIENCE, Resource, conserved, metric, rotated, scrape,
    },
    lab::{FrameSender, Namespace, flow_tuple, skip_unless_root},
};

use crate::wire::{Wire, long_window, of, start, stop};

#[test]
fn files_are_rotated_between_lines_and_lines_are_as_the_template_says() {
    const MAX_SIZE: u64 = 64 << 10;
    if skip_unless_root("files_are_rotated_between_lines_and_lines_are_as_the_template_says") {
        return;
    }
    let wire = Wire::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("logs/flow.log");
    let [left, _] = wire.enis();
    let plan = AgentPlan {
        flow_logs: vec![FlowLogPlan {
            destination: DestinationPlan::File {
                path: path.clone(),
                max_size: MAX_SIZE,
                max_files: 100,
            },
            extra: "template = \"${eni-id} ${srcaddr}:${srcport} > ${dstaddr}:${dstport} ${packets} packets ${log-status}\""
                .to_owned(),
            ..FlowLogPlan::of(Resource::Vpc("vpc-test".to_owned()))
        }],
        output: None,
        ..long_window([left])
    };
    let mut agent = start(&plan, &["eni-left"]);
    wire.flood(20_000, 5000);
    let outcome = stop(&mut agent);
    assert!(outcome.records.is_empty());
    let files = rotated(&path);
    assert!(files.len() > 2, "{files:?}");
    let mut lines = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a file");
        assert!(text.ends_with('\n'), "{file:?} ends within a line");
        lines.extend(text.lines().map(str::to_owned));
        assert!(text.len() as u64 <= 2 * MAX_SIZE, "{file:?} is too large");
    }
    lines.sort_unstable();
    let mut expected: Vec<String> = (0..5000)
        .map(|flow| {
            let flow = flow_tuple(flowlog_tests::lab::Family::V4, flow);
            let (from, to) = (
                SocketAddr::new(flow.src, flow.sport),
                SocketAddr::new(flow.dst, flow.dport),
            );
            format!("eni-left {from} > {to} 4 packets OK")
        })
        .collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn text_has_the_fields_of_a_version_1_record_in_its_order() {
    if skip_unless_root("text_has_the_fields_of_a_version_1_record_in_its_order") {
        return;
    }
    let wire = Wire::new();
    let [left, right] = wire.enis();
    // Silent.
    let _pair = wire.another("more-l", "more-r", 1);
    let silent = EniPlan {
        vm_id: Some("i-more".to_owned()),
        ..EniPlan::device("eni-more", &wire.left, "more-l")
    };
    let plan = AgentPlan {
        output: Some(OutputForm::Text),
        ..long_window([left, right, silent])
    };
    let mut agent = start(&plan, &["eni-left", "eni-right", "eni-more"]);
    let sent = wire.flood(12, 1);
    let outcome = agent.stop().expect("its end");
    let field = |line: &str, index: usize| line.split(' ').nth(index).map(str::to_owned);
    let mut flows = 0;
    for line in &outcome.lines {
        assert_eq!(line.split(' ').count(), 18, "{line}");
        let label = (14..16)
            .map(|index| field(line, index).unwrap_or_default())
            .collect::<Vec<_>>()
            .join(" ");
        let expected = match field(line, 5).as_deref() {
            Some("eni-more") => format!(
                "1 vsw-test i-more vpc-test 100000000001 eni-more - - - - - - - - {label} NODATA -"
            ),
            Some(eni) => {
                flows += 1;
                let direction = if eni == "eni-left" { "out" } else { "in" };
                format!(
                    "1 vsw-test - vpc-test 100000000001 {eni} 198.18.0.1 1024 198.19.255.1 9 17 {direction} {} {} {label} OK ACCEPT",
                    sent.packets, sent.bytes
                )
            }
            None => String::new(),
        };
        assert_eq!(*line, expected);
    }
    assert_eq!(flows, 2);
}

/// An ARP request from nobody to nobody: a frame that is no IP packet.
fn arp_frame() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0xf1, 0, 0, 0xff, 1, 0x08, 0x06]);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(42, 0);
    frame
}

#[test]
fn metrics_have_the_numbers_of_the_records() {
    if skip_unless_root("metrics_have_the_numbers_of_the_records") {
        return;
    }
    let wire = Wire::new();
    let host = Namespace::create("host").expect("a namespace");
    // In a namespace of the agent's own every port is free.
    let listen: SocketAddr = ([127, 0, 0, 1], 9464).into();
    let plan = AgentPlan {
        metrics: Some(listen.to_string()),
        namespace: Some(host.clone()),
        flow_map_entries: Some((64, 64)),
        capture: "overflow-ring-kib = 4".to_owned(),
        ..AgentPlan::capturing(wire.enis())
    };
    let mut agent = start(&plan, &["eni-left", "eni-right"]);
    let mut sent = wire.flood(10_000, 5000);
    // However quick the agent is otherwise, there is no room now.
    sent += agent.paused(|| wire.flood(10_000, 5000)).expect("it runs");
    let mut sender = FrameSender::open(&wire.left, "left0").expect("a sender");
    for _ in 0..3 {
        sender.send(&arp_frame()).expect("sent");
    }
    for (eni, direction) in [("eni-left", Direction::Out), ("eni-right", Direction::In)] {
        agent
            .wait_for_packets(eni, direction, sent.packets)
            .expect("records");
    }
    // When a later window is written, the earlier ones are in the metrics.
    agent
        .wait_for_records(PATIENCE, |records| {
            of(records, "eni-left")
                .last()
                .map(|record| record.log_status)
                == Some(LogStatus::NoData)
        })
        .expect("a silent window");
    let seen = agent.records_so_far().expect("records");
    let windows: BTreeSet<u64> = seen.iter().map(|record| record.start).collect();
    // All but those of the last window seen have been written.
    let last = windows.last().copied().unwrap_or_default();
    let earlier = seen.iter().filter(|record| record.start < last).count();
    let earlier_windows = windows.len().saturating_sub(1);
    // Of which the sink tells the agent a moment later.
    let deadline = Instant::now() + PATIENCE;
    let text = loop {
        let text = scrape(&host, listen).expect("metrics");
        let told = metric(
            &text,
            "flowlog_agent_records_total",
            &[("flow_log", "test")],
        );
        if told >= Some(earlier as f64) {
            break text;
        }
        assert!(Instant::now() < deadline, "{told:?} records of {earlier}");
    };
    let value = |name: &str, labels: &[(&str, &str)]| {
        let value = metric(&text, &format!("flowlog_agent_{name}"), labels);
        value.unwrap_or_else(|| panic!("no {name} {labels:?} in\n{text}"))
    };
    let mut lost = 0.0;
    for (eni, direction) in [("eni-left", "out"), ("eni-right", "in")] {
        let labels = [("eni", eni), ("direction", direction)];
        let skipped = metric(
            &text,
            "flowlog_agent_packets_not_in_flow_total",
            &[labels[0], labels[1], ("cause", "map_full")],
        );
        let packets = value("packets_total", &labels) + skipped.unwrap_or_default();
        assert_eq!(packets, sent.packets as f64, "{eni}");
        assert!(
            skipped > Some(0.0),
            "a map of 64 entries had room for 5,000 flows"
        );
        let not_ip = [labels[0], labels[1], ("cause", "not_ip")];
        assert_eq!(value("packets_not_in_flow_total", &not_ip), 3.0);
        let ok: u64 = of(&seen, eni)
            .filter(|record| record.log_status == LogStatus::Ok)
            .filter_map(|record| record.bytes)
            .sum();
        assert_eq!(value("ip_bytes_total", &labels), ok as f64);
        let skipped = skipped.unwrap_or_default();
        lost += skipped;
        let account = ["interface", "recorded", "skipped", "not_ip", "difference"]
            .map(|part| value(&format!("conservation_{part}_packets"), &labels));
        let merged = value("conservation_merged_segments", &labels);
        let all = sent.packets as f64;
        let expected = [all + 3.0 - merged, all - skipped, skipped, 3.0, 0.0];
        assert_eq!(account, expected, "{eni}");
    }
    assert_eq!(value("lost_packets_total", &[("cause", "map-full")]), lost);
    assert_eq!(
        value("lost_windows_total", &[("cause", "given-up-age")]),
        0.0
    );
    let of_flow_log = |name: &str| value(name, &[("flow_log", "test")]);
    assert!(of_flow_log("windows_delivered_total") >= earlier_windows as f64);
    assert!(of_flow_log("windows_pending") <= value("spool_pending_windows", &[]));
    assert_eq!(of_flow_log("delivery_failures_total"), 0.0);
    assert_eq!(of_flow_log("delivery_failing"), 0.0);
    let room = value("spool_max_bytes", &[]);
    assert!((1.0..=room).contains(&value("spool_bytes", &[])));
    assert!(value("spool_drains", &[]) >= 1.0);
    assert_eq!(value("devices_captured", &[]), 2.0);
    assert_eq!(value("devices_not_captured", &[]), 0.0);
    assert_eq!(value("flow_map_entries", &[("family", "ipv4")]), 64.0);
    assert!(value("early_drains_total", &[]) > 0.0);
    assert!(value("windows_total", &[]) >= windows.len() as f64);
    let drains = value("drain_seconds_count", &[]);
    assert!(drains >= value("windows_total", &[]));
    assert_eq!(value("commit_seconds_count", &[]), drains);
    assert!(value("commit_seconds_sum", &[]) <= value("drain_seconds_sum", &[]));
    let records = stop(&mut agent).records;
    conserved(
        &records,
        &[
            ("eni-left", Direction::Out, sent),
            ("eni-right", Direction::In, sent),
        ],
    );
}
