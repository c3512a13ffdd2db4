//! Packets and octets by slot and direction.
use std::collections::BTreeMap;

use flowlog_common::{
    DIRECTION_IN, DIRECTION_OUT, ORIGIN_NETFILTER_AFTER, ORIGIN_NETFILTER_BEFORE,
};

use itertools::Itertools as _;

use crate::flows::{ByDirection, Flow, FlowKey};

/// Packets and octets by slot and direction.
pub type Volumes = BTreeMap<u32, ByDirection>;

/// Adds volumes to others.
pub fn add_volumes(to: &mut Volumes, volumes: &Volumes) {
    for (slot, volume) in volumes {
        let sum = to.entry(*slot).or_default();
        sum.add(DIRECTION_IN, volume.r#in.packets, volume.r#in.bytes);
        sum.add(DIRECTION_OUT, volume.out.packets, volume.out.bytes);
    }
}

/// Adds flows to volumes; quickest if they are sorted. What netfilter dropped after it was counted is in another flow already.
pub fn add_flows<K: FlowKey>(to: &mut Volumes, flows: &[Flow<K>]) {
    add_flows_if(to, flows, |origin| origin != ORIGIN_NETFILTER_AFTER);
}

/// Adds those flows of which no device saw anything: what netfilter dropped before.
pub(super) fn add_unseen<K: FlowKey>(to: &mut Volumes, flows: &[Flow<K>]) {
    add_flows_if(to, flows, |origin| origin == ORIGIN_NETFILTER_BEFORE);
}

fn add_flows_if<K: FlowKey>(to: &mut Volumes, flows: &[Flow<K>], counts: impl Fn(u8) -> bool) {
    let flows = flows.iter().filter(|flow| counts(flow.key.origin()));
    for (slot, of_slot) in &flows.chunk_by(|flow| flow.key.slot()) {
        let sum = to.entry(slot).or_default();
        for flow in of_slot {
            sum.add(flow.key.direction(), flow.packets, flow.bytes);
        }
    }
}

/// What is in `volumes` and not in `read`: what a window has lost, if it has `volumes` and these were read.
#[must_use]
pub fn missing(volumes: &Volumes, read: &Volumes) -> Volumes {
    volumes
        .iter()
        .map(|(slot, volume)| {
            let read = read.get(slot).copied().unwrap_or_default();
            (*slot, volume.minus(read))
        })
        .filter(|(_, left)| *left != ByDirection::default())
        .collect()
}
