//! Judging: what the security groups say of a packet.
use core::mem::MaybeUninit;

use flowlog_common::{ACTION_ACCEPT, DECIDED_BY_NOTHING, PacketKind};

use crate::{
    classify, icmp, key,
    packet::{MAX_OFFSET, Packet},
    policy::Policy,
    session::{self, Arrival, Judgement, Key},
};

/// What sessions need to know of a packet besides its flow.
#[derive(Clone, Copy)]
pub struct Subject {
    pub kind: PacketKind,
    /// Of a query, as it lies in the packet.
    pub identifier: u16,
    /// Where an ICMP error begins and ends; from 0 if it is not here.
    error: (u32, u32),
}

impl Subject {
    /// Of a packet whose upper layer begins and ends at these offsets; nothing is read unless `JUDGE`.
    #[inline(always)]
    pub fn read<P: Packet, const JUDGE: bool>(
        packet: &P,
        protocol: u8,
        (offset, end): (u32, u32),
    ) -> Self {
        let (kind, identifier) = if JUDGE {
            icmp::kind(packet, protocol, offset, end)
        } else {
            (PacketKind::Tuple, 0)
        };
        Self {
            kind,
            identifier,
            error: (offset, end),
        }
    }

    /// The same, of which the verifier knows nothing any more.
    #[inline(always)]
    pub fn forgotten(&self, zero: u32) -> Self {
        let (offset, end) = self.error;
        Self {
            kind: PacketKind::from_number((self.kind as u8).wrapping_add(zero as u8)),
            identifier: self.identifier.wrapping_add(zero as u16),
            error: ((offset + zero) & MAX_OFFSET, end + zero),
        }
    }

    /// Of a later fragment, as its first was.
    #[inline(always)]
    pub fn of_later_fragment(kind: PacketKind, identifier: u16) -> Self {
        Self {
            kind,
            identifier,
            error: (0, 0),
        }
    }
}

/// Judges a packet of a flow, of whose key the action does not matter. `zero` is [`flowlog_common::Active::zero`].
#[inline(always)]
pub fn judge<P: Packet, K: key::Key>(
    packet: &P,
    flow: &K,
    subject: &Subject,
    (direction, tcp_flags): (u8, u8),
    policy: Policy,
    zero: u32,
) -> Judgement {
    let kind = subject.kind;
    if kind == PacketKind::NeighborDiscovery {
        return Judgement::once(NOT_JUDGED);
    }
    let mut key = MaybeUninit::uninit();
    if kind == PacketKind::Error && subject.error.0 != 0 {
        let (offset, end) = subject.error;
        let error = icmp::Error {
            offset,
            end,
            version: K::VERSION,
            direction,
        };
        if icmp::quoted(packet, &mut key, error.pack(), zero) {
            // SAFETY: written, as it said.
            let key = unsafe { key.assume_init_ref() };
            let answer = session::about(key, policy.epoch);
            if answer != session::NONE {
                return Judgement::once(settled(key, answer, policy, zero));
            }
        }
    }
    Key::of_flow(flow, direction, &mut key);
    // SAFETY: just written.
    let key = unsafe { key.assume_init_mut() };
    match kind {
        PacketKind::Tuple => {}
        PacketKind::Request | PacketKind::Reply => {
            key.make_query(kind, subject.identifier, direction);
        }
        _ => {
            let outcome = classify::outcome(key, u32::from(direction), policy.number, zero);
            return Judgement::once(outcome);
        }
    }
    let arrival = Arrival {
        direction,
        kind,
        tcp_flags,
    };
    by_session(key, arrival, policy, zero)
}

const NOT_JUDGED: u32 = ACTION_ACCEPT as u32 | DECIDED_BY_NOTHING << 8;

/// The outcome of a session that was found; if it is stale, it is judged again.
#[inline(always)]
fn settled(key: &Key, answer: u64, policy: Policy, zero: u32) -> u32 {
    if session::which(answer) == session::FOUND {
        return answer as u32;
    }
    let outcome = classify::outcome(key, answer as u32, policy.number, zero);
    session::judged_again(key, outcome, policy.epoch);
    outcome
}

/// In the first round a session can be judged again, or another CPU can open it.
const ROUNDS: u32 = 2;

/// Judges a packet by its session, which it opens if it can.
#[inline(always)]
fn by_session(key: &Key, arrival: Arrival, policy: Policy, zero: u32) -> Judgement {
    let packed = arrival.pack();
    let is_cacheable = arrival.kind == PacketKind::Tuple;
    let mut outcome = NOT_JUDGED;
    for _ in 0..ROUNDS {
        let answer = session::follow(key, packed, policy.epoch);
        let which = session::which(answer);
        if which == session::FOUND {
            return Judgement {
                is_cacheable,
                ..Judgement::once(answer as u32)
            };
        }
        let asked = if which == session::STALE {
            answer as u32
        } else {
            u32::from(arrival.direction)
        };
        outcome = classify::outcome(key, asked, policy.number, zero);
        if which == session::STALE {
            session::judged_again(key, outcome, policy.epoch);
            continue;
        }
        let answer = session::open(key, packed, outcome, policy.epoch, zero);
        let which = session::which(answer);
        if which != session::EXISTS {
            return Judgement {
                outcome: answer as u32,
                is_cacheable: is_cacheable && which != session::NO_ROOM,
                has_opened: which == session::OPENED,
                had_no_room: which == session::NO_ROOM,
            };
        }
    }
    Judgement::once(outcome)
}
