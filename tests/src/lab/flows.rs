//! Which 5-tuple the flood's flow i has, and which flow its packet k belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Mac;
use super::zipf::{Zipf, random};

/// Flows that one flood can have.
pub const MAX_FLOWS: u32 = 1 << 24;

/// A MAC address that no device of the lab has (locally administered). The receiver's stack drops what is sent to it right behind
/// TC ingress: no ICMP error, no routing, nothing comes back.
pub const NOBODY_MAC: Mac = [0x02, 0xf1, 0x00, 0x00, 0xff, 0xfe];

/// Flows of one source address have ports `FIRST_PORT` to `FIRST_PORT + 4095`.
const FIRST_PORT: u16 = 1024;
const PORT_BITS: u32 = 12;
/// The destination port of every flow: discard (RFC 863).
const DESTINATION_PORT: u16 = 9;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How packets are spread over flows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Packet k belongs to flow k modulo the number of flows.
    Even,
    /// By Zipf's law with this exponent (1.0 is common for network flows): flow 0 is the largest.
    Zipf(f64),
}

/// What identifies a flow of the flood; its protocol is UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

/// The 5-tuple of flow `flow`: 4,096 source ports on each of as many source addresses as it takes, towards one destination. The
/// addresses are those set aside for benchmarks: 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180).
#[must_use]
pub fn flow_tuple(family: Family, flow: u32) -> FlowTuple {
    let host = flow >> PORT_BITS;
    let sport = FIRST_PORT + (flow & ((1 << PORT_BITS) - 1)) as u16;
    let (src, dst): (IpAddr, IpAddr) = match family {
        Family::V4 => {
            let src = u32::from(Ipv4Addr::new(198, 18, 0, 1)) + host;
            (
                Ipv4Addr::from(src).into(),
                Ipv4Addr::new(198, 19, 255, 1).into(),
            )
        }
        Family::V6 => {
            let src = u128::from(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1)) + u128::from(host);
            (
                Ipv6Addr::from(src).into(),
                Ipv6Addr::new(0x2001, 2, 0, 2, 0, 0, 0, 1).into(),
            )
        }
    };
    FlowTuple {
        src,
        dst,
        sport,
        dport: DESTINATION_PORT,
    }
}

/// Tells the flow of each packet of a flood, in any order and from any thread.
#[derive(Clone, Debug)]
pub(crate) enum FlowChoice {
    Even { flows: u64 },
    Zipf { ranks: Zipf, seed: u64 },
}

impl FlowChoice {
    pub(crate) fn new(distribution: Distribution, flows: u32, seed: u64) -> Self {
        match distribution {
            Distribution::Even => Self::Even {
                flows: u64::from(flows),
            },
            Distribution::Zipf(s) => Self::Zipf {
                ranks: Zipf::new(flows, s),
                seed,
            },
        }
    }

    pub(crate) fn flow_of(&self, packet: u64) -> u32 {
        match self {
            // Below `flows`, which came from a u32.
            Self::Even { flows } => (packet % flows) as u32,
            Self::Zipf { ranks, seed } => ranks.rank(random(*seed, packet)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Family, MAX_FLOWS, flow_tuple};

    #[test]
    fn every_flow_has_a_tuple_of_its_own() {
        for family in [Family::V4, Family::V6] {
            let tuples: HashSet<_> = (0..200_000).map(|flow| flow_tuple(family, flow)).collect();
            assert_eq!(tuples.len(), 200_000);
        }
        let last = flow_tuple(Family::V4, MAX_FLOWS - 1);
        assert_eq!(
            (last.src.to_string().as_str(), last.sport),
            ("198.18.16.0", 5119)
        );
    }
}
