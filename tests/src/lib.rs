//! The lab that Flowlog's integration tests, its benches and the newcomer's demo share.
//!
//! - [`lab`]: network namespaces, veth pairs and exactly counted traffic. Needs root, and iproute2's `ip`.
//! - `agent` (feature `agent`): a real agent, run as a process, and what it writes.
//! - `packets` (feature `packets`): crafted frames of every kind, random ones, and etherparse's reading of them as the oracle.
//!
//! Everything the lab makes has a name of its own and is removed when its value is dropped.

#[cfg(feature = "agent")]
pub mod agent;
mod error;
pub mod lab;
#[cfg(feature = "packets")]
pub mod packets;

pub use error::{Error, Result};
