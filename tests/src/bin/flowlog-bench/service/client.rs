//! A running service, who asks it, and agents that follow it.
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use flowlog::api::{CreateAccessKey, CreatedAccessKey};
use flowlog_client::{AccessKey, Call, Client, ServiceUrl};
use flowlog_model::protocol::{
    DESIRED_STATE_PATH, DesiredState, EniReport, MAX_WAIT_SECONDS, REPORT_PATH, Report,
    ReportAnswer,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::JoinHandle;

/// The VPC that all ENIs are in.
pub(super) const VPC: &str = "vpc-bench";

/// How long an answer may take: a desired state is waited for.
const PATIENCE: Duration = Duration::from_secs(MAX_WAIT_SECONDS + 60);

/// The VSwitch of a host's ENIs.
pub(super) fn vswitch(host: usize) -> String {
    format!("vsw-{host}")
}

/// A service of its own; it ends with this.
pub(super) struct Running {
    child: Child,
    url: ServiceUrl,
    data: PathBuf,
}

impl Running {
    /// Starts the service that lies beside this program.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let (data, config) = (folder.join("data"), folder.join("flowlog.toml"));
        fs::write(
            &config,
            "flow-logs-per-region = 100000\nrequests-per-second = 1000000\nrequests-at-once = 1000000\n",
        )?;
        let program = std::env::current_exe()?.with_file_name("flowlog");
        let mut child = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(&data)
            .env("FLOWLOG_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        for line in BufReader::new(stdout).lines() {
            if let Some(url) = line?.strip_prefix("listening on ") {
                let url = url.parse().map_err(anyhow::Error::msg)?;
                return Ok(Self { child, url, data });
            }
        }
        bail!("the service does not listen")
    }

    fn asker(&self, key: AccessKey) -> Result<Asker> {
        let client = Client::new(self.url.clone(), key, None)?;
        Ok(Asker { client })
    }

    /// Who has the administrator's access key.
    pub(super) fn administrator(&self) -> Result<Asker> {
        self.asker(AccessKey::load(&self.data.join("administrator.json"))?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks the service.
#[derive(Clone)]
pub(super) struct Asker {
    client: Client,
}

impl Asker {
    /// Asks for something.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T> {
        self.send("GET", path, query, b"").await
    }

    /// Has something changed.
    pub(super) async fn change<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.send(method, path, &[], &serde_json::to_vec(body)?)
            .await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Result<T> {
        let query: Vec<_> = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let call = Call {
            method,
            path,
            query: &query,
            body,
            patience: PATIENCE,
            max_answer_bytes: 32 << 20,
        };
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(self.client.send(&call, wall).await?.json()?)
    }
}

/// Agents that have reported.
pub(super) struct Agents(Vec<Agent>);

struct Agent {
    asker: Asker,
    report: Report,
}

impl Agents {
    /// Makes an access key for each host, and reports its ENIs.
    pub(super) async fn report(
        running: &Running,
        admin: &Asker,
        hosts: usize,
        enis_of_host: usize,
    ) -> Result<Self> {
        let mut agents = Vec::new();
        for host in 0..hosts {
            let asked = CreateAccessKey {
                role: "agent".to_owned(),
                ..CreateAccessKey::default()
            };
            let key: CreatedAccessKey = admin.change("POST", "/api/v1/access-keys", &asked).await?;
            let agent = Agent {
                asker: running.asker(AccessKey::new(&key.id, &key.secret))?,
                report: first_report(host, enis_of_host),
            };
            let answer: ReportAnswer = agent
                .asker
                .change("POST", REPORT_PATH, &agent.report)
                .await?;
            ensure!(
                answer.accepted_enis == enis_of_host,
                "{:?}",
                answer.refused_enis
            );
            agents.push(agent);
        }
        Ok(Self(agents))
    }

    /// Has them follow the service.
    pub(super) fn follow(self) -> Following {
        let tasks = self.0.into_iter().map(|agent| {
            tokio::spawn(async move {
                if let Err(error) = agent.follow().await {
                    eprintln!("  an agent no longer follows: {error:#}");
                }
            })
        });
        Following(tasks.collect())
    }
}

impl Agent {
    /// Waits for each desired state, and says that it is applied.
    async fn follow(mut self) -> Result<()> {
        let wait = MAX_WAIT_SECONDS.to_string();
        loop {
            let after = self.report.applied_version.to_string();
            let query = [("after", after.as_str()), ("wait", wait.as_str())];
            let state: DesiredState = self.asker.get(DESIRED_STATE_PATH, &query).await?;
            if state.version != self.report.applied_version {
                self.report.applied_version = state.version;
                let _: ReportAnswer = self.asker.change("POST", REPORT_PATH, &self.report).await?;
            }
        }
    }
}

/// Agents that follow the service.
pub(super) struct Following(Vec<JoinHandle<()>>);

impl Following {
    /// Ends them.
    pub(super) fn end(self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

fn first_report(host: usize, enis: usize) -> Report {
    let eni = |number| EniReport {
        eni_id: format!("eni-{host}-{number}"),
        vswitch_id: vswitch(host),
        vpc_id: VPC.to_owned(),
        account_id: "1".to_owned(),
        vm_id: None,
        region: None,
        captured: true,
    };
    Report {
        host_id: format!("host-{host}"),
        agent_version: "bench".to_owned(),
        enis: (0..enis).map(eni).collect(),
        applied_version: 0,
        flow_logs: Vec::new(),
    }
}
