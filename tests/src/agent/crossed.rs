//! What crossed the interfaces, and what is wrong with records of it.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use super::{Action, Direction, LogStatus, Record, Volume};
use crate::lab::{Family, flow_tuple};

/// Differences of a kind that are told one by one.
const MAX_TOLD: usize = 5;
/// UDP.
const UDP: u8 = 17;

type Place = (String, Direction);

/// What crossed the interfaces, as the senders or the devices counted it.
#[derive(Clone, Debug, Default)]
pub struct Crossed {
    volumes: BTreeMap<Place, Volume>,
    /// Packets of the UDP flows that are known one by one, by source.
    flows: HashMap<(Place, IpAddr, u16), u64>,
}

impl Crossed {
    /// Adds what crossed an ENI in a direction, in flows of any kind.
    pub fn add(&mut self, eni: &str, direction: Direction, volume: Volume) {
        let sum = self.volumes.entry((eni.to_owned(), direction)).or_default();
        *sum += volume;
    }

    /// What crossed an ENI in a direction.
    #[must_use]
    pub fn volume(&self, eni: &str, direction: Direction) -> Volume {
        let place = (eni.to_owned(), direction);
        self.volumes.get(&place).copied().unwrap_or_default()
    }

    /// Says that part of it were these packets of a flood's flows.
    pub fn know_flows(
        &mut self,
        eni: &str,
        direction: Direction,
        family: Family,
        per_flow: &[u64],
    ) {
        for (flow, packets) in (0..).zip(per_flow) {
            let tuple = flow_tuple(family, flow);
            let place = (eni.to_owned(), direction);
            *self
                .flows
                .entry((place, tuple.src, tuple.sport))
                .or_default() += packets;
        }
    }

    /// Packets in all.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.volumes.values().map(|volume| volume.packets).sum()
    }

    /// What is wrong with all the records of one flow log: what crossed is not what they add up to, a flow has packets of nobody, or
    /// fewer than it had though nothing was skipped, something is told twice, or the windows do not follow each other.
    #[must_use]
    pub fn differences(&self, records: &[Record]) -> Vec<String> {
        let mut told = self.of_volumes(records);
        told.extend(limited(self.of_flows(records)));
        told.extend(limited(twice(records)));
        told.extend(limited(gaps(records)));
        told
    }

    fn of_volumes(&self, records: &[Record]) -> Vec<String> {
        let mut sums: BTreeMap<Place, Volume> = BTreeMap::new();
        for ((eni, direction), volume) in super::volumes(records, |_| true) {
            sums.insert((eni.to_owned(), direction), volume);
        }
        let places: BTreeSet<&Place> = self.volumes.keys().chain(sums.keys()).collect();
        let of = |volumes: &BTreeMap<Place, Volume>, place| {
            volumes.get(place).copied().unwrap_or_default()
        };
        places
            .into_iter()
            .filter(|place| of(&self.volumes, place) != of(&sums, place))
            .map(|place| {
                let (crossed, recorded) = (of(&self.volumes, place), of(&sums, place));
                format!("{place:?}: {crossed:?} crossed, {recorded:?} is in records")
            })
            .collect()
    }

    fn of_flows(&self, records: &[Record]) -> Vec<String> {
        let mut counted: HashMap<(Place, IpAddr, u16), u64> = HashMap::new();
        let mut skipping = HashSet::new();
        for record in records {
            let Some(direction) = record.direction else {
                continue;
            };
            let place = (record.eni_id.clone(), direction);
            match (record.log_status, record.srcaddr, record.srcport) {
                (LogStatus::SkipData, ..) => {
                    skipping.insert(place);
                }
                (LogStatus::Ok, Some(address), Some(port)) if record.protocol == Some(UDP) => {
                    *counted.entry((place, address, port)).or_default() +=
                        record.packets.unwrap_or_default();
                }
                _ => {}
            }
        }
        let of = |flow| counted.get(flow).copied().unwrap_or_default();
        self.flows
            .iter()
            .filter(|(flow, sent)| {
                of(flow) > **sent || (of(flow) < **sent && !skipping.contains(&flow.0))
            })
            .map(|(flow, sent)| format!("{flow:?}: {sent} packets sent, {} in records", of(flow)))
            .collect()
    }
}

