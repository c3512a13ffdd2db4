//! The folder on the BPF file system in which the shared maps are pinned.
use std::{fs, io, path::Path};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::error::BpfError;

/// How names of devices' pins begin; the others are maps.
const DEVICE: &str = "device-";

/// Where the BPF file system usually is.
const BPFFS: &str = "/sys/fs/bpf";

/// What is in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pins {
    /// Nothing yet.
    New,
    /// What a previous agent has left: its maps, and the links of programs that go on counting.
    Left,
}

/// Makes the folder for pins, if it is not there. Mounts the BPF file system where it usually is, if it is not there yet.
///
/// # Errors
///
/// The file system's; and if the folder is on no BPF file system.
pub fn prepare(folder: &Path) -> Result<Pins, BpfError> {
    let failed = |source| BpfError::Pins {
        path: folder.to_owned(),
        source,
    };
    if folder.starts_with(BPFFS) {
        mount_if_needed().map_err(failed)?;
    }
    // Looked at before anything is made, so that nothing is left in a wrong place.
    let existing = folder.ancestors().find(|folder| folder.exists());
    if !is_bpffs(existing.unwrap_or(folder)).map_err(failed)? {
        return Err(failed(io::Error::other(
            "it is not on a BPF file system (mount -t bpf)",
        )));
    }
    fs::create_dir_all(folder).map_err(failed)?;
    let empty = fs::read_dir(folder).map_err(failed)?.next().is_none();
    Ok(if empty { Pins::New } else { Pins::Left })
}

/// Two agents that start at once must not mount twice, for the second mount would hide the first one's pins: whoever has the folder's
/// lock looks and mounts.
fn mount_if_needed() -> io::Result<()> {
    let folder = fs::File::open(BPFFS)?;
    let _lock = Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    if is_bpffs(Path::new(BPFFS))? {
        return Ok(());
    }
    tracing::info!("mounting the BPF file system on {BPFFS}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("bpf"), BPFFS, Some("bpf"), flags, None::<&str>)?)
}

/// Removes the pins and their folder; programs whose links were pinned come off their devices.
pub fn remove(folder: &Path) {
    remove_matching(folder, |_| true);
    for folder in [Some(folder), folder.parent()].into_iter().flatten() {
        // The parent goes only when nothing else is in it.
        let _ = fs::remove_dir(folder);
    }
}

/// Removes the pins of devices that are not among `kept`, by namespace's inode and interface index.
pub fn remove_devices_but(folder: &Path, kept: &[(u64, u32)]) {
    let kept: Vec<String> = kept
        .iter()
        .map(|(inode, index)| device_prefix(*inode, *index))
        .collect();
    remove_matching(folder, |name| {
        name.starts_with(DEVICE) && !kept.iter().any(|kept| name.starts_with(kept))
    });
}

/// Names of the pins of devices.
pub(super) fn devices(folder: &Path) -> Result<Vec<String>, BpfError> {
    let failed = |source| BpfError::Pins {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        names.extend(
            name.into_string()
                .ok()
                .filter(|name| name.starts_with(DEVICE)),
        );
    }
    Ok(names)
}

/// How names of a device's pins begin.
pub(super) fn device_prefix(namespace_inode: u64, index: u32) -> String {
    format!("{DEVICE}{namespace_inode}-{index}-")
}

fn remove_matching(folder: &Path, matches: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(&matches)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!("cannot unpin {}: {error}", entry.path().display());
        }
    }
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}
