//! A host with one ENI that has security groups: programs, counters, policies and sessions.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use flowlog_agent::bpf::{
    Counters, EniConstants, Policies, Sessions, Swept,
    trial::{Programs, SkbMetadata, TrialProgram, forget_fragments},
};
use flowlog_common::{
    ACTION_ACCEPT, ACTION_REJECT, DECIDED_BY_DEFAULT, DECIDED_BY_INNER_ACCESS, DECIDED_BY_NO_ROOM,
    DECIDED_BY_NOTHING, DIRECTION_IN, EniCounters, FlowCounters,
};
use flowlog_model::{
    record::{Action, Direction, FlowTuple},
    security_group::{
        Policy, Reason, SecurityMode,
        session::{Basis, Judgement, Packet, WhenFull},
    },
};

use super::frames::frame;
use crate::{
    ledger::Ledger,
    rig::{GO_ON, PinFolder, ROOMY, eni},
};

/// `TC_ACT_SHOT`.
const SHOT: u32 = 2;

/// The ENI's slot.
pub(crate) const SLOT: u32 = 5;

pub(crate) struct Host {
    pub(crate) programs: Programs,
    pub(crate) counters: Counters,
    pub(crate) policies: Policies,
    pub(crate) sessions: Sessions,
    pub(crate) folder: PinFolder,
    mode: SecurityMode,
}

/// What a flow is known by, but for its ENI: direction, 5-tuple, action.
pub(crate) type FlowId = (Direction, FlowTuple, Action);

/// What decided, as a record tells it: the id of a rule, or a name for what else it was.
pub(crate) type Decided = String;

/// Packets of a flow, and what decided last.
pub(crate) type Counted = BTreeMap<FlowId, (u64, Decided)>;

impl Host {
    pub(crate) fn new(mode: SecurityMode, when_full: WhenFull, max_sessions: u32) -> Self {
        let folder = PinFolder::new();
        let sessions = Sessions::create(folder.path(), max_sessions).expect("sessions");
        let counters = Counters::create(folder.path(), ROOMY).expect("counters");
        let policies = Policies::create(folder.path()).expect("policies");
        let programs = Programs::load(folder.path(), constants(mode, when_full)).expect("programs");
        Self {
            programs,
            counters,
            policies,
            sessions,
            folder,
            mode,
        }
    }

    pub(crate) fn apply(&mut self, policy: &Policy) {
        let desired = BTreeMap::from([(SLOT, policy.clone())]);
        let applied = self.policies.apply(&desired).expect("the policies");
        assert_eq!(applied.failed, BTreeMap::new());
    }

    /// Sends a packet, and tells whether it goes on.
    pub(crate) fn send(&mut self, packet: &Packet) -> Action {
        self.send_frame(packet.direction, &frame(packet))
    }

    pub(crate) fn send_frame(&mut self, direction: Direction, frame: &[u8]) -> Action {
        let program = match direction {
            Direction::In => TrialProgram::Ingress,
            Direction::Out => TrialProgram::Egress,
        };
        let run = self.programs.run(program, frame, SkbMetadata::default(), 1);
        match run.expect("a run").verdict {
            GO_ON => Action::Accept,
            SHOT => Action::Reject,
            other => panic!("the program returns {other}"),
        }
    }

    /// What the fate of a packet must be, of which this was judged.
    pub(crate) fn fate(&self, judged: Action) -> Action {
        match self.mode {
            SecurityMode::Enforce => judged,
            SecurityMode::Off | SecurityMode::Observe => Action::Accept,
        }
    }

    /// What was counted since the last call, and what is beside it, of both directions.
    pub(crate) fn drain(&mut self) -> (Counted, [EniCounters; 2]) {
        let still = self.counters.flip().expect("a flip");
        let ledger = Ledger::read(&self.counters, &still);
        self.counters.renew(still, ROOMY).expect("renewal");
        let mut counted = Counted::new();
        for (key, counters) in &ledger.v4 {
            let flow = FlowTuple {
                src_addr: IpAddr::V4(Ipv4Addr::from(key.src_addr)),
                src_port: u16::from_be_bytes(key.src_port),
                dst_addr: IpAddr::V4(Ipv4Addr::from(key.dst_addr)),
                dst_port: u16::from_be_bytes(key.dst_port),
                protocol: key.protocol,
            };
            self.enter(&mut counted, (key.direction, flow, key.action), counters);
        }
        for (key, counters) in &ledger.v6 {
            let flow = FlowTuple {
                src_addr: IpAddr::V6(Ipv6Addr::from(key.src_addr)),
                src_port: u16::from_be_bytes(key.src_port),
                dst_addr: IpAddr::V6(Ipv6Addr::from(key.dst_addr)),
                dst_port: u16::from_be_bytes(key.dst_port),
                protocol: key.protocol,
            };
            self.enter(&mut counted, (key.direction, flow, key.action), counters);
        }
        let aside = |direction| ledger.aside.get(&(SLOT, direction)).copied();
        (
            counted,
            [0, 1].map(|direction| aside(direction).unwrap_or_default()),
        )
    }

