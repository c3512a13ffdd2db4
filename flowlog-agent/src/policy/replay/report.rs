//! What a replay found.
use std::cmp::Reverse;

use flowlog_model::{
    inventory::Inventory,
    record::Action,
    security_group::{DescribedPacket, SecurityMode, Verdict},
};
use itertools::Itertools as _;
use serde::Serialize;

use super::{
    Judge,
    flows::{FlowKey, FlowSum, Flows, Read},
    judge::{Outcome, Part},
};
use crate::{
    policy::why,
    report::{self, grouped},
};

/// What a replay found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    read: Read,
    /// Flows that were judged.
    judged: Total,
    /// Flows that were accepted and would be rejected.
    would_reject: Changes,
    /// Flows that were rejected and would be accepted.
    would_accept: Changes,
    /// Flows whose outcome depends on who opened their session, which the records do not tell.
    depends_on_opener: Changes,
    /// Flows that may be neighbour discovery, and so are not judged.
    neighbor_discovery: Total,
    /// ENIs with groups whose mode is off in the inventory, so that nothing is judged yet.
    off: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Total {
    flows: u64,
    packets: u64,
    bytes: u64,
}

/// Flows of one kind.
#[derive(Debug, Default, Serialize)]
struct Changes {
    total: Total,
    /// Those with the most packets first.
    listed: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    eni_id: String,
    flow: String,
    packets: u64,
    bytes: u64,
    /// The rule that would decide, if one would.
    security_group_rule_id: Option<String>,
    why: String,
}

/// A flow that is to be listed, before it is known how many others come before it.
struct Candidate<'f> {
    key: &'f FlowKey,
    sum: &'f FlowSum,
    outcome: Outcome,
}

impl Total {
    fn add(&mut self, sum: &FlowSum) {
        self.flows += 1;
        self.packets = self.packets.saturating_add(sum.packets);
        self.bytes = self.bytes.saturating_add(sum.bytes);
    }
}

impl Report {
    /// Judges all flows; lists at most `rows` of each kind.
    pub(super) fn new(inventory: &Inventory, flows: &Flows<'_>, rows: usize) -> Self {
        let judge = Judge::new(inventory);
        let (mut judged, mut neighbor_discovery) = (Total::default(), Total::default());
        let [mut reject, mut accept, mut depends] = [const { Vec::new() }; 3];
        for (key, sum) in flows.iter() {
            let Some(outcome) = judge.judge(flows, key, sum) else {
                continue;
            };
            if outcome == Outcome::NeighborDiscovery {
                neighbor_discovery.add(sum);
                continue;
            }
            judged.add(sum);
            let list = match (key.action, outcome.action()) {
                (_, None) => &mut depends,
                (Action::Accept, Some(Action::Reject)) => &mut reject,
                (Action::Reject, Some(Action::Accept)) => &mut accept,
                _ => continue,
            };
            list.push(Candidate { key, sum, outcome });
        }
        Self {
            read: flows.read.clone(),
            judged,
            would_reject: Changes::new(inventory, reject, rows),
            would_accept: Changes::new(inventory, accept, rows),
            depends_on_opener: Changes::new(inventory, depends, rows),
            neighbor_discovery,
            off: switched_off(inventory),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.would_reject
            .render("Accepted, and would be rejected", &mut lines);
        self.would_accept
            .render("Rejected, and would be accepted", &mut lines);
        if self.depends_on_opener.total.flows > 0 {
            self.depends_on_opener.render(
                "Would be rejected or accepted, as to who opened the session, which the records do not tell",
                &mut lines,
            );
        }
        let changed = [
            &self.would_reject,
            &self.would_accept,
            &self.depends_on_opener,
        ];
        let changed: u64 = changed.iter().map(|changes| changes.total.flows).sum();
        lines.push(format!(
            "Judged: {}; {} of them stay as they were.",
            self.judged.in_words(),
            grouped(self.judged.flows - changed)
        ));
        lines.extend(self.notes());
        lines
    }

    fn notes(&self) -> Vec<String> {
        let Read {
            flow_records,
            nodata_records,
            skipdata_records,
            wrong_lines,
            named_wrong_lines,
            ..
        } = &self.read;
        let mut notes = vec![format!(
            "Read: {} of flows, {} NODATA, {} SKIPDATA, {}.",
            counted(*flow_records, "record"),
            grouped(*nodata_records),
            grouped(*skipdata_records),
            counted(*wrong_lines, "wrong line")
        )];
        let not_judged = self.read.not_judged();
        notes.extend(not_judged.iter().map(|(reason, records)| {
            format!("Not judged: {} {reason}.", counted(*records, "record"))
        }));
        if self.neighbor_discovery.flows > 0 {
            notes.push(format!(
                "Not judged: {} of ICMPv6 on the link, which may be neighbour discovery.",
                self.neighbor_discovery.in_words()
            ));
        }
        if !self.off.is_empty() {
            notes.push(format!(
                "Nothing is judged yet at ENIs whose security-mode is off: {}.",
                self.off.join(", ")
            ));
        }
        notes.extend(named_wrong_lines.iter().cloned());
        let left = wrong_lines - named_wrong_lines.len() as u64;
        if left > 0 {
            notes.push(format!("and {}", counted(left, "more wrong line")));
        }
        notes
    }
}

impl Total {
    fn in_words(self) -> String {
        let Self {
            flows,
            packets,
            bytes,
        } = self;
        format!(
            "{}, {}, {}",
            counted(flows, "flow"),
            counted(packets, "packet"),
            counted(bytes, "byte")
        )
    }
}

/// As in `1 flow` and `2,000 flows`.
fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(number))
}

