//! How the agent ends, and what it holds while it runs.
use std::{collections::BTreeSet, fs};

use flowlog_agent::bpf::{DeviceDirection, chain};
use flowlog_tests::{
    agent::{AgentPlan, AttachMode, Direction, EniPlan, Hook, MatchPlan, conserved},
    lab::{Namespace, VethPair, VethPlan, skip_unless_root},
};
use nix::{net::if_::if_nametoindex, sys::signal::Signal};

use crate::wire::{
    Wire, assert_follow_each_other, long_window, of, orderly, start, stop, unix_now,
};

/// The TC programs of a device, both directions, as `ingress tcx flowlog_ingress`.
pub(crate) fn chains(namespace: &Namespace, device: &str) -> Vec<String> {
    let read = || {
        let index = if_nametoindex(device).expect("the device");
        let mut programs = Vec::new();
        for (direction, name) in [
            (DeviceDirection::Ingress, "ingress"),
            (DeviceDirection::Egress, "egress"),
        ] {
            let entries = chain(index, device, direction).expect("the chain");
            programs.extend(
                entries
                    .iter()
                    .map(|entry| format!("{name} {} {}", entry.hook, entry.name)),
            );
        }
        programs
    };
    namespace.enter(read).expect("the namespace")
}

/// All that is attached to a device: TC programs, XDP programs and qdiscs that are not those of every device.
fn attached(namespace: &Namespace, device: &str) -> Vec<String> {
    let mut attached = chains(namespace, device);
    let link = namespace
        .ip(&["-details", "link", "show", "dev", device])
        .expect("the device");
    attached.extend(
        ["prog/xdp", "xdpgeneric", "clsact"]
            .iter()
            .filter(|word| link.contains(**word))
            .map(|word| (*word).to_owned()),
    );
    let has_clsact = || {
        let qdiscs = std::process::Command::new("tc")
            .args(["qdisc", "show", "dev", device])
            .output()
            .expect("tc");
        String::from_utf8_lossy(&qdiscs.stdout).contains("clsact")
    };
    if namespace.enter(has_clsact).expect("the namespace") {
        attached.push("clsact".to_owned());
    }
    attached
}

#[test]
fn nothing_is_left_on_an_interface_after_the_agents_end() {
    if skip_unless_root("nothing_is_left_on_an_interface_after_the_agents_end") {
        return;
    }
    let wire = Wire::new();
    for (attach, hook, expected) in [
        (AttachMode::Tcx, Hook::Tc, "ingress tcx flowlog_ingress"),
        (
            AttachMode::Clsact,
            Hook::Tc,
            "ingress clsact flowlog_ingress",
        ),
        (AttachMode::Clsact, Hook::Xdp, "prog/xdp"),
    ] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let enis = wire.enis().map(|eni| EniPlan { hook, ..eni });
            let plan = AgentPlan {
                attach,
                ..long_window(enis)
            };
            let mut agent = start(&plan, &["eni-left", "eni-right"]);
            let during = attached(&wire.left, "left0");
            assert!(
                during.iter().any(|program| program.contains(expected)),
                "{attach:?} {hook:?}: {during:?}"
            );
            let pins = agent.pin_path().to_owned();
            assert!(pins.exists(), "no pins while it runs");
            agent.signal(signal).expect("signalled");
            orderly(agent.wait().expect("its end"));
            for (namespace, device) in [(&wire.left, "left0"), (&wire.right, "right0")] {
                let after = attached(namespace, device);
                assert!(after.is_empty(), "{attach:?} {hook:?}: {after:?}");
            }
            assert!(!pins.exists(), "pins are left behind");
        }
    }
}

