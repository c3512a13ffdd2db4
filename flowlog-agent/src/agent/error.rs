//! Why the agent cannot run, or not go on.
use std::{io, net::SocketAddr, path::PathBuf};

use flowlog_model::input::InputError;
use thiserror::Error;

use crate::{
    bpf::BpfError, config::ConfigError, discovery::DiscoveryError, drain::DrainError,
    lock::LockError, management::ManagementError, privileges::PrivilegeError, spool::SpoolError,
    status::StatusError,
};

/// Why the agent cannot run, or not go on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InputError),
    /// The inventory cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    ReadInventory {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The kernel.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// Devices cannot be discovered.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// Privileges.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The metrics' address.
    #[error("cannot serve metrics on {listen}: {source}")]
    Metrics {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The status cannot be told, or not asked for.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The service that manages flow logs cannot be followed.
    #[error(transparent)]
    Management(#[from] ManagementError),
    /// The system.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl From<DrainError> for AgentError {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Kernel(error) => Self::Bpf(error),
            DrainError::Spool(error) => Self::Spool(error),
        }
    }
}

impl AgentError {
    /// Whether the user can mend it in the configuration or the inventory.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::Inventory(_) | Self::ReadInventory { .. } | Self::Management(_)
        )
    }
}
