//! The whole agent: doing nothing, and a window of a million flows.
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use flowlog_tests::lab::{Distribution, FloodPlan, udp_flood};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
        time::TimeValLike as _,
    },
    unistd::Pid,
};

use crate::{
    report::{Budget, Report},
    setting::Link,
};

/// Flows in the window.
pub(crate) const FLOWS: u32 = 1_000_000;

/// How long the idle agent is watched.
const IDLE: Duration = Duration::from_secs(20);

pub(crate) fn measure(_object: &[u8], _rounds: usize, report: &mut Report) -> Result<()> {
    let link = Link::new()?;
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("records");
    let flow_log = format!(
        "template = \"${{packets}} ${{log-status}} ${{srcaddr}} ${{srcport}} ${{dstaddr}} ${{dstport}} ${{protocol}} ${{direction}} ${{bytes}} ${{start}} ${{end}} ${{eni-id}} ${{action}}\"\ndestination = {{ type = \"file\", path = \"{}\", max-size = \"10GiB\" }}",
        output.display()
    );
    let idle = Agent::start(&link, folder.path(), &flow_log)?;
    let before = idle.cpu_time()?;
    // Watching is the measurement: nothing happens that could be awaited.
    thread::sleep(IDLE);
    let idle_cpu = (idle.cpu_time()? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    report.figure(
        "idle agent, one ENI: resident memory",
        "MiB",
        idle.resident_mib("VmRSS")?,
        Some(Budget::AtMost(20.0)),
    );
    report.figure(
        "idle agent: share of a core",
        "%",
        idle_cpu,
        Some(Budget::AtMost(0.1)),
    );
    idle.stop()?;

    fs::remove_file(&output)?;
    let agent = Agent::start(&link, folder.path(), &flow_log)?;
    let before = agent.cpu_time()?;
    let sent = flood(&link)?;
    let children_before = children_cpu();
    let peak = agent.stop_watching_memory()?;
    let cpu = children_cpu() - children_before - before;
    let (ok, skipped) = read_back(&output)?;
    if ok + skipped != sent {
        bail!("{sent} packets were sent, but {ok} are in OK records and {skipped} in SKIPDATA");
    }
    report.figure(
        "1 M flows in a window, kernel to file: agent's CPU time",
        "s",
        cpu.as_secs_f64(),
        Some(Budget::AtMost(2.0)),
    );
    report.figure(
        "1 M flows in a window: peak resident memory",
        "MiB",
        peak,
        Some(Budget::AtMost(256.0)),
    );
    report.figure(
        "1 M flows in a window: packets in SKIPDATA",
        "packets",
        skipped as f64,
        Some(Budget::AtMost(0.0)),
    );
    Ok(())
}

/// Sends a packet of each of [`FLOWS`] flows; gives how many packets were sent.
pub(crate) fn flood(link: &Link) -> Result<u64> {
    let plan = FloodPlan {
        packets: u64::from(FLOWS),
        flows: FLOWS,
        distribution: Distribution::Even,
        ..FloodPlan::default()
    };
    Ok(udp_flood(&link.sender, &link.pair.left().name, &plan)?.packets)
}

/// Processor time of all children that have ended.
fn children_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(Duration::ZERO, |usage| {
        let microseconds =
            usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
    })
}

/// Packets in OK and in SKIPDATA records.
fn read_back(output: &Path) -> Result<(u64, u64)> {
    let mut sums = (0, 0);
    for line in BufReader::new(fs::File::open(output)?).lines() {
        let line = line?;
        let mut fields = line.split(' ');
        match (
            fields
                .next()
                .and_then(|packets| packets.parse::<u64>().ok()),
            fields.next(),
        ) {
            (Some(packets), Some("OK")) => sums.0 += packets,
            (Some(packets), Some("SKIPDATA")) => sums.1 += packets,
            _ => {}
        }
    }
    Ok(sums)
}

fn resident_mib(pid: u32, key: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with(key))
        .context("/proc tells no memory")?;
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .context("/proc tells no memory")?
        .parse()?;
    Ok(kib / 1024.0)
}

pub(crate) struct Agent {
    child: Child,
}

impl Agent {
    /// Starts the agent that lies beside this program, with its files in the folder, and waits until it captures the receiving device.
    /// `flow_log` is TOML: how records are written, and where.
    pub(crate) fn start(link: &Link, folder: &Path, flow_log: &str) -> Result<Self> {
        let inventory = format!(
            "[[eni]]\neni-id = \"eni-bench\"\nvswitch-id = \"vsw\"\nvpc-id = \"vpc\"\naccount-id = \"1\"\nmatch = {{ name = \"{}\", namespace = \"{}\" }}\n",
            link.pair.right().name,
            link.receiver.name().unwrap_or_default()
        );
        fs::write(folder.join("inventory.toml"), inventory)?;
        let config = format!(
            "inventory = \"inventory.toml\"\npin-path = \"/sys/fs/bpf/flowlog-bench-agent-{}\"\nlock-file = \"{}\"\nstatus-socket = \"off\"\n[spool]\npath = \"{}\"\n[[flow-log]]\nname = \"bench\"\nresource-type = \"VPC\"\nresource-id = \"vpc\"\n{flow_log}\n",
            std::process::id(),
            folder.join("lock").display(),
            folder.join("spool").display(),
        );
        fs::write(folder.join("agent.toml"), config)?;
        let program = std::env::current_exe()?.with_file_name("flowlog-agent");
        let mut child = Command::new(&program)
            .args(["run", "--window", "3600s", "--config"])
            .arg(folder.join("agent.toml"))
            .env("FLOWLOG_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("captured: ") && !line.contains("not captured") => {
                    break;
                }
                Some(Ok(line)) if Instant::now() < deadline => eprintln!("  agent: {line}"),
                _ => bail!("the agent does not capture the device"),
            }
        }
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| eprintln!("  agent: {line}"));
        });
        Ok(Self { child })
    }

    fn resident_mib(&self, key: &str) -> Result<f64> {
        resident_mib(self.child.id(), key)
    }

    fn cpu_time(&self) -> Result<Duration> {
        /// Of `/proc/PID/stat`, in every Linux that Rust runs on.
        const TICKS_PER_SECOND: u64 = 100;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = stat.rsplit_once(')').context("/proc tells no times")?;
        let ticks: u64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Ends it orderly, and gives the most memory that it had, in MiB, as last seen before it was gone.
    fn stop_watching_memory(self) -> Result<f64> {
        let pid = self.child.id();
        let watcher = thread::spawn(move || {
            let mut peak = 0.0;
            while let Ok(now) = resident_mib(pid, "VmHWM") {
                peak = now;
                thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        self.stop()?;
        watcher
            .join()
            .map_err(|_| anyhow::anyhow!("the watcher has panicked"))
    }

    /// Ends it orderly, which closes and writes the open window.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGTERM,
        )?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the agent ended with {status}");
        }
        Ok(())
    }
}
