//! A wire, the ENI at its right end, and what its records say.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use flowlog_model::{record, security_group::DescribedPacket};
use flowlog_tests::{
    agent::{
        Action, AgentPlan, AgentProcess, DestinationPlan, Direction, EniPlan, FlowLogPlan, Hook,
        LogStatus, Outcome, PATIENCE, Record, RejectReason, Resource, Side, records_of, volume,
    },
    lab::{EndPlan, Namespace, VethPair, VethPlan},
};

/// The agent that cargo builds with these tests.
const AGENT: &str = env!("CARGO_BIN_EXE_flowlog-agent-under-test");

/// The ENI.
pub(crate) const VM: &str = "eni-vm";

/// In the order in which numbers of both are told here.
pub(crate) const WAYS: [Direction; 2] = [Direction::In, Direction::Out];

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

/// Where the programs see the VM's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the VM's own device: what comes to the VM is received there, and what it sends is sent there.
    Guest,
    /// Likewise, what comes before the stack has made anything of it.
    GuestXdp,
    /// At the host's end of the VM's link, where directions are the other way round.
    Host,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Guest, Self::GuestXdp, Self::Host];

    /// Whether what is rejected in this direction is dropped before a device sends it. It is dropped after one has received it else.
    pub(crate) fn drops_at_egress(self, direction: Direction) -> bool {
        (self == Self::Host) == (direction == Direction::In)
    }

    /// Packets that no device ever saw, by direction, of so many that were sent, of which so many passed.
    pub(crate) fn unseen(self, sent: [u64; 2], passed: [u64; 2]) -> [u64; 2] {
        [0, 1].map(|way| {
            if self.drops_at_egress(WAYS[way]) {
                sent[way] - passed[way]
            } else {
                0
            }
        })
    }

    /// The VM's ENI, captured there.
    pub(crate) fn eni(self, pair: &VethPair, mode: Mode, groups: &[&str], tables: &str) -> EniPlan {
        let (end, side) = match self {
            Self::Guest | Self::GuestXdp => (pair.right(), Side::Guest),
            Self::Host => (pair.left(), Side::Host),
        };
        let hook = if self == Self::GuestXdp {
            Hook::Xdp
        } else {
            Hook::Tc
        };
        EniPlan {
            side,
            hook,
            matches: EniPlan::end(VM, end).matches,
            ..vm(pair, mode, groups, tables)
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
    for (direction, packets) in WAYS.into_iter().zip([packets_in, packets_out]) {
        agent
            .wait_for_packets(VM, direction, packets)
            .expect("all packets in records");
    }
    let outcome = agent.stop().expect("the agent's end");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    outcome
}

/// Packets that are in records and never came to the device, by direction. The device's own counters agree with the records.
pub(crate) fn unseen(agent: &AgentProcess) -> [u64; 2] {
    let status = agent.status().expect("a status");
    let entries = status["conservation"].as_array().expect("a list");
    ["in", "out"].map(|way| {
        let mut of_way = entries.iter().filter(|entry| entry["direction"] == way);
        let entry = of_way.next().expect("the ENI");
        assert_eq!(entry["difference"], 0, "{entry}");
        entry["unseen"].as_u64().expect("a number")
    })
}

/// A flow log that an agent with several lives writes to a file: that has each record once, and standard output may get one again.
pub(crate) fn to_file(path: &Path, enis: impl IntoIterator<Item = EniPlan>) -> AgentPlan {
    AgentPlan {
        flow_logs: vec![FlowLogPlan {
            destination: DestinationPlan::File {
                path: path.to_owned(),
                max_size: 16 << 20,
                max_files: 100,
            },
            extra: "format = \"json\"\nfields = [\"reject-reason\", \"security-group-rule-id\"]"
                .to_owned(),
            ..FlowLogPlan::of(Resource::Vpc("vpc-test".to_owned()))
        }],
        output: None,
        ..AgentPlan::capturing(enis)
    }
}

/// Waits until so many packets in and out are in the records of such a file, or no more come; then the comparison tells what is missing.
pub(crate) fn wait_for_file(path: &Path, packets_in: u64, packets_out: u64) {
    /// Nobody tells of a line that is written.
    const LOOK: Duration = Duration::from_millis(100);
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        // A line that is written at the moment may be there in part.
        let records = records_of(path).unwrap_or_default();
        let told = WAYS.map(|way| volume(&records, VM, way).packets);
        let sum = told.iter().sum();
        if sum > seen {
            (seen, since) = (sum, Instant::now());
        }
        if (told[0] >= packets_in && told[1] >= packets_out) || since.elapsed() > PATIENCE {
            return;
        }
        thread::sleep(LOOK);
    }
}

/// The records of all windows as if these were one: of each flow one record, without times.
pub(crate) fn untimed(records: &[Record]) -> Vec<Record> {
    let mut merged: Vec<(Record, (u64, u64, u8))> = Vec::new();
    // Whether a window without traffic was closed is chance.
    for record in records
        .iter()
        .filter(|record| record.log_status != LogStatus::NoData)
    {
        let of_flow = Record {
            start: 0,
            end: 0,
            packets: None,
            bytes: None,
            tcp_flags: None,
            ..record.clone()
        };
        let at = merged.iter().position(|(known, _)| *known == of_flow);
        let at = at.unwrap_or_else(|| {
            merged.push((of_flow, (0, 0, 0)));
            merged.len() - 1
        });
        let (packets, bytes, flags) = &mut merged[at].1;
        *packets += record.packets.unwrap_or_default();
        *bytes += record.bytes.unwrap_or_default();
        *flags |= record.tcp_flags.unwrap_or_default();
    }
    let merged = merged
        .into_iter()
        .map(|(record, (packets, bytes, flags))| Record {
            packets: Some(packets),
            bytes: Some(bytes),
            tcp_flags: Some(flags),
            ..record
        });
    let mut merged: Vec<Record> = merged.collect();
    merged.sort_by_key(|record| format!("{record:?}"));
    merged
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

impl Flow {
    /// The flow of a packet that has this verdict.
    pub(crate) fn of(packet: &DescribedPacket, action: Action) -> Self {
        let flow = &packet.flow;
        Self {
            direction: match packet.direction {
                record::Direction::In => Direction::In,
                record::Direction::Out => Direction::Out,
            },
            protocol: flow.protocol,
            src: (flow.src_addr, flow.src_port).into(),
            dst: (flow.dst_addr, flow.dst_port).into(),
            action,
        }
    }
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

/// As [`flows`], where a flow may have been decided by one rule and then by another.
pub(crate) fn verdicts(records: &[Record]) -> BTreeMap<Flow, Told> {
    let without = records.iter().map(|record| Record {
        security_group_rule_id: None,
        ..record.clone()
    });
    flows(&without.collect::<Vec<_>>())
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

/// Filters what a namespace's stack has at a hook, by rules with a semicolon behind each.
pub(crate) fn nft(namespace: &Namespace, hook: &str, rules: &str) {
    let table = format!(
        "table inet t {{\nchain c {{\ntype filter hook {hook} priority 0;\n{rules}\n}}\n}}\n"
    );
    namespace.nft(&table).expect("rules");
}

/// An address of an end.
pub(crate) fn address(end: &EndPlan, v6: bool) -> IpAddr {
    let mut addresses = end.addresses.iter().map(|(address, _)| *address);
    addresses
        .find(|address| address.is_ipv6() == v6)
        .expect("an address of the family")
}
