//! Following another inventory, and other flow logs.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use flowlog_model::inventory::Inventory;

use super::{Agent, AgentError};
use crate::{
    config::{Config, FlowLogConfig},
    discovery::Device,
    drain::DrainError,
    output,
    sink::Output,
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
        let outputs = output::outputs(flow_logs, &self.options.output);
        // What was captured until now is for the flow logs as they were, and not for those that come.
        self.close_windows_of(&changed(&self.outputs, &outputs))?;
        self.follow_outputs(outputs);
        self.open_windows();
        Ok(())
    }

    /// Opens the windows that the outputs ask for and that are not there yet, and drops those for which nobody asks, in which nothing was
    /// drained.
    pub(super) fn open_windows(&mut self) {
        self.windows.follow(
            &self.outputs,
            self.others_stay(),
            self.clock.now(),
            self.spool.next_drain(),
        );
        self.state_is_saved = false;
    }
}

/// Names of the flow logs that come, go, or are not what they were.
fn changed(before: &[Arc<Output>], after: &[Arc<Output>]) -> BTreeSet<String> {
    let by_name = |outputs: &[Arc<Output>]| -> BTreeMap<String, Arc<Output>> {
        let named = |output: &Arc<Output>| {
            let name = output.flow_log.name.as_str().to_owned();
            (name, Arc::clone(output))
        };
        outputs.iter().map(named).collect()
    };
    let (before, after) = (by_name(before), by_name(after));
    before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect()
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
