//! What an agent is to do: its configuration, its inventory and its command line.
use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use flowlog_agent::config::{AttachMode, OnExit};
use flowlog_model::{
    flow_log::TrafficType,
    inventory::{Hook, Side},
};

use crate::lab::{EndPlan, Mac, Namespace};

/// Whether the agent has a spool and a status socket. Without, it refuses their keys, and the tests of them are skipped.
pub const HAS_SPOOL: bool = true;

/// VSwitch, VPC and account of an ENI for which no other is named.
const VSWITCH: &str = "vsw-test";
const VPC: &str = "vpc-test";
const ACCOUNT: &str = "100000000001";

/// The form of records on standard output: the values of `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputForm {
    /// JSON lines with all fields, which the harness reads as [`Record`](super::Record)s.
    Json,
    /// Text.
    Text,
    /// A table.
    Table,
}

impl OutputForm {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Table => "table",
        }
    }
}

/// An agent to be started. Change the fields as the test needs them; text fields take TOML as it is.
#[derive(Clone, Debug)]
pub struct AgentPlan {
    /// The inventory.
    pub enis: Vec<EniPlan>,
    /// The flow logs.
    pub flow_logs: Vec<FlowLogPlan>,
    /// `capture.attach`.
    pub attach: AttachMode,
    /// `capture.flow-map-min-entries` and `capture.flow-map-max-entries`; none for the agent's own.
    pub flow_map_entries: Option<(u32, u32)>,
    /// More lines of `[capture]`.
    pub capture: String,
    /// `on-exit`.
    pub on_exit: OnExit,
    /// `spool.path`; none for the folder `spool` in the agent's own.
    pub spool_path: Option<PathBuf>,
    /// More lines of `[spool]`.
    pub spool: String,
    /// `metrics.listen`: an address in the network namespace in which the agent is.
    pub metrics: Option<String>,
    /// More tables of the configuration, at its end.
    pub extra: String,
    /// `--window`, in seconds; none for the windows of the flow logs.
    pub window_seconds: Option<u64>,
    /// `--windows`.
    pub windows: Option<u64>,
    /// `--output`; none for the flow logs' own formats and destinations.
    pub output: Option<OutputForm>,
    /// The namespace that the agent takes for the host's; none for that of the test.
    pub namespace: Option<Namespace>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Nobody reads standard output before [`AgentProcess::release_stdout`](super::AgentProcess::release_stdout).
    pub stdout_held: bool,
}

impl Default for AgentPlan {
    /// No ENIs; one flow log of the whole [`EniPlan`] VPC; windows of 1 s, and JSON.
    fn default() -> Self {
        Self {
            enis: Vec::new(),
            flow_logs: vec![FlowLogPlan::of(Resource::Vpc(VPC.to_owned()))],
            attach: AttachMode::Auto,
            flow_map_entries: None,
            capture: String::new(),
            on_exit: OnExit::Detach,
            metrics: None,
            extra: String::new(),
            window_seconds: Some(1),
            windows: None,
            output: Some(OutputForm::Json),
            namespace: None,
            spool_path: None,
            spool: String::new(),
            environment: BTreeMap::new(),
            stdout_held: false,
        }
    }
}

impl AgentPlan {
    /// The default plan with these ENIs.
    #[must_use]
    pub fn capturing(enis: impl IntoIterator<Item = EniPlan>) -> Self {
        Self {
            enis: enis.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The configuration's text. `place` are the lines that say where inventory, pins and lock are, and `spool` is the spool's folder.
    pub(super) fn config(&self, place: &str, spool: &Path) -> String {
        let mut text = place.to_owned();
        let mut line = |arguments: fmt::Arguments<'_>| {
            // Writing to a String always succeeds.
            let _ = text.write_fmt(arguments);
            text.push('\n');
        };
        line(format_args!("on-exit = {:?}", self.on_exit.as_str()));
        line(format_args!(
            "\n[capture]\nattach = {:?}",
            self.attach.as_str()
        ));
        if let Some((min, max)) = self.flow_map_entries {
            line(format_args!(
                "flow-map-min-entries = {min}\nflow-map-max-entries = {max}"
            ));
        }
        line(format_args!("{}", self.capture));
        if HAS_SPOOL || self.spool_path.is_some() || !self.spool.is_empty() {
            let more = &self.spool;
            line(format_args!("\n[spool]\npath = {spool:?}\n{more}"));
        }
        if let Some(listen) = &self.metrics {
            line(format_args!("\n[metrics]\nlisten = {listen:?}"));
        }
        for flow_log in &self.flow_logs {
            line(format_args!("{flow_log}"));
        }
        line(format_args!("{}", self.extra));
        text
    }

    /// The arguments after `run --config FILE`.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value]);
            }
        };
        add(
            "--window",
            self.window_seconds.map(|seconds| format!("{seconds}s")),
        );
        add("--windows", self.windows.map(|windows| windows.to_string()));
        add(
            "--output",
            self.output.map(|output| output.as_str().to_owned()),
        );
        arguments
    }
}

/// The text of an inventory.
pub(super) fn inventory(enis: &[EniPlan]) -> String {
    enis.iter().map(ToString::to_string).collect()
}

