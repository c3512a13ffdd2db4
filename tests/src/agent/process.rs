//! The agent as a process.
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    AgentPlan, EniPlan, HAS_SPOOL, Record,
    output::{Heard, Output},
    pins::PinPath,
    plan, proc,
};
use crate::{Error, Result};

/// How long anything is awaited of an agent.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A window of this length, in seconds, or more is meant to outlast its test.
const LONG_WINDOW_SECONDS: u64 = 3600;
/// What is to be left of such a window when the agent starts: longer than any test takes on a slow machine.
const LEAST_LEFT: Duration = Duration::from_secs(90);

/// How long an agent that is dropped may take to end by itself.
const DROP_PATIENCE: Duration = Duration::from_secs(10);
/// What is left of an agent that has ended.
#[derive(Debug)]
pub struct Outcome {
    /// The records it wrote to standard output, if these are JSON.
    pub records: Vec<Record>,
    /// The lines of standard output that are not such records.
    pub lines: Vec<String>,
    /// All it wrote to standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

/// An agent, running or ended, and its folder. See the [module](super) for an example.
#[derive(Debug)]
pub struct AgentProcess {
    binary: PathBuf,
    plan: AgentPlan,
    running: Option<Running>,
    place: Arc<Place>,
}

#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) output: Output,
}

/// Where an agent has its files.
#[derive(Debug)]
struct Place {
    folder: TempDir,
    pins: PinPath,
}

impl AgentProcess {
    /// Writes configuration and inventory into a new folder, and starts `binary` on them. That it runs does not mean that it
    /// captures: see [`Self::wait_until_captured`].
    ///
    /// Windows of an hour or more are for tests that have one window: if one would end within 90 s, its end is waited for first.
    ///
    /// # Errors
    /// If a file cannot be written or the program cannot be started. A program that ends at once is no error here.
    pub fn start(binary: impl AsRef<Path>, plan: &AgentPlan) -> Result<Self> {
        let folder = TempDir::with_prefix("flowlog-test-")
            .map_err(Error::system("make a temporary folder"))?;
        let place = Place {
            folder,
            pins: PinPath::new(),
        };
        let mut agent = Self {
            binary: binary.as_ref().to_owned(),
            plan: plan.clone(),
            running: None,
            place: Arc::new(place),
        };
        agent.replace_inventory(plan.enis.clone())?;
        agent.write_config(&agent.config_of(plan))?;
        if let Some(seconds) = plan.window_seconds.filter(|&s| s >= LONG_WINDOW_SECONDS) {
            await_room(seconds);
        }
        agent.restart()?;
        Ok(agent)
    }

