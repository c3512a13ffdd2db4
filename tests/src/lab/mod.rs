//! Network namespaces, the wires between them and the traffic over these.
//!
//! All of it needs root and runs in namespaces that the lab makes itself: see [`skip_unless_root`].

mod background;
mod command;
mod flood;
mod flows;
pub mod namespace;
mod offload;
mod sender;
mod stats;
mod tmpfs;
pub mod traffic;
mod veth;
mod zipf;

use std::{fs::OpenOptions, io::Write as _};

pub use background::{TellAtTheEnd, beside};
pub use flood::{FloodPlan, Sent, udp_flood, udp_flood_until};
pub use flows::{Distribution, Family, FlowTuple, MAX_FLOWS, NOBODY_MAC, flow_tuple};
pub use namespace::{Namespace, Process};
pub use offload::{Offload, set_offload};
pub use sender::FrameSender;
pub use stats::{DeviceStats, device_stats};
pub use tmpfs::TmpFs;
pub use veth::{EndPlan, VethPair, VethPlan};
pub use zipf::{Zipf, random};

/// A MAC address, as in the frame.
pub type Mac = [u8; 6];

/// Whether to skip what needs root. If so, says so by [`skip`].
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
        skip(
            test,
            "it makes network namespaces or loads BPF programs, for which it must run as root",
        );
    }
    !root
}

/// Says that `test`, or a part of it, is skipped and why: to stderr and, as a line, to the end of the file that the environment
/// variable `FLOWLOG_SKIPS` names, for a test runner does not show what a test prints that passes.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    let Some(file) = std::env::var_os("FLOWLOG_SKIPS") else {
        return;
    };
    let line = format!("{test}: {reason}\n");
    let appended = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&file)
        // At once, for other tests append to the file too.
        .and_then(|mut skips| skips.write_all(line.as_bytes()));
    if let Err(error) = appended {
        eprintln!("cannot write {}: {error}", file.display());
    }
}
