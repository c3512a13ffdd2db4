//! Network namespaces, the wires between them and the traffic over these.
//!
//! All of it needs root and runs in namespaces that the lab makes itself: see [`skip_unless_root`].

mod flood;
mod flows;
pub mod namespace;
mod offload;
mod sender;
mod stats;
pub mod traffic;
mod veth;
mod zipf;

pub use flood::{FloodPlan, Sent, udp_flood};
pub use flows::{Distribution, Family, FlowTuple, MAX_FLOWS, NOBODY_MAC, flow_tuple};
pub use namespace::{Namespace, Process};
pub use offload::{Offload, set_offload};
pub use sender::FrameSender;
pub use stats::{DeviceStats, device_stats};
pub use veth::{EndPlan, VethPair, VethPlan};
pub use zipf::Zipf;

/// A MAC address, as in the frame.
pub type Mac = [u8; 6];

/// Whether to skip what needs root. If so, prints `test` and the reason to stderr.
///
/// ```no_run
/// # use flowlog_tests::lab::skip_unless_root;
/// if skip_unless_root("veth_passes_frames") {
///     return;
/// }
/// ```
#[must_use]
pub fn skip_unless_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped {test}: it makes network namespaces, for which it must run as root");
    }
    !root
}
