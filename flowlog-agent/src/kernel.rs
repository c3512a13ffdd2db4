//! What is in the kernel besides the programs: made anew, or taken over from a previous agent.
use std::path::Path;

use crate::{
    bpf::{BpfError, Counters, Fill, Identities, MapSizes, pins},
    slots::Slots,
};

/// What is in the kernel besides the programs.
pub(crate) struct Kernel {
    pub(crate) counters: Counters,
    pub(crate) identities: Identities,
    pub(crate) slots: Slots,
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
            identities: Identities::create(pin_folder)?,
            slots: Slots::default(),
        })
    }

    /// Takes over what a previous agent has left. What cannot be taken over is named as lost, and all is made anew.
    pub(crate) fn take_over(
        pin_folder: &Path,
        sizes: MapSizes,
        ring_bytes: u32,
    ) -> Result<Self, BpfError> {
        match Self::open(pin_folder, sizes) {
            Ok(kernel) => {
                tracing::info!("taking over the counters that the previous agent has left");
                Ok(kernel)
            }
            Err(error) => {
                tracing::error!(
                    "what was counted since the previous agent's last window is lost, for it cannot be taken over: {error}"
                );
                pins::remove(pin_folder);
                pins::prepare(pin_folder)?;
                Self::create(pin_folder, sizes, ring_bytes)
            }
        }
    }

    fn open(pin_folder: &Path, sizes: MapSizes) -> Result<Self, BpfError> {
        let mut counters = Counters::take_over(pin_folder)?;
        let identities = Identities::open(pin_folder)?;
        let slots = Slots::restored(identities.all()?);
        counters.settle()?;
        let still = counters.still_after_take_over();
        let fill = counters.fill(&still)?;
        if fill != Fill::default() {
            tracing::error!(
                flows = fill.v4 + fill.v6,
                "the previous agent died while it drained these flows: whether they were written is not known, and they are not \
                 written again"
            );
        }
        counters.renew(still, sizes)?;
        Ok(Self {
            counters,
            identities,
            slots,
        })
    }
}
