//! Watches the folder of named namespaces, which may itself come and go.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

use crate::readiness::register;

/// How often arming is tried again when folders come and go at the same time.
const ARM_ATTEMPTS: u32 = 64;
/// How long to wait before arming is tried again when the system refused (too many inotify watches, say).
const ARM_RETRY: Duration = Duration::from_secs(1);

/// What has happened in the folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FolderChange {
    /// Files of these names were made or removed.
    Names(BTreeSet<String>),
    /// Anything may have changed.
    Everything,
}

/// Watches the folder, or while there is none, the nearest folder above it that there is.
#[derive(Debug)]
pub(super) struct FolderWatch {
    folder: PathBuf,
    inotify: AsyncFd<InotifyFd>,
    watched: Option<WatchDescriptor>,
    /// Whether `watched` is the folder itself.
    is_folder: bool,
    retry: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct InotifyFd(Inotify);

impl AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FolderWatch {
    /// Starts to watch. Must be called within an async runtime.
    pub(super) fn new(folder: PathBuf) -> io::Result<Self> {
        let inotify = InotifyFd(Inotify::init(
            InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK,
        )?);
        let mut watch = Self {
            folder,
            inotify: register(inotify)?,
            watched: None,
            is_folder: false,
            retry: None,
        };
        watch.arm()?;
        Ok(watch)
    }

    /// The next change.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<FolderChange> {
        if let Some(retry) = &mut self.retry
            && retry.as_mut().poll(cx).is_ready()
        {
            self.retry = None;
            self.rearm();
            return Poll::Ready(FolderChange::Everything);
        }
        loop {
            // An error here means that the runtime is shutting down.
            let Ok(mut guard) = ready!(self.inotify.poll_read_ready(cx)) else {
                return Poll::Pending;
            };
            match guard.try_io(|inotify| Ok(inotify.get_ref().0.read_events()?)) {
                Err(_would_block) => {}
                Ok(Ok(events)) => {
                    if let Some(change) = self.take(events) {
                        return Poll::Ready(change);
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(folder = %self.folder.display(), %error, "cannot read what changed in the folder");
                    return Poll::Ready(FolderChange::Everything);
                }
            }
        }
    }

    fn take(&mut self, events: Vec<InotifyEvent>) -> Option<FolderChange> {
        let lost =
            AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
        let lost = lost | AddWatchFlags::IN_UNMOUNT;
        let mut names = BTreeSet::new();
        let (mut rearm, mut everything) = (false, false);
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                (rearm, everything) = (true, true);
            } else if Some(event.wd) != self.watched {
                // Left over from a watch that has been taken down.
            } else if event.mask.intersects(lost) || !self.is_folder {
                rearm = true;
            } else if let Some(name) = event.name.and_then(|name| name.into_string().ok()) {
                names.insert(name);
            }
        }
        if rearm {
            let was_folder = self.is_folder;
            self.rearm();
            everything |= was_folder || self.is_folder;
            // The caller polls again after a change, and so the time to retry is waited for.
            everything |= self.retry.is_some();
        }
        match (everything, names.is_empty()) {
            (true, _) => Some(FolderChange::Everything),
            (false, false) => Some(FolderChange::Names(names)),
            (false, true) => None,
        }
    }

    fn rearm(&mut self) {
        if let Err(error) = self.arm() {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot watch the folder of network namespaces; will retry");
            self.retry = Some(Box::pin(sleep(ARM_RETRY)));
        }
    }

    /// Watches the folder if it is there, and else the nearest one above it that is.
    fn arm(&mut self) -> io::Result<()> {
        let inotify = &self.inotify.get_ref().0;
        if let Some(old) = self.watched.take() {
            // It fails if what it watched is gone, which is as well.
            let _ = inotify.rm_watch(old);
        }
        self.is_folder = false;
        for _ in 0..ARM_ATTEMPTS {
            let (watched, level) = watch_nearest(inotify, &self.folder)?;
            self.is_folder = level == 0;
            self.watched = Some(watched);
            // The next folder down may have been made before the watch was in place.
            let missed = level > 0
                && self
                    .folder
                    .ancestors()
                    .nth(level - 1)
                    .is_some_and(Path::is_dir);
            if !missed {
                return Ok(());
            }
            let _ = inotify.rm_watch(watched);
        }
        Err(Errno::EAGAIN.into())
    }
}

/// Watches the folder (level 0) or the first of the folders above it that exists (level 1, 2, …).
fn watch_nearest(inotify: &Inotify, folder: &Path) -> io::Result<(WatchDescriptor, usize)> {
    let oneself =
        AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
    let arrivals = oneself | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    let both = arrivals | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
    for (level, path) in folder.ancestors().enumerate() {
        match inotify.add_watch(path, if level == 0 { both } else { arrivals }) {
            Ok(watched) => return Ok((watched, level)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::ENOENT.into())
}
