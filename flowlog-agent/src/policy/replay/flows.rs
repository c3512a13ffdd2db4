//! The recorded flows, added up over all records.
use std::collections::HashMap;

use flowlog_model::{
    inventory::Inventory,
    record::{Action, Direction, FlowTuple, RejectReason},
    recorded::{Recorded, RecordedFlow},
};
use serde::Serialize;

/// Most flows that are told apart: some 300 MiB of them.
pub(super) const MAX_FLOWS: usize = 1_000_000;

/// Wrong lines that are named; all of them are counted.
const MAX_NAMED_LINES: usize = 20;

/// A flow of an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    /// Index of the ENI in the inventory.
    pub(super) entry: usize,
    pub(super) direction: Direction,
    pub(super) flow: FlowTuple,
    /// As it was recorded.
    pub(super) action: Action,
}

/// What all records of a flow say together.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowSum {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Start of the first window, in Unix seconds.
    pub(super) first_start: u64,
    /// TCP's flags of all records that have them.
    pub(super) tcp_flags: Option<u8>,
}

/// What was read, and what of it is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Read {
    /// Records of flows, judged or not.
    pub(super) flow_records: u64,
    pub(super) nodata_records: u64,
    pub(super) skipdata_records: u64,
    /// Lines that are no record.
    pub(super) wrong_lines: u64,
    /// The first of them, as `file:line: what is wrong`.
    pub(super) named_wrong_lines: Vec<String>,
    /// Records that are not judged: of ENIs that the inventory does not have.
    pub(super) of_other_enis: u64,
    /// Records that are not judged: what the host's own firewall rejected.
    pub(super) of_host_firewall: u64,
    /// Records that are not judged: there was no room for their session.
    pub(super) without_session: u64,
    /// Records that are not judged: there are more flows than [`MAX_FLOWS`].
    pub(super) beyond_limit: u64,
}

/// All flows.
pub(super) struct Flows<'i> {
    entries: HashMap<&'i str, usize>,
    flows: HashMap<FlowKey, FlowSum>,
    limit: usize,
    pub(super) read: Read,
}

impl<'i> Flows<'i> {
    /// No flows; `limit` is the most that are told apart.
    pub(super) fn new(inventory: &'i Inventory, limit: usize) -> Self {
        let entries = (0..).zip(inventory.entries());
        Self {
            entries: entries
                .map(|(index, entry)| (entry.eni.eni_id.as_str(), index))
                .collect(),
            flows: HashMap::new(),
            limit,
            read: Read::default(),
        }
    }

    /// Adds a line of the file `name`.
    pub(super) fn add_line(&mut self, name: &str, number: u64, line: Result<&str, String>) {
        let recorded = match line {
            Ok("") => return,
            Ok(line) => line.parse::<Recorded>().map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match recorded {
            Ok(Recorded::Flow(flow)) => self.add(&flow),
            Ok(Recorded::NoData) => self.read.nodata_records += 1,
            Ok(Recorded::SkipData) => self.read.skipdata_records += 1,
            Err(problem) => {
                self.read.wrong_lines += 1;
                if self.read.named_wrong_lines.len() < MAX_NAMED_LINES {
                    let named = format!("{name}:{number}: {problem}");
                    self.read.named_wrong_lines.push(named);
                }
            }
        }
    }

    fn add(&mut self, recorded: &RecordedFlow) {
        self.read.flow_records += 1;
        // Other groups change nothing in these.
        let reason = recorded.reject_reason.as_deref().unwrap_or_default();
        match reason.parse() {
            Ok(RejectReason::Netfilter) => {
                self.read.of_host_firewall += 1;
                return;
            }
            Ok(RejectReason::SessionTableFull) => {
                self.read.without_session += 1;
                return;
            }
            Ok(RejectReason::SecurityGroup) | Err(_) => {}
        }
        let Some(&entry) = self.entries.get(recorded.eni_id.as_str()) else {
            self.read.of_other_enis += 1;
            return;
        };
        let key = FlowKey {
            entry,
            direction: recorded.direction,
            flow: recorded.flow,
            action: recorded.action,
        };
        if self.flows.len() >= self.limit && !self.flows.contains_key(&key) {
            self.read.beyond_limit += 1;
            return;
        }
        let sum = self.flows.entry(key).or_insert(FlowSum {
            packets: 0,
            bytes: 0,
            first_start: recorded.start,
            tcp_flags: None,
        });
        sum.packets = sum.packets.saturating_add(recorded.packets);
        sum.bytes = sum.bytes.saturating_add(recorded.bytes);
        sum.first_start = sum.first_start.min(recorded.start);
        if let Some(flags) = recorded.tcp_flags {
            *sum.tcp_flags.get_or_insert(0) |= flags;
        }
    }

    /// The flow of this key.
    pub(super) fn get(&self, key: &FlowKey) -> Option<&FlowSum> {
        self.flows.get(key)
    }

    /// All flows, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&FlowKey, &FlowSum)> {
        self.flows.iter()
    }
}

impl Read {
    /// Records that are not judged, by why, as far as there are any.
    pub(super) fn not_judged(&self) -> Vec<(&'static str, u64)> {
        let mut reasons = vec![
            (
                "of ENIs that the inventory does not have",
                self.of_other_enis,
            ),
            (
                "of what the host's own firewall rejected",
                self.of_host_firewall,
            ),
            (
                "of what was rejected for want of room for its session",
                self.without_session,
            ),
            ("of flows for which there was no memory", self.beyond_limit),
        ];
        reasons.retain(|(_, records)| *records > 0);
        reasons
    }
}
