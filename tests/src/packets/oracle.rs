//! How etherparse reads a frame, by the rules that Flowlog's parser is to follow: the judge of that parser, and independent of
//! it.
//!
//! - Up to [`MAX_TAGS`] VLAN tags; a deeper stack, or a frame cut before its EtherType, cannot be parsed. What is not IPv4 or
//!   IPv6 then is not IP.
//! - A datagram has as many octets as its header says, never more than are there; Ethernet's padding is not part of it.
//! - IPv6 extension headers are walked in any order, [`MAX_EXTENSIONS`] at most. In IPv4 AH is a protocol like any other.
//! - Ports are the first four octets of TCP, UDP, DCCP, SCTP and UDP-Lite; where they are not all there, the packet cannot be
//!   parsed. Other protocols have ports 0.
//! - A later fragment has the protocol and ports of its first, if that came before; else what its own header names, and ports 0.

use std::collections::HashMap;
use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Slice, IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice,
    Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanSlice, TcpHeaderSlice, UdpHeaderSlice,
    ether_type, ip_number,
};

/// VLAN tags that are followed.
pub const MAX_TAGS: usize = 4;
/// IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 12;

/// What a frame is to a flow log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A packet of a flow.
    Flow(Flow),
    /// Not an IP packet.
    NotIp,
    /// An IP packet, or perhaps one, whose headers are cut short or contradict themselves.
    Unparsable,
}

/// What a flow log records of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, 0 where there is none.
    pub sport: u16,
    /// Destination port, 0 where there is none.
    pub dport: u16,
    /// IANA number of the upper layer.
    pub protocol: u8,
    /// Octets of the IP datagram, its header included.
    pub ip_octets: u64,
    /// TCP's octet 13, CWR to FIN; 0 if it is not TCP or not there.
    pub tcp_flags: u8,
    /// Whether it is a fragment, and which.
    pub fragment: Fragment,
}

/// A packet's place in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole datagram; one in IPv6 with a fragment header that says so (an atomic fragment, RFC 6946) as well.
    None,
    /// The first fragment: it has the ports.
    First {
        /// Identification.
        id: u32,
    },
    /// Any other.
    Later {
        /// Identification.
        id: u32,
        /// Offset in units of 8 octets, over 0.
        offset: u16,
    },
}

/// What the oracle does not judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomparable {
    /// IPv6 with payload length 0 and yet hop-by-hop options: perhaps a jumbogram (RFC 2675), whose length option etherparse
    /// does not read.
    Jumbogram,
    /// IPv6 AH that gives its length as 8 octets: RFC 4302 does not allow it, etherparse refuses it, a walker takes it.
    AuthOfEightOctets,
    /// An IPv6 fragment header behind that of a first fragment: RFC 8200 says nothing of a fragment of a fragment.
    FragmentOfFragment,
}

/// Which earlier fragment a later one belongs to: addresses, identification and, in IPv4, the protocol.
type DatagramKey = (IpAddr, IpAddr, u32, Option<u8>);

/// Reads the frames of one ENI and direction in turn. It remembers every first fragment it has seen.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Protocol, source port and destination port.
    firsts: HashMap<DatagramKey, (u8, u16, u16)>,
}

impl Oracle {
    /// The reading of the next frame.
    pub fn read(&mut self, frame: &[u8]) -> Reading {
        let Ok(Reading::Flow(mut flow)) = walk(frame) else {
            return read_alone(frame);
        };
        match flow.fragment {
            Fragment::None => {}
            Fragment::First { .. } => {
                if let Some(key) = datagram_key(frame, &flow) {
                    self.firsts
                        .insert(key, (flow.protocol, flow.sport, flow.dport));
                }
            }
            Fragment::Later { .. } => {
                let first = datagram_key(frame, &flow).and_then(|key| self.firsts.get(&key));
                if let Some(&(protocol, sport, dport)) = first {
                    flow = Flow {
                        protocol,
                        sport,
                        dport,
                        ..flow
                    };
                }
            }
        }
        Reading::Flow(flow)
    }
}

/// The reading of a frame before which no other came.
#[must_use]
pub fn read_alone(frame: &[u8]) -> Reading {
    walk(frame).unwrap_or(Reading::Unparsable)
}

