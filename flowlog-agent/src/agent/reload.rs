//! Following another inventory, and other flow logs.
use std::{io, path::Path};

use flowlog_model::inventory::Inventory;

use super::{Agent, AgentError};
use crate::{
    config::{Config, FlowLogConfig},
    discovery::Device,
    drain::DrainError,
    output,
    windows::Windows,
};

/// Largest inventory, in bytes.
pub const MAX_INVENTORY_BYTES: u64 = 64 << 20;

impl Agent {
    pub(super) fn reload_inventory(&mut self) {
        match load_inventory(&self.config.inventory) {
            Ok(inventory) => {
                tracing::info!("the inventory has changed");
                self.discovery.set_namespaces(
                    inventory
                        .namespaces()
                        .into_iter()
                        .map(str::to_owned)
                        .collect(),
                );
                let devices: Vec<Device> = self.discovery.devices().cloned().collect();
                let keys: Vec<_> = devices.iter().map(|device| device.key).collect();
                self.with_capture(keys, None, |capture, now| {
                    capture.set_inventory(inventory, devices, now);
                });
            }
            Err(error) => tracing::error!("{error}; the inventory stays as it was"),
        }
    }

    pub(super) fn reload(&mut self) -> Result<(), AgentError> {
        self.reload_inventory();
        let config = match Config::load(&self.config_path) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("{error}; the configuration stays as it was");
                return Ok(());
            }
        };
        let restart_needed = Config {
            flow_logs: self.config.flow_logs.clone(),
            ..config.clone()
        } != self.config;
        if restart_needed {
            tracing::warn!(
                "of the configuration, only the flow logs are taken over; the rest takes a restart"
            );
        }
        if config.flow_logs != self.config.flow_logs {
            match self.follow_local(config.flow_logs) {
                Ok(()) => {}
                Err(DrainError::Spool(error)) => {
                    tracing::error!("{error}; the flow logs stay as they were");
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        tracing::info!("following {} flow logs", self.outputs.len());
        Ok(())
    }

    /// Follows other flow logs.
    pub(super) fn follow(&mut self, flow_logs: &[FlowLogConfig]) -> Result<(), DrainError> {
        // What was captured until now is for the flow logs that there were, and not for those that come.
        self.close_open_windows()?;
        self.follow_outputs(output::outputs(flow_logs, &self.options.output));
        self.open_windows();
        Ok(())
    }

    /// Opens the windows that the outputs ask for, in place of those that there are, in which nothing was drained.
    pub(super) fn open_windows(&mut self) {
        self.windows = Windows::new(
            &self.outputs,
            self.windows.labelled_until(),
            self.clock.now(),
            self.spool.next_drain(),
        );
        self.state_is_saved = false;
    }
}

/// Reads the inventory.
///
/// # Errors
///
/// If it cannot be read, is too large or says what is not allowed.
pub fn load_inventory(path: &Path) -> Result<Inventory, AgentError> {
    let read_error = |source| AgentError::ReadInventory {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(read_error)?.len();
    if length > MAX_INVENTORY_BYTES {
        return Err(read_error(io::Error::other(format!(
            "it is larger than {MAX_INVENTORY_BYTES} bytes"
        ))));
    }
    let text = std::fs::read_to_string(path).map_err(read_error)?;
    Ok(Inventory::parse(&text, &path.display().to_string())?)
}
