//! What a running agent tells of itself. The keys are in kebab case; times are Unix seconds.
use serde::{Deserialize, Serialize};

use crate::ledger::Cause;

/// All of it. Numbers are since the start of the agent, unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct StatusDocument {
    /// The process.
    pub agent: AgentStatus,
    /// Capture windows.
    pub windows: WindowsStatus,
    /// How far each flow log has come, in the order of the configuration; those of the service come after those.
    pub sinks: Vec<SinkStatus>,
    /// The service that manages flow logs; none if there is none.
    pub service: Option<ServiceStatus>,
    /// What waits on disk.
    pub spool: SpoolStatus,
    /// What is in no record, by cause; causes without a loss may be left out.
    pub losses: Vec<Loss>,
    /// The devices that are ENIs.
    pub interfaces: Vec<InterfaceStatus>,
    /// What judges packets.
    pub security: SecurityStatus,
    /// Whether what was counted adds up, for each ENI and direction.
    pub conservation: Vec<Conservation>,
    /// The last thing that went wrong.
    pub last_error: Option<ErrorStatus>,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AgentStatus {
    /// Version of the program.
    pub version: String,
    /// Its process id, in the agent's PID namespace.
    pub pid: u32,
    /// When it was started, in Unix seconds.
    pub since: u64,
    /// Version of the maps that it shares with its programs in the kernel.
    pub abi_version: u32,
}

/// Capture windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WindowsStatus {
    /// Windows that were closed and are safe on disk.
    pub committed: u64,
    /// The open windows: one for each length, or several where flow logs came or changed in it.
    pub open: Vec<WindowStatus>,
    /// The window that was closed last.
    pub last_closed: Option<WindowStatus>,
}

/// A capture window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WindowStatus {
    /// Length that it should have, in seconds.
    pub length_seconds: u64,
    /// Its label's first second, in Unix seconds.
    pub start: u64,
    /// The second after its label's last, in Unix seconds; of an open window, as it is foreseen.
    pub end: u64,
}

/// How far a flow log has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SinkStatus {
    /// The flow log's name.
    pub flow_log: String,
    /// Where its records go, for people.
    pub destination: String,
    /// Windows whose records it has.
    pub delivered_windows: u64,
    /// Windows that wait for it.
    pub pending_windows: u64,
    /// Start of the oldest window that waits for it, in Unix seconds.
    pub oldest_pending: Option<u64>,
    /// What went wrong last, also if it went well since.
    pub last_error: Option<ErrorStatus>,
    /// In how many seconds it tries again, 0 for now; none unless the last attempt failed.
    pub next_attempt_in_seconds: Option<u64>,
}

/// How the agent stands with the service that manages flow logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceStatus {
    /// Where it is.
    pub url: String,
    /// Whether it has answered the last question and the last report.
    pub connected: bool,
    /// Since when it is so, in Unix seconds; none before the first answer or failure.
    pub since: Option<u64>,
    /// Why it is not connected.
    pub error: Option<String>,
    /// Requests that have failed since the agent was started.
    pub failed_requests: u64,
    /// Version of the desired state that the agent works by; 0 for none.
    pub version: u64,
    /// Since when the agent works by it, in Unix seconds; none if it had it when it was started.
    pub version_since: Option<u64>,
    /// Flow logs of that state.
    pub flow_logs: u64,
    /// What of it the agent cannot do, and why.
    pub refused: Vec<Refused>,
    /// The ENIs that the service does not take from this agent, and why.
    pub refused_enis: Vec<Refused>,
}

/// Something that one side does not take from the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Refused {
    /// Id of the flow log or the ENI.
    pub id: String,
    /// Why, as one sentence without a final stop.
    pub reason: String,
}

/// What waits on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SpoolStatus {
    /// Its folder.
    pub path: String,
    /// Size of its files, in bytes.
    pub bytes: u64,
    /// Size that they may have, in bytes.
    pub max_bytes: u64,
    /// Number of its files.
    pub files: u64,
    /// Closed windows that not every flow log has.
    pub pending_windows: u64,
    /// Drains that are kept for open and waiting windows.
    pub drains: u64,
}

