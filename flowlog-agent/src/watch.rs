//! Tells when a file was replaced or rewritten.
use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::readiness::register;

struct InotifyFd(Inotify);

impl AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Watches one file by way of its folder, for most editors and tools put a new file in the old one's place.
pub(crate) struct FileWatch {
    inotify: AsyncFd<InotifyFd>,
    name: OsString,
}

impl FileWatch {
    /// Begins to watch. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the folder cannot be watched.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::other(format!("{} names no file", path.display())))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(
            folder,
            AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO,
        )?;
        Ok(Self {
            inotify: register(InotifyFd(inotify))?,
            name: name.to_owned(),
        })
    }

    /// Returns when the file was written or replaced since the last call. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Ok(mut guard) = self.inotify.readable().await else {
                return std::future::pending().await;
            };
            match guard.get_inner().0.read_events() {
                Ok(events) => {
                    if events
                        .iter()
                        .any(|event| event.name.as_ref() == Some(&self.name))
                    {
                        return;
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => guard.clear_ready(),
                Err(error) => {
                    tracing::warn!(%error, "the inventory is no longer watched; SIGHUP still has it read again");
                    return std::future::pending().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Duration};

    #[tokio::test(flavor = "current_thread")]
    async fn a_rewritten_and_a_replaced_file_are_noticed_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(&path).unwrap();
        fs::write(folder.path().join("other"), "x").unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(
            early.is_err(),
            "another file's change was taken for this one's"
        );
        fs::write(&path, "two").unwrap();
        tokio::time::timeout(Duration::from_secs(5), watch.changed())
            .await
            .unwrap();
        fs::write(folder.path().join("new"), "three").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        tokio::time::timeout(Duration::from_secs(5), watch.changed())
            .await
            .unwrap();
    }
}