/// What identifies what a record tells.
type Identity<'r> = (
    (&'r str, Option<&'r str>, &'r str, u64, u64),
    (LogStatus, Option<Direction>, Option<u8>, Option<Action>),
    (Option<IpAddr>, Option<u16>, Option<IpAddr>, Option<u16>),
);

fn identity(record: &Record) -> Identity<'_> {
    (
        (
            &record.eni_id,
            record.vm_id.as_deref(),
            &record.vswitch_id,
            record.start,
            record.end,
        ),
        (
            record.log_status,
            record.direction,
            record.protocol,
            record.action,
        ),
        (
            record.srcaddr,
            record.srcport,
            record.dstaddr,
            record.dstport,
        ),
    )
}

fn twice(records: &[Record]) -> Vec<String> {
    let mut seen = HashSet::with_capacity(records.len());
    records
        .iter()
        .filter(|record| !seen.insert(identity(record)))
        .map(|record| format!("told twice: {record:?}"))
        .collect()
}

fn gaps(records: &[Record]) -> Vec<String> {
    let windows: BTreeSet<(u64, u64)> = records
        .iter()
        .map(|record| (record.start, record.end))
        .collect();
    let windows: Vec<(u64, u64)> = windows.into_iter().collect();
    windows
        .windows(2)
        .filter(|pair| pair[0].1 != pair[1].0)
        .map(|pair| format!("windows do not follow each other: {pair:?}"))
        .collect()
}

fn limited(mut told: Vec<String>) -> Vec<String> {
    let others = told.len().saturating_sub(MAX_TOLD);
    told.truncate(MAX_TOLD);
    if others > 0 {
        told.push(format!("and {others} like these"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Volume = Volume {
        packets: 6,
        bytes: 600,
    };

    fn record(flow: u32, packets: u64, start: u64) -> Record {
        let tuple = flow_tuple(Family::V4, flow);
        let text = format!(
            r#"{{"version":1,"vswitch-id":"vsw","vm-id":null,"vpc-id":"vpc","account-id":"1","eni-id":"a","srcaddr":"{}","srcport":{},
            "dstaddr":"{}","dstport":9,"protocol":17,"direction":"out","packets":{packets},"bytes":{},"start":{start},"end":{},
            "log-status":"OK","action":"ACCEPT"}}"#,
            tuple.src,
            tuple.sport,
            tuple.dst,
            packets * 100,
            start + 1
        );
        serde_json::from_str(&text).expect("a record")
    }

    fn skipped(packets: u64, start: u64) -> Record {
        Record {
            srcaddr: None,
            srcport: None,
            protocol: None,
            log_status: LogStatus::SkipData,
            ..record(0, packets, start)
        }
    }

    fn wrong(records: &[Record]) -> Vec<String> {
        let mut crossed = Crossed::default();
        crossed.add("a", Direction::Out, SENT);
        crossed.know_flows("a", Direction::Out, Family::V4, &[4, 2]);
        assert_eq!(crossed.packets(), 6);
        crossed.differences(records)
    }

    #[test]
    fn what_adds_up_is_right() {
        assert_eq!(
            wrong(&[record(0, 1, 5), record(1, 2, 5), record(0, 3, 6)]),
            [""; 0]
        );
        assert_eq!(wrong(&[record(0, 4, 5), skipped(2, 5)]), [""; 0]);
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        for (records, part) in [
            (vec![record(0, 4, 5)], "is in records"),
            (vec![record(0, 4, 5)], "2 packets sent, 0 in records"),
            (
                vec![record(0, 3, 5), record(1, 3, 5)],
                "2 packets sent, 3 in records",
            ),
            (
                vec![record(0, 2, 5), record(0, 2, 5), record(1, 2, 5)],
                "told twice",
            ),
            (
                vec![record(0, 4, 5), record(1, 2, 7)],
                "do not follow each other",
            ),
        ] {
            let told = wrong(&records);
            assert!(
                told.iter().any(|line| line.contains(part)),
                "{part}: {told:?}"
            );
        }
    }
}
