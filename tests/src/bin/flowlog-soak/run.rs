//! An agent under traffic, and what is done to it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use flowlog_tests::{
    agent::{
        AgentPlan, AgentProcess, Crossed, DestinationPlan, Direction, EniPlan, FlowLogPlan, OnExit,
        Record, Resource, Volume, records_of, scrape,
    },
    lab::{
        EndPlan, Family, FloodPlan, Namespace, TmpFs, VethPair, VethPlan, beside, device_stats,
        random, udp_flood,
    },
};
use tempfile::TempDir;

use crate::report::Report;

const ENIS: [&str; 2] = ["eni-left", "eni-right"];
/// The ENI of a device that comes and goes.
const GUEST: &str = "eni-guest";
const METRICS: &str = "127.0.0.1:9464";
/// How long there is traffic in a round.
const ROUND: Duration = Duration::from_secs(20);
/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(500);
/// How long the records of a round are awaited.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest time between two disturbances, in milliseconds; and longest pause or outage.
const LONGEST_MS: u64 = 3000;
/// The file system of the records: more than all their files, in octets.
const DISK: u64 = 256 << 20;
const MAX_FILE: u64 = 8 << 20;
const MAX_FILES: u16 = 16;

/// A wire whose ends are ENIs, and an agent that writes their records to files of which old ones are deleted.
pub(crate) struct Run {
    agent: AgentProcess,
    disk: TmpFs,
    file: PathBuf,
    _folder: TempDir,
    pair: Arc<VethPair>,
    host: Namespace,
    /// Draws so far.
    draws: u64,
    /// Where the windows end whose records have been compared.
    compared: u64,
    /// Records of these in the files.
    old: usize,
}

impl Run {
    /// Starts the agent, and waits until it captures.
    pub(crate) fn start(agent: &Path) -> Result<Self> {
        let (left, right) = (Namespace::create("left")?, Namespace::create("right")?);
        let host = Namespace::create("host")?;
        let pair = VethPair::create(VethPlan::between(&left, &right))?;
        pair.without_offloads()?;
        let folder = TempDir::with_prefix("flowlog-soak-")?;
        let disk = TmpFs::mount(folder.path(), DISK)?;
        let file = folder.path().join("flow.log");
        let flow_log = FlowLogPlan {
            destination: DestinationPlan::File {
                path: file.clone(),
                max_size: MAX_FILE,
                max_files: MAX_FILES,
            },
            extra: "format = \"json\"".to_owned(),
            ..FlowLogPlan::of(Resource::Vpc("vpc-test".to_owned()))
        };
        let plan = AgentPlan {
            flow_logs: vec![flow_log],
            output: None,
            on_exit: OnExit::Stay,
            metrics: Some(METRICS.to_owned()),
            namespace: Some(host.clone()),
            ..AgentPlan::capturing([
                EniPlan::end(ENIS[0], pair.left()),
                EniPlan::end(ENIS[1], pair.right()),
                EniPlan::device(GUEST, &right, "guest1"),
            ])
        };
        let agent = AgentProcess::start(agent, &plan)?;
        agent.wait_until_captured(&ENIS)?;
        Ok(Self {
            agent,
            disk,
            file,
            _folder: folder,
            pair: Arc::new(pair),
            host,
            draws: 0,
            compared: 0,
            old: 0,
        })
    }

    /// Ends the agent in good order.
    pub(crate) fn end(mut self) -> Result<()> {
        let outcome = self.agent.stop()?;
        if !outcome.status.success() {
            bail!("the agent ended badly:\n{}", outcome.stderr);
        }
        Ok(())
    }

    /// Traffic and disturbances for a while; then the comparison.
    pub(crate) fn round(&mut self, report: &mut Report) -> Result<()> {
        let pair = Arc::clone(&self.pair);
        let ends = [pair.left(), pair.right()];
        let counted = || ends.map(|end| device_stats(&end.namespace, &end.name));
        let before = counted();
        // From each end, by both families.
        let ways = [0, 1].map(|end| [Family::V4, Family::V6].map(|family| (end, family)));
        let ways = ways.concat();
        let senders: Vec<_> = ways
            .iter()
            .map(|&(end, family)| (ends[end].clone(), flood_of(family)))
            .collect();
        let mut crossed = Crossed::default();
        let disturb = || self.disturb(&mut crossed, report);
        let (disturbed, sent) = beside(&senders, Some(&pair), disturb)?;
        disturbed?;
        for ((end, family), sent) in ways.into_iter().zip(sent) {
            if sent.refused > 0 {
                bail!("a device was full, so that packets passed its egress twice");
            }
            crossed.know_flows(ENIS[end], Direction::Out, family, &sent.per_flow);
            crossed.know_flows(ENIS[1 - end], Direction::In, family, &sent.per_flow);
        }
        for ((eni, before), after) in ENIS.into_iter().zip(before).zip(counted()) {
            let stats = after?.since(&before?);
            crossed.add(eni, Direction::Out, Volume::sent(&stats));
            crossed.add(eni, Direction::In, Volume::received(&stats));
        }
        self.compare(&crossed, report)
    }

