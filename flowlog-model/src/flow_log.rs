//! The flow log: the managed resource that captures one ENI, VSwitch or VPC.
//!
//! | attribute | rule |
//! |---|---|
//! | name | 2 to 128 letters, digits, `-` and `_`; starts with an English letter or a Chinese character |
//! | resource type | `NetworkInterface`, `VSwitch`, `VPC` |
//! | resource id | an [`Id`] |
//! | traffic type | `All`, `Allow` (only ACCEPT), `Drop` (only REJECT) |
//! | capture window | 1, 5 or 10 minutes |
//! | status | `Active`, `Inactive` |
//! | description | 2 to 256 characters, not starting with `http://` or `https://`; optional |
use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::managed::IpVersion;
use crate::record::{Action, Eni, FlowTuple};
use crate::text::{Id, Text};
use crate::{spelled_enum, text_type};

/// A flow log. Every value of it keeps the rules by its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FlowLog {
    /// Name.
    pub name: FlowLogName,
    /// What kind of resource is captured.
    pub resource_type: ResourceType,
    /// Which resource is captured.
    pub resource_id: Id,
    /// Which traffic is recorded.
    pub traffic_type: TrafficType,
    /// Over which period flows are aggregated.
    pub window: CaptureWindow,
    /// Whether it captures now.
    pub status: Status,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// The account whose ENIs are meant; none for those of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// The region whose ENIs are meant, with those that are in no region of their own; none for those of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Which IP versions are recorded.
    #[serde(default = "both_versions", skip_serializing_if = "is_both_versions")]
    pub ip_version: IpVersion,
}

const fn both_versions() -> IpVersion {
    IpVersion::DualStack
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_both_versions(version: &IpVersion) -> bool {
    *version == IpVersion::DualStack
}

impl FlowLog {
    /// Whether the ENI belongs to the resource, and is of the account and the region that are meant. It does not matter when the ENI came
    /// into being.
    #[must_use]
    pub fn contains(&self, eni: &Eni) -> bool {
        let is_meant = |meant: &Option<String>, own: Option<&String>| {
            meant.is_none() || own.is_none() || meant.as_ref() == own
        };
        if !is_meant(&self.account_id, Some(&eni.account_id))
            || !is_meant(&self.region, eni.region.as_ref())
        {
            return false;
        }
        let id = match self.resource_type {
            ResourceType::NetworkInterface => &eni.eni_id,
            ResourceType::VSwitch => &eni.vswitch_id,
            ResourceType::Vpc => &eni.vpc_id,
        };
        id == self.resource_id.as_str()
    }

    /// Whether a flow is recorded, which had this action.
    #[must_use]
    pub fn admits(&self, flow: &FlowTuple, action: Action) -> bool {
        let version = match self.ip_version {
            IpVersion::DualStack => true,
            IpVersion::V4 => flow.src_addr.is_ipv4(),
            IpVersion::V6 => flow.src_addr.is_ipv6(),
        };
        version && self.traffic_type.admits(action)
    }
}

spelled_enum! {
    /// What kind of resource a flow log captures.
    pub enum ResourceType {
        /// One ENI.
        NetworkInterface = "NetworkInterface",
        /// Every ENI of a VSwitch.
        VSwitch = "VSwitch",
        /// Every ENI of a VPC.
        Vpc = "VPC",
    }
}

spelled_enum! {
    /// Which traffic a flow log records.
    pub enum TrafficType {
        /// All of it.
        All = "All",
        /// Only what was allowed: ACCEPT.
        Allow = "Allow",
        /// Only what was not allowed: REJECT.
        Drop = "Drop",
    }
}

impl TrafficType {
    /// Whether a flow with this action is recorded. Records without an action (NODATA, SKIPDATA) are not asked about here: they
    /// belong to every flow log, since what was skipped may have had any action.
    #[must_use]
    pub const fn admits(self, action: Action) -> bool {
        match self {
            Self::All => true,
            Self::Allow => matches!(action, Action::Accept),
            Self::Drop => matches!(action, Action::Reject),
        }
    }
}

spelled_enum! {
    /// Whether a flow log captures.
    pub enum Status {
        /// It does.
        Active = "Active",
        /// It is kept, and can be enabled again.
        Inactive = "Inactive",
    }
}

/// The period over which flows are aggregated, in seconds. A flow log's is 1, 5 or 10 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaptureWindow(NonZeroU64);

const fn minutes(minutes: u64) -> CaptureWindow {
    CaptureWindow(match NonZeroU64::new(minutes * 60) {
        Some(seconds) => seconds,
        None => NonZeroU64::MIN,
    })
}

impl CaptureWindow {
    /// The windows that a flow log can have, with their spelling.
    const SPELLINGS: [(&str, Self); 3] =
        [("1m", minutes(1)), ("5m", minutes(5)), ("10m", minutes(10))];

    /// 10 minutes.
    pub const DEFAULT: Self = minutes(10);

    /// A window of any length: for the lab and for tests, where nobody waits for a minute. No configuration can ask for it.
    #[must_use]
    pub const fn from_seconds(seconds: NonZeroU64) -> Self {
        Self(seconds)
    }

    /// The length in seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0.get()
    }

    /// Start of the window in which a moment lies; both in Unix seconds. Windows are aligned to multiples of their length.
    #[must_use]
    pub const fn start_of(self, unix_seconds: u64) -> u64 {
        unix_seconds - unix_seconds % self.0.get()
    }
}