/// Packets that are in no record other than SKIPDATA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Loss {
    /// Why.
    pub cause: Cause,
    /// Packets, as on the wire.
    pub packets: u64,
    /// Octets of their IP datagrams.
    pub bytes: u64,
    /// Windows that were given up whole; 0 where single packets were lost.
    pub windows: u64,
}

/// A device that is an ENI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InterfaceStatus {
    /// The ENI; none where the inventory says that it is several.
    pub eni_id: Option<String>,
    /// The device's name.
    pub device: String,
    /// Its named network namespace; none for the host's.
    pub namespace: Option<String>,
    /// Whether it is captured.
    pub captured: bool,
    /// What counts it, while it is captured.
    pub hooks: Option<Hooks>,
    /// Why it is not captured.
    pub reason: Option<String>,
    /// Attempts to capture it that failed.
    pub errors: u32,
}

/// Where the programs of a device are attached: `tcx`, `clsact`, `xdp native` or `xdp generic`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hooks {
    /// Of what the device receives.
    pub ingress: String,
    /// Of what the device sends.
    pub egress: String,
}

/// What judges packets: security groups, and the host's firewall.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SecurityStatus {
    /// The captured ENIs.
    pub enis: Vec<JudgedStatus>,
    /// Sessions of all ENIs.
    pub sessions: u64,
    /// Sessions that there can be.
    pub max_sessions: u64,
    /// Packets for whose session there was no room.
    pub packets_without_session: u64,
    /// Why the policies that are in force may not be those of the inventory, of whatever ENI.
    pub error: Option<String>,
    /// The host firewall's verdicts: `recorded`, `not wanted`, or why they cannot be had.
    pub netfilter: String,
    /// Packets that netfilter dropped and whose flow could not be told.
    pub unmatched_drops: u64,
    /// Drops of the host, for whatever reason, that could not be looked at, since the program for it was attached.
    pub missed_drops: u64,
}

/// What judges an ENI's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JudgedStatus {
    /// The ENI.
    pub eni_id: String,
    /// `off`, `observe` or `enforce`.
    pub mode: String,
    /// Groups that it is in.
    pub groups: u64,
    /// Rules of all its groups together, as they are in force; none if nothing is judged, or if the policy that a previous agent has brought
    /// into force holds on.
    pub rules: Option<u64>,
    /// Another number for each policy that came into force; none if nothing is judged.
    pub epoch: Option<u32>,
    /// Whether the host firewall's verdicts are wanted.
    pub netfilter: bool,
    /// Why the policy that holds is not that of the inventory, if that is so.
    #[serde(default)]
    pub error: Option<String>,
}

/// Whether what was counted of an ENI in one direction adds up to what its device counts by itself, since it is captured: in packets.
///
/// A device is an independent witness, but it stands at another place than the programs, so that a difference is not always a mistake:
///
/// | what happens | device | programs | difference |
/// |---|---|---|---|
/// | a super-packet crosses a device that counts it as one | 1 | its segments | 0, by `merged-segments` |
/// | one crosses a device that counts its segments | its segments | its segments | 0; `merged-segments` has none of it |
/// | the driver or the peer has no room for a packet that is sent | `tx_dropped`, which counts | counted, for they come first | 0 |
/// | the device's queueing discipline drops a packet | nothing | counted, likewise | −1 |
/// | a packet socket with PACKET_QDISC_BYPASS, AF_XDP or XDP_REDIRECT sends a frame | counted | not seen: it passes no TC egress | +1 |
/// | the security groups, or netfilter, reject what is sent | nothing | recorded as REJECT, and `unseen` | 0 |
/// | another's XDP program drops, redirects or sends back a frame | counted | not seen by TC, which comes after | +1 |
/// | a packet crosses while the programs are attached or taken off | counted | perhaps not | +1 |
///
/// Where none of these happens, and on a veth pair with sockets none does, the difference is 0 and anything else is a mistake of the
/// agent's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Conservation {
    /// The ENI.
    pub eni_id: String,
    /// `in` or `out`, as the VM sees it.
    pub direction: String,
    /// What the device counted.
    pub interface_counted: u64,
    /// What is in OK records, or will be.
    pub recorded: u64,
    /// What is in SKIPDATA records, or will be.
    pub skipped: u64,
    /// What is not IP, and so in no record.
    pub not_ip: u64,
    /// Segments of super-packets that the device has counted together with others: as many of them as explain its number, if they can.
    pub merged_segments: u64,
    /// What is recorded and never came to the device: sent packets that the security groups dropped, or netfilter.
    #[serde(default)]
    pub unseen: u64,
    /// What is missing in the records; negative if they have more than the device.
    pub difference: i64,
}