impl Changes {
    fn new(inventory: &Inventory, candidates: Vec<Candidate<'_>>, rows: usize) -> Self {
        let mut total = Total::default();
        for candidate in &candidates {
            total.add(candidate.sum);
        }
        // By the flow where the packets are equal, so that the same records give the same report.
        let heaviest = candidates.into_iter().k_smallest_by_key(rows, |candidate| {
            let FlowKey {
                entry,
                direction,
                flow,
                action,
            } = *candidate.key;
            (
                Reverse(candidate.sum.packets),
                entry,
                flow,
                direction,
                action,
            )
        });
        Self {
            total,
            listed: heaviest
                .filter_map(|candidate| candidate.change(inventory))
                .collect(),
        }
    }

    fn render(&self, title: &str, lines: &mut Vec<String>) {
        if self.total.flows == 0 {
            lines.push(format!("{title}: none."));
            lines.push(String::new());
            return;
        }
        lines.push(format!("{title}: {}", self.total.in_words()));
        let mut table = report::table(["ENI", "FLOW", "PACKETS", "BYTES", "RULE", "WHY"]);
        for change in &self.listed {
            table.add_row([
                &change.eni_id,
                &change.flow,
                &grouped(change.packets),
                &grouped(change.bytes),
                change.security_group_rule_id.as_deref().unwrap_or("-"),
                &change.why,
            ]);
        }
        lines.extend(table.lines());
        let left = self.total.flows - self.listed.len() as u64;
        if left > 0 {
            lines.push(format!(" and {}", counted(left, "more flow")));
        }
        lines.push(String::new());
    }
}

impl Candidate<'_> {
    fn change(self, inventory: &Inventory) -> Option<Change> {
        let entry = inventory.entries().get(self.key.entry)?;
        let (decider, why) = match &self.outcome {
            Outcome::Judged(verdict, part) => (verdict, in_session(verdict, *part)),
            Outcome::Depends(own, other) => (
                own,
                format!(
                    "{} if it opened the session ({}), {} if the other end did ({})",
                    own.action.as_str(),
                    why(own.action, &own.reason),
                    other.action.as_str(),
                    why(other.action, &other.reason)
                ),
            ),
            Outcome::NeighborDiscovery => return None,
        };
        let packet = DescribedPacket {
            direction: self.key.direction,
            flow: self.key.flow,
        };
        Some(Change {
            eni_id: entry.eni.eni_id.clone(),
            flow: packet.to_string(),
            packets: self.sum.packets,
            bytes: self.sum.bytes,
            security_group_rule_id: decider.reason.rule().map(|rule| rule.rule.id.to_string()),
            why,
        })
    }
}

fn in_session(verdict: &Verdict, part: Part) -> String {
    let why = why(verdict.action, &verdict.reason);
    match part {
        Part::Opener | Part::Unknown => why,
        Part::Reply => format!("reply; of what opened the session: {why}"),
    }
}

/// ENIs with groups whose mode is off.
fn switched_off(inventory: &Inventory) -> Vec<String> {
    let entries = inventory.entries().iter().filter(|entry| {
        entry.security.mode == SecurityMode::Off && !entry.security.group_ids.is_empty()
    });
    entries.map(|entry| entry.eni.eni_id.clone()).collect()
}
