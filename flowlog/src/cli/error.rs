//! Why a command has failed.
use std::{io, path::PathBuf};

use flowlog_client::{ClientError, KeyFileError};
use thiserror::Error;

/// Why a command has failed, in one sentence.
#[derive(Debug, Error)]
pub(super) enum CliError {
    /// The access key.
    #[error("{0}; another one is named by --access-key-file")]
    Key(#[from] KeyFileError),
    /// The service.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A resource that no agent has reported.
    #[error("{0}; --allow-unknown takes a resource that is yet to come")]
    UnknownResource(ClientError),
    /// No flow log of a name.
    #[error("no flow log is called {0:?}; allowed is an id, or the name of one flow log")]
    NoneOfName(String),
    /// Several flow logs of a name.
    #[error("{count} flow logs are called {name:?}; allowed is an id, or the name of one flow log")]
    SeveralOfName {
        /// The name.
        name: String,
        /// How many.
        count: u64,
    },
    /// A change takes too long.
    #[error(
        "{id} is still {status} after {seconds} s; the service goes on with it, and `flowlog agents` tells which agents have not followed yet"
    )]
    TooSlow {
        /// The flow log.
        id: String,
        /// Its state.
        status: String,
        /// How long was waited.
        seconds: u64,
    },
    /// More pages than there can be.
    #[error("there are more than {0} flow logs; a filter such as --search shows fewer")]
    TooMany(usize),
    /// A project that is to be deleted, with logstores in it.
    #[error(
        "the project {project} has {logstores} logstores, whose logs would be deleted with it: --with-logstores does that"
    )]
    NotEmpty {
        /// The project.
        project: String,
        /// How many.
        logstores: usize,
    },
    /// A file.
    #[error("{path} cannot be written: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was found.
    #[error("the answer cannot be written: {0}")]
    Print(#[from] io::Error),
    /// The system.
    #[error("cannot start: {0}")]
    Start(io::Error),
}