    /// Starts a second agent on the same files, and so on the same lock.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_second(&self) -> Result<Self> {
        let mut second = Self {
            binary: self.binary.clone(),
            plan: self.plan.clone(),
            running: None,
            place: Arc::clone(&self.place),
        };
        second.restart()?;
        Ok(second)
    }

    /// Starts the agent anew, on the same files and pins, after it has ended.
    ///
    /// # Errors
    /// If it still runs, or cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Err(Error::Invalid("the agent still runs".to_owned()));
        }
        let mut command = Command::new(&self.binary);
        command
            .args(["run", "--config"])
            .arg(self.config_path())
            .args(self.plan.arguments())
            .env("FLOWLOG_LOG", "info")
            .envs(&self.plan.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = match &self.plan.namespace {
            Some(namespace) => namespace.enter(|| command.spawn())?,
            None => command.spawn(),
        };
        let mut child =
            spawned.map_err(Error::system(format!("start {}", self.binary.display())))?;
        // Both are piped, so both are there.
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::Invalid("the agent has no output".to_owned()));
        };
        let output = Output::read(stdout, stderr, self.plan.stdout_held);
        self.running = Some(Running { child, output });
        Ok(())
    }

    /// Has the next [`Self::restart`] start another program.
    pub fn run_as(&mut self, binary: impl AsRef<Path>) {
        binary.as_ref().clone_into(&mut self.binary);
    }

    /// Gives the next [`Self::restart`] this environment variable, or none of this name.
    pub fn set_environment(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => self.plan.environment.insert(name.to_owned(), value),
            None => self.plan.environment.remove(name),
        };
    }

    /// Has the next [`Self::restart`] do this at failpoints, as in `drain-committed:3=kill`; none for nothing.
    pub fn set_failpoint(&mut self, points: Option<&str>) {
        self.set_environment("FLOWLOG_FAILPOINT", points.map(str::to_owned));
    }

    /// Begins to read standard output, where the plan had it held.
    ///
    /// # Errors
    /// If it has ended.
    pub fn release_stdout(&self) -> Result<()> {
        self.running()?.output.release_stdout();
        Ok(())
    }

    /// Removes its pins, and with them all that the kernel counts, as a reboot does. Only after it has ended.
    ///
    /// # Errors
    /// If it still runs.
    pub fn lose_pins(&self) -> Result<()> {
        if self.running.is_some() {
            return Err(Error::Invalid("the agent still runs".to_owned()));
        }
        self.place.pins.remove();
        Ok(())
    }

    /// What `flowlog-agent status --output json` tells of it.
    ///
    /// # Errors
    /// If it fails, or tells something else than JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let output = Command::new(&self.binary)
            .args(["status", "--output", "json", "--config"])
            .arg(self.config_path())
            .output()
            .map_err(Error::system("run flowlog-agent status"))?;
        serde_json::from_slice(&output.stdout).map_err(|error| Error::Command {
            command: "flowlog-agent status --output json".to_owned(),
            stderr: format!("{error}: {}", String::from_utf8_lossy(&output.stderr)),
        })
    }

    /// The most memory that it has had resident at once, in KiB.
    ///
    /// # Errors
    /// If it has ended.
    pub fn peak_memory_kib(&self) -> Result<u64> {
        proc::peak_memory_kib(self.pid()?)
    }

    /// Tags of the BPF programs that it holds, by themselves or by a link: the kernel makes them of a program's instructions.
    ///
    /// # Errors
    /// If it has ended.
    pub fn program_tags(&self) -> Result<BTreeSet<String>> {
        proc::program_tags(self.pid()?)
    }

    /// Its process id.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.child.id())
    }

    /// The configuration's file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.folder().join("agent.toml")
    }

    /// The inventory's file.
    #[must_use]
    pub fn inventory_path(&self) -> PathBuf {
        self.folder().join("inventory.toml")
    }

    /// Its folder, in which there is room for more files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.place.folder.path()
    }

    /// Its spool.
    #[must_use]
    pub fn spool_path(&self) -> PathBuf {
        self.spool_of(&self.plan)
    }

    fn spool_of(&self, plan: &AgentPlan) -> PathBuf {
        let own = || self.folder().join("spool");
        plan.spool_path.clone().unwrap_or_else(own)
    }

    /// The folder on the BPF file system that it makes its pins in.
    #[must_use]
    pub fn pin_path(&self) -> &Path {
        self.place.pins.path()
    }

    /// The configuration as the plan has it, to be changed and written with [`Self::write_config`].
    #[must_use]
    pub fn config_of(&self, plan: &AgentPlan) -> String {
        plan.config(&self.place.lines(), &self.spool_of(plan))
    }

    /// Puts another text in the configuration's place, in one step. The agent reads it at SIGHUP.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_config(&self, text: &str) -> Result<()> {
        replace(&self.config_path(), text)
    }

    /// Puts another inventory in the old one's place, in one step. The agent reads it at once.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn replace_inventory(&self, enis: impl IntoIterator<Item = EniPlan>) -> Result<()> {
        let enis: Vec<EniPlan> = enis.into_iter().collect();
        self.write_inventory(&plan::inventory(&enis))
    }

    /// Puts any text in the inventory's place, in one step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_inventory(&self, text: &str) -> Result<()> {
        replace(&self.inventory_path(), text)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(&self.running()?.child, signal)
            .map_err(Error::system(format!("send {signal} to the agent")))
    }

    /// Runs `body` while the agent is stopped (SIGSTOP): it drains nothing then, and the kernel counts on.
    ///
    /// # Errors
    /// If it has ended.
    pub fn paused<T>(&self, body: impl FnOnce() -> T) -> Result<T> {
        let child = &self.running()?.child;
        let pause = || {
            send(child, Signal::SIGSTOP)?;
            // It stops a moment after the signal. Neither is its end taken away from who waits for that.
            let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            waitid(Id::Pid(pid(child)), flags)
        };
        pause().map_err(Error::system("pause the agent"))?;
        let result = body();
        self.signal(Signal::SIGCONT)?;
        Ok(result)
    }

    /// Ends the agent by SIGTERM: it closes and writes the open window.
    ///
    /// # Errors
    /// If it has ended before or does not end within [`PATIENCE`]; it is killed then.
    pub fn stop(&mut self) -> Result<Outcome> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    /// Kills the agent, as a crash would. Folder and pins stay, for [`Self::restart`].
    ///
    /// # Errors
    /// If it has ended before.
    pub fn kill(&mut self) -> Result<Outcome> {
        self.signal(Signal::SIGKILL)?;
        self.wait()
    }

    /// Waits until the agent has ended by itself.
    ///
    /// # Errors
    /// If it does not within [`PATIENCE`]; it is killed then.
    pub fn wait(&mut self) -> Result<Outcome> {
        let mut running = self.running.take().ok_or_else(ended)?;
        running.output.release_stdout();
        let status =
            wait_for_end(&mut running, PATIENCE).map_err(Error::system("await the agent's end"))?;
        let Heard {
            records,
            lines,
            log,
            ..
        } = running.output.finish();
        let stderr = log.join("\n");
        match status {
            Some(status) => Ok(Outcome {
                records,
                lines,
                stderr,
                status,
            }),
            None => Err(Error::Invalid(format!(
                "the agent did not end within {PATIENCE:?} and was killed; its standard error:\n{stderr}"
            ))),
        }
    }

    pub(super) fn running(&self) -> Result<&Running> {
        self.running.as_ref().ok_or_else(ended)
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.output.release_stdout();
            let _ = send(&running.child, Signal::SIGTERM);
            if !matches!(wait_for_end(&mut running, DROP_PATIENCE), Ok(Some(_))) {
                eprintln!("the agent did not end within {DROP_PATIENCE:?} and was killed");
            }
            let log = running.output.finish().log;
            if thread::panicking() {
                eprintln!("standard error of the agent:\n{}", log.join("\n"));
            }
        }
    }
}

