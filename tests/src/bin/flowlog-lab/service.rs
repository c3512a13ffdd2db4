//! The service on the lab: its process, and what is in it before the agent comes.
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    agent::Files,
    program::{guarded, program, terminate},
    vpc::{ACCOUNT_ID, REGION, VPC_ID},
};

/// Where the records go.
const PROJECT: &str = "lab";
/// Likewise.
const LOGSTORE: &str = "flow-logs";

/// Variable by which a user chooses what agent and service log.
const LOG_VARIABLE: &str = "FLOWLOG_LOG";

/// The service; ended and waited for when dropped.
pub(crate) struct Service {
    process: Child,
    /// Held, so that it can go on writing.
    stdout: BufReader<ChildStdout>,
    url: String,
    flowlog: PathBuf,
    administrator_key: PathBuf,
    agent_key: PathBuf,
    /// Script for a shell that makes it know all this.
    environment: PathBuf,
}

impl Service {
    /// Starts it on any free port of the loopback, with its data in the demo's folder, and makes there what the agent needs.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or refuses something.
    pub(crate) fn start(flowlog: &Path, files: &Files) -> Result<Self> {
        let flowlog = program(flowlog);
        let data = files.path("service");
        let settings = format!("account-id = '{ACCOUNT_ID}'\ndefault-region = '{REGION}'\n");
        let config = files.write("flowlog.toml", &settings)?;
        let mut command = guarded(&flowlog)?;
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C reaches all of the terminal's group. The service is to take the agent's last records first.
            .process_group(0);
        if std::env::var_os(LOG_VARIABLE).is_none() {
            command.env(LOG_VARIABLE, "warn");
        }
        let cannot = || format!("cannot start {}", flowlog.display());
        let mut process = command.spawn().with_context(cannot)?;
        let stdout = process.stdout.take().with_context(cannot)?;
        let mut service = Self {
            process,
            stdout: BufReader::new(stdout),
            url: String::new(),
            administrator_key: data.join("administrator.json"),
            agent_key: files.path("agent-key.json"),
            environment: files.path("env"),
            flowlog,
        };
        service.wait_until_it_listens()?;
        service.furnish()?;
        files.write("env", &service.exports()?)?;
        Ok(service)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.stdout.read_line(&mut line)? == 0 {
                bail!("the service has ended before it listened");
            }
            if let Some(url) = line.strip_prefix("listening on ") {
                url.trim().clone_into(&mut self.url);
                return Ok(());
            }
        }
    }

    /// Makes an access key for the agent, a logstore, and a flow log that fills it.
    fn furnish(&self) -> Result<()> {
        let key = self.agent_key.display().to_string();
        let create_flow_log = [
            "create",
            "--vpc",
            VPC_ID,
            "--name",
            "lab",
            "--interval",
            "1",
            // No agent has reported of the VPC yet: so the agent finds the flow log when it begins.
            "--allow-unknown",
            "--project",
            PROJECT,
            "--logstore",
            LOGSTORE,
        ];
        for arguments in [
            &["access-key", "create", "--role", "agent", "--file", &key][..],
            &["project", "create", PROJECT],
            &[
                "logstore",
                "create",
                "--project",
                PROJECT,
                LOGSTORE,
                "--ttl",
                "1",
            ],
            &create_flow_log,
        ] {
            self.ask(arguments)?;
        }
        Ok(())
    }

    /// Runs a command of `flowlog`, and gives what it prints.
    ///
    /// # Errors
    ///
    /// If it fails, with what it says.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.flowlog)
            .args(arguments)
            .envs(self.variables())
            .stdin(Stdio::null())
            // As the service: what is asked last is asked after a Ctrl-C.
            .process_group(0)
            .output()
            .with_context(|| format!("cannot start {}", self.flowlog.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`flowlog {}` failed: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What tells `flowlog` which logstore it is about.
    fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("FLOWLOG_URL", self.url.clone()),
            (
                "FLOWLOG_ACCESS_KEY_FILE",
                self.administrator_key.display().to_string(),
            ),
            ("FLOWLOG_PROJECT", PROJECT.to_owned()),
            ("FLOWLOG_LOGSTORE", LOGSTORE.to_owned()),
        ]
    }

    /// The same as a script, with `flowlog` on the path.
    fn exports(&self) -> Result<String> {
        let program = fs::canonicalize(&self.flowlog)?;
        let folder = program.parent().unwrap_or(&program);
        let variables = self.variables();
        let lines = variables
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quoted(value)));
        let path = quoted(&folder.display().to_string());
        Ok(lines
            .chain([format!("export PATH={path}:\"$PATH\"\n")])
            .collect())
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The file with the agent's access key.
    pub(crate) fn agent_key(&self) -> &Path {
        &self.agent_key
    }

    /// A script for a shell that makes `flowlog` known and tells it which logstore it is about.
    pub(crate) fn environment(&self) -> &Path {
        &self.environment
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            terminate(&self.process);
        }
        let _ = self.process.wait();
    }
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_word_of_a_shell_is_what_it_was() {
        assert_eq!(quoted("/tmp/a b"), "'/tmp/a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
