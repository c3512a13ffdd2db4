//! The agent on the lab: its files, and its process.
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use nix::unistd::mkdtemp;

use crate::{
    DemoArguments,
    program::{guarded, program, terminate},
    service::Service,
    vpc::{ACCOUNT_ID, GUEST_DEVICE, REGION, VPC_ID, Vpc},
};

/// Variable by which a user chooses what the agent logs.
const LOG_VARIABLE: &str = "FLOWLOG_LOG";

/// Name of the configuration's file.
const CONFIGURATION: &str = "agent.toml";

/// The security group of the VM `db`.
const DB_GROUP: &str = "
[[security-group]]
security-group-id = 'sg-db'
vpc-id = 'vpc-lab'
[[security-group.rule]]
security-group-rule-id = 'sgr-no-ssh'
direction = 'ingress'
policy = 'drop'
ip-protocol = 'TCP'
port-range = '22/22'
priority = 1
source-cidr-ip = '0.0.0.0/0'
[[security-group.rule]]
security-group-rule-id = 'sgr-ipv4'
direction = 'ingress'
ip-protocol = 'ALL'
port-range = '-1/-1'
priority = 2
source-cidr-ip = '0.0.0.0/0'
[[security-group.rule]]
security-group-rule-id = 'sgr-ipv6'
direction = 'ingress'
ip-protocol = 'ALL'
port-range = '-1/-1'
priority = 2
ipv6-source-cidr-ip = '::/0'
";

/// What the folders of a demo are called, before its process id.
const PREFIX: &str = "flowlog-lab-";

/// Where the file system of BPF is, in which pins are.
const BPF_FOLDER: &str = "/sys/fs/bpf";

/// A folder for all files of the demo, and the pins' folder: gone when dropped.
pub(crate) struct Files {
    folder: PathBuf,
    pins: PathBuf,
}

impl Files {
    /// Makes the folder, and removes those of demos that were killed.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub(crate) fn create() -> Result<Self> {
        let (temporary, pins) = (std::env::temp_dir(), Path::new(BPF_FOLDER));
        for parent in [&temporary, pins] {
            sweep(parent);
        }
        let own = format!("{PREFIX}{}", std::process::id());
        let template = temporary.join(format!("{own}-XXXXXX"));
        let folder = mkdtemp(&template)
            .with_context(|| format!("cannot make a folder {}", template.display()))?;
        Ok(Self {
            folder,
            // Of its own, so that an agent that runs on this machine goes on undisturbed.
            pins: pins.join(own),
        })
    }

    /// A file in the folder, or a folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file into the folder, and gives its path.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Writes the agent's configuration and its inventory.
    ///
    /// # Errors
    ///
    /// If there is no room for them.
    pub(crate) fn configure(&self, vpc: &Vpc, service: &Service) -> Result<()> {
        self.write("inventory.toml", &inventory(vpc))?;
        self.write(CONFIGURATION, &self.configuration(service))?;
        Ok(())
    }

    /// The agent's configuration.
    pub(crate) fn configuration_path(&self) -> PathBuf {
        self.path(CONFIGURATION)
    }

    fn configuration(&self, service: &Service) -> String {
        format!(
            "inventory = 'inventory.toml'\n\
             pin-path = '{}'\n\
             lock-file = '{}'\n\
             status-socket = '{}'\n\
             [spool]\n\
             path = '{}'\n\
             [capture]\n\
             flow-map-min-entries = 1024\n\
             [service]\n\
             url = '{}'\n\
             access-key-file = '{}'\n\
             host-id = 'lab'\n\
             [[flow-log]]\n\
             name = 'lab'\n\
             resource-type = 'VPC'\n\
             resource-id = '{VPC_ID}'\n\
             destination = {{ type = 'stdout' }}\n",
            self.pins.display(),
            self.path("lock").display(),
            self.path("status").display(),
            self.path("spool").display(),
            service.url(),
            service.agent_key().display(),
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

/// Removes folders of demos whose process is gone.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(owner) else {
            continue;
        };
        if !Path::new("/proc").join(owner.to_string()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process id in the name of a demo's folder.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    let digits = rest.split_once('-').map_or(rest, |(digits, _)| digits);
    digits.parse().ok()
}

fn inventory(vpc: &Vpc) -> String {
    let mut text = DB_GROUP.to_owned();
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
             account-id = '{ACCOUNT_ID}'\n\
             vm-id = '{}'\n\
             region = '{REGION}'\n\
             side = '{side}'\n\
             match = {{ namespace = '{}', name = '{device}' }}\n{}",
            plan.eni_id,
            plan.vswitch_id,
            plan.name,
            namespace.name().unwrap_or_default(),
            match plan.security_group {
                Some(group) =>
                    format!("security-group-ids = ['{group}']\nsecurity-mode = 'enforce'\n"),
                None => String::new(),
            },
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
        let mut command = guarded(&program(&arguments.agent))?;
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
        if self.ended().is_none() {
            terminate(&self.0);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.ask_to_end();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn folders_of_demos_say_whose_they_are() {
        assert_eq!(owner("flowlog-lab-12-aBcD12"), Some(12));
        assert_eq!(owner("flowlog-lab-12"), Some(12));
        for other in [
            "flowlog-lab-",
            "flowlog-lab-aBcD12",
            "flowlog-labs-12",
            "12",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
