//! A packet as people describe it: `tcp 10.0.0.1:1234 > 10.0.0.2:80 in`.
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{IpProtocol, has_ports};
use crate::record::{Direction, FlowTuple};
use crate::text::Text;
use crate::text_type;

/// A packet: protocol, source, destination, and the direction as the ENI's owner sees it.
///
/// Protocols are written as in rules, in any case of letters; DCCP, SCTP and UDP-Lite by their numbers. Where the protocol has ports both
/// are written, IPv6 addresses then in brackets: `tcp [fd00::1]:1234 > [fd00::2]:80 in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescribedPacket {
    /// The direction.
    pub direction: Direction,
    /// The 5-tuple.
    pub flow: FlowTuple,
}

impl Text for DescribedPacket {
    fn allowed() -> String {
        "allowed are packets as in `tcp 10.0.0.1:1234 > 10.0.0.2:80 in` and `icmpv6 fd00::1 > fd00::2 out`: a protocol, source and \
         destination of one family, with ports where the protocol has them, and the direction"
            .into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[protocol, src, ">", dst, direction] = words.as_slice() else {
            return None;
        };
        let protocol = IpProtocol::from_text(protocol)?.number()?;
        let (src_addr, src_port) = end(src, protocol)?;
        let (dst_addr, dst_port) = end(dst, protocol)?;
        let direction = match direction {
            "in" => Direction::In,
            "out" => Direction::Out,
            _ => return None,
        };
        let flow = FlowTuple {
            src_addr,
            src_port,
            dst_addr,
            dst_port,
            protocol,
        };
        (src_addr.is_ipv4() == dst_addr.is_ipv4()).then_some(Self { direction, flow })
    }
}

fn end(text: &str, protocol: u8) -> Option<(IpAddr, u16)> {
    if has_ports(protocol) {
        let socket: SocketAddr = text.parse().ok()?;
        return Some((socket.ip(), socket.port()));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    Some((bare.unwrap_or(text).parse().ok()?, 0))
}

impl fmt::Display for DescribedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, flow } = self;
        let protocol = IpProtocol::from_number(flow.protocol).to_string();
        write!(f, "{} ", protocol.to_lowercase())?;
        if has_ports(flow.protocol) {
            let (src, dst) = (
                SocketAddr::new(flow.src_addr, flow.src_port),
                SocketAddr::new(flow.dst_addr, flow.dst_port),
            );
            write!(f, "{src} > {dst}")?;
        } else {
            write!(f, "{} > {}", flow.src_addr, flow.dst_addr)?;
        }
        write!(f, " {}", direction.as_str())
    }
}

text_type!(DescribedPacket);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn described_and_read_again() {
        for (text, shown) in [
            ("tcp 10.0.0.1:1234 > 10.0.0.2:80 in", None),
            ("udp [fd00::1]:53 > [fd00::2]:5353 out", None),
            ("icmp 10.0.0.1 > 10.0.0.2 in", None),
            ("gre 10.0.0.1 > 10.0.0.2 out", None),
            ("132 10.0.0.1:1 > 10.0.0.2:2 in", None),
            ("50 fd00::1 > fd00::2 in", None),
            (
                "ICMPv6  [FD00::1] > fd00::2  out",
                Some("icmpv6 fd00::1 > fd00::2 out"),
            ),
            (
                "6 10.0.0.1:1 > 10.0.0.2:0 in",
                Some("tcp 10.0.0.1:1 > 10.0.0.2:0 in"),
            ),
        ] {
            let packet: DescribedPacket = text.parse().unwrap();
            assert_eq!(packet.to_string(), shown.unwrap_or(text));
        }
    }

    #[test]
    fn what_is_no_packet() {
        for bad in [
            "",
            "tcp",
            "all 10.0.0.1 > 10.0.0.2 in",
            "tcp 10.0.0.1 > 10.0.0.2:80 in",
            "tcp 10.0.0.1:1 > 10.0.0.2 in",
            "icmp 10.0.0.1:1 > 10.0.0.2:1 in",
            "tcp 10.0.0.1:1 > 10.0.0.2:80",
            "tcp 10.0.0.1:1 > 10.0.0.2:80 ingress",
            "tcp 10.0.0.1:1 10.0.0.2:80 in",
            "tcp 10.0.0.1:1 > [fd00::2]:80 in",
            "tcp 10.0.0.1:65536 > 10.0.0.2:80 in",
            "256 10.0.0.1 > 10.0.0.2 in",
            "tcp 10.0.0.1:1 > 10.0.0.2:80 in more",
        ] {
            assert!(bad.parse::<DescribedPacket>().is_err(), "{bad}");
        }
    }
}
