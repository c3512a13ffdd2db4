//! What is in the kernel besides the programs: made anew, or taken over from a previous agent.
use std::path::Path;

use flowlog_model::record::Eni;

use crate::bpf::{BpfError, Counters, Identities, MapSizes, OverflowRing, pins};

/// What is in the kernel besides the programs.
pub(crate) struct Kernel {
    pub(crate) counters: Counters,
    pub(crate) ring: OverflowRing,
    pub(crate) identities: Identities,
    /// Whose the slots were that a previous agent has given out.
    pub(crate) slots: Vec<(u32, Eni)>,
}

impl Kernel {
    /// Makes all anew, with an overflow ring of `ring_bytes`.
    pub(crate) fn create(
        pin_folder: &Path,
        sizes: MapSizes,
        ring_bytes: u32,
    ) -> Result<Self, BpfError> {
        Ok(Self {
            counters: Counters::create_with_ring(pin_folder, sizes, ring_bytes)?,
            ring: OverflowRing::open(pin_folder)?,
            identities: Identities::create(pin_folder)?,
            slots: Vec::new(),
        })
    }

    /// Takes over what a previous agent has left; if that cannot be, makes all anew. Whether something was lost thereby, the spool tells.
    pub(crate) fn take_over(
        pin_folder: &Path,
        sizes: MapSizes,
        ring_bytes: u32,
    ) -> Result<Self, BpfError> {
        match Self::open(pin_folder) {
            Ok(kernel) => {
                tracing::info!("taking over the counters that the previous agent has left");
                Ok(kernel)
            }
            Err(error) => {
                tracing::error!("what the previous agent has left cannot be taken over: {error}");
                pins::remove(pin_folder);
                pins::prepare(pin_folder)?;
                Self::create(pin_folder, sizes, ring_bytes)
            }
        }
    }

    fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        let identities = Identities::open(pin_folder)?;
        Ok(Self {
            counters: Counters::take_over(pin_folder)?,
            ring: OverflowRing::open(pin_folder)?,
            slots: identities.all()?,
            identities,
        })
    }
}