    fn enter(
        &self,
        counted: &mut Counted,
        (direction, flow, action): (u8, FlowTuple, u8),
        counters: &FlowCounters,
    ) {
        let direction = if direction == DIRECTION_IN {
            Direction::In
        } else {
            Direction::Out
        };
        let action = match action {
            ACTION_ACCEPT => Action::Accept,
            ACTION_REJECT => Action::Reject,
            other => panic!("there is no action {other}"),
        };
        let decided = self.decided(counters.marks.decided_by());
        counted.insert((direction, flow, action), (counters.packets, decided));
    }

    fn decided(&self, number: u32) -> Decided {
        match number {
            DECIDED_BY_NOTHING => "nothing".to_owned(),
            DECIDED_BY_INNER_ACCESS => "inner access".to_owned(),
            DECIDED_BY_DEFAULT => "default".to_owned(),
            DECIDED_BY_NO_ROOM => "no room".to_owned(),
            rule => self
                .policies
                .rule_ids([rule])
                .remove(&rule)
                .unwrap_or_else(|| format!("unknown rule {rule}")),
        }
    }

    /// Clears away what is over.
    pub(crate) fn sweep(&mut self) -> Swept {
        self.sessions.sweep(uptime()).expect("a sweep")
    }

    /// Forgets all sessions and fragments, and what was counted.
    pub(crate) fn forget(&mut self) {
        self.sessions.remove_of(SLOT).expect("no sessions");
        forget_fragments(self.folder.path()).expect("no fragments");
        self.drain();
    }
}

/// Since the host's start, as `CLOCK_MONOTONIC` has it.
pub(crate) fn uptime() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.expect("the clock").into()
}

/// The constants of the programs.
pub(crate) fn constants(mode: SecurityMode, when_full: WhenFull) -> EniConstants {
    EniConstants {
        security_mode: mode,
        when_full,
        ..eni(SLOT, false)
    }
}

/// What decided, as the reference says it.
pub(crate) fn reason(reason: &Reason) -> Decided {
    match reason {
        Reason::NoGroup => "nothing".to_owned(),
        Reason::InnerAccess => "inner access".to_owned(),
        Reason::Default => "default".to_owned(),
        Reason::Rule(rule) => rule.rule.id.to_string(),
    }
}

/// Likewise, of a packet.
pub(crate) fn basis(judgement: &Judgement) -> Decided {
    match &judgement.basis {
        Basis::NotJudged => "nothing".to_owned(),
        Basis::NoRoom => "no room".to_owned(),
        Basis::Packet(of) | Basis::Session(of) => reason(of),
    }
}

/// Adds a packet to what must be counted.
pub(crate) fn note(counted: &mut Counted, id: FlowId, decided: Decided) {
    let flow = counted
        .entry(id)
        .or_insert_with(|| (0, "nothing".to_owned()));
    flow.0 += 1;
    // What nobody judged says nothing of what somebody did.
    if decided != "nothing" {
        flow.1 = decided;
    }
}

/// How two counts differ; empty if they do not.
pub(crate) fn differences(expected: &Counted, found: &Counted) -> Vec<String> {
    let missing = expected
        .iter()
        .filter(|(id, counted)| found.get(id) != Some(counted))
        .map(|(id, counted)| format!("{id:?}: {:?}, and must be {counted:?}", found.get(id)));
    let others = found
        .iter()
        .filter(|(id, _)| !expected.contains_key(id))
        .map(|(id, counted)| format!("{id:?}: {counted:?}, and must not be"));
    missing.chain(others).take(8).collect()
}
