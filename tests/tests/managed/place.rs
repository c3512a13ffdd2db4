//! What the tests of this program share: a host with a service and an agent that follows it, and a wire whose ends are ENIs.
use std::{
    cell::Cell,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use flowlog_client::{AccessKey, Client, LogCall};
use flowlog_tests::{
    agent::{
        AgentPlan, AgentProcess, Direction, EniPlan, LogStatus, PATIENCE, Record, Volume,
        records_of,
    },
    lab::{FloodPlan, Namespace, Process, VethPair, VethPlan, udp_flood},
};
use serde_json::Value;
use tempfile::TempDir;

/// The agent that cargo builds with these tests.
const AGENT: &str = env!("CARGO_BIN_EXE_flowlog-agent-under-test");
/// The service and the command line, likewise.
const FLOWLOG: &str = env!("CARGO_BIN_EXE_flowlog-under-test");

/// In a namespace of the host's own every port is free.
const LISTEN: &str = "127.0.0.1:8480";

/// A certificate for `localhost` that has signed itself, and its key; for tests alone.
const CERTIFICATE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../flowlog/tests/process/tls/cert.pem"
);
const CERTIFICATE_KEY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../flowlog/tests/process/tls/key.pem"
);

/// How agent and command line speak to the service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Http,
    /// And they trust the service's certificate.
    Https,
}

impl Transport {
    fn url(self) -> &'static str {
        match self {
            Self::Http => "http://127.0.0.1:8480",
            Self::Https => "https://localhost:8480",
        }
    }
}

/// The account of the ENIs, and of all access keys.
const ACCOUNT: &str = "100000000001";

/// The VPC of the ENIs.
pub(crate) const VPC: &str = "vpc-test";
/// The ENI of the wire's left end.
pub(crate) const LEFT: &str = "eni-left";
/// The ENI of the wire's right end.
pub(crate) const RIGHT: &str = "eni-right";

/// Windows of 1 s.
const SHORT: Option<u64> = Some(1);

/// Commands that wait until the agents have followed.
const CHANGES: [&str; 5] = ["create", "enable", "disable", "modify", "delete"];

/// Between two looks at what tells of no change by itself.
const LOOK: Duration = Duration::from_millis(100);

/// A host with a service and an agent, and a wire.
pub(crate) struct Place {
    pub(crate) agent: AgentProcess,
    service: Option<Service>,
    pub(crate) pair: VethPair,
    host: Namespace,
    pub(crate) folder: TempDir,
    transport: Transport,
}

/// The service as a process.
struct Service {
    process: Process,
    /// Held, so that it can go on writing.
    _stdout: BufReader<ChildStdout>,
}

impl Place {
    /// With both ends of the wire in the inventory.
    pub(crate) fn new() -> Self {
        Self::with(Transport::Http, |_, enis| enis)
    }

    /// With this transport, and the inventory that `inventory` makes of the usual one.
    pub(crate) fn with(
        transport: Transport,
        inventory: impl FnOnce(&VethPair, Vec<EniPlan>) -> Vec<EniPlan>,
    ) -> Self {
        Self::delivering(transport, inventory, to_files, SHORT)
    }

    /// With windows as long as the flow logs say.
    pub(crate) fn with_long_windows() -> Self {
        Self::delivering(Transport::Http, |_, enis| enis, to_files, None)
    }

    /// With an agent that delivers to the logstore that a flow log names.
    pub(crate) fn with_logs() -> Self {
        Self::delivering(Transport::Http, |_, enis| enis, |_| String::new(), SHORT)
    }

    /// `destination` is what the agent's table on the service says of where records go, for files in a folder. `window_seconds` is the
    /// length of all windows, unless the flow logs say it.
    fn delivering(
        transport: Transport,
        inventory: impl FnOnce(&VethPair, Vec<EniPlan>) -> Vec<EniPlan>,
        destination: fn(&Path) -> String,
        window_seconds: Option<u64>,
    ) -> Self {
        let namespace = |label| Namespace::create(label).expect("a namespace");
        let (left, right, host) = (namespace("left"), namespace("right"), namespace("host"));
        let pair = VethPair::create(VethPlan::between(&left, &right)).expect("a pair");
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("service.toml");
        std::fs::write(&config, format!("account-id = {ACCOUNT:?}\n")).expect("a file");
        let service = Service::start(&host, folder.path(), transport);
        let key = folder.path().join("agent.json");
        let made = cli(
            (&host, transport),
            folder.path(),
            &[
                "access-key",
                "create",
                "--role",
                "agent",
                "--file",
                text(&key),
            ],
        );
        made.expect("an access key");
        let enis = vec![
            EniPlan::end(LEFT, pair.left()),
            EniPlan::end(RIGHT, pair.right()),
        ];
        let plan = AgentPlan {
            flow_logs: Vec::new(),
            output: None,
            window_seconds,
            namespace: Some(host.clone()),
            extra: agent_service(&key, &destination(folder.path()), transport),
            ..AgentPlan::capturing(inventory(&pair, enis))
        };
        Self {
            agent: AgentProcess::start(AGENT, &plan).expect("an agent"),
            service: Some(service),
            pair,
            host,
            folder,
            transport,
        }
    }

