//! What the tests of this program share: a wire, an agent with several lives that writes to a file, traffic beside it, and the
//! comparison of the two.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use flowlog_tests::agent::{
    AgentPlan, AgentProcess, Crossed, DestinationPlan, Direction, EniPlan, FlowLogPlan, HAS_SPOOL,
    LogStatus, Outcome, PATIENCE, Record, Resource, Volume, metric, records_of, rotated, scrape,
};
use flowlog_tests::lab::{
    EndPlan, Family, FloodPlan, Namespace, Sent, TmpFs, VethPair, VethPlan, beside, device_stats,
    skip, skip_unless_root, udp_flood,
};
use tempfile::TempDir;

use crate::verdicts::{self, Policies};

/// The agent that cargo builds with these tests; it has failpoints.
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_flowlog-agent-under-test");
/// The ENI of the wire's left end.
pub(crate) const LEFT: &str = "eni-left";
/// The ENI of the wire's right end.
pub(crate) const RIGHT: &str = "eni-right";
/// In a namespace of the agent's own every port is free.
const METRICS: &str = "127.0.0.1:9464";
/// Between two looks at what tells of no change by itself: a file, a metric.
const LOOK: Duration = Duration::from_millis(100);

/// Whether a test is to be skipped that needs root and the agent's spool. If so, says so.
pub(crate) fn skipped(test: &str) -> bool {
    if skip_unless_root(test) {
        return true;
    }
    if !HAS_SPOOL {
        skip(test, "the agent has no spool yet");
    }
    !HAS_SPOOL
}

/// A wire whose ends are ENIs, and an agent that writes their records to a file.
pub(crate) struct Scene {
    pub(crate) agent: AgentProcess,
    enis: Vec<String>,
    /// Where the file is, if it is small.
    pub(crate) disk: Option<TmpFs>,
    folder: TempDir,
    pair: Option<VethPair>,
    pub(crate) metrics: Metrics,
    /// By devices that are no more, and what is known of single flows.
    crossed: Crossed,
}

/// What a scene has besides what the others have.
#[derive(Default)]
pub(crate) struct Setting {
    /// The file is on a file system of this size, in octets.
    pub(crate) disk_bytes: Option<u64>,
    /// The file's folder is there as a file, so that nothing can be written: see [`Scene::mend_sink`].
    pub(crate) broken_sink: bool,
    /// Both ENIs have security groups, and the right end has a firewall.
    pub(crate) judged: bool,
}

impl Scene {
    /// With an agent as `change` makes it of the usual one: windows of 1 s, one flow log of both ENIs to a file.
    pub(crate) fn start(change: impl FnOnce(AgentPlan) -> AgentPlan) -> Self {
        Self::set(&Setting::default(), change)
    }

    /// In a setting.
    pub(crate) fn set(setting: &Setting, change: impl FnOnce(AgentPlan) -> AgentPlan) -> Self {
        let namespace = |label| Namespace::create(label).expect("a namespace");
        let (left, right, host) = (namespace("left"), namespace("right"), namespace("host"));
        let pair = new_pair(VethPlan::between(&left, &right));
        let folder = tempfile::tempdir().expect("a folder");
        let disk = setting
            .disk_bytes
            .map(|bytes| TmpFs::mount(folder.path(), bytes).expect("a small file system"));
        if setting.broken_sink {
            std::fs::write(folder.path().join("out"), "").expect("a file");
        }
        let enis = if setting.judged {
            verdicts::filter(pair.right());
            Policies::First.enis(&pair)
        } else {
            [
                EniPlan::end(LEFT, pair.left()),
                EniPlan::end(RIGHT, pair.right()),
            ]
        };
        let plan = AgentPlan {
            flow_logs: vec![file_log("file", &file_in(&folder))],
            output: None,
            metrics: Some(METRICS.to_owned()),
            namespace: Some(host.clone()),
            ..AgentPlan::capturing(enis)
        };
        let plan = change(plan);
        let scene = Self {
            agent: AgentProcess::start(AGENT, &plan).expect("an agent"),
            enis: plan.enis.into_iter().map(|eni| eni.eni_id).collect(),
            disk,
            folder,
            pair: Some(pair),
            metrics: Metrics(host),
            crossed: Crossed::default(),
        };
        scene.captured();
        scene
    }

