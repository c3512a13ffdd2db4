use std::collections::BTreeSet;

use prometheus_client::encoding::text::encode;

use super::*;
use crate::status::JudgedStatus;

struct Rig {
    metrics: StandingMetrics,
    registry: Registry,
}

impl Rig {
    fn new() -> Self {
        let metrics = StandingMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        Self { metrics, registry }
    }

    /// The samples whose name begins so.
    fn samples(&self, name: &str) -> BTreeSet<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let samples = text.lines().filter(|line| line.starts_with(name));
        samples.map(str::to_owned).collect()
    }
}

fn set(samples: &[&str]) -> BTreeSet<String> {
    samples.iter().map(|&sample| sample.to_owned()).collect()
}

#[test]
fn the_spool_is_shown_as_it_stands() {
    let rig = Rig::new();
    rig.metrics.set_spool(&SpoolStatus {
        path: String::new(),
        bytes: 1,
        max_bytes: u64::MAX,
        files: 2,
        pending_windows: 3,
        drains: 4,
    });
    let expected = [
        "spool_bytes 1",
        "spool_max_bytes 9223372036854775807",
        "spool_files 2",
        "spool_pending_windows 3",
        "spool_drains 4",
    ];
    assert_eq!(rig.samples("spool"), set(&expected));
}

#[test]
fn a_flow_log_counts_from_0_and_what_is_gone_is_not_shown_as_standing() {
    let rig = Rig::new();
    let sink = |flow_log: &str, pending_windows, next_attempt_in_seconds| SinkStatus {
        flow_log: flow_log.to_owned(),
        pending_windows,
        next_attempt_in_seconds,
        ..SinkStatus::default()
    };
    rig.metrics.delivered(&FlowLogLabels::new("a"));
    rig.metrics.delivery_failed(&FlowLogLabels::new("b"));
    rig.metrics
        .set_sinks(&[sink("a", 0, None), sink("b", 7, Some(0))]);
    let windows = [
        r#"windows_delivered_total{flow_log="a"} 1"#,
        r#"windows_delivered_total{flow_log="b"} 0"#,
        r#"windows_pending{flow_log="a"} 0"#,
        r#"windows_pending{flow_log="b"} 7"#,
    ];
    let delivery = [
        r#"delivery_failures_total{flow_log="a"} 0"#,
        r#"delivery_failures_total{flow_log="b"} 1"#,
        r#"delivery_failing{flow_log="a"} 0"#,
        r#"delivery_failing{flow_log="b"} 1"#,
    ];
    assert_eq!(rig.samples("windows"), set(&windows));
    assert_eq!(rig.samples("delivery"), set(&delivery));
    rig.metrics.set_sinks(&[sink("a", 1, None)]);
    let pending = [r#"windows_pending{flow_log="a"} 1"#];
    assert_eq!(rig.samples("windows_pending"), set(&pending));
    let failing = [r#"delivery_failing{flow_log="a"} 0"#];
    assert_eq!(rig.samples("delivery_failing"), set(&failing));
}

#[test]
fn the_service_is_shown_where_there_is_one() {
    let rig = Rig::new();
    rig.metrics.set_service(None);
    assert_eq!(rig.samples("service"), set(&[]));
    rig.metrics.set_service(Some(&ServiceStatus {
        url: "http://a".to_owned(),
        connected: true,
        version: 7,
        failed_requests: 2,
        ..ServiceStatus::default()
    }));
    let expected = [
        r#"service_connected{url="http://a"} 1"#,
        r#"service_desired_state_version{url="http://a"} 7"#,
        r#"service_request_failures_total{url="http://a"} 2"#,
    ];
    assert_eq!(rig.samples("service"), set(&expected));
}

#[test]
fn losses_are_those_of_the_ledger_and_every_cause_is_shown() {
    let rig = Rig::new();
    let lost = |packets| {
        [Loss {
            cause: Cause::GivenUpSize,
            packets,
            bytes: 100,
            windows: 1,
        }]
    };
    // They are taken over, not added.
    rig.metrics.set_losses(&lost(5));
    rig.metrics.set_losses(&lost(6));
    for (name, expected) in [
        ("lost_packets_total", "6"),
        ("lost_bytes_total", "100"),
        ("lost_windows_total", "1"),
    ] {
        let samples = rig.samples(name);
        assert_eq!(samples.len(), Cause::ALL.len(), "{name}");
        for sample in samples {
            let is_it = sample.contains(r#"{cause="given-up-size"}"#);
            let number = if is_it { expected } else { "0" };
            assert!(sample.ends_with(&format!(" {number}")), "{sample}");
        }
    }
}

#[test]
fn conservation_is_shown_of_those_that_were_read_last() {
    let rig = Rig::new();
    let of = |eni_id: &str| Conservation {
        eni_id: eni_id.to_owned(),
        direction: "in".to_owned(),
        interface_counted: 1,
        recorded: 2,
        skipped: 3,
        not_ip: 4,
        merged_segments: 5,
        unseen: 6,
        difference: -3,
    };
    rig.metrics.set_conservation(&[of("gone"), of("here")]);
    rig.metrics.set_conservation(&[of("here")]);
    let expected = [
        r#"conservation_interface_packets{eni="here",direction="in"} 1"#,
        r#"conservation_recorded_packets{eni="here",direction="in"} 2"#,
        r#"conservation_skipped_packets{eni="here",direction="in"} 3"#,
        r#"conservation_not_ip_packets{eni="here",direction="in"} 4"#,
        r#"conservation_merged_segments{eni="here",direction="in"} 5"#,
        r#"conservation_unseen_packets{eni="here",direction="in"} 6"#,
        r#"conservation_difference_packets{eni="here",direction="in"} -3"#,
    ];
    assert_eq!(rig.samples("conservation"), set(&expected));
}

#[test]
fn a_policy_that_is_behind_is_shown_with_its_eni() {
    let rig = Rig::new();
    let judged = |eni_id: &str, rules, epoch, error: Option<&str>| JudgedStatus {
        eni_id: eni_id.to_owned(),
        mode: "enforce".to_owned(),
        rules,
        epoch,
        error: error.map(str::to_owned),
        ..JudgedStatus::default()
    };
    let mut security = SecurityStatus {
        enis: vec![
            judged("good", Some(3), Some(7), None),
            // The policy of the agent before holds on.
            judged("old", None, Some(6), Some("no memory")),
            judged("bare", None, None, Some("no memory")),
            judged("off", None, None, None),
        ],
        ..SecurityStatus::default()
    };
    rig.metrics.set_security(&security);
    let of = |name: &str, eni: &str, value: u32| {
        format!("{name}{{eni=\"{eni}\",mode=\"enforce\"}} {value}")
    };
    let expected = [
        of("policy_rules", "good", 3),
        of("policy_epoch", "good", 7),
        of("policy_epoch", "old", 6),
        of("policy_behind", "good", 0),
        of("policy_behind", "old", 1),
        of("policy_behind", "bare", 1),
    ];
    assert_eq!(rig.samples("policy_"), BTreeSet::from(expected));
    security.enis.clear();
    rig.metrics.set_security(&security);
    assert_eq!(rig.samples("policy_"), BTreeSet::new());
}
