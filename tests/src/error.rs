//! What can go wrong in the lab.

use std::io;
use std::time::Duration;

/// The result of everything fallible in the lab.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the lab could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done, as the end of "cannot …".
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` failed: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// What the program wrote to its standard error.
        stderr: String,
    },
    /// Something awaited did not come.
    #[error("{what} did not happen within {limit:?}")]
    Deadline {
        /// What was awaited.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A plan asks for what the lab does not do.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// For `map_err`: a failed system call, with what it was for as the end of "cannot …".
    pub(crate) fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing: doing.into(),
            source: source.into(),
        }
    }
}
