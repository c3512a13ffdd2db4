//! Folders for pins on the BPF file system, one for each agent.
use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

/// Where the BPF file system usually is; the agent mounts it there if it is not.
const BPFFS: &str = "/sys/fs/bpf";
/// Every folder of ours is called `flowlog-test-<pid>-<n>`.
const PREFIX: &str = "flowlog-test-";

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A path for pins that no other agent has. The agent makes the folder; dropping this removes it.
#[derive(Debug)]
pub(super) struct PinPath(PathBuf);

impl PinPath {
    /// A new one. The first call in a process removes those that dead runs left behind.
    pub(super) fn new() -> Self {
        SWEEP.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Path::new(BPFFS).join(format!("{PREFIX}{}-{number}", process::id())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl PinPath {
    /// Removes all that is there.
    pub(super) fn remove(&self) {
        remove(&self.0);
    }
}

impl Drop for PinPath {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A BPF file system has only folders and pins, and an agent's folders are a few.
fn remove(path: &Path) {
    if path.exists()
        && let Err(error) = fs::remove_dir_all(path)
    {
        eprintln!("pins are left behind in {}: {error}", path.display());
    }
}

fn sweep() {
    let Ok(entries) = fs::read_dir(BPFFS) else {
        return;
    };
    for entry in entries.flatten() {
        let dead = entry
            .file_name()
            .to_str()
            .and_then(owner)
            .is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true));
        if dead {
            remove(&entry.path());
        }
    }
}

/// The process id in a name such as `flowlog-test-123-0`.
fn owner(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn only_names_of_our_form_have_an_owner() {
        assert_eq!(owner("flowlog-test-12-3"), Some(12));
        for foreign in [
            "flowlog",
            "flowlog-test-",
            "flowlog-test-12",
            "flowlog-test-x-1",
            "flowlog-test-12-x",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }
}
