//! What is attached to a device, in the order in which it runs.
use std::io;

use aya::programs::{SchedClassifier, loaded_programs};

use super::{clsact, direction::DeviceDirection};

/// A program of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEntry {
    /// Where it is: `tcx`, `clsact`. TCX runs before clsact.
    pub hook: &'static str,
    /// The program's or filter's name.
    pub name: String,
    /// The program's id, where it is a BPF program.
    pub program_id: Option<u32>,
}

/// The TC programs of a device and direction, first to last. To be called in the device's network namespace.
///
/// # Errors
///
/// The kernel's. A kernel without TCX gives the clsact filters alone.
pub fn chain(device: u32, name: &str, direction: DeviceDirection) -> io::Result<Vec<ChainEntry>> {
    let mut entries = Vec::new();
    if let Ok((_, programs)) = SchedClassifier::query_tcx(name, direction.attach_type()) {
        entries.extend(programs.iter().map(|program| ChainEntry {
            hook: "tcx",
            name: program.name_as_str().unwrap_or("?").to_owned(),
            program_id: Some(program.id()),
        }));
    }
    if clsact::exists(device)? {
        entries.extend(
            clsact::filters(device, direction)?
                .into_iter()
                .map(|filter| ChainEntry {
                    hook: "clsact",
                    name: filter.name.unwrap_or(filter.kind),
                    program_id: filter.program_id,
                }),
        );
    }
    Ok(entries)
}

/// Name of a loaded program.
#[must_use]
pub fn program_name(id: u32) -> Option<String> {
    loaded_programs()
        .flatten()
        .find(|program| program.id() == id)?
        .name_as_str()
        .map(str::to_owned)
}