#[test]
fn sigterm_closes_and_writes_the_open_window_under_a_label_that_is_not_of_the_future() {
    if skip_unless_root(
        "sigterm_closes_and_writes_the_open_window_under_a_label_that_is_not_of_the_future",
    ) {
        return;
    }
    let wire = Wire::new();
    let before = unix_now();
    let mut agent = start(&long_window(wire.enis()), &["eni-left", "eni-right"]);
    let sent = wire.flood(300, 3);
    let stopped = unix_now();
    let records = stop(&mut agent).records;
    let after = unix_now();
    conserved(
        &records,
        &[
            ("eni-left", Direction::Out, sent),
            ("eni-right", Direction::In, sent),
        ],
    );
    let windows: BTreeSet<(u64, u64)> = records
        .iter()
        .map(|record| (record.start, record.end))
        .collect();
    let first = windows.first().expect("a window").0;
    let last = windows.last().expect("a window").1;
    // The second that had begun when the window was closed is part of it.
    assert!(
        (before..=stopped).contains(&first),
        "{windows:?}, started at {before}"
    );
    assert!(
        (stopped..=after + 1).contains(&last),
        "{windows:?}, stopped at {stopped}"
    );
    // One, but at a full hour two.
    assert!(windows.len() <= 2, "{windows:?}");
    assert!(
        windows.iter().all(|(start, end)| start < end),
        "{windows:?}"
    );
}

#[test]
fn windows_follow_each_other_without_gap_or_overlap_up_to_the_last() {
    if skip_unless_root("windows_follow_each_other_without_gap_or_overlap_up_to_the_last") {
        return;
    }
    let wire = Wire::new();
    let [left, _] = wire.enis();
    let mut agent = start(&AgentPlan::capturing([left]), &["eni-left"]);
    agent
        .wait_for_records(flowlog_tests::agent::PATIENCE, |records| records.len() >= 3)
        .expect("three windows");
    let records = stop(&mut agent).records;
    assert_follow_each_other(&of(&records, "eni-left").collect::<Vec<_>>());
}

/// Bits of include/uapi/linux/capability.h.
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// The capability sets of every thread of a process, as `CapEff 0000…`, without repetitions.
fn capabilities(pid: u32) -> BTreeSet<(String, u64)> {
    let mut sets = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("its threads") {
        let status = thread.expect("a thread").path().join("status");
        let Ok(status) = fs::read_to_string(status) else {
            // A thread that enters a namespace does not live long.
            continue;
        };
        for line in status.lines() {
            if let Some((name, value)) = line.split_once(":\t")
                && (name.starts_with("Cap") || name == "NoNewPrivs")
            {
                let value = u64::from_str_radix(value, 16).expect("a set of capabilities");
                sets.insert((name.to_owned(), value));
            }
        }
    }
    sets
}

fn expected_capabilities(kept: u64) -> BTreeSet<(String, u64)> {
    [
        ("CapInh", 0),
        ("CapPrm", kept),
        ("CapEff", kept),
        ("CapBnd", kept),
        ("CapAmb", 0),
        ("NoNewPrivs", 1),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[test]
fn a_running_agent_keeps_only_the_capabilities_that_it_needs() {
    if skip_unless_root("a_running_agent_keeps_only_the_capabilities_that_it_needs") {
        return;
    }
    let (host, guest) = (
        Namespace::create("host").expect("a namespace"),
        Namespace::create("guest").expect("a namespace"),
    );
    let _pair = VethPair::create(VethPlan::between(&host, &guest)).expect("a pair");
    // The agent is in `host` itself, so this ENI is in no named namespace.
    let here = EniPlan::new(
        "eni-here",
        MatchPlan {
            name: Some("left0".to_owned()),
            ..MatchPlan::default()
        },
    );
    let there = EniPlan::device("eni-there", &guest, "right0");
    for (enis, ids, kept) in [
        (
            vec![here.clone()],
            vec!["eni-here"],
            BPF | NET_ADMIN | PERFMON,
        ),
        (
            vec![here, there],
            vec!["eni-here", "eni-there"],
            BPF | NET_ADMIN | PERFMON | SYS_ADMIN,
        ),
    ] {
        let plan = AgentPlan {
            namespace: Some(host.clone()),
            ..AgentPlan::capturing(enis)
        };
        let mut agent = start(&plan, &ids);
        // With the thread of the sink, which the first window starts.
        agent
            .wait_for_records(flowlog_tests::agent::PATIENCE, |records| {
                !records.is_empty()
            })
            .expect("a window");
        let sets = capabilities(agent.pid().expect("it runs"));
        assert_eq!(sets, expected_capabilities(kept));
        stop(&mut agent);
    }
}
