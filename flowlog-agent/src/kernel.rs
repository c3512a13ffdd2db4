//! What is in the kernel besides the programs: made anew, or taken over from a previous agent.
use std::path::Path;

use flowlog_model::record::Eni;

use crate::{
    bpf::{BpfError, Counters, Identities, MapSizes, OverflowRing, Policies, Sessions, pins},
    security::Security,
};

/// What is in the kernel besides the programs.
pub(crate) struct Kernel {
    pub(crate) counters: Counters,
    pub(crate) ring: OverflowRing,
    pub(crate) identities: Identities,
    pub(crate) security: Security,
    /// Whose the slots were that a previous agent has given out.
    pub(crate) slots: Vec<(u32, Eni)>,
}

/// How large it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelSizes {
    pub(crate) flow_maps: MapSizes,
    /// Of the overflow ring.
    pub(crate) ring_bytes: u32,
    /// Of all ENIs together.
    pub(crate) max_sessions: u32,
}

impl Kernel {
    /// Makes all anew.
    pub(crate) fn create(pin_folder: &Path, sizes: KernelSizes) -> Result<Self, BpfError> {
        let KernelSizes {
            flow_maps,
            ring_bytes,
            max_sessions,
        } = sizes;
        // Before the counters: with these, what is not there is made of the default size.
        let sessions = Sessions::create(pin_folder, max_sessions)?;
        Ok(Self {
            counters: Counters::create_with_ring(pin_folder, flow_maps, ring_bytes)?,
            security: Security::new(Policies::create(pin_folder)?, sessions),
            ring: OverflowRing::open(pin_folder)?,
            identities: Identities::create(pin_folder)?,
            slots: Vec::new(),
        })
    }

    /// Takes over what a previous agent has left; if that cannot be, makes all anew. Whether something was lost thereby, the spool tells.
    pub(crate) fn take_over(pin_folder: &Path, sizes: KernelSizes) -> Result<Self, BpfError> {
        match Self::open(pin_folder) {
            Ok(kernel) => {
                let (_, limit) = kernel.security.sessions();
                if limit != sizes.max_sessions {
                    tracing::warn!(
                        "there is room for {limit} sessions, as the previous agent has left it, and not for {}: that takes an end \
                         of the agent with on-exit = \"detach\"",
                        sizes.max_sessions
                    );
                }
                tracing::info!("taking over the counters that the previous agent has left");
                Ok(kernel)
            }
            Err(error) => {
                tracing::error!("what the previous agent has left cannot be taken over: {error}");
                pins::remove(pin_folder);
                pins::prepare(pin_folder)?;
                Self::create(pin_folder, sizes)
            }
        }
    }

    fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        let identities = Identities::open(pin_folder)?;
        Ok(Self {
            counters: Counters::take_over(pin_folder)?,
            ring: OverflowRing::open(pin_folder)?,
            security: Security::new(
                Policies::take_over(pin_folder)?,
                Sessions::take_over(pin_folder)?,
            ),
            slots: identities.all()?,
            identities,
        })
    }
}
