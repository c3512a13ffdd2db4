//! First fragments have the ports; later ones find them here.
use aya_ebpf::bindings::BPF_ANY;
use flowlog_common::{FragmentKey, FragmentPorts, PacketKind};

use crate::maps::FRAGMENTS;

/// What a first fragment told.
pub struct First {
    /// Both ports as they lie in the packet, the source's first.
    pub ports: u32,
    pub protocol: u8,
}

/// Remembers what a first fragment tells.
#[inline(always)]
pub fn remember(key: &FragmentKey, ports: u32, protocol: u8) {
    let [s0, s1, d0, d1] = ports.to_ne_bytes();
    let ports = FragmentPorts {
        src_port: [s0, s1],
        dst_port: [d0, d1],
        protocol,
        kind: PacketKind::Tuple as u8,
        identifier: [0; 2],
    };
    // Where there is no room, later fragments are counted with ports 0.
    let _ = FRAGMENTS.insert(key, &ports, u64::from(BPF_ANY));
}

/// What the first fragment told, if it came by and is not forgotten.
#[inline(always)]
pub fn recall(key: &FragmentKey) -> Option<First> {
    // SAFETY: copied at once. Another CPU may write the same entry meanwhile only for another datagram with the same addresses
    // and identification, for which either answer is as good.
    let ports = unsafe { FRAGMENTS.get(key).copied()? };
    let ([s0, s1], [d0, d1]) = (ports.src_port, ports.dst_port);
    Some(First {
        ports: u32::from_ne_bytes([s0, s1, d0, d1]),
        protocol: ports.protocol,
    })
}
