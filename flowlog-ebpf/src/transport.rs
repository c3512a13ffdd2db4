//! The transport layer: what of it is in a record.
use crate::packet::Packet;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const DCCP: u8 = 33;
pub const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// TCP's flags.
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// What a record has of the transport layer.
#[derive(Clone, Copy)]
pub struct Transport {
    /// Both ports as they lie in the packet, the source's first; 0 where the protocol has none.
    pub ports: u32,
    /// TCP's flags as they are in its header, 0 for others.
    pub tcp_flags: u8,
    /// Octets of the transport header, as far as a super-packet's segments repeat it.
    pub header_octets: u32,
}

impl Transport {
    const NONE: Self = Self {
        ports: 0,
        tcp_flags: 0,
        header_octets: 0,
    };
}

/// Reads the transport header at `offset` of a datagram that ends at `end`. `None` if it ends before the ports do.
#[inline(always)]
pub fn read<P: Packet>(packet: &P, protocol: u8, offset: u32, end: u32) -> Option<Transport> {
    match protocol {
        TCP => tcp(packet, offset, end),
        UDP | UDP_LITE => ports(packet, offset, end, 8),
        SCTP | DCCP => ports(packet, offset, end, 12),
        _ => Some(Transport::NONE),
    }
}

/// Both ports, 0 where the protocol has none. `None` if the datagram ends before they do.
#[inline(always)]
pub fn read_ports<P: Packet>(packet: &P, protocol: u8, offset: u32, end: u32) -> Option<u32> {
    match protocol {
        TCP | UDP | UDP_LITE | SCTP | DCCP if offset + 4 > end => None,
        TCP | UDP | UDP_LITE | SCTP | DCCP => packet.read(offset),
        _ => Some(0),
    }
}

#[inline(always)]
fn ports<P: Packet>(packet: &P, offset: u32, end: u32, header_octets: u32) -> Option<Transport> {
    if offset + 4 > end {
        return None;
    }
    Some(Transport {
        ports: packet.read(offset)?,
        tcp_flags: 0,
        header_octets,
    })
}

#[inline(always)]
fn tcp<P: Packet>(packet: &P, offset: u32, end: u32) -> Option<Transport> {
    let mut transport = ports(packet, offset, end, 20)?;
    // A first fragment may end within the header; then the flags stay unknown.
    if offset + 14 <= end {
        let [data_offset, flags] = packet.read::<[u8; 2]>(offset + 12)?;
        transport.tcp_flags = flags;
        transport.header_octets = u32::from(data_offset >> 4) * 4;
    }
    Some(transport)
}
