//! The identity of network namespaces, and entering them.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use thiserror::Error;

/// The calling thread's network namespace. By thread and not by process, since each thread may be in another.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The identity of a network namespace: the device and inode number of its file in nsfs. No two namespaces that exist at the
/// same time share it, and one that is deleted and made again under the same name gets another while the first is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId {
    /// The number of the nsfs file system (`st_dev`).
    pub device: u64,
    /// The number of the namespace in it (`st_ino`), as in `net:[4026531840]`.
    pub inode: u64,
}

impl NamespaceId {
    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// If `/proc` is not mounted or may not be read.
    pub fn of_this_thread() -> io::Result<Self> {
        let metadata = std::fs::metadata(OWN_NAMESPACE)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "net:[{}]", self.inode)
    }
}

/// A network namespace by its name. It holds no file open, so it does not keep the namespace alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceRef {
    /// The one the agent was started in.
    Host,
    /// One with a file of its own.
    Named {
        /// Its file, such as `/run/netns/blue`.
        path: PathBuf,
        /// The namespace that is meant, should the file have come to name another.
        id: NamespaceId,
    },
}

/// Runs `f` in a network namespace and returns what it returns.
///
/// The host's is the calling thread's own, so there `f` runs directly. For a named one it runs in a thread of its own, which
/// is over when this returns: `f` must not count on thread-local state, nor on the async runtime's context. Sockets that it
/// makes and BPF programs that it attaches by interface index belong to that namespace. This blocks until `f` is done.
///
/// # Errors
/// - [`io::ErrorKind::NotFound`] if there is no namespace at the path, or another one than was meant;
/// - whatever opening the file, starting the thread or entering the namespace (it needs `CAP_SYS_ADMIN`) answers.
///
/// # Panics
/// Only if `f` does.
pub fn in_namespace<T: Send>(
    namespace: &NamespaceRef,
    f: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    HeldNamespace::open(namespace)?.enter(f)
}

/// A network namespace to work in, held open: it can be entered when its name is gone, and it lives for as long as this.
#[derive(Debug)]
pub struct HeldNamespace(Option<OpenNamespace>);

impl HeldNamespace {
    /// Opens a namespace.
    ///
    /// # Errors
    /// - [`io::ErrorKind::NotFound`] if there is no namespace at the path, or another one than was meant;
    /// - whatever opening the file answers.
    pub fn open(namespace: &NamespaceRef) -> io::Result<Self> {
        match namespace {
            NamespaceRef::Host => Ok(Self(None)),
            NamespaceRef::Named { path, id } => Ok(Self(Some(open_named(path, *id)?))),
        }
    }

    /// Runs `f` in the namespace, as [`in_namespace`] does.
    ///
    /// # Errors
    /// Whatever starting the thread or entering the namespace answers.
    ///
    /// # Panics
    /// Only if `f` does.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.0 {
            None => Ok(f()),
            Some(open) => open.enter(f),
        }
    }
}

fn open_named(path: &Path, id: NamespaceId) -> io::Result<OpenNamespace> {
    let replaced = |what: &str| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("{}: {what}", path.display()),
        )
    };
    let open = OpenNamespace::open(path).map_err(|error| match error {
        OpenError::Absent | OpenError::NotNamespace => {
            replaced("there is no network namespace of this name")
        }
        OpenError::Failed(error) => error,
    })?;
    if open.id != id {
        return Err(replaced(
            "the network namespace has been replaced by another of the same name",
        ));
    }
    Ok(open)
}

/// Why a namespace's file could not be opened.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    /// There is no such file.
    #[error("there is no network namespace of this name")]
    Absent,
    /// The file is no namespace's, or not yet: it is made first and the namespace is mounted on it afterwards.
    #[error("the file is there, but no namespace is mounted on it")]
    NotNamespace,
    /// Anything else.
    #[error("its file cannot be opened: {0}")]
    Failed(io::Error),
}

/// A namespace with its file open, which keeps the namespace alive.
#[derive(Debug)]
pub(super) struct OpenNamespace {
    file: OwnedFd,
    pub(super) id: NamespaceId,
}

impl OpenNamespace {
    /// Opens the namespace at a path. Whether it is a *network* namespace shows only when it is entered.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        // Non-blocking, so that a FIFO put there does not hold the agent up.
        let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits())
            .open(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OpenError::Absent,
                _ => OpenError::Failed(error),
            })?;
        let file_system = fstatfs(&file).map_err(|error| OpenError::Failed(error.into()))?;
        if file_system.filesystem_type() != NSFS_MAGIC {
            return Err(OpenError::NotNamespace);
        }
        let metadata = file.metadata().map_err(OpenError::Failed)?;
        Ok(Self {
            id: NamespaceId {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
            file: file.into(),
        })
    }

    /// Runs `f` in a thread inside the namespace.
    pub(super) fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = thread::Builder::new()
                .name("in-namespace".to_owned())
                .spawn_scoped(scope, move || {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                    Ok(f())
                })?;
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}
