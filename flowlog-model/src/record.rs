//! The flow log record.
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::spelled_enum;

/// The identity of an elastic network interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Eni {
    /// `eni-id`.
    pub eni_id: String,
    /// `vswitch-id`.
    pub vswitch_id: String,
    /// `vm-id`; none where the ENI is attached to no instance.
    pub vm_id: Option<String>,
    /// `vpc-id`.
    pub vpc_id: String,
    /// `account-id`.
    pub account_id: String,
    /// `region`.
    pub region: Option<String>,
}

/// Direction as seen by the ENI's owner (the VM), never by the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Towards the VM.
    In,
    /// Away from the VM.
    Out,
}

/// Whether the packets were allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Allowed by the security groups.
    Accept,
    /// Not allowed.
    Reject,
}

/// What a record says of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogStatus {
    /// `OK`: a flow that was recorded.
    Ok,
    /// `NODATA`: the ENI had no traffic in the window.
    NoData,
    /// `SKIPDATA`: this much of the ENI's traffic is in no other record of the window.
    SkipData,
}

spelled_enum! {
    /// Why packets were not allowed.
    pub enum RejectReason {
        /// The security groups do not allow them.
        SecurityGroup = "security-group",
        /// There was no room for their session, and the configuration has them rejected then.
        SessionTableFull = "session-table-full",
        /// The host's firewall dropped them.
        Netfilter = "netfilter",
    }
}

/// The 5-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowTuple {
    /// Source address.
    pub src_addr: IpAddr,
    /// Source port; 0 where the protocol has none.
    pub src_port: u16,
    /// Destination address.
    pub dst_addr: IpAddr,
    /// Destination port; 0 where the protocol has none.
    pub dst_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

/// One line of a flow log. What does not apply is `None`: `-` in text, `null` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The ENI.
    pub eni: &'a Eni,
    /// The 5-tuple; of `OK` records only.
    pub flow: Option<FlowTuple>,
    /// Direction; of `OK` and `SKIPDATA` records.
    pub direction: Option<Direction>,
    /// Packets as on the wire; of `OK` and `SKIPDATA` records.
    pub packets: Option<u64>,
    /// Octets of the IP datagrams; of `OK` and `SKIPDATA` records.
    pub bytes: Option<u64>,
    /// Start of the capture window, in Unix seconds.
    pub start: u64,
    /// End of the capture window, in Unix seconds.
    pub end: u64,
    /// Status.
    pub log_status: LogStatus,
    /// Action; of `OK` records only.
    pub action: Option<Action>,
    /// TCP flags OR-ed over the window; of `OK` records of TCP only.
    pub tcp_flags: Option<u8>,
    /// Why the packets were not allowed; of REJECT only.
    pub reject_reason: Option<RejectReason>,
    /// Id of the rule that decided the action; none where no rule did.
    pub security_group_rule_id: Option<&'a str>,
    /// Identity of the batch in which the record is delivered; none before it is in one.
    pub batch_id: Option<&'a str>,
}

impl Direction {
    /// As a record spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    /// The direction of what answers.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

impl Action {
    /// As a record spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::Reject => "REJECT",
        }
    }
}

impl LogStatus {
    /// As a record spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NoData => "NODATA",
            Self::SkipData => "SKIPDATA",
        }
    }
}