    /// Waits until the service knows of these ENIs as captured.
    pub(crate) fn wait_for_enis(&self, enis: &[&str]) {
        self.wait_for("ENIs", || {
            let resources = self.cli(&["resources"]);
            let known = resources["enis"].as_array().expect("ENIs");
            let is_captured = |eni: &&str| {
                known
                    .iter()
                    .any(|known| known["id"] == **eni && known["captured"] == true)
            };
            enis.iter().all(is_captured)
        });
    }

    /// Runs a command, which is to succeed, and gives what it prints.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Value {
        self.try_cli(arguments)
            .unwrap_or_else(|error| panic!("flowlog {}: {error}", arguments.join(" ")))
    }

    /// Runs a command, and gives what it prints, or its error.
    pub(crate) fn try_cli(&self, arguments: &[&str]) -> Result<Value, String> {
        cli((&self.host, self.transport), self.folder.path(), arguments)
    }

    /// The administrator's access key.
    pub(crate) fn key_file(&self) -> PathBuf {
        key_file(self.folder.path())
    }

    /// Runs any program on the host, which is to succeed, and gives what it prints.
    pub(crate) fn succeed(&self, mut command: Command) -> String {
        command.stdin(Stdio::null());
        let output = self.host.enter(|| command.output()).expect("the host");
        let output = output.expect("the program");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Makes a flow log of the VPC that is called `name`, with more arguments, and waits until it captures; gives its id.
    pub(crate) fn create(&self, name: &str, arguments: &[&str]) -> String {
        let given = [
            "create",
            "--vpc",
            VPC,
            "--name",
            name,
            "--project",
            "p-one",
            "--logstore",
            "s-one",
        ];
        let created = self.cli(&[&given, arguments].concat());
        assert_eq!(created["status"], "Active", "{created}");
        created["id"].as_str().expect("an id").to_owned()
    }

    /// The records of a flow log, once nobody writes them any more.
    pub(crate) fn records(&self, id: &str) -> Vec<Record> {
        records_of(&self.file(id)).expect("records")
    }

    /// The file of a flow log.
    pub(crate) fn file(&self, id: &str) -> PathBuf {
        let folder = self.folder.path().join("records/p-one/s-one");
        folder.join(format!("{id}.log"))
    }

    /// Sends packets from left to right, of ten flows.
    pub(crate) fn flood(&self, packets: u64) -> Volume {
        self.flood_of(0, packets)
    }

    /// Likewise, of the ten flows from this one on.
    pub(crate) fn flood_of(&self, first_flow: u32, packets: u64) -> Volume {
        let plan = FloodPlan {
            packets,
            flows: 10,
            first_flow,
            threads: 1,
            ..FloodPlan::default()
        };
        let left = self.pair.left();
        let sent = udp_flood(&left.namespace, &left.name, &plan).expect("a flood");
        assert_eq!(sent.refused, 0, "a refused frame passes egress twice");
        Volume {
            packets: sent.packets,
            bytes: sent.bytes,
        }
    }

    /// Waits until a flow log has as many packets of an ENI and direction; it is to have no more, and as many octets.
    pub(crate) fn wait_for_volume(
        &self,
        id: &str,
        eni: &str,
        direction: Direction,
        expected: Volume,
    ) {
        let found = Cell::new(Volume::default());
        self.wait_for("packets", || {
            // The last line may not be written to its end yet.
            if let Ok(records) = records_of(&self.file(id)) {
                found.set(volume(&records, eni, direction));
            }
            found.get().packets >= expected.packets
        });
        assert_eq!(found.get(), expected, "of {eni} {direction:?}");
    }

    /// A request to the Log Service with the administrator's access key, and what it answers.
    pub(crate) fn search(&self, logstore: &str, query: &Value) -> Result<Value, String> {
        let key = self.folder.path().join("state/administrator.json");
        let ask = || {
            let key = AccessKey::load(&key).map_err(|error| error.to_string())?;
            let url = self.transport.url().parse().expect("a URL");
            let client = Client::new(url, key, None).map_err(|error| error.to_string())?;
            let body = query.to_string();
            let call = LogCall {
                method: "POST",
                project: Some("p-one"),
                path: &format!("/logstores/{logstore}/logs"),
                query: &[],
                headers: &[
                    ("content-type", "application/json"),
                    ("x-log-bodyrawsize", "0"),
                ],
                body: body.as_bytes(),
                patience: PATIENCE,
                max_answer_bytes: 16 << 20,
            };
            let wall = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("a time after 1970");
            let answer = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(client.send_log(&call, wall));
            let answer = answer.map_err(|error| error.to_string())?;
            answer.json().map_err(|error| error.to_string())
        };
        self.host.enter(ask).expect("the host")
    }

    /// Kills the service.
    pub(crate) fn kill_service(&mut self) {
        // Dropping the process kills it.
        drop(self.service.take().expect("a service"));
    }

    /// Starts the service again, on the same state.
    pub(crate) fn restart_service(&mut self) {
        self.service = Some(Service::start(
            &self.host,
            self.folder.path(),
            self.transport,
        ));
    }

    /// What the agent says of the service.
    pub(crate) fn service_status(&self) -> Value {
        self.agent.status().expect("a status")["service"].clone()
    }

    /// Waits until `reached` says so, which it is asked now and then.
    pub(crate) fn wait_for(&self, what: &str, reached: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !reached() {
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
            thread::sleep(LOOK);
        }
    }

    /// Ends the agent in good order: what is open is closed and delivered.
    pub(crate) fn stop_agent(&mut self) {
        let outcome = self.agent.stop().expect("the agent's end");
        assert!(outcome.status.success(), "{}", outcome.stderr);
    }
}

