//! What the service wants of the agent, kept for the time when it is away.
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Spool, SpoolError,
    durable::{self, Unreadable},
    names,
};

impl Spool {
    /// Keeps what the service wants, in place of what was kept before: durably, when this returns.
    ///
    /// # Errors
    ///
    /// If it cannot be written; what was kept before is still there then.
    pub fn keep_managed<T: Serialize>(&mut self, managed: &T) -> Result<(), SpoolError> {
        self.with_room(|shared| durable::write(&shared.folder, names::MANAGED, managed))
            .map_err(|source| self.shared.error("write", names::MANAGED, source))?;
        Ok(())
    }

    /// What was kept last; none if nothing was, or if the file is damaged, which is logged.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or another version has written it.
    pub fn managed<T: DeserializeOwned>(&self) -> Result<Option<T>, SpoolError> {
        let path = self.shared.folder.file(names::MANAGED);
        match durable::read(&self.shared.folder, names::MANAGED) {
            Ok((managed, _)) => Ok(Some(managed)),
            Err(Unreadable::Missing) => Ok(None),
            Err(Unreadable::Damaged(reason)) => {
                tracing::error!(
                    "{} is damaged ({reason}): the flow logs of the service are not known until it answers",
                    path.display()
                );
                Ok(None)
            }
            Err(unreadable) => Err(SpoolError::unreadable(path, unreadable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::spool::SpoolConfig;

    fn open(folder: &Path) -> Spool {
        let config = SpoolConfig {
            path: folder.to_owned(),
            max_bytes: 1 << 20,
            max_age_seconds: 3600,
            max_flows_in_memory: 1024,
        };
        Spool::open(config).unwrap().0
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_a_newer_one_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        assert_eq!(spool.managed::<String>().unwrap(), None);
        spool.keep_managed(&"one").unwrap();
        spool.keep_managed(&"two").unwrap();
        drop(spool);
        let spool = open(folder.path());
        assert_eq!(spool.managed().unwrap(), Some("two".to_owned()));
    }

    #[test]
    fn what_a_crash_leaves_is_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        spool.keep_managed(&"one").unwrap();
        drop(spool);
        let half = folder.path().join("managed.json.tmp");
        fs::write(&half, "{\"format\":1,\"bo").unwrap();
        let spool = open(folder.path());
        assert_eq!(spool.managed().unwrap(), Some("one".to_owned()));
        assert!(!half.exists());
    }

    #[test]
    fn a_damaged_file_is_as_none_and_one_of_another_version_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        let path = folder.path().join(names::MANAGED);
        spool.keep_managed(&"one").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("one", "two")).unwrap();
        assert_eq!(spool.managed::<String>().unwrap(), None);
        let other = "{\"format\":2,\"body\":\"one\"}\n";
        let checksum = crc32fast::hash(other.as_bytes());
        fs::write(&path, format!("{other}{checksum:08x}\n")).unwrap();
        let error = spool.managed::<String>().unwrap_err();
        assert!(matches!(error, SpoolError::Format { .. }), "{error}");
    }
}
