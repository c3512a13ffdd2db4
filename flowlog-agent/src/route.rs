//! Routing: from a closed window to the records of one flow log.
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use flowlog_common::{
    DECIDED_BY_DEFAULT, DECIDED_BY_FIRST_RULE, DECIDED_BY_INNER_ACCESS, DECIDED_BY_NETFILTER,
    DECIDED_BY_NO_ROOM, DIRECTION_OUT, FlowKeyV4, FlowKeyV6, Volume,
};
use flowlog_model::{
    flow_log::FlowLog,
    record::{Action, Direction, Eni, FlowTuple, LogStatus, Record, RejectReason},
};

use crate::{
    flows::{ByDirection, FlowKey},
    settle::{Settled, Verdict, settled},
    spool::{Volumes, WindowReader, add_volumes, missing},
};

const TCP: u8 = 6;

/// Gives each record of the window that belongs to the flow log to `each`: its flows in order, then what was skipped, then the
/// ENIs that had no traffic.
///
/// What the window's flows sum up to is known apart from them. What cannot be read of them is the difference, to the packet and the
/// octet, and counts as skipped.
///
/// Tells how many packets netfilter dropped that are in no flow of the window: see [`crate::settle`].
pub fn records(
    window: &WindowReader,
    flow_log: &FlowLog,
    mut each: impl FnMut(&Record<'_>),
) -> u64 {
    let enis: Vec<Option<&Eni>> = window
        .enis()
        .map(|eni| eni.filter(|eni| flow_log.contains(eni)))
        .collect();
    let mut router = Router {
        window,
        flow_log,
        traffic: vec![Traffic::default(); enis.len()],
        enis,
        dropped_late: 0,
    };
    for flow in settled(window.v4()) {
        router.flow(&flow, v4_tuple(&flow.key), &mut each);
    }
    for flow in settled(window.v6()) {
        router.flow(&flow, v6_tuple(&flow.key), &mut each);
    }
    let mut skipped = missing(window.volumes(), &router.read());
    add_volumes(&mut skipped, window.skipped());
    for (slot, volume) in skipped {
        router.skipped(slot as usize, volume, &mut each);
    }
    router.without_traffic(&mut each);
    if router.dropped_late > 0 {
        tracing::debug!(
            flow_log = flow_log.name.as_str(),
            packets = router.dropped_late,
            "netfilter dropped packets that were counted in the window before: they are ACCEPT there"
        );
    }
    router.dropped_late
}

/// What there was of an ENI.
#[derive(Clone, Copy, Default)]
struct Traffic {
    /// In flows that were read.
    read: ByDirection,
    /// Whether there was any, be it in no flow.
    any: bool,
}

struct Router<'w> {
    window: &'w WindowReader,
    flow_log: &'w FlowLog,
    /// Those that the flow log contains, by slot.
    enis: Vec<Option<&'w Eni>>,
    traffic: Vec<Traffic>,
    /// Packets that netfilter dropped, of no flow of the window.
    dropped_late: u64,
}

