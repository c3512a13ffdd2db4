//! What most tests begin with: two namespaces, a wire between them, an agent, and traffic that is counted exactly.
use std::time::{SystemTime, UNIX_EPOCH};

use flowlog_tests::{
    agent::{AgentPlan, AgentProcess, EniPlan, LogStatus, Outcome, Record, Volume},
    lab::{EndPlan, Family, FloodPlan, Mac, Namespace, VethPair, VethPlan, udp_flood},
};

use crate::{AGENT, LONG_WINDOW_SECONDS};

/// Two namespaces and a quiet pair between them: `left0` and `right0`, as [`VethPlan::between`] has them.
pub(crate) struct Wire {
    pub(crate) pair: VethPair,
    pub(crate) left: Namespace,
    pub(crate) right: Namespace,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let left = Namespace::create("left").expect("a namespace");
        let right = Namespace::create("right").expect("a namespace");
        let pair = VethPair::create(VethPlan::between(&left, &right)).expect("a pair");
        Self { pair, left, right }
    }

    /// Both ends as ENIs, `eni-left` and `eni-right`.
    pub(crate) fn enis(&self) -> [EniPlan; 2] {
        [
            EniPlan::end("eni-left", self.pair.left()),
            EniPlan::end("eni-right", self.pair.right()),
        ]
    }

    /// Another quiet pair between the two namespaces, without addresses. `host` tells its MAC addresses from others'.
    pub(crate) fn another(&self, left: &str, right: &str, host: u8) -> VethPair {
        let end = |namespace: &Namespace, name: &str, side: u8| EndPlan {
            namespace: namespace.clone(),
            name: name.to_owned(),
            mac: mac(side, host),
            addresses: Vec::new(),
        };
        VethPair::create(VethPlan::new(
            end(&self.left, left, 1),
            end(&self.right, right, 2),
        ))
        .expect("another pair")
    }

    /// Sends IPv4 packets out of `left0`.
    pub(crate) fn flood(&self, packets: u64, flows: u32) -> Volume {
        flood(&self.left, "left0", packets, flows, Family::V4)
    }
}

/// The MAC address of an end of [`Wire::another`]; the right end is of side 2.
pub(crate) const fn mac(side: u8, host: u8) -> Mac {
    [0x02, 0xf1, 0, 1, side, host]
}

/// Sends packets out of a device and returns what was sent.
pub(crate) fn flood(
    namespace: &Namespace,
    device: &str,
    packets: u64,
    flows: u32,
    family: Family,
) -> Volume {
    let plan = FloodPlan {
        packets,
        flows,
        threads: 1,
        family,
        ..FloodPlan::default()
    };
    let sent = udp_flood(namespace, device, &plan).expect("a flood");
    assert_eq!(
        sent.refused, 0,
        "the device was full, so that egress saw packets twice"
    );
    Volume {
        packets: sent.packets,
        bytes: sent.bytes,
    }
}

/// The plan with one window for the whole test.
pub(crate) fn long_window(enis: impl IntoIterator<Item = EniPlan>) -> AgentPlan {
    AgentPlan {
        window_seconds: Some(LONG_WINDOW_SECONDS),
        ..AgentPlan::capturing(enis)
    }
}

/// Starts the agent and waits until it captures `enis`.
pub(crate) fn start(plan: &AgentPlan, enis: &[&str]) -> AgentProcess {
    let agent = AgentProcess::start(AGENT, plan).expect("an agent");
    agent.wait_until_captured(enis).expect("captured");
    agent
}

/// Ends the agent in good order; its standard output was JSON alone.
pub(crate) fn stop(agent: &mut AgentProcess) -> Outcome {
    orderly(agent.stop().expect("the agent's end"))
}

/// Asserts that an agent ended well, and wrote nothing but records to standard output.
pub(crate) fn orderly(outcome: Outcome) -> Outcome {
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert_eq!(outcome.lines, [""; 0], "on standard output");
    outcome
}

/// Statuses of an ENI's records.
pub(crate) fn statuses(records: &[Record], eni: &str) -> Vec<LogStatus> {
    of(records, eni).map(|record| record.log_status).collect()
}

/// The records of an ENI.
pub(crate) fn of<'r>(records: &'r [Record], eni: &'r str) -> impl Iterator<Item = &'r Record> {
    records.iter().filter(move |record| record.eni_id == eni)
}

/// Asserts that the windows of an ENI's only records follow each other without gap or overlap. A window that was closed late, on a
/// busy machine, reaches farther than a second.
#[track_caller]
pub(crate) fn assert_follow_each_other(records: &[&Record]) {
    for pair in records.windows(2) {
        assert_eq!(pair[0].end, pair[1].start, "{pair:#?}");
    }
    assert!(
        records.iter().all(|record| record.start < record.end),
        "{records:#?}"
    );
}

/// The wall clock, in Unix seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_secs()
}