impl Default for CaptureWindow {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Text for CaptureWindow {
    fn allowed() -> String {
        crate::text::allowed_spellings(Self::SPELLINGS.map(|(spelling, _)| spelling))
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::SPELLINGS
            .into_iter()
            .find_map(|(spelling, window)| (spelling == text).then_some(window))
    }
}

impl fmt::Display for CaptureWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        if seconds.is_multiple_of(60) {
            write!(f, "{}m", seconds / 60)
        } else {
            write!(f, "{seconds}s")
        }
    }
}

/// The name of a flow log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowLogName(String);

impl FlowLogName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for FlowLogName {
    fn allowed() -> String {
        "allowed are 2 to 128 letters, digits, `-` and `_`, starting with an English letter or a Chinese character".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let starts_well =
            text.starts_with(|first: char| first.is_ascii_alphabetic() || is_chinese(first));
        // `http://` needs no rule of its own: neither `:` nor `/` is allowed anywhere.
        let legal = |c: char| c.is_alphabetic() || c.is_ascii_digit() || c == '-' || c == '_';
        let valid =
            starts_well && (2..=128).contains(&text.chars().count()) && text.chars().all(legal);
        valid.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for FlowLogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a character is Chinese: one of Unicode's CJK ideographs, with extensions and compatibility forms.
const fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3007}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{2FA1F}' | '\u{30000}'..='\u{323AF}')
}

/// The description of a flow log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Description(String);

