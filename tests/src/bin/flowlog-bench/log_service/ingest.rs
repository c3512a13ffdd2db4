//! From records in an agent's memory to the service's disk: written, compressed, signed and sent as the agent does it, to a service that is
//! a process of its own, over the loopback.
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use flowlog_client::{AccessKey, Client, LogCall};
use flowlog_model::{
    field::DEFAULT_FIELDS,
    format::Format,
    log_group::{BATCH_ID_TAG, DOCUMENTED_LOGS, GroupWriter, compress},
};
use tokio::task::JoinSet;

use super::traffic::{Traffic, WINDOW_SECONDS};

const PROJECT: &str = "bench";
const LOGSTORE: &str = "records";

/// How the service is called when this program is to be it.
pub(crate) const SERVICE: &str = "flowlog";

/// Puts that an agent has on their way at once.
const AT_ONCE: usize = 2;

/// What it took.
pub(crate) struct Ingested {
    pub(crate) records: usize,
    pub(crate) seconds: f64,
    /// Of the service, in MiB.
    pub(crate) peak_mib: f64,
}

/// Puts about so many records into an empty service in the folder.
pub(crate) async fn measure(folder: &Path, records: usize) -> Result<Ingested> {
    let service = Service::start(folder)?;
    let client = Arc::new(service.client()?);
    make_logstore(&client).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let windows = records.div_ceil(140_000);
    let mut traffic = Traffic::new();
    let (mut sent, mut spent) = (0, Duration::ZERO);
    for window in 0..windows {
        let start = now - (windows - window) as u64 * WINDOW_SECONDS;
        // Where the agent gets them from is measured with the agent.
        let flows = traffic.window(start, records / windows);
        let begun = Instant::now();
        let mut group = GroupWriter::new(Format::text(&DEFAULT_FIELDS));
        let mut puts = JoinSet::new();
        let mut send = async |group: &mut GroupWriter, number: usize| -> Result<()> {
            if puts.len() == AT_ONCE {
                puts.join_next().await.context("a put")???;
            }
            let identity = format!("fl-bench-{window}-{number}");
            let body = group.finish("host-1", &[(BATCH_ID_TAG, &identity)]);
            let client = Arc::clone(&client);
            puts.spawn(async move { put(&client, &body).await });
            Ok(())
        };
        let mut number = 0;
        for record in flows.records() {
            group.write(&record);
            if group.count() == DOCUMENTED_LOGS {
                send(&mut group, number).await?;
                number += 1;
            }
        }
        if group.count() > 0 {
            send(&mut group, number).await?;
        }
        while let Some(done) = puts.join_next().await {
            done??;
        }
        spent += begun.elapsed();
        sent += flows.len();
    }
    Ok(Ingested {
        records: sent,
        seconds: spent.as_secs_f64(),
        peak_mib: service.peak_mib()?,
    })
}

async fn put(client: &Client, group: &[u8]) -> Result<()> {
    let raw_bytes = group.len().to_string();
    let path = format!("/logstores/{LOGSTORE}/shards/lb");
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-log-bodyrawsize", raw_bytes.as_str()),
        ("x-log-compresstype", "lz4"),
    ];
    call(client, &path, &headers, &compress(group)).await
}

async fn make_logstore(client: &Client) -> Result<()> {
    let headers = [
        ("content-type", "application/json"),
        ("x-log-bodyrawsize", "0"),
    ];
    let project = format!("{{\"projectName\":\"{PROJECT}\",\"description\":\"\"}}");
    call(client, "/", &headers, project.as_bytes()).await?;
    let logstore = format!("{{\"logstoreName\":\"{LOGSTORE}\",\"ttl\":30,\"shardCount\":1}}");
    call(client, "/logstores", &headers, logstore.as_bytes()).await
}

async fn call(client: &Client, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<()> {
    let call = LogCall {
        method: "POST",
        project: Some(PROJECT),
        path,
        query: &[],
        headers,
        body,
        patience: Duration::from_secs(60),
        max_answer_bytes: 1 << 16,
    };
    let wall = SystemTime::now().duration_since(UNIX_EPOCH)?;
    client.send_log(&call, wall).await?;
    Ok(())
}

/// `flowlog serve`.
struct Service {
    child: Child,
    url: String,
    key: AccessKey,
    /// Held, so that it can go on writing.
    _stdout: BufReader<ChildStdout>,
}

impl Service {
    fn start(folder: &Path) -> Result<Self> {
        // This program has all of the service in it: see `main`.
        let mut child = Command::new(std::env::current_exe()?)
            .arg0(SERVICE)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .env("FLOWLOG_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("it is piped")?);
        let url = loop {
            let mut line = String::new();
            if stdout.read_line(&mut line)? == 0 {
                bail!("the service ended with {}", child.wait()?);
            }
            if let Some(url) = line.strip_prefix("listening on ") {
                break url.trim().to_owned();
            }
        };
        Ok(Self {
            child,
            url,
            key: AccessKey::load(&folder.join("administrator.json"))?,
            _stdout: stdout,
        })
    }

    fn client(&self) -> Result<Client> {
        Ok(Client::new(self.url.parse()?, self.key.clone(), None)?)
    }

    fn peak_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.context("/proc tells no memory")?.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
