//! Small file systems, to be filled up.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Error, Result};

/// A file system in memory that is mounted on a folder; unmounted when dropped.
#[derive(Debug)]
pub struct TmpFs {
    folder: PathBuf,
}

impl TmpFs {
    /// Mounts one of `bytes` octets on a folder that is there.
    ///
    /// # Errors
    /// The kernel's; without root it refuses.
    pub fn mount(folder: &Path, bytes: u64) -> Result<Self> {
        let options = format!("size={bytes},mode=0700");
        mount(
            Some("flowlog-test"),
            folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .map_err(Error::system(format!(
            "mount a tmpfs on {}",
            folder.display()
        )))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Fills it up with a file of our own: nothing more can be written, by root neither.
    ///
    /// # Errors
    /// If the file cannot be written for another reason than want of room.
    pub fn fill(&self) -> Result<()> {
        let path = self.filler();
        let mut file =
            File::create(&path).map_err(Error::system(format!("make {}", path.display())))?;
        loop {
            match file.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => {
                    return Err(Error::system(format!("write {}", path.display()))(error));
                }
            }
        }
    }

    /// Takes that file away again.
    ///
    /// # Errors
    /// If it was not there.
    pub fn free(&self) -> Result<()> {
        let path = self.filler();
        fs::remove_file(&path).map_err(Error::system(format!("remove {}", path.display())))
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for TmpFs {
    fn drop(&mut self) {
        // Whoever has a file open on it keeps it alive, out of sight.
        if let Err(error) = umount2(&self.folder, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.folder.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::TmpFs;
    use crate::lab::skip_unless_root;

    #[test]
    fn it_is_full_until_it_is_freed() {
        if skip_unless_root("it_is_full_until_it_is_freed") {
            return;
        }
        let folder = std::env::temp_dir().join(format!("flowlog-tmpfs-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let small = TmpFs::mount(&folder, 64 << 10).expect("a file system");
        let write = || fs::write(folder.join("more"), [1; 8192]);
        write().expect("room");
        small.fill().expect("filled");
        assert!(fs::write(folder.join("other"), [1; 8192]).is_err());
        small.free().expect("freed");
        write().expect("room again");
        drop(small);
        assert!(!folder.join("more").exists(), "it is mounted yet");
        fs::remove_dir(&folder).expect("an empty folder");
    }
}
