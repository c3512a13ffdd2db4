//! A running `flowlog serve`.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

/// Longest wait for an answer: only a service that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(100);

pub(crate) struct Service {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it printed until it listened.
    pub(crate) printed: String,
    pub(crate) address: SocketAddr,
}

pub(crate) fn command(folder: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowlog"));
    command.arg("serve").arg("--data-dir").arg(folder);
    command.args(options);
    command
}

/// What becomes of a service that does not start.
pub(crate) fn refused(folder: &Path, options: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command(folder, options).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

impl Service {
    /// Starts it on any port of the loopback.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, &["--listen", "127.0.0.1:0"])
    }

    pub(crate) fn start_with(folder: &Path, options: &[&str]) -> Self {
        let mut child = command(folder, options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut service = Self {
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            printed: String::new(),
            address: ([0; 4], 0).into(),
        };
        loop {
            let mut line = String::new();
            assert_ne!(service.stdout.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some(url) = line.strip_prefix("listening on ") {
                let address = url.trim().split_once("://").unwrap().1;
                service.address = address.parse().unwrap();
                return service;
            }
            service.printed.push_str(&line);
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.address.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes, and gives all that comes until the service closes.
    pub(crate) fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The service may close before all is written: what counts is its answer.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.exchange(
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(),
        )
    }

    /// Tells it to end, and gives its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        let id = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), None);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        status.code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
