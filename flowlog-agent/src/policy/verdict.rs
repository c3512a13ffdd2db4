//! `policy test`: the verdict on a described packet.
use flowlog_model::{
    inventory::{EniEntry, Inventory},
    record::Direction,
    security_group::{DescribedPacket, PolicyRule, SecurityMode, Verdict},
};
use serde::Serialize;

use super::{PolicyError, TestArguments, why};
use crate::{
    agent::load_inventory,
    report::{self, ReportForm},
};

/// Matching rules that people are shown besides the one that decides.
const MAX_SHOWN_RULES: usize = 10;

/// The answer about one packet.
#[derive(Debug, Serialize)]
struct Answer {
    packet: String,
    eni_id: String,
    security_mode: SecurityMode,
    action: &'static str,
    /// `rule`, `inner-access-policy`, `default` or `no-group`.
    reason: &'static str,
    why: String,
    security_group_rule_id: Option<String>,
    /// All rules that match, in the order in which they decide.
    matching: Vec<Matching>,
}

#[derive(Debug, Serialize)]
struct Matching {
    security_group_rule_id: String,
    security_group_id: String,
    rule: String,
}

/// Answers about each packet.
pub(super) fn run(arguments: &TestArguments) -> Result<(), PolicyError> {
    let inventory = load_inventory(&arguments.inventory)?;
    let answers = arguments
        .packets
        .iter()
        .map(|packet| {
            let entry = eni(&inventory, arguments, packet)?;
            Ok(answer(&inventory, entry, packet))
        })
        .collect::<Result<Vec<Answer>, PolicyError>>()?;
    match arguments.output {
        ReportForm::Json => report::print_json(&answers),
        ReportForm::Table => {
            for (index, answer) in answers.iter().enumerate() {
                if index > 0 {
                    report::print_lines([""]);
                }
                report::print_lines(answer.lines());
            }
        }
    }
    Ok(())
}

/// The ENI that judges the packet.
fn eni<'i>(
    inventory: &'i Inventory,
    arguments: &TestArguments,
    packet: &DescribedPacket,
) -> Result<&'i EniEntry, PolicyError> {
    let file = || arguments.inventory.clone();
    if let Some(eni_id) = &arguments.eni {
        let unknown = || PolicyError::UnknownEni {
            inventory: file(),
            eni_id: eni_id.clone(),
        };
        return inventory.entry(eni_id).ok_or_else(unknown);
    }
    let address = match packet.direction {
        Direction::In => packet.flow.dst_addr,
        Direction::Out => packet.flow.src_addr,
    };
    let having: Vec<&EniEntry> = inventory
        .entries()
        .iter()
        .filter(|entry| entry.security.addresses.contains(&address))
        .collect();
    match having.as_slice() {
        [only] => Ok(only),
        _ => Err(PolicyError::NotOneEni {
            inventory: file(),
            address,
            count: having.len(),
        }),
    }
}

fn answer(inventory: &Inventory, entry: &EniEntry, packet: &DescribedPacket) -> Answer {
    let policy = inventory.policy(entry);
    let DescribedPacket { direction, flow } = packet;
    let Verdict { action, reason } = policy.decide(*direction, flow);
    let matching = policy.matching(*direction, flow).map(|rule| {
        let PolicyRule { group_id, rule, .. } = rule.as_ref();
        Matching {
            security_group_rule_id: rule.id.to_string(),
            security_group_id: group_id.to_string(),
            rule: rule.to_string(),
        }
    });
    Answer {
        packet: packet.to_string(),
        eni_id: entry.eni.eni_id.clone(),
        security_mode: entry.security.mode,
        action: action.as_str(),
        reason: reason.as_str(),
        why: why(action, &reason),
        security_group_rule_id: reason.rule().map(|rule| rule.rule.id.to_string()),
        matching: matching.collect(),
    }
}

impl Answer {
    fn lines(&self) -> Vec<String> {
        let by = match self.matching.first() {
            Some(first) if self.security_group_rule_id.is_some() => {
                format!(
                    "{} of {}: {}",
                    first.security_group_rule_id, first.security_group_id, self.why
                )
            }
            _ => self.why.clone(),
        };
        let mut lines = vec![
            format!("{}  {}", self.action, self.packet),
            format!("  by    {by}"),
            format!(
                "  at    {}, security-mode {}{}",
                self.eni_id,
                self.security_mode,
                self.consequence()
            ),
        ];
        let decides = usize::from(self.security_group_rule_id.is_some());
        let others = self.matching.iter().skip(decides);
        for (index, rule) in others.clone().take(MAX_SHOWN_RULES).enumerate() {
            lines.push(format!(
                "  {}  {} of {}: {}",
                if index == 0 { "also" } else { "    " },
                rule.security_group_rule_id,
                rule.security_group_id,
                rule.rule
            ));
        }
        let left = others.count().saturating_sub(MAX_SHOWN_RULES);
        if left > 0 {
            lines.push(format!("        and {left} more"));
        }
        lines
    }

    /// What the mode makes of the verdict.
    fn consequence(&self) -> &'static str {
        match self.security_mode {
            SecurityMode::Off => ": nothing is judged now",
            SecurityMode::Observe if self.action == "REJECT" => ": the packet passes",
            SecurityMode::Enforce if self.action == "REJECT" => ": the packet is dropped",
            SecurityMode::Observe | SecurityMode::Enforce => "",
        }
    }
}

#[cfg(test)]
mod tests;
