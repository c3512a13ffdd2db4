//! The spool: whether it can be written, and whether the disk that it is on will do.
use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs,
};

use super::{Finding, host::refusal, memory::mebibytes};
use crate::{config::SpoolConfig, lock, spool::LOCK_FILE};

const CHECK: &str = "spool";

/// What the disk has, in bytes.
#[derive(Clone, Copy)]
struct Disk {
    fs_type: FsType,
    free: u64,
    /// What the spool takes of it.
    used: u64,
}

/// Whether it can be written, with the privileges that this thread has, and how much room it has. `running` is the running agent.
pub(super) fn finding(config: &SpoolConfig, running: Option<u32>) -> Finding {
    let path = &config.path;
    let lock_file = path.join(LOCK_FILE);
    if let Some(reason) = refusal(&lock_file) {
        return Finding::fail(CHECK, reason)
            .so("the agent does not start; without its other privileges, it must be able to write there");
    }
    // The lock itself is left alone, for the agent that has it and for one that starts now.
    if let Some(pid) = lock::holder(&lock_file).filter(|pid| Some(*pid) != running) {
        return Finding::fail(CHECK, format!("{}: process {pid} has it", path.display()))
            .so("the agent does not start while that runs; change spool.path");
    }
    match disk(path) {
        Ok(disk) => on_disk(path, config.max_size_bytes, disk),
        Err(error) => Finding::warn(CHECK, format!("{}: {error}", path.display()))
            .so("how much room it has is not known"),
    }
}

fn disk(path: &Path) -> nix::Result<Disk> {
    let there = path.ancestors().find(|folder| folder.exists());
    let disk = statfs(there.unwrap_or(path))?;
    let block = u64::try_from(disk.block_size()).unwrap_or_default();
    Ok(Disk {
        fs_type: disk.filesystem_type(),
        free: disk.blocks_available().saturating_mul(block),
        used: used(path),
    })
}

/// What the files in the folder take on the disk, in bytes. Those that go meanwhile take nothing.
fn used(path: &Path) -> u64 {
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512));
    sizes.fold(0, u64::saturating_add)
}

fn on_disk(path: &Path, max_size: u64, disk: Disk) -> Finding {
    let room = disk.free.saturating_add(disk.used);
    let found = format!(
        "{} on {}: {} of its {} are free or its own",
        path.display(),
        name(disk.fs_type),
        mebibytes(room.min(max_size)),
        mebibytes(max_size),
    );
    if disk.fs_type == TMPFS_MAGIC {
        Finding::warn(CHECK, found)
            .so("what is in it does not survive a reboot, and it takes memory; put spool.path on a disk")
    } else if room < max_size {
        Finding::warn(CHECK, found).so(
            "where the disk is full before spool.max-size is reached, the oldest windows become SKIPDATA; \
             make room or lower spool.max-size",
        )
    } else {
        Finding::ok(CHECK, found)
    }
}

fn name(fs_type: FsType) -> String {
    let known = [
        // ext2 and ext3 have the same number, and the same driver.
        (EXT4_SUPER_MAGIC, "ext4"),
        (XFS_SUPER_MAGIC, "xfs"),
        (BTRFS_SUPER_MAGIC, "btrfs"),
        (TMPFS_MAGIC, "tmpfs"),
        (OVERLAYFS_SUPER_MAGIC, "overlayfs"),
        (NFS_SUPER_MAGIC, "nfs"),
    ];
    let known = known.iter().find(|(number, _)| *number == fs_type);
    known.map_or_else(
        || format!("a file system of type {:#x}", fs_type.0),
        |(_, name)| (*name).to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::Status, lock::HostLock};

    fn config(path: &Path) -> SpoolConfig {
        SpoolConfig {
            path: path.to_owned(),
            max_size_bytes: 1,
            ..SpoolConfig::default()
        }
    }

    #[test]
    fn a_folder_that_is_there_or_can_be_made_is_not_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("a/b")] {
            let finding = finding(&config(&path), None);
            assert_ne!(finding.status, Status::Fail, "{finding:?}");
            assert!(finding.found.starts_with(&path.display().to_string()));
        }
        assert!(!folder.path().join("a").exists(), "looked at only");
    }

    #[test]
    fn a_file_in_its_place_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        assert_eq!(finding(&config(&path), None).status, Status::Fail);
    }

    #[test]
    fn the_running_agent_may_have_it_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let _lock = HostLock::take(&folder.path().join(LOCK_FILE)).unwrap();
        let config = config(folder.path());
        let running = finding(&config, Some(std::process::id()));
        assert_ne!(running.status, Status::Fail, "{running:?}");
        assert_eq!(finding(&config, None).status, Status::Fail);
    }

    #[test]
    fn a_disk_in_memory_or_without_room_is_warned_of() {
        const MIB: u64 = 1 << 20;
        let status = |fs_type, free, used| {
            let disk = Disk {
                fs_type,
                free,
                used,
            };
            on_disk(Path::new("/spool"), 10 * MIB, disk).status
        };
        assert_eq!(status(EXT4_SUPER_MAGIC, 10 * MIB, 0), Status::Ok);
        assert_eq!(status(EXT4_SUPER_MAGIC, 4 * MIB, 6 * MIB), Status::Ok);
        assert_eq!(status(EXT4_SUPER_MAGIC, 4 * MIB, 5 * MIB), Status::Warn);
        assert_eq!(status(TMPFS_MAGIC, 100 * MIB, 0), Status::Warn);
    }

    #[test]
    fn what_the_files_take_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(used(folder.path()), 0);
        assert_eq!(used(&folder.path().join("none")), 0);
        fs::write(folder.path().join("file"), vec![1; 8192]).unwrap();
        fs::File::open(folder.path().join("file"))
            .unwrap()
            .sync_all()
            .unwrap();
        assert!(used(folder.path()) >= 8192);
    }
}
