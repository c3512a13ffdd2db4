//! One agent per host: whoever holds the lock file's lock.
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

/// Why there is no lock.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("another flowlog-agent{} is running on this host: it holds {path}", pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    Held {
        /// The lock file.
        path: String,
        /// Its process id, if the file tells.
        pid: Option<u32>,
    },
    /// The file cannot be used.
    #[error("cannot use the lock file {path}: {source}")]
    Io {
        /// The lock file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The lock, held while this lives. The kernel gives it up with the process, however that ends.
#[derive(Debug)]
pub(crate) struct HostLock(#[expect(dead_code, reason = "held for its effect")] Flock<File>);

impl HostLock {
    /// Takes the lock, and writes this process's id into the file.
    ///
    /// # Errors
    ///
    /// [`LockError`]; at once, without waiting.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: path.display().to_string(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0).map_err(failed)?;
                lock.rewind().map_err(failed)?;
                writeln!(lock, "{}", std::process::id()).map_err(failed)?;
                Ok(Self(lock))
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                Err(LockError::Held {
                    path: path.display().to_string(),
                    pid: text.trim().parse().ok(),
                })
            }
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

/// The process that holds the lock of `path`, if one does. The lock itself is left alone: a look at it must not keep an agent that
/// starts at the same moment from taking it.
#[must_use]
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let inode = std::fs::metadata(path).ok()?.ino();
    locked_by(&std::fs::read_to_string("/proc/locks").ok()?, inode)
}

/// The process in a line such as `1: FLOCK  ADVISORY  WRITE 32278 00:1a:1076 0 EOF` with this inode number at its end.
fn locked_by(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, _, _) = (words.next()?, words.next()?, words.next()?);
        let (pid, file) = (words.next()?, words.next()?);
        let is_ours = kind == "FLOCK" && file.rsplit(':').next()?.parse() == Ok(inode);
        is_ours.then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_by_name_and_a_released_one_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = HostLock::take(&path).unwrap();
        let error = HostLock::take(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(lock);
        HostLock::take(&path).unwrap();
    }

    #[test]
    fn the_holder_is_known_without_touching_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(holder(&path), None);
        let lock = HostLock::take(&path).unwrap();
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(lock);
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn waiters_and_locks_of_other_kinds_are_nobody() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1a:5 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:1a:55 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:1a:6 0 EOF\n";
        assert_eq!(locked_by(locks, 5), None);
        assert_eq!(locked_by(locks, 6), None);
        assert_eq!(locked_by(locks, 55), Some(8));
    }
}