/// Whether the oracle's reading of `frame` can be held against a parser's: whether [`incomparable`] knows no reason against it.
#[must_use]
pub fn comparable(frame: &[u8]) -> bool {
    incomparable(frame).is_none()
}

/// Why the oracle's reading of `frame` is not to be held against a parser's.
#[must_use]
pub fn incomparable(frame: &[u8]) -> Option<Incomparable> {
    match walk(frame) {
        Err(Refusal::Incomparable(reason)) => Some(reason),
        Err(Refusal::Unparsable) | Ok(_) => None,
    }
}

/// Why there is no reading.
enum Refusal {
    Unparsable,
    Incomparable(Incomparable),
}

/// For `map_err`: whatever etherparse has against it, it cannot be parsed.
fn unparsable<E>(_: E) -> Refusal {
    Refusal::Unparsable
}

fn walk(frame: &[u8]) -> Result<Reading, Refusal> {
    let (kind, payload) = network_layer(frame)?;
    match kind {
        ether_type::IPV4 => read_ipv4(payload).map(Reading::Flow),
        ether_type::IPV6 => read_ipv6(payload).map(Reading::Flow),
        _ => Ok(Reading::NotIp),
    }
}

/// The EtherType behind the tags, and what follows it.
fn network_layer(frame: &[u8]) -> Result<(EtherType, &[u8]), Refusal> {
    let ethernet = Ethernet2Slice::from_slice_without_fcs(frame).map_err(unparsable)?;
    let (mut kind, mut payload) = (ethernet.ether_type(), ethernet.payload_slice());
    let is_tag = |kind| {
        matches!(
            kind,
            ether_type::VLAN_TAGGED_FRAME
                | ether_type::PROVIDER_BRIDGING
                | ether_type::VLAN_DOUBLE_TAGGED_FRAME
        )
    };
    for _ in 0..MAX_TAGS {
        if is_tag(kind) {
            let tag = SingleVlanSlice::from_slice(payload).map_err(unparsable)?;
            (kind, payload) = (tag.ether_type(), tag.payload_slice());
        }
    }
    if is_tag(kind) {
        Err(Refusal::Unparsable)
    } else {
        Ok((kind, payload))
    }
}

fn read_ipv4(bytes: &[u8]) -> Result<Flow, Refusal> {
    // Refuses another version, a header length under 20 octets, and a header that is not all there.
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(unparsable)?;
    header.payload_len().map_err(unparsable)?;
    let octets = usize::from(header.total_len());
    let payload = bytes
        .get(header.slice().len()..octets)
        .ok_or(Refusal::Unparsable)?;
    let id = u32::from(header.identification());
    let fragment = match (header.fragments_offset().value(), header.more_fragments()) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First { id },
        (offset, _) => Fragment::Later { id, offset },
    };
    let (src, dst) = (
        header.source_addr().into(),
        header.destination_addr().into(),
    );
    flow(src, dst, octets, header.protocol().0, fragment, payload)
}

fn read_ipv6(bytes: &[u8]) -> Result<Flow, Refusal> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(unparsable)?;
    let promises_jumbo =
        header.payload_length() == 0 && header.next_header() == ip_number::IPV6_HEADER_HOP_BY_HOP;
    if promises_jumbo && bytes.len() > header.header_len() {
        return Err(Refusal::Incomparable(Incomparable::Jumbogram));
    }
    let octets = header.header_len() + usize::from(header.payload_length());
    let datagram = bytes
        .get(header.header_len()..octets)
        .ok_or(Refusal::Unparsable)?;
    let (protocol, fragment, payload) = upper_layer(header.next_header().0, datagram)?;
    let (src, dst) = (
        header.source_addr().into(),
        header.destination_addr().into(),
    );
    flow(src, dst, octets, protocol, fragment, payload)
}

