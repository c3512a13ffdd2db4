//! What can go wrong with the kernel.
use std::{io, path::PathBuf};

use thiserror::Error;

/// An error of the `bpf` module. Each says what was tried.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The object or its maps.
    #[error("cannot load the BPF object: {0}")]
    Load(#[source] aya::EbpfError),
    /// A program. The verifier's log, which is long, goes to the debug log.
    #[error("the kernel refuses the program {program}: {}", brief(source))]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        source: aya::programs::ProgramError,
    },
    /// A program that the object should have is not there, or is of another type.
    #[error("the BPF object has no usable program {0}")]
    NoProgram(&'static str),
    /// A map operation.
    #[error("cannot {what}: {source}")]
    Map {
        /// The operation, as a verb and its object.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Attaching to a device.
    #[error("cannot attach {program} to {device} by {hook}: {reason}")]
    Attach {
        /// The program's name.
        program: &'static str,
        /// The device's name.
        device: String,
        /// The hook.
        hook: &'static str,
        /// Why.
        reason: String,
    },
    /// Pins of another version of the ABI.
    #[error(
        "{folder} holds what an agent with version {version} of the BPF interface has counted, and it cannot be read: {reason}. Let an \
         agent of that version run and end with on-exit = \"detach\", or remove the folder and lose it",
        folder = folder.display()
    )]
    OtherVersion {
        /// Their folder.
        folder: PathBuf,
        /// Their version.
        version: u32,
        /// Why they cannot be read.
        reason: String,
    },
    /// The folder for pins.
    #[error("cannot use {path} for pinned maps: {source}", path = path.display())]
    Pins {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BpfError {
    pub(super) fn map(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Map { what, source }
    }
}

/// Without the verifier's log.
pub(super) fn brief(error: &aya::programs::ProgramError) -> String {
    match error {
        aya::programs::ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            tracing::debug!("the verifier says: {verifier_log}");
            io_error.to_string()
        }
        other => other.to_string(),
    }
}
