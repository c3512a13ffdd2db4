//! The folder on the BPF file system in which the shared maps are pinned.
use std::{fs, io, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::error::BpfError;

/// Where the BPF file system usually is.
const BPFFS: &str = "/sys/fs/bpf";

/// Makes an empty folder for pins. Mounts the BPF file system where it usually is, if it is not there yet. What a dead agent left in
/// the folder is removed, after a warning: the caller holds the lock, so nobody uses it.
///
/// # Errors
///
/// The file system's; and if the folder is on no BPF file system.
pub fn prepare(folder: &Path) -> Result<(), BpfError> {
    let failed = |source| BpfError::Pins {
        path: folder.to_owned(),
        source,
    };
    if folder.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)).map_err(failed)? {
        tracing::info!("mounting the BPF file system on {BPFFS}");
        mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            None::<&str>,
        )
        .map_err(|error| failed(error.into()))?;
    }
    if folder.exists() {
        tracing::warn!(
            "an agent that could not end orderly left its counters in {}: what they had counted since its last window is lost",
            folder.display()
        );
        remove(folder);
    }
    fs::create_dir_all(folder).map_err(failed)?;
    if !is_bpffs(folder).map_err(failed)? {
        return Err(failed(io::Error::other(
            "it is not on a BPF file system (mount -t bpf)",
        )));
    }
    Ok(())
}

/// Removes the pins and their folder.
pub fn remove(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!("cannot unpin {}: {error}", entry.path().display());
        }
    }
    for folder in [Some(folder), folder.parent()].into_iter().flatten() {
        // The parent goes only when nothing else is in it.
        let _ = fs::remove_dir(folder);
    }
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}
