//! The agent on the lab: its files, and its process.
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, mkdtemp},
};

use crate::{
    DemoArguments,
    vpc::{GUEST_DEVICE, VPC_ID, Vpc},
};

/// Variable by which a user chooses what the agent logs.
const LOG_VARIABLE: &str = "FLOWLOG_LOG";

/// Name of the configuration's file.
const CONFIGURATION: &str = "agent.toml";

/// Configuration and inventory in a folder of their own, and the pins' folder: all gone when dropped.
pub(crate) struct Files {
    folder: PathBuf,
    pins: PathBuf,
}

impl Files {
    /// Writes them.
    ///
    /// # Errors
    ///
    /// If there is no room for them.
    pub(crate) fn write(vpc: &Vpc) -> Result<Self> {
        let template = std::env::temp_dir().join("flowlog-lab-XXXXXX");
        let folder = mkdtemp(&template)
            .with_context(|| format!("cannot make a folder {}", template.display()))?;
        let files = Self {
            folder,
            // Of its own, so that an agent that runs on this machine goes on undisturbed.
            pins: format!("/sys/fs/bpf/flowlog-lab-{}", std::process::id()).into(),
        };
        for (name, text) in [
            (CONFIGURATION, files.configuration()),
            ("inventory.toml", inventory(vpc)),
        ] {
            let path = files.folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(files)
    }

    /// The agent's configuration.
    pub(crate) fn configuration_path(&self) -> PathBuf {
        self.folder.join(CONFIGURATION)
    }

    fn configuration(&self) -> String {
        format!(
            "inventory = 'inventory.toml'\n\
             pin-path = '{}'\n\
             lock-file = '{}'\n\
             status-socket = '{}'\n\
             [spool]\n\
             path = '{}'\n\
             [capture]\n\
             flow-map-min-entries = 1024\n\
             [[flow-log]]\n\
             name = 'lab'\n\
             resource-type = 'VPC'\n\
             resource-id = '{VPC_ID}'\n\
             destination = {{ type = 'stdout' }}\n",
            self.pins.display(),
            self.folder.join("lock").display(),
            self.folder.join("status").display(),
            self.folder.join("spool").display()
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        // The agent has removed its pins, unless it was killed.
        let _ = fs::remove_dir_all(&self.pins);
    }
}

fn inventory(vpc: &Vpc) -> String {
    let mut text = String::new();
    for vm in &vpc.vms {
        let plan = vm.plan;
        let (side, namespace, device) = if plan.host_side {
            ("host", &vpc.router, plan.router_device())
        } else {
            ("guest", &vm.namespace, GUEST_DEVICE.to_owned())
        };
        let _ = write!(
            text,
            "[[eni]]\n\
             eni-id = '{}'\n\
             vswitch-id = '{}'\n\
             vpc-id = '{VPC_ID}'\n\
             account-id = '100000000001'\n\
             vm-id = '{}'\n\
             region = 'lab'\n\
             side = '{side}'\n\
             match = {{ namespace = '{}', name = '{device}' }}\n",
            plan.eni_id,
            plan.vswitch_id,
            plan.name,
            namespace.name().unwrap_or_default(),
        );
    }
    text
}

/// The agent's process; ended and waited for when dropped.
pub(crate) struct Agent(Child);

impl Agent {
    /// Starts it. Its records go to our standard output, its logs to our standard error.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn start(arguments: &DemoArguments, files: &Files) -> Result<Self> {
        let mut command = Command::new(program(&arguments.agent));
        command
            .arg("run")
            .arg("--config")
            .arg(files.configuration_path())
            .args(["--window", &arguments.window])
            .args(["--output", arguments.output.as_str()])
            .stdin(Stdio::null());
        if let Some(windows) = arguments.windows {
            command.args(["--windows", &windows.to_string()]);
        }
        // What it would tell besides is told by the map.
        if std::env::var_os(LOG_VARIABLE).is_none() {
            command.env(LOG_VARIABLE, "warn");
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", arguments.agent.display()))?;
        Ok(Self(child))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Asks it to end. It closes its window and writes it first. To be asked twice does it no harm.
    pub(crate) fn ask_to_end(&mut self) {
        if self.ended().is_none()
            && let Ok(pid) = i32::try_from(self.0.id())
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.ask_to_end();
        let _ = self.0.wait();
    }
}

/// A name without a folder is a file here, not a program of `PATH`.
fn program(path: &Path) -> PathBuf {
    if path.components().count() == 1 {
        Path::new(".").join(path)
    } else {
        path.to_owned()
    }
}