    /// Waits until all ENIs are captured.
    pub(crate) fn captured(&self) {
        let enis: Vec<&str> = self.enis.iter().map(String::as_str).collect();
        self.agent.wait_until_captured(&enis).expect("captured");
    }

    /// Starts the agent again, and waits until it captures.
    pub(crate) fn restart(&mut self) {
        self.agent.restart().expect("restarted");
        self.captured();
    }

    pub(crate) fn pair(&self) -> &VethPair {
        self.pair
            .as_ref()
            .expect("a pair, but while it is replaced")
    }

    pub(crate) fn left(&self) -> &EndPlan {
        self.pair().left()
    }

    pub(crate) fn right(&self) -> &EndPlan {
        self.pair().right()
    }

    /// Sends a flood from left to right.
    pub(crate) fn flood(&mut self, plan: &FloodPlan) -> Sent {
        let sent = udp_flood(&self.left().namespace, &self.left().name, plan).expect("a flood");
        assert_eq!(sent.refused, 0, "a refused frame passes egress twice");
        self.know(LEFT, RIGHT, plan.family, &sent);
        sent
    }

    fn know(&mut self, from: &str, to: &str, family: Family, sent: &Sent) {
        let per_flow = &sent.per_flow;
        self.crossed
            .know_flows(from, Direction::Out, family, per_flow);
        self.crossed.know_flows(to, Direction::In, family, per_flow);
    }

    /// Runs `body` while UDP of both families goes both ways, and TCP.
    pub(crate) fn beside<T>(&mut self, body: impl FnOnce(&mut AgentProcess) -> T) -> T {
        let pair = self.pair.as_ref().expect("a pair");
        let flood = |family| FloodPlan {
            packets: 500,
            flows: 1000,
            threads: 1,
            family,
            ..FloodPlan::default()
        };
        let ways = [
            (LEFT, RIGHT, pair.left(), Family::V4),
            (LEFT, RIGHT, pair.left(), Family::V6),
            (RIGHT, LEFT, pair.right(), Family::V4),
            (RIGHT, LEFT, pair.right(), Family::V6),
        ];
        let senders = ways.map(|(_, _, end, family)| (end.clone(), flood(family)));
        let agent = &mut self.agent;
        let (result, sent) = beside(&senders, Some(pair), || body(agent)).expect("traffic");
        let ways = ways.map(|(from, to, _, family)| (from, to, family));
        for ((from, to, family), sent) in ways.into_iter().zip(&sent) {
            assert_eq!(sent.refused, 0, "a refused frame passes egress twice");
            self.know(from, to, family, sent);
        }
        result
    }

    /// Deletes both devices, and lets `body` run before others are made that are called as they were.
    pub(crate) fn replace_pair(&mut self, body: impl FnOnce(&mut Self)) {
        self.crossed = self.crossed();
        let plan = VethPlan::between(&self.left().namespace, &self.right().namespace);
        drop(self.pair.take());
        body(self);
        self.pair = Some(new_pair(plan));
    }

    /// What has crossed so far, as the devices have counted it.
    pub(crate) fn crossed(&self) -> Crossed {
        let mut crossed = self.crossed.clone();
        for (eni, end) in [(LEFT, self.left()), (RIGHT, self.right())] {
            let stats = device_stats(&end.namespace, &end.name).expect("statistics");
            assert_eq!(
                stats.tx_dropped, 0,
                "{eni} has sent what its device has not counted"
            );
            crossed.add(eni, Direction::Out, Volume::sent(&stats));
            crossed.add(eni, Direction::In, Volume::received(&stats));
        }
        crossed
    }

    /// The file that the records go to.
    pub(crate) fn file(&self) -> PathBuf {
        file_in(&self.folder)
    }

    /// A file beside it.
    pub(crate) fn beside_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Takes away what is in the place of the file's folder, where the setting has that broken; the agent makes the folder.
    pub(crate) fn mend_sink(&self) {
        std::fs::remove_file(self.folder.path().join("out")).expect("removed");
    }

    /// The records in the file.
    pub(crate) fn records(&self) -> Vec<Record> {
        records_of(&self.file()).expect("records")
    }

