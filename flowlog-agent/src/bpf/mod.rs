//! Everything that the agent asks of the kernel's BPF: all aya calls, and all `unsafe`, live here.
#![expect(
    unsafe_code,
    reason = "the raw `bpf` system call, for what aya does not offer"
)]

mod attach;
mod chain;
mod clsact;
mod counters;
mod direction;
mod error;
pub mod floor;
mod identities;
mod kernel_layout;
mod kernel_types;
pub mod netfilter;
mod object;
mod other_version;
mod overflow;
pub mod pins;
mod policies;
mod ring;
mod rules;
mod sessions;
mod sys;
#[cfg(test)]
mod testing;
pub mod trial;
mod wake;

pub use attach::{AttachPlan, Hook, Observer, Prepared, RunStats, Target, remove_leftovers};
pub use chain::{ChainEntry, chain, program_name};
pub use counters::{Counters, Fill, MapSizes, Still};
pub use direction::DeviceDirection;
pub use error::BpfError;
pub use identities::Identities;
pub use netfilter::{NetfilterDrops, NoVerdicts};
#[cfg(feature = "failpoints")]
pub use object::built_in_object;
pub use object::{EniConstants, pin_folder};
#[cfg(test)]
pub(crate) use other_version::tests::{RING_OF_VERSION_2, filled as filled_other_version};
pub use other_version::{OtherCounters, OtherPins};
pub use overflow::{OverflowPacket, OverflowRing};
pub use policies::{Applied, Policies, lacks};
pub use sessions::{Sessions, Swept};
#[cfg(test)]
pub(crate) use testing::{TestPins, killed_after};
pub use wake::{Wake, Woken};
