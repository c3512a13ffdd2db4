//! Routing: from a closed window to the records of one flow log.
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use flowlog_common::{ACTION_REJECT, DIRECTION_OUT, FlowKeyV4, FlowKeyV6, Volume};
use flowlog_model::{
    flow_log::FlowLog,
    record::{Action, Direction, Eni, FlowTuple, LogStatus, Record},
};

use crate::{
    flows::{Flow, FlowKey},
    store::ClosedWindow,
};

const TCP: u8 = 6;

/// Gives each record of the window that belongs to the flow log to `each`: its flows in order, then what was skipped, then the
/// ENIs that had no traffic.
pub fn records(window: &ClosedWindow, flow_log: &FlowLog, mut each: impl FnMut(&Record<'_>)) {
    let router = Router {
        window,
        flow_log,
        enis: window
            .enis()
            .map(|eni| eni.filter(|eni| flow_log.contains(eni)))
            .collect(),
    };
    let mut with_traffic = vec![false; router.enis.len()];
    for flow in window.v4() {
        router.flow(
            &flow,
            v4_tuple(&flow.key),
            flow.key.action,
            &mut with_traffic,
            &mut each,
        );
    }
    for flow in window.v6() {
        router.flow(
            &flow,
            v6_tuple(&flow.key),
            flow.key.action,
            &mut with_traffic,
            &mut each,
        );
    }
    for (slot, volumes) in window.skipped() {
        for (direction, volume) in [(Direction::In, volumes.r#in), (Direction::Out, volumes.out)] {
            router.skipped(*slot, direction, volume, &mut with_traffic, &mut each);
        }
    }
    router.without_traffic(&with_traffic, &mut each);
}

fn mark(with_traffic: &mut [bool], slot: u32) {
    if let Some(traffic) = with_traffic.get_mut(slot as usize) {
        *traffic = true;
    }
}

struct Router<'w> {
    window: &'w ClosedWindow,
    flow_log: &'w FlowLog,
    /// Those that the flow log contains, by slot.
    enis: Vec<Option<&'w Eni>>,
}

impl<'w> Router<'w> {
    fn eni(&self, slot: u32) -> Option<&'w Eni> {
        self.enis.get(slot as usize).copied().flatten()
    }

    fn flow<K: FlowKey>(
        &self,
        flow: &Flow<K>,
        tuple: FlowTuple,
        action: u8,
        with_traffic: &mut [bool],
        each: &mut impl FnMut(&Record<'_>),
    ) {
        let Some(eni) = self.eni(flow.key.slot()) else {
            return;
        };
        mark(with_traffic, flow.key.slot());
        let action = if action == ACTION_REJECT {
            Action::Reject
        } else {
            Action::Accept
        };
        if !self.flow_log.traffic_type.admits(action) {
            return;
        }
        each(&Record {
            flow: Some(tuple),
            direction: Some(direction(flow.key.direction())),
            packets: Some(flow.packets),
            bytes: Some(flow.bytes),
            action: Some(action),
            tcp_flags: (tuple.protocol == TCP).then_some(flow.tcp_flags as u8),
            ..self.empty_record(eni, LogStatus::Ok)
        });
    }

    /// What was skipped has no known action, so every flow log of the ENI is told of it.
    fn skipped(
        &self,
        slot: u32,
        direction: Direction,
        volume: Volume,
        with_traffic: &mut [bool],
        each: &mut impl FnMut(&Record<'_>),
    ) {
        let Some(eni) = self.eni(slot) else {
            return;
        };
        if volume.packets == 0 {
            return;
        }
        mark(with_traffic, slot);
        each(&Record {
            direction: Some(direction),
            packets: Some(volume.packets),
            bytes: Some(volume.bytes),
            ..self.empty_record(eni, LogStatus::SkipData)
        });
    }

    /// NODATA for ENIs that were captured and had no traffic; and for those that could not be captured, SKIPDATA without numbers, for
    /// nobody counted.
    fn without_traffic(&self, with_traffic: &[bool], each: &mut impl FnMut(&Record<'_>)) {
        let of_slots = || self.enis.iter().zip(with_traffic).enumerate();
        // An ENI whose identity changed meanwhile has two slots, but is one ENI.
        let mut told: HashSet<&str> = of_slots()
            .filter(|(_, (_, traffic))| **traffic)
            .filter_map(|(_, (eni, _))| Some(eni.as_ref()?.eni_id.as_str()))
            .collect();
        for eni in self
            .window
            .not_captured()
            .filter(|eni| self.flow_log.contains(eni))
        {
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
            start: self.window.window.start,
            end: self.window.window.end,
            log_status,
            action: None,
            tcp_flags: None,
            batch_id: None,
        }
    }
}

fn direction(direction: u8) -> Direction {
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
