//! What of a packet matters to sessions.
use crate::record::{Direction, FlowTuple};

/// IANA number of ICMP.
pub(super) const ICMP: u8 = 1;
/// IANA number of ICMPv6.
pub(super) const ICMPV6: u8 = 58;

/// TCP's FIN.
pub const FIN: u8 = 1;
/// TCP's SYN.
pub const SYN: u8 = 2;
/// TCP's RST.
pub const RST: u8 = 4;
/// TCP's ACK.
pub const ACK: u8 = 16;

/// A packet as an ENI's sessions see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its direction, as the ENI's owner sees it.
    pub direction: Direction,
    /// Its 5-tuple, as a record has it: ports 0 where the protocol has none, and of later fragments.
    pub flow: FlowTuple,
    /// What the protocol says of sessions.
    pub detail: Detail,
    /// Whether it is a fragment.
    pub fragment: Fragment,
}

/// What the protocol says of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing but the 5-tuple.
    None,
    /// TCP's flags.
    Tcp {
        /// As in the header: [`FIN`], [`SYN`], [`RST`], [`ACK`] and others.
        flags: u8,
    },
    /// An ICMP or ICMPv6 request, or the reply to one.
    Query(Query),
    /// An ICMP or ICMPv6 error, with the packet that it quotes; none if what it quotes has no ports or is cut short.
    Error(Option<Quoted>),
    /// Neighbour discovery: to IPv6 what ARP is to IPv4.
    NeighborDiscovery,
    /// Any other ICMP or ICMPv6: it neither opens a session nor answers in one.
    OtherIcmp,
}

/// An ICMP or ICMPv6 request, or the reply to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The identifier, which request and reply have in common.
    pub identifier: u16,
    /// Whether it is a reply.
    pub is_reply: bool,
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its 5-tuple. It went the other way than the error.
    pub flow: FlowTuple,
    /// Of an ICMP or ICMPv6 request or reply.
    pub query: Option<Query>,
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is a whole datagram.
    None,
    /// The first, with the ports, of the datagram of this identification.
    First(u32),
    /// A later one, without ports, of the datagram of this identification.
    Later(u32),
}

/// What kinds of ICMP and ICMPv6 there are to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// It asks, and has an identifier.
    Request,
    /// It answers, and has an identifier.
    Reply,
    /// It quotes a packet that could not be delivered.
    Error,
    /// Neighbour discovery (RFC 4861), without redirects.
    NeighborDiscovery,
    /// Any other, redirects among them: they say where packets should go, and belong to no session.
    Other,
}

impl IcmpKind {
    /// The kind of a type of ICMP (protocol 1) or ICMPv6 (protocol 58).
    #[must_use]
    pub const fn of(protocol: u8, icmp_type: u8) -> Self {
        match (protocol, icmp_type) {
            // Echo, timestamp, information, address mask; RFC 792 and RFC 950.
            (ICMP, 8 | 13 | 15 | 17) | (ICMPV6, 128) => Self::Request,
            (ICMP, 0 | 14 | 16 | 18) | (ICMPV6, 129) => Self::Reply,
            // Unreachable, time exceeded, parameter problem; for ICMPv6 packet too big too.
            (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => Self::Error,
            // Solicitations and advertisements of routers and neighbours.
            (ICMPV6, 133..=136) => Self::NeighborDiscovery,
            _ => Self::Other,
        }
    }
}

/// What both directions of a session have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    /// The tuple as the packets that go out have it. Of queries, the identifier is in place of the source port.
    out: FlowTuple,
    /// Of queries, the direction of the request: a ping each way is two sessions, though they have the same identifier.
    request: Option<Direction>,
}

impl SessionKey {
    /// The session that a packet may belong to; none of what belongs to no session by itself.
    pub(super) fn of(direction: Direction, flow: &FlowTuple, detail: &Detail) -> Option<Self> {
        let out = match direction {
            Direction::Out => *flow,
            Direction::In => reversed(flow),
        };
        match *detail {
            Detail::None | Detail::Tcp { .. } => Some(Self { out, request: None }),
            Detail::Query(query) => Some(Self {
                out: FlowTuple {
                    src_port: query.identifier,
                    ..out
                },
                request: Some(if query.is_reply {
                    direction.opposite()
                } else {
                    direction
                }),
            }),
            Detail::Error(_) | Detail::NeighborDiscovery | Detail::OtherIcmp => None,
        }
    }

    pub(super) const fn protocol(&self) -> u8 {
        self.out.protocol
    }
}

/// The 5-tuple of the other direction.
#[must_use]
pub const fn reversed(flow: &FlowTuple) -> FlowTuple {
    FlowTuple {
        src_addr: flow.dst_addr,
        src_port: flow.dst_port,
        dst_addr: flow.src_addr,
        dst_port: flow.src_port,
        protocol: flow.protocol,
    }
}
