//! The link layer: where the network layer begins, and which one it is.
use crate::{
    eni,
    packet::{MAX_OFFSET, Packet},
};

/// Stacked VLAN tags that are read; a frame with more is counted as unparsable.
pub const MAX_VLAN_TAGS: usize = 4;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_8021AD: u16 = 0x88a8;
/// QinQ as it was before 802.1ad.
const ETHERTYPE_QINQ: u16 = 0x9100;

/// The network layer of a frame.
pub enum Network {
    V4,
    V6,
    Other,
    /// The frame ends before it says what it is.
    CutShort,
}

/// Finds the network layer, and the offset at which it begins; 0 where that is not IP. The offset is a number in any case: were it left
/// unset, the compiler would keep whatever is there, be it a pointer, which the verifier refuses.
///
/// A tag that the device has taken off the frame (offloaded) is not there any more, and what follows the addresses is then the
/// type of what it carried; so only tags in the frame need reading. `zero` is [`flowlog_common::Active::zero`].
#[inline(always)]
pub fn network<P: Packet>(packet: &P, zero: u32) -> (Network, u32) {
    find(packet, zero).unwrap_or((Network::CutShort, 0))
}

#[inline(always)]
fn find<P: Packet>(packet: &P, zero: u32) -> Option<(Network, u32)> {
    if !eni::has_ethernet_header() {
        let [first, _] = packet.read::<[u8; 2]>(0)?;
        match first >> 4 {
            4 => return Some((Network::V4, 0)),
            6 => return Some((Network::V6, 0)),
            _ if !packet.is_said_to_be_ip() => return Some((Network::Other, 0)),
            // Redirected to this device from one with Ethernet headers, and still with its own.
            _ => {}
        }
    }
    let mut offset = 14;
    let mut ethertype = u16::from_be(packet.read(12)?);
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        ethertype = u16::from_be(packet.read(offset + 2)?);
        offset += 4;
    }
    // One path for the verifier, however many tags there were.
    let offset = (offset + zero) & MAX_OFFSET;
    match ethertype {
        ETHERTYPE_IPV4 => Some((Network::V4, offset)),
        ETHERTYPE_IPV6 => Some((Network::V6, offset)),
        tag if is_vlan(tag) => None,
        _ => Some((Network::Other, 0)),
    }
}

#[inline(always)]
pub fn is_vlan(ethertype: u16) -> bool {
    matches!(
        ethertype,
        ETHERTYPE_8021Q | ETHERTYPE_8021AD | ETHERTYPE_QINQ
    )
}
