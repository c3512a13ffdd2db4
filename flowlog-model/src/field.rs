//! The fields of a record: their names and their order.
//!
//! | field | JSON | absent in |
//! |---|---|---|
//! | `version` | number, always 1 | |
//! | `vswitch-id`, `vpc-id`, `account-id`, `eni-id` | string | |
//! | `vm-id` | string | records of an ENI that no instance has |
//! | `srcaddr`, `dstaddr` | string | NODATA, SKIPDATA |
//! | `srcport`, `dstport`, `protocol` | number | NODATA, SKIPDATA |
//! | `direction` | `in`, `out` | NODATA |
//! | `packets`, `bytes` | number | NODATA |
//! | `start`, `end` | number, Unix seconds | |
//! | `log-status` | `OK`, `NODATA`, `SKIPDATA` | |
//! | `action` | `ACCEPT`, `REJECT` | NODATA, SKIPDATA |
//! | `region` | string | records of an ENI of no region |
//! | `tcp-flags` | number | NODATA, SKIPDATA, flows that are not TCP |
//! | `type` | `IPv4`, `IPv6` | NODATA, SKIPDATA |
//! | `reject-reason` | `security-group`, `session-table-full`, `netfilter` | NODATA, SKIPDATA, ACCEPT |
//! | `security-group-rule-id` | string | NODATA, SKIPDATA, flows that no rule decided |
//! | `batch-id` | string | records that are in no batch |
use crate::spelled_enum;

spelled_enum! {
    /// A field of a record.
    pub enum Field {
        /// Version of the record, always [`RECORD_VERSION`].
        Version = "version",
        /// VSwitch of the ENI.
        VSwitchId = "vswitch-id",
        /// Instance that the ENI is attached to.
        VmId = "vm-id",
        /// VPC of the ENI.
        VpcId = "vpc-id",
        /// Account.
        AccountId = "account-id",
        /// The ENI.
        EniId = "eni-id",
        /// Source address.
        SrcAddr = "srcaddr",
        /// Source port.
        SrcPort = "srcport",
        /// Destination address.
        DstAddr = "dstaddr",
        /// Destination port.
        DstPort = "dstport",
        /// IANA protocol number.
        Protocol = "protocol",
        /// Direction as the VM sees it.
        Direction = "direction",
        /// Packets as on the wire.
        Packets = "packets",
        /// Octets of the IP datagrams.
        Bytes = "bytes",
        /// Start of the capture window, in Unix seconds.
        Start = "start",
        /// End of the capture window, in Unix seconds.
        End = "end",
        /// What the record says of its window.
        LogStatus = "log-status",
        /// Whether the packets were allowed.
        Action = "action",
        /// Region of the ENI. Extended.
        Region = "region",
        /// TCP flags OR-ed over the window. Extended.
        TcpFlags = "tcp-flags",
        /// `IPv4` or `IPv6`. Extended.
        Type = "type",
        /// Why the packets were not allowed. Extended.
        RejectReason = "reject-reason",
        /// The rule of a security group that decided. Extended.
        SecurityGroupRuleId = "security-group-rule-id",
        /// Identity of the batch in which the record is delivered. Extended.
        BatchId = "batch-id",
    }
}

impl Field {
    /// Whether its values are numbers; otherwise they are text.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(
            self,
            Self::Version
                | Self::SrcPort
                | Self::DstPort
                | Self::Protocol
                | Self::Packets
                | Self::Bytes
                | Self::Start
                | Self::End
                | Self::TcpFlags
        )
    }
}

/// What `version` says: the record of 2019.
pub const RECORD_VERSION: u8 = 1;

/// The fields of a version 1 record, in its order.
pub const DEFAULT_FIELDS: [Field; 18] = [
    Field::Version,
    Field::VSwitchId,
    Field::VmId,
    Field::VpcId,
    Field::AccountId,
    Field::EniId,
    Field::SrcAddr,
    Field::SrcPort,
    Field::DstAddr,
    Field::DstPort,
    Field::Protocol,
    Field::Direction,
    Field::Packets,
    Field::Bytes,
    Field::Start,
    Field::End,
    Field::LogStatus,
    Field::Action,
];

/// The fields that a flow log can have on request.
pub const EXTENDED_FIELDS: [Field; 6] = [
    Field::Region,
    Field::TcpFlags,
    Field::Type,
    Field::RejectReason,
    Field::SecurityGroupRuleId,
    Field::BatchId,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_order_is_that_of_the_version_1_record() {
        let names: Vec<&str> = DEFAULT_FIELDS.iter().map(|field| field.as_str()).collect();
        assert_eq!(
            names.join(" "),
            "version vswitch-id vm-id vpc-id account-id eni-id srcaddr srcport dstaddr dstport protocol direction packets bytes \
             start end log-status action"
        );
    }

    #[test]
    fn every_field_is_either_default_or_extended() {
        let both: Vec<Field> = DEFAULT_FIELDS.into_iter().chain(EXTENDED_FIELDS).collect();
        assert_eq!(both, Field::ALL);
    }

    #[test]
    fn names_parse_back_and_nothing_else_does() {
        for field in Field::ALL {
            assert_eq!(field.as_str().parse::<Field>().as_ref(), Ok(field));
        }
        for bad in ["", "srcAddr", "src-addr", " action", "ACTION"] {
            let error = bad.parse::<Field>().unwrap_err().to_string();
            for field in Field::ALL {
                assert!(error.contains(field.as_str()), "{error}");
            }
        }
    }
}
