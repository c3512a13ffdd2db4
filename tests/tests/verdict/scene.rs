//! A wire, the ENI at its right end, and what its records say.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use flowlog_tests::{
    agent::{
        Action, AgentPlan, AgentProcess, Direction, EniPlan, LogStatus, Outcome, Record,
        RejectReason,
    },
    lab::{EndPlan, Namespace, VethPair, VethPlan},
};

/// The agent that cargo builds with these tests.
const AGENT: &str = env!("CARGO_BIN_EXE_flowlog-agent-under-test");

/// The ENI.
pub(crate) const VM: &str = "eni-vm";

/// How security groups are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Observe,
    Enforce,
}

impl Mode {
    pub(crate) const BOTH: [Self; 2] = [Self::Observe, Self::Enforce];

    fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// A wire with addresses: outside is 10.77.0.1 and fd00:77::1 at its left end, the VM 10.77.0.2 and fd00:77::2 at its right end.
pub(crate) fn wire() -> VethPair {
    let (outside, vm) = namespaces();
    whole(VethPlan::between(&outside, &vm))
}

/// A wire without addresses: whatever comes over it, neither end answers.
pub(crate) fn silent_wire() -> VethPair {
    let (outside, vm) = namespaces();
    let mut plan = VethPlan::between(&outside, &vm);
    plan.left.addresses.clear();
    plan.right.addresses.clear();
    whole(plan)
}

fn namespaces() -> (Namespace, Namespace) {
    let namespace = |label| Namespace::create(label).expect("a namespace");
    (namespace("outside"), namespace("vm"))
}

fn whole(plan: VethPlan) -> VethPair {
    let pair = VethPair::create(plan).expect("a wire");
    pair.without_offloads().expect("no offloads");
    pair
}

/// The right end as the ENI, in these groups, of which `tables` has what there is to say.
pub(crate) fn vm(pair: &VethPair, mode: Mode, groups: &[&str], tables: &str) -> EniPlan {
    EniPlan {
        extra: format!(
            "security-mode = {:?}\nsecurity-group-ids = {groups:?}\n{tables}",
            mode.as_str()
        ),
        ..EniPlan::end(VM, pair.right())
    }
}

/// An agent that captures this ENI, with windows of 1 s.
pub(crate) fn start(eni: EniPlan) -> AgentProcess {
    start_plan(&AgentPlan::capturing([eni]))
}

/// Likewise.
pub(crate) fn start_plan(plan: &AgentPlan) -> AgentProcess {
    let agent = AgentProcess::start(AGENT, plan).expect("an agent");
    agent.wait_until_captured(&[VM]).expect("captured");
    agent
}

/// Ends the agent when so many packets in and out are in records, and gives the records.
pub(crate) fn stop_after(mut agent: AgentProcess, packets_in: u64, packets_out: u64) -> Outcome {
    for (direction, packets) in [(Direction::In, packets_in), (Direction::Out, packets_out)] {
        agent
            .wait_for_packets(VM, direction, packets)
            .expect("all packets in records");
    }
    let outcome = agent.stop().expect("the agent's end");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    outcome
}

/// A flow with its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) direction: Direction,
    pub(crate) protocol: u8,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) action: Action,
}

/// How many packets of it there were, and why it has this verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) packets: u64,
    pub(crate) reason: Option<RejectReason>,
    pub(crate) rule: Option<String>,
}

/// The flows in OK records, over all windows. What a flow says of its reason and rule must be the same in each; there must be no
/// SKIPDATA.
pub(crate) fn flows(records: &[Record]) -> BTreeMap<Flow, Told> {
    let mut flows: BTreeMap<Flow, Told> = BTreeMap::new();
    for record in records {
        assert_ne!(record.log_status, LogStatus::SkipData, "{record:?}");
        let Some(flow) = flow(record) else { continue };
        let (reason, rule) = (record.reject_reason, &record.security_group_rule_id);
        let told = flows.entry(flow).or_insert_with(|| Told {
            packets: 0,
            reason,
            rule: rule.clone(),
        });
        assert_eq!((told.reason, &told.rule), (reason, rule), "{record:?}");
        told.packets += record.packets.unwrap_or_default();
    }
    flows
}

fn flow(record: &Record) -> Option<Flow> {
    Some(Flow {
        direction: record.direction?,
        protocol: record.protocol?,
        src: SocketAddr::new(record.srcaddr?, record.srcport?),
        dst: SocketAddr::new(record.dstaddr?, record.dstport?),
        action: record.action?,
    })
}

/// Packets of the flows that `which` wants.
pub(crate) fn packets(flows: &BTreeMap<Flow, Told>, which: impl Fn(&Flow, &Told) -> bool) -> u64 {
    let wanted = flows.iter().filter(|(flow, told)| which(flow, told));
    wanted.map(|(_, told)| told.packets).sum()
}

/// IP packets of both families that a namespace's stack has taken from its devices: what TC ingress has let through.
pub(crate) fn received(namespace: &Namespace) -> u64 {
    let read = |file: &str| {
        let path = format!("/proc/thread-self/net/{file}");
        let text = namespace.enter(|| std::fs::read_to_string(path));
        text.expect("the namespace").expect("the stack's counters")
    };
    let (v4, v6) = (read("snmp"), read("snmp6"));
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, numbers) = (lines.next(), lines.next());
    let at = names.and_then(|names| names.split(' ').position(|name| name == "InReceives"));
    let number = at.and_then(|at| numbers?.split(' ').nth(at));
    let v4: u64 = number.expect("InReceives").parse().expect("a number");
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Ip6InReceives"));
    v4 + v6.map_or(0, |number| number.trim().parse().expect("a number"))
}

/// Runs a program in a namespace, with words as arguments and text as its standard input.
pub(crate) fn run(namespace: &Namespace, command: &str, input: &str) {
    use std::io::Write as _;
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command
        .args(words)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let output = namespace.enter(|| {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    });
    let output = output.expect("the namespace").expect("the program");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

/// Filters what a namespace's stack has at a hook, by rules with a semicolon behind each.
pub(crate) fn nft(namespace: &Namespace, hook: &str, rules: &str) {
    let table = format!(
        "table inet t {{\nchain c {{\ntype filter hook {hook} priority 0;\n{rules}\n}}\n}}\n"
    );
    run(namespace, "nft -f -", &table);
}

/// An address of an end.
pub(crate) fn address(end: &EndPlan, v6: bool) -> IpAddr {
    let mut addresses = end.addresses.iter().map(|(address, _)| *address);
    addresses
        .find(|address| address.is_ipv6() == v6)
        .expect("an address of the family")
}
