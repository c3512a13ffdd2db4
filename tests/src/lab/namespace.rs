//! Network namespaces with names of our own.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::{panic, process, thread};

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result};

/// Every namespace of the lab is called `fl<pid>-<n>-<label>`.
const PREFIX: &str = "fl";
/// Where iproute2 keeps the named namespaces (`NETNS_RUN_DIR`).
const NAMED_NAMESPACES: &str = "/run/netns";
/// Longest label, in characters.
const MAX_LABEL: usize = 16;

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A network namespace. Clones are the same namespace; it is deleted when the last of them is dropped, and with it whatever
/// devices are left inside.
///
/// A process or a socket that is still inside keeps the namespace alive without its name: end these first. [`Process`] does so
/// by itself, for it holds a clone.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` for the namespace that this process is in, which is not ours to delete.
    name: Option<String>,
    handle: File,
}

impl Namespace {
    /// Makes a namespace called `fl<pid>-<n>-<label>`, with `lo` up.
    ///
    /// The first call in a process removes what dead runs left behind: namespaces called as ours whose process is gone.
    ///
    /// # Errors
    /// If `label` is not 1 to 16 of `[a-z0-9]`, without root, or without `ip`.
    pub fn create(label: &str) -> Result<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if label.is_empty() || label.len() > MAX_LABEL || !label.chars().all(legal) {
            return Err(Error::Invalid(format!(
                "namespace label `{label}`: 1 to {MAX_LABEL} of a-z and 0-9 are allowed"
            )));
        }
        SWEEP.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", process::id());
        run_ip(&["netns", "add", &name])?;
        let path = format!("{NAMED_NAMESPACES}/{name}");
        let handle = match File::open(&path) {
            Ok(handle) => handle,
            Err(source) => {
                delete(&name);
                return Err(Error::System {
                    doing: format!("open {path}"),
                    source,
                });
            }
        };
        let namespace = Self(Arc::new(Inner {
            name: Some(name),
            handle,
        }));
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The namespace that the calling thread is in. Dropping it deletes nothing.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        let path = "/proc/thread-self/ns/net";
        let handle = File::open(path).map_err(Error::system(format!("open {path}")))?;
        Ok(Self(Arc::new(Inner { name: None, handle })))
    }

    /// The name, as `ip netns` knows it; `None` for [`Namespace::current`].
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Runs `body` in this namespace, in a thread of its own, and returns what it returns. Sockets and processes made there stay
    /// in the namespace. A panic in `body` goes on in the caller.
    ///
    /// `/sys/class/net` and `/proc/net` still show the process's namespace; `/proc/thread-self/net` and `/proc/sys/net` show
    /// this one.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0.handle, CloneFlags::CLONE_NEWNET).map_err(Error::system(format!(
                    "enter network namespace {}",
                    self.label()
                )))?;
                Ok(body())
            });
            inside
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// Runs `ip` with `args` in this namespace and returns what it wrote to stdout.
    ///
    /// # Errors
    /// If `ip` is missing or fails; the error has its command line and its stderr.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        self.enter(|| run_ip(args))?.map_err(|error| match error {
            Error::Command { stderr, .. } => Error::Command {
                command: format!("ip -n {} {}", self.label(), args.join(" ")),
                stderr,
            },
            other => other,
        })
    }

    /// Writes a network setting of this namespace.
    ///
    /// `path` is below `/proc/sys/net`, such as `ipv6/conf/eth0/accept_ra`.
    ///
    /// # Errors
    /// If there is no such setting or the value is not allowed.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        let full = format!("/proc/sys/net/{path}");
        self.enter(|| fs::write(&full, value))?
            .map_err(Error::system(format!(
                "write {value} to {full} in network namespace {}",
                self.label()
            )))
    }

    /// Starts a program in this namespace.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        let doing = format!("start {command:?} in network namespace {}", self.label());
        let child = self
            .enter(|| command.spawn())?
            .map_err(Error::system(doing))?;
        Ok(Process {
            child,
            _namespace: self.clone(),
        })
    }

    fn label(&self) -> &str {
        self.name().unwrap_or("(current)")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            delete(name);
        }
    }
}

/// A program that runs in a namespace; killed and reaped when dropped, if it still runs.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Keeps the namespace until the process has ended.
    _namespace: Namespace,
}

impl Process {
    /// The process, to read its output, wait for it or learn its id.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `ip` in the calling thread's namespace.
fn run_ip(args: &[&str]) -> Result<String> {
    let command = || format!("ip {}", args.join(" "));
    let output = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(Error::system(format!(
            "run `{}` (is iproute2 installed?)",
            command()
        )))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Command {
            command: command(),
            stderr,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn delete(name: &str) {
    if let Err(error) = run_ip(&["netns", "delete", name]) {
        eprintln!("network namespace {name} is left behind: {error}");
    }
}

/// Deletes namespaces called as ours whose process is gone.
fn sweep() {
    let Ok(entries) = fs::read_dir(NAMED_NAMESPACES) else {
        return;
    };
    for name in entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
    {
        if owner(&name).is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            // Another run may sweep at the same moment: one of the two finds nothing to delete, which is well.
            let _ = run_ip(&["netns", "delete", &name]);
        }
    }
}

/// The process id in a name such as `fl123-0-left`; `None` for any name that is not exactly of that form.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let (pid, number, label) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let ours = digits(pid) && digits(number) && !label.is_empty() && label.len() <= MAX_LABEL;
    if ours { pid.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::{NAMED_NAMESPACES, owner, run_ip, sweep};
    use crate::lab::skip_unless_root;

    #[test]
    fn dead_runs_namespaces_are_swept_and_no_others() {
        if skip_unless_root("dead_runs_namespaces_are_swept_and_no_others") {
            return;
        }
        let mut child = Command::new("true").spawn().expect("a process");
        child.wait().expect("its end");
        let (dead, own) = (child.id(), std::process::id());
        // The second is of a run that lives, the third of nobody's form.
        let names = [
            format!("fl{dead}-0-swept"),
            format!("fl{own}-900-live"),
            format!("flx{dead}-0-foreign"),
        ];
        for name in &names {
            run_ip(&["netns", "add", name]).expect("a namespace");
        }
        sweep();
        let left = names
            .each_ref()
            .map(|name| Path::new(NAMED_NAMESPACES).join(name).exists());
        for (name, _) in names.iter().zip(left).filter(|(_, left)| *left) {
            run_ip(&["netns", "delete", name]).expect("deleted");
        }
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn only_names_of_our_form_have_an_owner() {
        assert_eq!(owner("fl123-0-left"), Some(123));
        for foreign in [
            "fl",
            "flow",
            "fl123",
            "fl123-0",
            "fl123-0-",
            "fl-0-left",
            "flx-0-left",
            "fl1-x-left",
            "xfl1-0-left",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }
}