impl Service {
    fn start(host: &Namespace, folder: &Path, transport: Transport) -> Self {
        let mut command = Command::new(FLOWLOG);
        command
            .args(["serve", "--listen", LISTEN, "--data-dir"])
            .arg(folder.join("state"))
            .arg("--config")
            .arg(folder.join("service.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if transport == Transport::Https {
            command.args(["--tls-cert", CERTIFICATE, "--tls-key", CERTIFICATE_KEY]);
        }
        let mut process = host.spawn(&mut command).expect("a service");
        let mut stdout = BufReader::new(process.child().stdout.take().expect("its output"));
        let mut line = String::new();
        while !line.starts_with("listening on ") {
            line.clear();
            let length = stdout.read_line(&mut line).expect("a line");
            assert_ne!(length, 0, "the service has ended");
        }
        Self {
            process,
            _stdout: stdout,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended before, if this fails.
        let _ = self.process.child().kill();
        let _ = self.process.child().wait();
    }
}

/// The agent's table on the service.
fn agent_service(key: &Path, destination: &str, transport: Transport) -> String {
    let url = transport.url();
    let ca_file = match transport {
        Transport::Http => String::new(),
        Transport::Https => format!("ca-file = {CERTIFICATE:?}\n"),
    };
    format!(
        "[service]\nurl = {url:?}\n{ca_file}access-key-file = {key:?}\nhost-id = \"host-1\"\nformat = \"json\"\n{destination}"
    )
}

fn to_files(folder: &Path) -> String {
    let records = folder.join("records/{project}/{logstore}/{flow-log-id}.log");
    format!("destination = {{ type = \"file\", path = {records:?} }}\n")
}

fn key_file(folder: &Path) -> PathBuf {
    folder.join("state/administrator.json")
}

fn cli(
    (host, transport): (&Namespace, Transport),
    folder: &Path,
    arguments: &[&str],
) -> Result<Value, String> {
    let key = key_file(folder);
    let mut command = Command::new(FLOWLOG);
    command
        .args(arguments)
        .args(["--output", "json"])
        .env("FLOWLOG_URL", transport.url())
        .env("FLOWLOG_CA_FILE", CERTIFICATE)
        .env("FLOWLOG_ACCESS_KEY_FILE", key)
        .stdin(Stdio::null());
    if CHANGES.contains(&arguments[0]) {
        command.args(["--timeout", &PATIENCE.as_secs().to_string()]);
    }
    let output = host
        .enter(|| command.output())
        .expect("the host")
        .expect("the command line");
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// What is in the OK records of an ENI and direction.
pub(crate) fn volume(records: &[Record], eni: &str, direction: Direction) -> Volume {
    let ok = records
        .iter()
        .filter(|record| record.log_status == LogStatus::Ok)
        .cloned()
        .collect::<Vec<_>>();
    flowlog_tests::agent::volume(&ok, eni, direction)
}

/// Two volumes together.
pub(crate) fn sum(mut one: Volume, other: Volume) -> Volume {
    one += other;
    one
}
