//! A table of sessions that is full: what finds no room is decided as configured, counted, and told.
use flowlog_model::record::FlowTuple;
use flowlog_tests::{
    agent::{Action, AgentPlan, AgentProcess, Direction, RejectReason, metric, scrape},
    lab::{Namespace, skip_unless_root},
};

use crate::{
    frames::{Senders, frame},
    scene::{Mode, VM, flows, packets, received, silent_wire, start_plan, stop_after, vm},
};

/// The fewest that there can be.
const SESSIONS: u64 = 1024;
/// Packets that find no room.
const MORE: u64 = 300;
/// Packets of a session that there is, when there is no room for others.
const AGAIN: u64 = 5;
/// In a namespace of the agent's own every port is free.
const METRICS: &str = "127.0.0.1:9464";

/// Lets one port in.
const TABLES: &str = r#"
[[security-group]]
security-group-id = "sg"
vpc-id = "vpc-test"
security-group-type = "enterprise"
rule = [
    { security-group-rule-id = "sgr-web", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", source-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-web-6", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", ipv6-source-cidr-ip = "::/0" },
]
"#;

/// A flow of its own, of either family by turns: both have one table.
fn flow(index: u64) -> FlowTuple {
    let (src_addr, dst_addr) = if index.is_multiple_of(2) {
        ("198.51.100.1", "10.88.0.10")
    } else {
        ("2001:db8::1", "fd00:88::10")
    };
    FlowTuple {
        src_addr: src_addr.parse().expect("an address"),
        src_port: 1024 + index as u16,
        dst_addr: dst_addr.parse().expect("an address"),
        dst_port: 7000,
        protocol: 17,
    }
}

/// Sessions, the most that there can be, and packets for which there was no room: in the status and in the metrics.
fn told(agent: &AgentProcess, host: &Namespace) -> [[u64; 3]; 2] {
    let status = agent.status().expect("a status");
    let keys = ["sessions", "max-sessions", "packets-without-session"];
    let in_status = keys.map(|key| status["security"][key].as_u64().expect("a number"));
    let text = scrape(host, METRICS.parse().expect("an address")).expect("metrics");
    let sample = |name: &str, labels: &[(&str, &str)]| {
        let value = metric(&text, &format!("flowlog_agent_{name}"), labels);
        value.unwrap_or_else(|| panic!("no {name} in\n{text}")) as u64
    };
    let inward = [("eni", VM), ("direction", "in")];
    let in_metrics = [
        sample("sessions", &[]),
        sample("sessions_max", &[]),
        sample("packets_without_session_total", &inward),
    ];
    [in_status, in_metrics]
}

#[test]
fn a_full_table_of_sessions_fails_as_it_is_told_to() {
    if skip_unless_root("a_full_table_of_sessions_fails_as_it_is_told_to") {
        return;
    }
    for (when_full, mode) in [
        (Action::Accept, Mode::Enforce),
        (Action::Reject, Mode::Enforce),
        (Action::Reject, Mode::Observe),
    ] {
        let case = format!("{when_full:?}, {mode:?}");
        let setting = if when_full == Action::Accept {
            "accept"
        } else {
            "reject"
        };
        let pair = silent_wire();
        let host = Namespace::create("host").expect("a namespace");
        let agent = start_plan(&AgentPlan {
            extra: format!("[security]\nmax-sessions = {SESSIONS}\nwhen-full = {setting:?}\n"),
            metrics: Some(METRICS.to_owned()),
            namespace: Some(host.clone()),
            ..AgentPlan::capturing([vm(&pair, mode, &["sg"], TABLES)])
        });
        let mut senders = Senders::new(&pair);
        let mut send = |index, times| {
            senders.send_in(&frame(pair.left(), pair.right(), &flow(index)), times);
        };
        for index in 0..SESSIONS + MORE {
            send(index, 1);
        }
        // Who has a session does not mind.
        send(0, AGAIN);
        send(1, AGAIN);
        let sent = SESSIONS + MORE + 2 * AGAIN;
        agent
            .wait_for_packets(VM, Direction::In, sent)
            .expect("records");
        assert_eq!(
            told(&agent, &host),
            [[SESSIONS, SESSIONS, MORE]; 2],
            "{case}"
        );
        let flows = flows(&stop_after(agent, sent, 0).records);
        // What is let in without a session was accepted by its rule; what is not, by none.
        let accepted = packets(&flows, |flow, told| {
            let rule = if flow.src.is_ipv6() {
                "sgr-web-6"
            } else {
                "sgr-web"
            };
            flow.action == Action::Accept
                && told.rule.as_deref() == Some(rule)
                && told.reason.is_none()
        });
        let rejected = packets(&flows, |flow, told| {
            let full = told.reason == Some(RejectReason::SessionTableFull);
            flow.action == Action::Reject && full && told.rule.is_none()
        });
        let expected = match when_full {
            Action::Accept => (sent, 0),
            Action::Reject => (sent - MORE, MORE),
        };
        assert_eq!((accepted, rejected), expected, "{case}");
        let dropped = if mode == Mode::Enforce { rejected } else { 0 };
        assert_eq!(received(&pair.right().namespace), sent - dropped, "{case}");
    }
}
