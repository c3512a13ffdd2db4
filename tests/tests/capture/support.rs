//! What the tests of this program share: a wire with an agent on both ends, and ways to compare.

use std::collections::HashMap;
use std::net::IpAddr;
use std::process::Command;

use flowlog_tests::agent::{
    AgentPlan, AgentProcess, Direction, EniPlan, LogStatus, Outcome, Record, Volume,
};
use flowlog_tests::lab::{
    DeviceStats, EndPlan, Family, Namespace, VethPair, VethPlan, device_stats, flow_tuple,
};

/// The agent that cargo builds with these tests.
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_flowlog-agent-under-test");
/// The ENI of the wire's left end.
pub(crate) const LEFT: &str = "eni-left";
/// The ENI of the wire's right end.
pub(crate) const RIGHT: &str = "eni-right";

/// Two new namespaces and a veth pair between them.
pub(crate) fn wire(mtu: u32) -> VethPair {
    let left = Namespace::create("left").expect("a namespace");
    let right = Namespace::create("right").expect("a namespace");
    let plan = VethPlan {
        mtu,
        ..VethPlan::between(&left, &right)
    };
    VethPair::create(plan).expect("a veth pair")
}

/// Both ends of the wire as ENIs, [`LEFT`] and [`RIGHT`].
pub(crate) fn both_ends(pair: &VethPair) -> AgentPlan {
    AgentPlan::capturing([
        EniPlan::end(LEFT, pair.left()),
        EniPlan::end(RIGHT, pair.right()),
    ])
}

/// An agent that captures all its ENIs.
pub(crate) fn start(plan: &AgentPlan) -> AgentProcess {
    let agent = AgentProcess::start(AGENT, plan).expect("an agent");
    let enis: Vec<&str> = plan.enis.iter().map(|eni| eni.eni_id.as_str()).collect();
    agent.wait_until_captured(&enis).expect("captured");
    agent
}

/// Ends the agent, after so many packets of each ENI and direction are in records: what the receiver's CPU has yet to take from
/// its backlog is awaited, and what comes beyond it will be in the records too.
pub(crate) fn stop_after(
    mut agent: AgentProcess,
    expected: &[(&str, Direction, Volume)],
) -> Outcome {
    for (eni, direction, volume) in expected {
        agent
            .wait_for_packets(eni, *direction, volume.packets)
            .expect("all packets in records");
    }
    let outcome = agent.stop().expect("the agent's end");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    outcome
}

/// The counters of one end's device. They begin with 0: nothing crosses a wire by itself.
pub(crate) fn stats(end: &EndPlan) -> DeviceStats {
    device_stats(&end.namespace, &end.name).expect("statistics")
}

/// The records of one status.
pub(crate) fn of_status(records: &[Record], status: LogStatus) -> impl Iterator<Item = &Record> {
    records
        .iter()
        .filter(move |record| record.log_status == status)
}

/// The packets of each flow of a flood in the OK records of an ENI and direction. Every such record must be of the flood.
pub(crate) fn flood_counts(
    records: &[Record],
    (eni, direction): (&str, Direction),
    family: Family,
    flows: u32,
) -> Vec<u64> {
    let index: HashMap<(IpAddr, u16), usize> = (0..flows)
        .map(|flow| flow_tuple(family, flow))
        .map(|tuple| (tuple.src, tuple.sport))
        .zip(0..)
        .collect();
    let first = flow_tuple(family, 0);
    let mut counts = vec![0; index.len()];
    for record in of_status(records, LogStatus::Ok)
        .filter(|record| record.eni_id == eni && record.direction == Some(direction))
    {
        let flow = record
            .srcaddr
            .zip(record.srcport)
            .and_then(|source| index.get(&source))
            .unwrap_or_else(|| panic!("a flow of nobody: {record:?}"));
        assert_eq!(
            (record.dstaddr, record.dstport, record.protocol),
            (Some(first.dst), Some(first.dport), Some(17)),
            "{record:?}"
        );
        counts[*flow] += record.packets.unwrap_or_default();
    }
    counts
}

/// Runs `tc` in a namespace and returns what it wrote to standard output.
pub(crate) fn tc(namespace: &Namespace, arguments: &str) -> String {
    let output = namespace
        .enter(|| {
            Command::new("tc")
                .args(arguments.split_whitespace())
                .output()
        })
        .expect("the namespace")
        .expect("tc, which is in iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tc {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Keeps a device that `ip` has just made from sending anything by itself, and sets it up.
pub(crate) fn quiet_up(namespace: &Namespace, device: &str) {
    namespace
        .set_sysctl(&format!("ipv6/conf/{device}/disable_ipv6"), "1")
        .expect("no IPv6");
    namespace
        .ip(&["link", "set", device, "arp", "off", "up"])
        .expect("up");
}
