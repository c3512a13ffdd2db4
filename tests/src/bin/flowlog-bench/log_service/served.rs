//! `flowlog serve` with an empty logstore.
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use flowlog_client::{AccessKey, Answer, Client, LogCall};
use serde_json::{Value, json};

pub(super) const PROJECT: &str = "bench";
pub(super) const LOGSTORE: &str = "records";

/// How the service is called when this program is to be it.
pub(crate) const SERVICE: &str = "flowlog";

/// Headers of a body that is JSON.
const JSON: [(&str, &str); 2] = [
    ("content-type", "application/json"),
    ("x-log-bodyrawsize", "0"),
];

/// A service that is a process of its own, and ends when this is dropped.
pub(super) struct Service {
    child: Child,
    pub(super) url: String,
    /// The file of an administrator's access key.
    pub(super) access_key: PathBuf,
    /// Held, so that it can go on writing.
    _stdout: BufReader<ChildStdout>,
}

impl Service {
    /// Starts it in an empty folder, and makes the logstore.
    pub(super) async fn start(folder: &Path) -> Result<Self> {
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
        let service = Self {
            child,
            url,
            access_key: folder.join("administrator.json"),
            _stdout: stdout,
        };
        let client = service.client()?;
        for (path, made) in [
            ("/", json!({ "projectName": PROJECT, "description": "" })),
            (
                "/logstores",
                json!({ "logstoreName": LOGSTORE, "ttl": 30, "shardCount": 1 }),
            ),
            (
                &format!("/logstores/{LOGSTORE}/index"),
                json!({ "line": {} }),
            ),
        ] {
            call(&client, path, &JSON, made.to_string().as_bytes()).await?;
        }
        Ok(service)
    }

    pub(super) fn client(&self) -> Result<Client> {
        let key = AccessKey::load(&self.access_key)?;
        Ok(Client::new(self.url.parse()?, key, None)?)
    }

    /// The only row of an answer to a query.
    pub(super) async fn ask(&self, query: &str) -> Result<Value> {
        let to = wall()?.as_secs() + 60;
        let request =
            json!({ "from": to - 86_400, "to": to, "query": query, "line": 1, "offset": 0 });
        let path = format!("/logstores/{LOGSTORE}/logs");
        let body = request.to_string();
        let answer: Value = call(&self.client()?, &path, &JSON, body.as_bytes())
            .await?
            .json()?;
        Ok(answer["data"][0].clone())
    }

    /// The most memory that it had, in MiB.
    pub(super) fn peak_mib(&self) -> Result<f64> {
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

/// Posts to the project.
pub(super) async fn call(
    client: &Client,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
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
    Ok(client.send_log(&call, wall()?).await?)
}

fn wall() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}