impl<'w> Router<'w> {
    fn eni(&self, slot: usize) -> Option<&'w Eni> {
        self.enis.get(slot).copied().flatten()
    }

    fn flow<K: FlowKey>(
        &mut self,
        flow: &Settled<K>,
        tuple: FlowTuple,
        each: &mut impl FnMut(&Record<'_>),
    ) {
        let slot = flow.key.slot() as usize;
        let Some(eni) = self.eni(slot) else {
            return;
        };
        self.dropped_late += flow.excess.packets;
        let direction = flow.key.direction();
        for (action, verdict) in [
            (Action::Accept, &flow.accepted),
            (Action::Reject, &flow.rejected),
        ] {
            let Some(Verdict { volume, marks }) = *verdict else {
                continue;
            };
            if let Some(traffic) = self.traffic.get_mut(slot) {
                traffic.any = true;
                traffic.read.add(direction, volume.packets, volume.bytes);
            }
            if self.flow_log.admits(&tuple, action) {
                each(&Record {
                    flow: Some(tuple),
                    direction: Some(as_direction(direction)),
                    packets: Some(volume.packets),
                    bytes: Some(volume.bytes),
                    action: Some(action),
                    tcp_flags: (tuple.protocol == TCP).then_some(marks.tcp_flags()),
                    reject_reason: reject_reason(action, marks.decided_by()),
                    security_group_rule_id: self.window.rule_id(marks.decided_by()),
                    ..self.empty_record(eni, LogStatus::Ok)
                });
            }
        }
    }

    /// What was read, by slot.
    fn read(&self) -> Volumes {
        let read = self.traffic.iter().map(|traffic| traffic.read);
        (0..).zip(read).collect()
    }

    /// What was skipped has no known action, so every flow log of the ENI is told of it.
    fn skipped(&mut self, slot: usize, volume: ByDirection, each: &mut impl FnMut(&Record<'_>)) {
        let Some(eni) = self.eni(slot) else {
            return;
        };
        for (direction, Volume { packets, bytes }) in
            [(Direction::In, volume.r#in), (Direction::Out, volume.out)]
        {
            if packets == 0 {
                continue;
            }
            if let Some(traffic) = self.traffic.get_mut(slot) {
                traffic.any = true;
            }
            each(&Record {
                direction: Some(direction),
                packets: Some(packets),
                bytes: Some(bytes),
                ..self.empty_record(eni, LogStatus::SkipData)
            });
        }
    }

    /// NODATA for ENIs that were captured and had no traffic. SKIPDATA without numbers for those of which nobody counted, or nobody
    /// knows how much: they could not be captured, or the counters are lost.
    fn without_traffic(&self, each: &mut impl FnMut(&Record<'_>)) {
        let of_slots = || self.enis.iter().zip(&self.traffic).enumerate();
        // An ENI whose identity changed meanwhile has two slots, but is one ENI.
        let mut told: HashSet<&str> = HashSet::new();
        if self.window.loss_unknown() {
            for (slot, (eni, _)) in of_slots() {
                if let Some(eni) = eni
                    && self.window.was_captured(slot)
                    && told.insert(&eni.eni_id)
                {
                    each(&self.empty_record(eni, LogStatus::SkipData));
                }
            }
        }
        let with_traffic = of_slots().filter(|(_, (_, traffic))| traffic.any);
        told.extend(with_traffic.filter_map(|(_, (eni, _))| Some(eni.as_ref()?.eni_id.as_str())));
        let not_captured = self.window.not_captured();
        for eni in not_captured.filter(|eni| self.flow_log.contains(eni)) {
            if told.insert(&eni.eni_id) {
                each(&self.empty_record(eni, LogStatus::SkipData));
            }
        }
        for (slot, (eni, _)) in of_slots() {
            if let Some(eni) = eni
                && self.window.was_captured(slot)
                && told.insert(&eni.eni_id)
            {
                each(&self.empty_record(eni, LogStatus::NoData));
            }
        }
    }

    fn empty_record(&self, eni: &'w Eni, log_status: LogStatus) -> Record<'w> {
        Record {
            eni,
            flow: None,
            direction: None,
            packets: None,
            bytes: None,
            start: self.window.label().start,
            end: self.window.label().end,
            log_status,
            action: None,
            tcp_flags: None,
            reject_reason: None,
            security_group_rule_id: None,
            batch_id: None,
        }
    }
}

/// Why packets of this action were rejected, by what decided it.
fn reject_reason(action: Action, decided_by: u32) -> Option<RejectReason> {
    match (action, decided_by) {
        (Action::Reject, DECIDED_BY_NO_ROOM) => Some(RejectReason::SessionTableFull),
        (Action::Reject, DECIDED_BY_NETFILTER) => Some(RejectReason::Netfilter),
        (
            Action::Reject,
            DECIDED_BY_INNER_ACCESS | DECIDED_BY_DEFAULT | DECIDED_BY_FIRST_RULE..,
        ) => Some(RejectReason::SecurityGroup),
        _ => None,
    }
}

fn as_direction(direction: u8) -> Direction {
    if direction == DIRECTION_OUT {
        Direction::Out
    } else {
        Direction::In
    }
}

fn v4_tuple(key: &FlowKeyV4) -> FlowTuple {
    FlowTuple {
        src_addr: IpAddr::V4(Ipv4Addr::from(key.src_addr)),
        src_port: u16::from_be_bytes(key.src_port),
        dst_addr: IpAddr::V4(Ipv4Addr::from(key.dst_addr)),
        dst_port: u16::from_be_bytes(key.dst_port),
        protocol: key.protocol,
    }
}

fn v6_tuple(key: &FlowKeyV6) -> FlowTuple {
    FlowTuple {
        src_addr: IpAddr::V6(Ipv6Addr::from(key.src_addr)),
        src_port: u16::from_be_bytes(key.src_port),
        dst_addr: IpAddr::V6(Ipv6Addr::from(key.dst_addr)),
        dst_port: u16::from_be_bytes(key.dst_port),
        protocol: key.protocol,
    }
}
