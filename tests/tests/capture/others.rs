//! What others have attached to a device, and what of ours is there.

use std::collections::BTreeMap;

use flowlog_agent::bpf::{ChainEntry, DeviceDirection, chain};
use flowlog_tests::lab::EndPlan;
use serde_json::Value;

use crate::support::{quiet_up, tc};

/// Somebody else's filters on an end of a wire: one in each direction, that mirrors every packet into nowhere and counts it.
pub(crate) struct Foreign<'p> {
    end: &'p EndPlan,
}

impl<'p> Foreign<'p> {
    pub(crate) fn install(end: &'p EndPlan) -> Self {
        let foreign = Self { end };
        let sink = [
            "link", "add", "sink0", "type", "veth", "peer", "name", "sink1",
        ];
        end.namespace.ip(&sink).expect("a sink");
        quiet_up(&end.namespace, "sink1");
        quiet_up(&end.namespace, "sink0");
        foreign.tc("qdisc add dev DEV clsact");
        for hook in ["ingress", "egress"] {
            foreign.tc(&format!(
                "filter add dev DEV {hook} prio 10 protocol all u32 match u32 0 0 action mirred egress mirror dev sink0"
            ));
        }
        foreign
    }

    /// Runs `tc`, `DEV` being this end's device.
    fn tc(&self, arguments: &str) -> String {
        tc(
            &self.end.namespace,
            &arguments.replace("DEV", &self.end.name),
        )
    }

    fn show(&self, arguments: &str) -> Vec<Value> {
        serde_json::from_str(&self.tc(arguments)).expect("JSON")
    }

    /// The device's qdiscs and filters, but those of kind `bpf`.
    pub(crate) fn dump(&self) -> Vec<Value> {
        [
            "-j qdisc show dev DEV",
            "-j filter show dev DEV ingress",
            "-j filter show dev DEV egress",
        ]
        .into_iter()
        .flat_map(|arguments| self.show(arguments))
        .filter(|entry| entry["kind"] != "bpf")
        .collect()
    }

    /// Packets that the filters have seen, of both directions.
    pub(crate) fn seen(&self) -> u64 {
        // A hook shows the filters of the other one as well, for they share their tables: each is told by its action's index.
        let mut packets = BTreeMap::new();
        for hook in ["ingress", "egress"] {
            for filter in self.show(&format!("-s -j filter show dev DEV {hook}")) {
                let action = &filter["options"]["actions"][0];
                if let (Some(index), Some(count)) = (
                    action["index"].as_u64(),
                    action["stats"]["packets"].as_u64(),
                ) {
                    packets.insert(index, count);
                }
            }
        }
        assert_eq!(packets.len(), 2, "two filters were installed");
        packets.values().sum()
    }
}

/// The TC programs and filters of an end's device.
pub(crate) fn programs(end: &EndPlan, direction: DeviceDirection) -> Vec<ChainEntry> {
    let found = end.namespace.enter(|| {
        let index = nix::net::if_::if_nametoindex(end.name.as_str())?;
        chain(index, &end.name, direction)
    });
    found.expect("the namespace").expect("the chain")
}

/// Names of the chain in both directions.
pub(crate) fn names(end: &EndPlan) -> [Vec<String>; 2] {
    [DeviceDirection::Ingress, DeviceDirection::Egress].map(|direction| {
        programs(end, direction)
            .into_iter()
            .map(|entry| entry.name)
            .collect()
    })
}

pub(crate) fn ours(names: &[Vec<String>; 2]) -> usize {
    names
        .iter()
        .flatten()
        .filter(|name| name.starts_with("flowlog_"))
        .count()
}

/// What `ip` says of a device; an XDP program and its mode are named in it.
pub(crate) fn link(end: &EndPlan) -> String {
    end.namespace
        .ip(&["-details", "link", "show", "dev", &end.name])
        .expect("the device")
}