impl Description {
    /// The description as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for Description {
    fn allowed() -> String {
        "allowed are 2 to 256 characters, not starting with `http://` or `https://`".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let is_link = text.starts_with("http://") || text.starts_with("https://");
        (!is_link && (2..=256).contains(&text.chars().count())).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(CaptureWindow, FlowLogName, Description);

#[cfg(test)]
mod tests {
    use super::*;

    fn flow_log(resource_type: ResourceType, resource_id: &str) -> FlowLog {
        FlowLog {
            name: "all-traffic".parse().unwrap(),
            resource_type,
            resource_id: resource_id.parse().unwrap(),
            traffic_type: TrafficType::All,
            window: CaptureWindow::DEFAULT,
            status: Status::Active,
            description: None,
            account_id: None,
            region: None,
            ip_version: IpVersion::DualStack,
        }
    }

    #[test]
    fn contains_by_the_id_of_its_resource_type_alone() {
        let eni = Eni {
            eni_id: "eni-1".into(),
            vswitch_id: "vsw-1".into(),
            vm_id: Some("i-1".into()),
            vpc_id: "vpc-1".into(),
            account_id: "account-1".into(),
            region: None,
        };
        let ids = ["eni-1", "vsw-1", "vpc-1", "i-1", "account-1", "eni-2"];
        let kinds = [
            (ResourceType::NetworkInterface, "eni-1"),
            (ResourceType::VSwitch, "vsw-1"),
            (ResourceType::Vpc, "vpc-1"),
        ];
        for (resource_type, own) in kinds {
            for id in ids {
                assert_eq!(
                    flow_log(resource_type, id).contains(&eni),
                    id == own,
                    "{resource_type} {id}"
                );
            }
        }
    }

    #[test]
    fn contains_only_those_of_its_account_and_region() {
        let eni = |account: &str, region: Option<&str>| Eni {
            eni_id: "eni-1".into(),
            vswitch_id: "vsw-1".into(),
            vm_id: None,
            vpc_id: "vpc-1".into(),
            account_id: account.into(),
            region: region.map(str::to_owned),
        };
        let any = flow_log(ResourceType::Vpc, "vpc-1");
        let own = FlowLog {
            account_id: Some("1".into()),
            region: Some("eu".into()),
            ..any.clone()
        };
        for (account, region, expected) in [
            ("1", Some("eu"), true),
            ("1", None, true),
            ("2", Some("eu"), false),
            ("1", Some("us"), false),
        ] {
            let eni = eni(account, region);
            assert!(any.contains(&eni));
            assert_eq!(own.contains(&eni), expected, "{account} {region:?}");
        }
    }

    #[test]
    fn flows_are_admitted_by_version_and_action() {
        let flow = |address: &str| FlowTuple {
            src_addr: address.parse().unwrap(),
            src_port: 1,
            dst_addr: address.parse().unwrap(),
            dst_port: 2,
            protocol: 17,
        };
        let admitted = |ip_version| {
            let flow_log = FlowLog {
                ip_version,
                traffic_type: TrafficType::Drop,
                ..flow_log(ResourceType::Vpc, "vpc-1")
            };
            ["192.0.2.1", "2001:db8::1"].map(|address| {
                let flow = flow(address);
                assert!(!flow_log.admits(&flow, Action::Accept));
                flow_log.admits(&flow, Action::Reject)
            })
        };
        assert_eq!(admitted(IpVersion::DualStack), [true, true]);
        assert_eq!(admitted(IpVersion::V4), [true, false]);
        assert_eq!(admitted(IpVersion::V6), [false, true]);
    }

    #[test]
    fn traffic_types_admit() {
        let admitted = |traffic_type: TrafficType| {
            [Action::Accept, Action::Reject].map(|action| traffic_type.admits(action))
        };
        assert_eq!(admitted(TrafficType::All), [true, true]);
        assert_eq!(admitted(TrafficType::Allow), [true, false]);
        assert_eq!(admitted(TrafficType::Drop), [false, true]);
    }

    #[test]
    fn names() {
        let longest = "a".repeat(128);
        for good in [
            "ab",
            "A1-_",
            "流量日志",
            "流a",
            "z-ü",
            &longest,
            &"流".repeat(128),
        ] {
            assert!(good.parse::<FlowLogName>().is_ok(), "{good}");
        }
        let too_long = "流".repeat(129);
        for bad in [
            "",
            "a",
            "1a",
            "-a",
            "_a",
            "üa",
            "a b",
            "a.b",
            "http://a",
            "https://a",
            "a\n",
            &too_long,
        ] {
            let error = bad.parse::<FlowLogName>().unwrap_err().to_string();
            assert!(
                error.contains("2 to 128") && error.contains("Chinese"),
                "{error}"
            );
        }
    }

    #[test]
    fn descriptions() {
        for good in [
            "ab",
            "流量",
            "see http://x",
            "1 – everything, for a month",
            &"流".repeat(256),
        ] {
            assert!(good.parse::<Description>().is_ok(), "{good}");
        }
        for bad in ["", "a", "流", "http://x", "https://x", &"流".repeat(257)] {
            assert!(bad.parse::<Description>().is_err(), "{bad}");
        }
    }

    #[test]
    fn windows() {
        for (text, seconds) in [("1m", 60), ("5m", 300), ("10m", 600)] {
            let window: CaptureWindow = text.parse().unwrap();
            assert_eq!(window.seconds(), seconds);
            assert_eq!(window.to_string(), text);
        }
        for bad in ["", "7m", "60s", "5 m", "10M", "010m"] {
            let error = bad.parse::<CaptureWindow>().unwrap_err().to_string();
            assert!(error.ends_with("allowed are 1m, 5m and 10m"), "{error}");
        }
        assert_eq!(
            CaptureWindow::from_seconds(NonZeroU64::new(5).unwrap()).to_string(),
            "5s"
        );
        let starts =
            [0, 599, 600, 1199, 1200].map(|moment| CaptureWindow::DEFAULT.start_of(moment));
        assert_eq!(starts, [0, 0, 600, 600, 1200]);
    }

    #[test]
    fn spelling_in_json() {
        let json = r#"{"name":"all-traffic","resource-type":"VPC","resource-id":"vpc-1","traffic-type":"Drop","window":"5m",
            "status":"Inactive","description":"all of it"}"#;
        let flow_log: FlowLog = serde_json::from_str(json).unwrap();
        assert_eq!(
            (flow_log.resource_type, flow_log.traffic_type),
            (ResourceType::Vpc, TrafficType::Drop)
        );
        assert_eq!(
            (flow_log.window.seconds(), flow_log.status),
            (300, Status::Inactive)
        );
        assert_eq!(
            serde_json::to_string(&flow_log).unwrap(),
            json.replace("\n            ", "")
        );
        for (good, bad) in [
            ("VPC", "Vpc"),
            ("Drop", "Reject"),
            ("5m", "7m"),
            ("Inactive", "inactive"),
            ("vpc-1", "vpc 1"),
        ] {
            assert!(
                serde_json::from_str::<FlowLog>(&json.replace(good, bad)).is_err(),
                "{bad}"
            );
        }
    }
}
