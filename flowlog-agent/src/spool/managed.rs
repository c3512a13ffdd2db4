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
