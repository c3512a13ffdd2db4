//! The command line, as somebody runs it who has a service and its administrator's access key.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flowlog_client::{AccessKey, Client, LogCall};
use flowlog_model::log_group::{Content, Log, LogGroup, compress};
use prost::Message as _;
use serde_json::Value;

use crate::service::Service;

/// Longest wait for an answer: only a service that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(100);

/// A service with the logstore `flows` in `net`, and what asks it.
pub(crate) struct Place {
    pub(crate) service: Option<Service>,
    pub(crate) url: String,
    key_file: PathBuf,
    folder: tempfile::TempDir,
}

/// What a command has printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Place {
    /// With an empty logstore.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let service = Service::start(&data);
        let place = Self {
            url: format!("http://{}", service.address),
            service: Some(service),
            key_file: data.join("administrator.json"),
            folder,
        };
        place.done(&["project", "create", "net"]);
        place.done(&["logstore", "create", "--project", "net", "flows"]);
        place
    }

    /// A command of `flowlog`, for that logstore where none is named.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowlog"));
        command
            .args(arguments)
            .env("FLOWLOG_URL", &self.url)
            .env("FLOWLOG_ACCESS_KEY_FILE", &self.key_file)
            .env("FLOWLOG_PROJECT", "net")
            .env("FLOWLOG_LOGSTORE", "flows")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command.
    pub(crate) fn run(&self, arguments: &[&str]) -> Printed {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        Printed {
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
            code: status.code(),
        }
    }

    /// Runs a command that is to succeed and to say nothing on standard error, and gives what it prints.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let printed = self.run(arguments);
        assert_eq!(
            (printed.code, printed.stderr.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
        printed.stdout
    }

    /// Runs a command that is to fail and to print nothing, and gives what it says: one line.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let printed = self.run(arguments);
        assert_eq!(
            (printed.code, printed.stdout.as_str()),
            (Some(1), ""),
            "{arguments:?}: {printed:?}"
        );
        assert_eq!(printed.stderr.lines().count(), 1, "{printed:?}");
        printed.stderr
    }

    /// Starts a command whose output is read while it runs.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Ends the service.
    pub(crate) fn stop_service(&mut self) {
        assert_eq!(self.service.take().unwrap().end(), Some(0));
    }

    /// Starts the service again, where it was.
    pub(crate) fn restart_service(&mut self) {
        let listen = self.url.strip_prefix("http://").unwrap();
        let data = self.folder.path().join("data");
        self.service = Some(Service::start_with(&data, &["--listen", listen]));
    }

    /// Puts logs into the logstore, as an agent does.
    pub(crate) fn put(&self, logs: &[(u32, Value)]) {
        let log = |(time, contents): &(u32, Value)| Log {
            time: *time,
            time_ns: None,
            contents: contents
                .as_object()
                .unwrap()
                .iter()
                .map(|(key, value)| Content {
                    key: key.clone(),
                    value: value.as_str().unwrap().into(),
                })
                .collect(),
        };
        let group = LogGroup {
            logs: logs.iter().map(log).collect(),
            topic: Some("flow_log".to_owned()),
            source: Some("host-1".to_owned()),
            ..LogGroup::default()
        };
        let raw = group.encode_to_vec();
        let raw_bytes = raw.len().to_string();
        let key = AccessKey::load(&self.key_file).unwrap();
        let client = Client::new(self.url.parse().unwrap(), key, None).unwrap();
        let call = LogCall {
            method: "POST",
            project: Some("net"),
            path: "/logstores/flows/shards/lb",
            query: &[],
            headers: &[
                ("content-type", "application/x-protobuf"),
                ("x-log-bodyrawsize", &raw_bytes),
                ("x-log-compresstype", "lz4"),
            ],
            body: &compress(&raw),
            patience: PATIENCE,
            max_answer_bytes: 1 << 20,
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(client.send_log(&call, since_1970()))
            .unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// By the wall clock.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