    fn draw(&mut self, report: &Report, below: u64) -> u64 {
        self.draws += 1;
        random(report.seed, self.draws) % below
    }

    /// Does this and that to the agent, at random, until the round is over.
    fn disturb(&mut self, crossed: &mut Crossed, report: &mut Report) -> Result<()> {
        let end = Instant::now() + ROUND;
        while Instant::now() < end {
            let time = Duration::from_millis(self.draw(report, LONGEST_MS));
            thread::sleep(time);
            self.note(report);
            let drawn = self.draw(report, 10);
            let events = &mut report.events;
            match drawn {
                0..=3 => {
                    events.kills += 1;
                    self.agent.kill()?;
                    self.agent.restart()?;
                }
                4..=5 => {
                    events.restarts += 1;
                    let outcome = self.agent.stop()?;
                    if !outcome.status.success() {
                        bail!("the agent ended badly:\n{}", outcome.stderr);
                    }
                    self.agent.restart()?;
                }
                6 => {
                    events.pauses += 1;
                    self.agent.paused(|| thread::sleep(time))?;
                }
                7 => {
                    events.outages += 1;
                    self.disk.fill()?;
                    thread::sleep(time);
                    self.disk.free()?;
                }
                _ => {
                    events.replugs += 1;
                    self.replug(crossed)?;
                }
            }
        }
        self.agent.wait_until_captured(&ENIS)?;
        Ok(())
    }

    /// Notes what the agent tells of itself, if it is so far; its next life will know nothing of it.
    fn note(&self, report: &mut Report) {
        if let Ok(kib) = self.agent.peak_memory_kib() {
            report.peak_kib = report.peak_kib.max(kib);
        }
        let listen = METRICS.parse::<SocketAddr>();
        if let Ok(Ok(text)) = listen.map(|listen| scrape(&self.host, listen)) {
            report.drains.add(&text, "flowlog_agent_drain_seconds");
            report.commits.add(&text, "flowlog_agent_commit_seconds");
        }
    }

    /// Plugs a device in, sends over it, and unplugs it.
    fn replug(&mut self, crossed: &mut Crossed) -> Result<()> {
        let end = |other: &EndPlan, name: &str, side| EndPlan {
            namespace: other.namespace.clone(),
            name: name.to_owned(),
            mac: [0x02, 0xf1, 0, 1, side, 0],
            addresses: Vec::new(),
        };
        let near = end(self.pair.left(), "guest0", 1);
        let pair = VethPair::create(VethPlan::new(near, end(self.pair.right(), "guest1", 2)))?;
        self.agent.wait_until_captured(&[GUEST])?;
        let left = pair.left();
        let sent = udp_flood(&left.namespace, &left.name, &flood_of(Family::V4))?;
        let volume = Volume {
            packets: sent.packets,
            bytes: sent.bytes,
        };
        crossed.add(GUEST, Direction::In, volume);
        drop(pair);
        Ok(self.agent.wait_until_released(&[GUEST])?)
    }

    /// Waits until the files have what crossed in this round, and compares the two.
    fn compare(&mut self, crossed: &Crossed, report: &mut Report) -> Result<()> {
        let (old, new) = self.await_records(crossed.packets())?;
        self.note(report);
        report.add_round(crossed, &new);
        let first = new.iter().map(|record| record.start).min();
        if self.compared > 0 && first != Some(self.compared) {
            report.differences.push(format!(
                "the windows go on at {first:?}, not at {}",
                self.compared
            ));
        }
        // Old files are deleted; more in them than there was means that something was told again.
        if old > self.old {
            report.differences.push(format!(
                "{} more records of windows that were complete before",
                old - self.old
            ));
        }
        self.compared = new
            .iter()
            .map(|record| record.end)
            .max()
            .unwrap_or(self.compared);
        self.old = old + new.len();
        Ok(())
    }

    /// How many records there are of windows that have been compared, and the records of later windows that have so many packets, or
    /// what there is of them in the end. The last window, which may be incomplete yet, is left out: nothing crosses any more.
    fn await_records(&self, packets: u64) -> Result<(usize, Vec<Record>)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            thread::sleep(LOOK);
            let over = Instant::now() > deadline;
            let records = match records_of(&self.file) {
                Ok(records) => records,
                // A line is just being written.
                Err(_) if !over => continue,
                Err(error) => return Err(error).context("the agent's files"),
            };
            let last = records.iter().map(|record| record.start).max();
            let is_old = |record: &Record| record.start < self.compared;
            let (old, mut new): (Vec<_>, Vec<_>) = records.into_iter().partition(is_old);
            new.retain(|record| Some(record.start) < last);
            let told: u64 = new.iter().filter_map(|record| record.packets).sum();
            if told >= packets || over {
                return Ok((old.len(), new));
            }
        }
    }
}

fn flood_of(family: Family) -> FloodPlan {
    FloodPlan {
        packets: 500,
        flows: 300,
        threads: 1,
        family,
        ..FloodPlan::default()
    }
}