/// An entry of the inventory. Its [`Display`](fmt::Display) is the TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EniPlan {
    /// `eni-id`.
    pub eni_id: String,
    /// `vswitch-id`.
    pub vswitch_id: String,
    /// `vpc-id`.
    pub vpc_id: String,
    /// `account-id`.
    pub account_id: String,
    /// `vm-id`.
    pub vm_id: Option<String>,
    /// `region`.
    pub region: Option<String>,
    /// `side`.
    pub side: Side,
    /// `hook`.
    pub hook: Hook,
    /// `match`.
    pub matches: MatchPlan,
    /// More keys, and tables behind it: security groups.
    pub extra: String,
}

/// How an ENI's device is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchPlan {
    /// Name of the network namespace; none for the host's.
    pub namespace: Option<String>,
    /// Pattern of the device's name.
    pub name: Option<String>,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Pattern of its alias.
    pub alias: Option<String>,
}

impl EniPlan {
    /// An ENI of `vsw-test` in `vpc-test` that is known by `matches`: guest side, TC.
    #[must_use]
    pub fn new(eni_id: &str, matches: MatchPlan) -> Self {
        Self {
            eni_id: eni_id.to_owned(),
            vswitch_id: VSWITCH.to_owned(),
            vpc_id: VPC.to_owned(),
            account_id: ACCOUNT.to_owned(),
            vm_id: None,
            region: None,
            side: Side::Guest,
            hook: Hook::Tc,
            matches,
            extra: String::new(),
        }
    }

    /// An ENI that is known by namespace and name of its device; the namespace need not be a named one.
    #[must_use]
    pub fn device(eni_id: &str, namespace: &Namespace, name: &str) -> Self {
        Self::new(
            eni_id,
            MatchPlan {
                namespace: namespace.name().map(str::to_owned),
                name: Some(name.to_owned()),
                ..MatchPlan::default()
            },
        )
    }

    /// An ENI that is one end of a veth pair.
    #[must_use]
    pub fn end(eni_id: &str, end: &EndPlan) -> Self {
        Self::device(eni_id, &end.namespace, &end.name)
    }
}

impl fmt::Display for EniPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            eni_id,
            vswitch_id,
            vpc_id,
            account_id,
            vm_id,
            region,
            side,
            hook,
            matches,
            extra,
        } = self;
        writeln!(
            f,
            "[[eni]]\neni-id = {eni_id:?}\nvswitch-id = {vswitch_id:?}\nvpc-id = {vpc_id:?}"
        )?;
        writeln!(f, "account-id = {account_id:?}")?;
        for (key, value) in [("vm-id", vm_id), ("region", region)] {
            if let Some(value) = value {
                writeln!(f, "{key} = {value:?}")?;
            }
        }
        writeln!(f, "side = {:?}\nhook = {:?}", side.as_str(), hook.as_str())?;
        writeln!(f, "match = {{ {matches} }}\n{extra}")
    }
}

impl fmt::Display for MatchPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            name,
            mac,
            alias,
        } = self;
        let mac = mac
            .map(|[a, b, c, d, e, g]| format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"));
        let keys = [
            ("namespace", namespace),
            ("name", name),
            ("mac", &mac),
            ("alias", alias),
        ];
        let given: Vec<String> = keys
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key} = {:?}", value.as_ref()?)))
            .collect();
        f.write_str(&given.join(", "))
    }
}

/// What a flow log captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// One ENI.
    Eni(String),
    /// A VSwitch.
    VSwitch(String),
    /// A VPC.
    Vpc(String),
}

/// A flow log of the configuration. Its [`Display`](fmt::Display) is the TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLogPlan {
    /// `name`: unique.
    pub name: String,
    /// What it captures.
    pub resource: Resource,
    /// `traffic-type`.
    pub traffic_type: TrafficType,
    /// Where its records go, unless `--output` says otherwise.
    pub destination: DestinationPlan,
    /// More lines, such as `format = "json"`.
    pub extra: String,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationPlan {
    /// Standard output.
    Stdout,
    /// A file that is rotated.
    File {
        /// Absolute.
        path: PathBuf,
        /// Octets at which it is rotated.
        max_size: u64,
        /// Files in all.
        max_files: u16,
    },
}

impl FlowLogPlan {
    /// A flow log of all traffic to standard output; it is called `test`.
    #[must_use]
    pub fn of(resource: Resource) -> Self {
        Self {
            name: "test".to_owned(),
            resource,
            traffic_type: TrafficType::All,
            destination: DestinationPlan::Stdout,
            extra: String::new(),
        }
    }
}

impl fmt::Display for FlowLogPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            resource,
            traffic_type,
            destination,
            extra,
        } = self;
        let (kind, id) = match resource {
            Resource::Eni(id) => ("NetworkInterface", id),
            Resource::VSwitch(id) => ("VSwitch", id),
            Resource::Vpc(id) => ("VPC", id),
        };
        writeln!(
            f,
            "\n[[flow-log]]\nname = {name:?}\nresource-type = {kind:?}\nresource-id = {id:?}"
        )?;
        writeln!(f, "traffic-type = {:?}\n{extra}", traffic_type.as_str())?;
        match destination {
            DestinationPlan::Stdout => writeln!(f, "destination = {{ type = \"stdout\" }}"),
            DestinationPlan::File {
                path,
                max_size,
                max_files,
            } => writeln!(
                f,
                "destination = {{ type = \"file\", path = {path:?}, max-size = {max_size}, max-files = {max_files} }}"
            ),
        }
    }
}