impl Conservation {
    /// With the difference that follows from the other numbers: `interface-counted` + `merged-segments` + `unseen` − `recorded` −
    /// `skipped` − `not-ip`.
    #[must_use]
    pub fn balanced(self) -> Self {
        let crossed = i128::from(self.interface_counted)
            + i128::from(self.merged_segments)
            + i128::from(self.unseen);
        let accounted =
            i128::from(self.recorded) + i128::from(self.skipped) + i128::from(self.not_ip);
        let difference = crossed - accounted;
        Self {
            difference: i64::try_from(difference).unwrap_or(if difference < 0 {
                i64::MIN
            } else {
                i64::MAX
            }),
            ..self
        }
    }
}

/// Something that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ErrorStatus {
    /// When, in Unix seconds.
    pub at: u64,
    /// What, as one sentence without a final stop.
    pub message: String,
}

impl StatusDocument {
    /// What is not as it should be now, a sentence for each: a flow log whose destination does not take its records, an ENI that is not
    /// captured, security groups that are not in force, packets that do not add up, and a service that does not answer or does not agree.
    /// Losses are none of it, for they are over.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let service = self.service.iter().flat_map(ServiceStatus::troubles);
        let sinks = self.sinks.iter().filter_map(SinkStatus::trouble);
        let interfaces = self.interfaces.iter().filter_map(InterfaceStatus::trouble);
        let security = self.security.error.iter();
        let security = security
            .map(|error| format!("The inventory's security groups are not all in force: {error}."));
        let judged = self.security.enis.iter().filter_map(JudgedStatus::trouble);
        let conservation = self.conservation.iter().filter_map(Conservation::trouble);
        sinks
            .chain(service)
            .chain(interfaces)
            .chain(security)
            .chain(judged)
            .chain(conservation)
            .collect()
    }
}

impl JudgedStatus {
    fn trouble(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        let holds = if self.epoch.is_some() {
            "the policy that it had before holds on"
        } else {
            "nothing is judged"
        };
        Some(format!(
            "The security groups of {} are not in force, and {holds}: {error}.",
            self.eni_id
        ))
    }
}

impl SinkStatus {
    fn trouble(&self) -> Option<String> {
        let seconds = self.next_attempt_in_seconds?;
        let error = self
            .last_error
            .as_ref()
            .map_or("for a reason that is not known", |error| &error.message);
        Some(format!(
            "Flow log {} does not reach {}, {error}; the next attempt is in {seconds} s.",
            self.flow_log, self.destination
        ))
    }
}

impl ServiceStatus {
    fn troubles(&self) -> Vec<String> {
        let connection = self.error.as_ref().map(|error| {
            format!(
                "The service is not there for the agent, {error}; it works by what the service said last."
            )
        });
        let refused = self.refused.iter().map(|Refused { id, reason }| {
            format!("Flow log {id} of the service cannot be followed: {reason}.")
        });
        let refused_enis = self
            .refused_enis
            .iter()
            .map(|Refused { id, reason }| format!("The service does not take {id}: {reason}."));
        connection
            .into_iter()
            .chain(refused)
            .chain(refused_enis)
            .collect()
    }
}

