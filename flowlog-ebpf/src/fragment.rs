//! First fragments have the ports; later ones find them here.
use aya_ebpf::bindings::BPF_ANY;
use flowlog_common::{FragmentKey, FragmentPorts};

use crate::{maps::FRAGMENTS, transport::Transport};

/// Remembers what a first fragment tells.
#[inline(always)]
pub fn remember(key: &FragmentKey, transport: &Transport, protocol: u8) {
    let ports = FragmentPorts {
        src_port: transport.src_port,
        dst_port: transport.dst_port,
        protocol,
        reserved: [0; 3],
    };
    // Where there is no room, later fragments are counted with ports 0.
    let _ = FRAGMENTS.insert(key, &ports, u64::from(BPF_ANY));
}

/// What the first fragment told, if it came by and is not forgotten.
#[inline(always)]
pub fn recall(key: &FragmentKey) -> Option<FragmentPorts> {
    // SAFETY: copied at once. Another CPU may write the same entry meanwhile only for another datagram with the same addresses
    // and identification, for which either answer is as good.
    unsafe { FRAGMENTS.get(key).copied() }
}
