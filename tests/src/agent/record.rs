//! The records that an agent writes as JSON, and sums over them.
use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use crate::lab::DeviceStats;

/// Octets of an Ethernet header without tags: a device counts them, a flow log does not.
const ETHERNET: u64 = 14;

/// One record with all its fields, also the extended ones. A field more or less in the JSON is an error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// Always 1.
    pub version: u8,
    /// VSwitch of the ENI.
    pub vswitch_id: String,
    /// Instance of the ENI.
    pub vm_id: Option<String>,
    /// VPC of the ENI.
    pub vpc_id: String,
    /// Account.
    pub account_id: String,
    /// The ENI.
    pub eni_id: String,
    /// Source address.
    pub srcaddr: Option<IpAddr>,
    /// Source port.
    pub srcport: Option<u16>,
    /// Destination address.
    pub dstaddr: Option<IpAddr>,
    /// Destination port.
    pub dstport: Option<u16>,
    /// IANA number.
    pub protocol: Option<u8>,
    /// As seen by the ENI's owner.
    pub direction: Option<Direction>,
    /// Packets as on the wire.
    pub packets: Option<u64>,
    /// Octets of the IP datagrams.
    pub bytes: Option<u64>,
    /// Start of the window, in Unix seconds.
    pub start: u64,
    /// End of the window, in Unix seconds; not part of it.
    pub end: u64,
    /// What the record says of its window.
    pub log_status: LogStatus,
    /// Whether the packets were allowed.
    pub action: Option<Action>,
    /// Region of the ENI.
    pub region: Option<String>,
    /// TCP flags, OR-ed.
    pub tcp_flags: Option<u8>,
    /// Version of IP.
    pub r#type: Option<IpType>,
    /// Why the packets were not allowed.
    pub reject_reason: Option<RejectReason>,
    /// The rule that decided.
    pub security_group_rule_id: Option<String>,
}

/// `direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards the VM.
    In,
    /// Away from the VM.
    Out,
}

/// `log-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogStatus {
    /// A flow.
    Ok,
    /// The ENI had no traffic.
    NoData,
    /// Traffic that is in no flow.
    SkipData,
}

/// `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Allowed by the security groups.
    Accept,
    /// Not allowed.
    Reject,
}

/// `reject-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectReason {
    /// The security groups do not allow them.
    SecurityGroup,
    /// There was no room for their session.
    SessionTableFull,
    /// The host's firewall dropped them.
    Netfilter,
}

/// `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum IpType {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// Packets and the octets of their IP datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

impl Volume {
    /// What an Ethernet device received, if all of it was untagged IP in packets that the wire would carry as they are (no
    /// segmentation offload).
    #[must_use]
    pub fn received(stats: &DeviceStats) -> Self {
        Self {
            packets: stats.rx_packets,
            bytes: stats.rx_bytes - stats.rx_packets * ETHERNET,
        }
    }

    /// What an Ethernet device sent, on the same conditions.
    #[must_use]
    pub fn sent(stats: &DeviceStats) -> Self {
        Self {
            packets: stats.tx_packets,
            bytes: stats.tx_bytes - stats.tx_packets * ETHERNET,
        }
    }
}

impl std::ops::AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Volumes by ENI and direction; what had no packet is left out.
pub type VolumeByEni<'r> = BTreeMap<(&'r str, Direction), Volume>;

/// Sums up the records that `which` wants. Records without counts (NODATA) add nothing.
pub fn volumes<'r>(
    records: impl IntoIterator<Item = &'r Record>,
    which: impl Fn(&Record) -> bool,
) -> VolumeByEni<'r> {
    let mut sums = VolumeByEni::new();
    for record in records.into_iter().filter(|record| which(record)) {
        if let (Some(direction), Some(packets), Some(bytes)) =
            (record.direction, record.packets, record.bytes)
        {
            *sums.entry((record.eni_id.as_str(), direction)).or_default() +=
                Volume { packets, bytes };
        }
    }
    sums
}

/// The volume of one ENI and direction, in records of any status.
#[must_use]
pub fn volume(records: &[Record], eni: &str, direction: Direction) -> Volume {
    let of_eni = |record: &Record| record.eni_id == eni && record.direction == Some(direction);
    volumes(records, of_eni)
        .into_values()
        .next()
        .unwrap_or_default()
}

/// Asserts conservation: for every ENI and direction, OK and SKIPDATA records together have exactly the expected packets and octets.
/// An ENI and direction that is not named must have none. The records are those of one flow log, or of several that share no ENI.
///
/// # Panics
///
/// If it is not so, with both sides.
#[track_caller]
pub fn conserved(records: &[Record], expected: &[(&str, Direction, Volume)]) {
    let expected: VolumeByEni<'_> = expected
        .iter()
        .filter(|(_, _, volume)| *volume != Volume::default())
        .map(|&(eni, direction, volume)| ((eni, direction), volume))
        .collect();
    assert_eq!(
        volumes(records, |_| true),
        expected,
        "the records (left) do not add up to what crossed the interfaces (right)"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKIPPED: &str = r#"{"version":1,"vswitch-id":"vsw","vm-id":null,"vpc-id":"vpc","account-id":"1","eni-id":"a",
        "srcaddr":null,"srcport":null,"dstaddr":null,"dstport":null,"protocol":null,"direction":"out","packets":3,"bytes":84,
        "start":10,"end":11,"log-status":"SKIPDATA","action":null,"region":null,"tcp-flags":null,"type":null,
        "reject-reason":null,"security-group-rule-id":null}"#;

    #[test]
    fn a_record_is_read_and_an_unknown_field_refused() {
        let record: Record = serde_json::from_str(SKIPPED).expect("a record");
        assert_eq!(record.log_status, LogStatus::SkipData);
        assert_eq!(
            volume(&[record], "a", Direction::Out),
            Volume {
                packets: 3,
                bytes: 84
            }
        );
        let more = SKIPPED.replace("\"version\"", "\"more\":1,\"version\"");
        assert!(serde_json::from_str::<Record>(&more).is_err());
    }
}