impl InterfaceStatus {
    fn trouble(&self) -> Option<String> {
        let eni = self.eni_id.as_deref().unwrap_or("an ENI");
        let reason = self
            .reason
            .as_deref()
            .unwrap_or("for a reason that is not known");
        (!self.captured).then(|| format!("{}, {eni}, is not captured: {reason}.", self.device))
    }
}

impl Conservation {
    fn trouble(&self) -> Option<String> {
        let packets = self.difference.unsigned_abs();
        (packets != 0).then(|| {
            format!(
                "{} {}: its device counted {packets} {} {} than the records have.",
                self.eni_id,
                self.direction,
                if packets == 1 { "packet" } else { "packets" },
                if self.difference > 0 { "more" } else { "fewer" },
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_what_the_records_lack() {
        let balance = |interface_counted, merged_segments, recorded, skipped, not_ip| {
            let conservation = Conservation {
                interface_counted,
                merged_segments,
                recorded,
                skipped,
                not_ip,
                ..Conservation::default()
            };
            conservation.balanced().difference
        };
        assert_eq!(balance(100, 44, 120, 20, 4), 0);
        assert_eq!(balance(100, 0, 90, 5, 2), 3);
        assert_eq!(balance(100, 0, 101, 0, 0), -1);
        let unseen = Conservation {
            interface_counted: 7,
            recorded: 10,
            unseen: 2,
            ..Conservation::default()
        };
        assert_eq!(unseen.balanced().difference, -1);
        assert_eq!(balance(u64::MAX, u64::MAX, 0, 0, 0), i64::MAX);
        assert_eq!(balance(0, 0, u64::MAX, u64::MAX, 0), i64::MIN);
    }

    #[test]
    fn a_document_without_a_part_is_read_and_one_with_more_too() {
        let document: StatusDocument =
            serde_json::from_str(r#"{"losses": [], "weather": "fine"}"#).unwrap();
        assert_eq!(document, StatusDocument::default());
    }

    #[test]
    fn troubles_are_what_is_wrong_now() {
        let fine = StatusDocument {
            sinks: vec![SinkStatus {
                last_error: Some(ErrorStatus::default()),
                ..SinkStatus::default()
            }],
            losses: vec![Loss {
                cause: Cause::MapFull,
                packets: 1,
                bytes: 100,
                windows: 1,
            }],
            interfaces: vec![InterfaceStatus {
                captured: true,
                errors: 3,
                ..InterfaceStatus::default()
            }],
            conservation: vec![Conservation::default()],
            service: Some(ServiceStatus {
                connected: true,
                failed_requests: 3,
                ..ServiceStatus::default()
            }),
            ..StatusDocument::default()
        };
        assert_eq!(fine.troubles(), [""; 0]);
        let mut troubled = fine;
        troubled.sinks[0].next_attempt_in_seconds = Some(0);
        troubled.service = Some(ServiceStatus {
            error: Some("it cannot be reached".to_owned()),
            refused: vec![Refused::default()],
            refused_enis: vec![Refused::default()],
            ..ServiceStatus::default()
        });
        troubled.interfaces[0].captured = false;
        troubled.conservation[0].difference = 1;
        troubled.security.error = Some("no memory".to_owned());
        troubled.security.enis = vec![
            JudgedStatus::default(),
            JudgedStatus {
                eni_id: "eni-1".to_owned(),
                epoch: Some(1),
                error: Some("no memory".to_owned()),
                ..JudgedStatus::default()
            },
        ];
        let troubles = troubled.troubles();
        assert_eq!(troubles.len(), 8);
        let judged = "The security groups of eni-1 are not in force, and the policy that it had before holds on: no memory.";
        assert!(
            troubles.iter().any(|trouble| trouble == judged),
            "{troubles:#?}"
        );
    }
}
