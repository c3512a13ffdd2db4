//! First fragments have the ports; later ones find them here.
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::packet::{Detail, Fragment, Packet};
use crate::record::Direction;

/// What identifies a datagram: the protocol too for IPv4 (RFC 791), not for IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Datagram {
    direction: Direction,
    src_addr: IpAddr,
    dst_addr: IpAddr,
    protocol: Option<u8>,
    id: u32,
}

impl Datagram {
    fn of(packet: &Packet, id: u32) -> Self {
        let flow = &packet.flow;
        Self {
            direction: packet.direction,
            src_addr: flow.src_addr,
            dst_addr: flow.dst_addr,
            protocol: flow.src_addr.is_ipv4().then_some(flow.protocol),
            id,
        }
    }
}

/// The first fragments of the last datagrams.
#[derive(Clone, Debug)]
pub(super) struct Fragments {
    capacity: usize,
    first: HashMap<Datagram, Packet>,
    /// The oldest first.
    order: VecDeque<Datagram>,
}

impl Fragments {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            first: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// The packet as if it were whole; none of a later fragment whose first is not known.
    pub(super) fn whole(&mut self, packet: &Packet) -> Option<Packet> {
        let whole = Packet {
            fragment: Fragment::None,
            ..*packet
        };
        match packet.fragment {
            Fragment::None => Some(whole),
            Fragment::First(id) => {
                self.remember(Datagram::of(packet, id), whole);
                Some(whole)
            }
            Fragment::Later(id) => {
                let first = self.first.get(&Datagram::of(packet, id)).copied()?;
                // A later fragment has ports in common with the first, not the flags: what they did to the session is done.
                let detail = match first.detail {
                    Detail::Tcp { .. } => Detail::None,
                    other => other,
                };
                Some(Packet { detail, ..first })
            }
        }
    }

    fn remember(&mut self, datagram: Datagram, first: Packet) {
        if self.first.insert(datagram, first).is_none() {
            self.order.push_back(datagram);
        }
        while self.order.len() > self.capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.first.remove(&oldest);
            }
        }
    }
}
