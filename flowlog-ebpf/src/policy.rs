//! Which policy holds for the ENI.
use aya_ebpf::helpers::generated::bpf_jiffies64;
use flowlog_common::TIME_UNIT_SHIFT;

use crate::{eni, maps::POLICIES};

/// The policy that holds now.
#[derive(Clone, Copy)]
pub struct Policy {
    /// Index of its tables.
    pub number: u32,
    /// What it decides is known by this.
    pub epoch: u32,
}

impl Policy {
    /// The program's own ENI's; `None` if nothing is to be judged.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        Self::of(eni::slot())
    }

    /// That of the ENI in a slot.
    #[inline(always)]
    pub fn of(slot: u32) -> Option<Self> {
        let entry = POLICIES.get_ptr(slot)?;
        // SAFETY: a live map value. Volatile, so that it is read once: both numbers are of one policy.
        let entry = unsafe { entry.read_volatile() };
        let policy = Self {
            number: entry as u32,
            epoch: (entry >> 32) as u32,
        };
        (policy.epoch != 0).then_some(policy)
    }

    /// What [`flowlog_common::FlowCounters::judged`] is of a flow that was judged by this policy in this unit of time: the epoch's low 16
    /// bits, which are not 0, and above them the unit's.
    #[inline(always)]
    pub fn word(self) -> u32 {
        // SAFETY: the helper takes nothing. The verifier puts a load in its place.
        let unit = unsafe { bpf_jiffies64() } >> TIME_UNIT_SHIFT;
        self.epoch & 0xffff | (unit as u32) << 16
    }
}