    /// Waits until all that crossed is in the file, ends the agent in good order, and holds the file against what crossed.
    pub(crate) fn finish(self) -> Finished {
        let crossed = self.crossed();
        self.finish_with(&crossed)
    }

    /// Likewise, where the devices do not know what crossed.
    pub(crate) fn finish_with(mut self, crossed: &Crossed) -> Finished {
        self.wait_for_file(crossed);
        let outcome = self.agent.stop().expect("the agent's end");
        assert!(outcome.status.success(), "{}", outcome.stderr);
        let records = self.records();
        let differences = crossed.differences(&records);
        assert!(
            differences.is_empty(),
            "{differences:#?}; the agent's last life:\n{}",
            outcome.stderr
        );
        Finished { records, outcome }
    }

    /// Waits until as many packets are in the file, or no more come: the comparison will tell then what is missing.
    pub(crate) fn wait_for_file(&self, crossed: &Crossed) {
        let (mut seen, mut since) = (0, Instant::now());
        while seen < crossed.packets() && since.elapsed() < PATIENCE {
            let packets = packets_in(&self.file());
            if packets > seen {
                (seen, since) = (packets, Instant::now());
            }
            thread::sleep(LOOK);
        }
    }
}

/// The packets in a file's records, also where the last line is not written yet. To read them as what they are takes too long to be
/// done again and again.
fn packets_in(path: &Path) -> u64 {
    let texts = rotated(path).into_iter().map(std::fs::read_to_string);
    texts
        .map(|text| {
            let text = text.unwrap_or_default();
            let numbers = text.split("\"packets\":").skip(1);
            let digits = |rest: &str| rest.find(|c: char| !c.is_ascii_digit());
            numbers
                .filter_map(|rest| rest[..digits(rest)?].parse::<u64>().ok())
                .sum::<u64>()
        })
        .sum()
}

/// Reads the agent's metrics.
#[derive(Clone)]
pub(crate) struct Metrics(Namespace);

impl Metrics {
    /// One without labels; its name without the prefix.
    pub(crate) fn value(&self, name: &str) -> f64 {
        let listen: SocketAddr = METRICS.parse().expect("an address");
        let text = scrape(&self.0, listen).expect("metrics");
        metric(&text, &format!("flowlog_agent_{name}"), &[])
            .unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// Waits until so many more windows have been closed.
    pub(crate) fn wait_for_windows(&self, windows: u32) {
        let wanted = self.value("windows_total") + f64::from(windows);
        wait_until("windows", || self.value("windows_total") >= wanted);
    }
}

/// What is left of a scene: all is as it should be with it.
pub(crate) struct Finished {
    pub(crate) records: Vec<Record>,
    /// Of the agent's last life.
    pub(crate) outcome: Outcome,
}

impl Finished {
    /// Packets in SKIPDATA records.
    pub(crate) fn skipped(&self) -> u64 {
        self.of(LogStatus::SkipData)
    }

    /// Packets in OK records.
    pub(crate) fn ok(&self) -> u64 {
        self.of(LogStatus::Ok)
    }

    fn of(&self, status: LogStatus) -> u64 {
        let of_status = self
            .records
            .iter()
            .filter(|record| record.log_status == status);
        of_status.filter_map(|record| record.packets).sum()
    }
}

/// Waits until `reached` says so, which it is asked now and then.
pub(crate) fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(LOOK);
    }
}

/// A flow log of the whole VPC to a file, as JSON. It is rotated, and nothing of it deleted.
pub(crate) fn file_log(name: &str, path: &Path) -> FlowLogPlan {
    FlowLogPlan {
        name: name.to_owned(),
        destination: DestinationPlan::File {
            path: path.to_owned(),
            max_size: 16 << 20,
            max_files: 1000,
        },
        extra: "format = \"json\"\nfields = [\"reject-reason\", \"security-group-rule-id\"]"
            .to_owned(),
        ..FlowLogPlan::of(Resource::Vpc("vpc-test".to_owned()))
    }
}

fn file_in(folder: &TempDir) -> PathBuf {
    folder.path().join("out/flow.log")
}

fn new_pair(plan: VethPlan) -> VethPair {
    let pair = VethPair::create(plan).expect("a pair");
    pair.without_offloads().expect("offloads off");
    pair
}