/// Walks the extension headers. One by one, for `Ipv6ExtensionsSlice` wants hop-by-hop options in the first place, does not
/// stop at a later fragment, and knows nothing of mobility, HIP and Shim6.
fn upper_layer(mut number: u8, mut rest: &[u8]) -> Result<(u8, Fragment, &[u8]), Refusal> {
    let mut fragment = Fragment::None;
    for walked in 0.. {
        let (next, length) = match number {
            0 | 43 | 60 | 135 | 139 | 140 | 44 | 51 if walked == MAX_EXTENSIONS => {
                return Err(Refusal::Unparsable);
            }
            0 | 43 | 60 | 135 | 139 | 140 => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(unparsable)?;
                (header.next_header().0, header.slice().len())
            }
            51 if rest.len() >= 8 && rest[1] == 0 => {
                return Err(Refusal::Incomparable(Incomparable::AuthOfEightOctets));
            }
            51 => {
                let header = IpAuthHeaderSlice::from_slice(rest).map_err(unparsable)?;
                (header.next_header().0, header.slice().len())
            }
            44 => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(unparsable)?;
                if fragment != Fragment::None {
                    return Err(Refusal::Incomparable(Incomparable::FragmentOfFragment));
                }
                let id = header.identification();
                fragment = match (header.fragment_offset().value(), header.more_fragments()) {
                    (0, false) => Fragment::None,
                    (0, true) => Fragment::First { id },
                    // What follows is the middle of a datagram.
                    (offset, _) => {
                        let payload = rest.get(header.slice().len()..).unwrap_or_default();
                        return Ok((
                            header.next_header().0,
                            Fragment::Later { id, offset },
                            payload,
                        ));
                    }
                };
                (header.next_header().0, header.slice().len())
            }
            _ => break,
        };
        rest = rest.get(length..).ok_or(Refusal::Unparsable)?;
        number = next;
    }
    Ok((number, fragment, rest))
}

fn flow(
    src: IpAddr,
    dst: IpAddr,
    octets: usize,
    protocol: u8,
    fragment: Fragment,
    payload: &[u8],
) -> Result<Flow, Refusal> {
    let later = matches!(fragment, Fragment::Later { .. });
    let (sport, dport, tcp_flags) = if later {
        (0, 0, 0)
    } else {
        upper_header(protocol, payload)?
    };
    Ok(Flow {
        src,
        dst,
        sport,
        dport,
        protocol,
        ip_octets: octets as u64,
        tcp_flags,
        fragment,
    })
}

/// Source port, destination port and TCP flags: by etherparse where it reads the header, by hand where it would refuse one that
/// is short or wrong behind its ports, and for protocols it does not know.
fn upper_header(protocol: u8, payload: &[u8]) -> Result<(u16, u16, u8), Refusal> {
    match protocol {
        6 => {
            if let Ok(tcp) = TcpHeaderSlice::from_slice(payload) {
                return Ok((tcp.source_port(), tcp.destination_port(), flags(&tcp)));
            }
        }
        17 => {
            if let Ok(udp) = UdpHeaderSlice::from_slice(payload) {
                return Ok((udp.source_port(), udp.destination_port(), 0));
            }
        }
        33 | 132 | 136 => {}
        _ => return Ok((0, 0, 0)),
    }
    let &[a, b, c, d, ..] = payload else {
        return Err(Refusal::Unparsable);
    };
    let flags = if protocol == 6 {
        payload.get(13).copied().unwrap_or(0)
    } else {
        0
    };
    Ok((
        u16::from_be_bytes([a, b]),
        u16::from_be_bytes([c, d]),
        flags,
    ))
}

fn flags(tcp: &TcpHeaderSlice<'_>) -> u8 {
    let bits = [
        tcp.fin(),
        tcp.syn(),
        tcp.rst(),
        tcp.psh(),
        tcp.ack(),
        tcp.urg(),
        tcp.ece(),
        tcp.cwr(),
    ];
    bits.into_iter()
        .rev()
        .fold(0, |flags, bit| (flags << 1) | u8::from(bit))
}

/// The key under which a fragment's first is remembered. IPv4 tells datagrams apart by protocol too (RFC 791), which is the
/// same in all fragments' headers; IPv6 does not (RFC 8200 §4.5).
fn datagram_key(frame: &[u8], flow: &Flow) -> Option<DatagramKey> {
    let (Fragment::First { id } | Fragment::Later { id, .. }) = flow.fragment else {
        return None;
    };
    let is_ipv4 = network_layer(frame).is_ok_and(|(kind, _)| kind == ether_type::IPV4);
    Some((flow.src, flow.dst, id, is_ipv4.then_some(flow.protocol)))
}