impl Outcome {
    /// The exit code; none if a signal ended it, see [`Self::signal`].
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

impl Place {
    /// The lines of the configuration that say where things are.
    fn lines(&self) -> String {
        let own = |name: &str| self.folder.path().join(name);
        let status = if HAS_SPOOL {
            format!("status-socket = {:?}\n", own("agent.sock"))
        } else {
            String::new()
        };
        format!(
            "inventory = \"inventory.toml\"\npin-path = {:?}\nlock-file = {:?}\n{status}",
            self.pins.path(),
            own("agent.lock")
        )
    }
}

fn ended() -> Error {
    Error::Invalid("the agent has ended already".to_owned())
}

/// A child that was not waited for keeps its id, so the signal reaches no other.
fn send(child: &Child, signal: Signal) -> nix::Result<()> {
    kill(pid(child), signal)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Waits until more than [`LEAST_LEFT`] is left of the window of this length that is open by the wall clock.
fn await_room(window_seconds: u64) {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let left = Duration::from_secs(window_seconds - wall.as_secs() % window_seconds);
    if left < LEAST_LEFT {
        thread::sleep(left);
    }
}

/// Waits for the end; none, and the process killed, if it does not come within `limit`.
fn wait_for_end(running: &mut Running, limit: Duration) -> io::Result<Option<ExitStatus>> {
    // A process closes its streams as it ends; `wait`, which has no limit, then returns at once.
    let in_time = running.output.wait_for_end(limit);
    if !in_time {
        running.child.kill()?;
    }
    let status = running.child.wait()?;
    Ok(in_time.then_some(status))
}

fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(Error::system(format!("write {}", path.display())))
}
