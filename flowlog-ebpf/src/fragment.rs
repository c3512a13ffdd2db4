//! First fragments have the ports; later ones find them here.
use aya_ebpf::bindings::BPF_ANY;
use flowlog_common::{FragmentKey, FragmentPorts, PacketKind};

use crate::maps::FRAGMENTS;

/// What a first fragment told.
#[derive(Clone, Copy)]
pub struct First {
    /// Both ports as they lie in the packet, the source's first.
    pub ports: u32,
    pub protocol: u8,
    pub kind: PacketKind,
    /// As it lies in the packet.
    pub identifier: u16,
}

impl First {
    /// In one word, for functions take few arguments.
    #[inline(always)]
    pub fn pack(self) -> u64 {
        let [i0, i1] = self.identifier.to_ne_bytes();
        let upper = u32::from_ne_bytes([i0, i1, self.kind as u8, self.protocol]);
        u64::from(self.ports) | u64::from(upper) << 32
    }

    #[inline(always)]
    pub fn unpack(packed: u64) -> Self {
        let [i0, i1, kind, protocol] = ((packed >> 32) as u32).to_ne_bytes();
        Self {
            ports: packed as u32,
            protocol,
            kind: PacketKind::from_number(kind),
            identifier: u16::from_ne_bytes([i0, i1]),
        }
    }
}

/// Remembers what a first fragment tells.
#[inline(always)]
pub fn remember(key: &FragmentKey, first: First) {
    let [s0, s1, d0, d1] = first.ports.to_ne_bytes();
    let ports = FragmentPorts {
        src_port: [s0, s1],
        dst_port: [d0, d1],
        protocol: first.protocol,
        kind: first.kind as u8,
        identifier: first.identifier.to_ne_bytes(),
    };
    // Where there is no room, later fragments are counted with ports 0.
    let _ = FRAGMENTS.insert(key, &ports, u64::from(BPF_ANY));
}

/// What the first fragment told, if it came by and is not forgotten. Else `protocol`, ports 0, and that it is of no session.
#[inline(always)]
pub fn recall(key: &FragmentKey, protocol: u8) -> First {
    // SAFETY: copied at once. Another CPU may write the same entry meanwhile only for another datagram with the same addresses
    // and identification, for which either answer is as good.
    let Some(ports) = (unsafe { FRAGMENTS.get(key).copied() }) else {
        return First {
            ports: 0,
            protocol,
            kind: PacketKind::Alone,
            identifier: 0,
        };
    };
    let ([s0, s1], [d0, d1]) = (ports.src_port, ports.dst_port);
    First {
        ports: u32::from_ne_bytes([s0, s1, d0, d1]),
        protocol: ports.protocol,
        kind: PacketKind::from_number(ports.kind),
        identifier: u16::from_ne_bytes(ports.identifier),
    }
}
