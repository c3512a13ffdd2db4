//! Judging: what the security groups say of a packet.
use core::mem::MaybeUninit;

use flowlog_common::{ACTION_ACCEPT, DECIDED_BY_NOTHING, PacketKind};

use crate::{
    classify,
    icmp::{self, Kind},
    packet::{MAX_OFFSET, Packet},
    policy::Policy,
    session::{self, Arrival, Judgement, Key},
};

/// What sessions need to know of a packet besides its flow.
#[derive(Clone, Copy)]
pub struct Subject {
    pub kind: Kind,
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
        zero: u32,
    ) -> Self {
        let kind = if JUDGE {
            Kind::read(packet, protocol, offset, end, zero)
        } else {
            Kind::TUPLE
        };
        Self {
            kind,
            error: (offset, end),
        }
    }

    /// The same, of which the verifier knows nothing any more.
    #[inline(always)]
    pub fn forgotten(&self, zero: u32) -> Self {
        let (offset, end) = self.error;
        Self {
            kind: self.kind.forgotten(zero),
            error: ((offset + zero) & MAX_OFFSET, end + zero),
        }
    }

    /// Of a later fragment, as its first was.
    #[inline(always)]
    pub fn of_later_fragment(kind: Kind) -> Self {
        Self {
            kind,
            error: (0, 0),
        }
    }
}

/// A packet to be judged, besides its session's key.
pub struct Question {
    pub subject: Subject,
    pub direction: u8,
    /// 0 of what is not TCP.
    pub tcp_flags: u8,
    pub policy: Policy,
    /// [`flowlog_common::Active::zero`].
    pub zero: u32,
}

impl Question {
    /// What the rules say of a packet of this session that goes in `direction`.
    #[inline(always)]
    fn ask_rules(&self, key: &Key, direction: u32) -> u32 {
        classify::outcome(key, direction, self.policy.number)
    }

    /// The outcome of a session that was found; if it is stale, it is judged again.
    #[inline(always)]
    fn settle(&self, key: &Key, answer: u64) -> u32 {
        if session::which(answer) == session::FOUND {
            return answer as u32;
        }
        let outcome = self.ask_rules(key, answer as u32);
        session::judged_again(key, outcome, self.policy.epoch);
        outcome
    }
}

/// Judges a packet. `key` is the session's of the packets of its flow that are no queries; it may be another's afterwards.
#[inline(always)]
pub fn judge<P: Packet>(packet: &P, key: &mut Key, question: &Question) -> Judgement {
    let Question {
        subject, direction, ..
    } = *question;
    let kind = subject.kind.kind();
    match kind {
        PacketKind::NeighborDiscovery => return Judgement::once(NOT_JUDGED),
        PacketKind::Error if subject.error.0 != 0 => {
            if let Some(judgement) = by_quoted(packet, key.version(), question) {
                return judgement;
            }
        }
        PacketKind::Request | PacketKind::Reply => {
            key.make_query(kind, subject.kind.identifier(), direction);
        }
        _ => {}
    }
    match kind {
        PacketKind::Tuple | PacketKind::Request | PacketKind::Reply => {
            by_session(key, kind, question)
        }
        _ => Judgement::once(question.ask_rules(key, u32::from(direction))),
    }
}

const NOT_JUDGED: u32 = ACTION_ACCEPT as u32 | DECIDED_BY_NOTHING << 8;

/// Judges an ICMP error by the session of the packet that it quotes, if there is one.
#[inline(always)]
fn by_quoted<P: Packet>(packet: &P, version: u8, question: &Question) -> Option<Judgement> {
    let (offset, end) = question.subject.error;
    let error = icmp::Error {
        offset,
        end,
        version,
        direction: question.direction,
    };
    let mut key = MaybeUninit::uninit();
    if !icmp::quoted(packet, &mut key, error.pack(), question.zero) {
        return None;
    }
    // SAFETY: written, as it said.
    let key = unsafe { key.assume_init_ref() };
    let answer = session::about(key, question.policy.epoch);
    if answer == session::NONE {
        return None;
    }
    Some(Judgement::once(question.settle(key, answer)))
}

/// In the first round a session can be judged again, or another CPU can open it.
const ROUNDS: u32 = 2;

/// Judges a packet by its session, which it opens if it can.
#[inline(always)]
fn by_session(key: &Key, kind: PacketKind, question: &Question) -> Judgement {
    let epoch = question.policy.epoch;
    let arrival = Arrival {
        direction: question.direction,
        kind,
        tcp_flags: question.tcp_flags,
    };
    // One path for the verifier, whatever kind it is.
    let packed = arrival.pack().wrapping_add(question.zero);
    let is_cacheable = || Arrival::unpack(packed).kind == PacketKind::Tuple;
    let mut outcome = NOT_JUDGED;
    // A number that passes through `zero`, for a bool that the verifier knows would make paths of its own too.
    let mut has_ended = question.zero;
    for _ in 0..ROUNDS {
        let answer = session::follow(key, packed, epoch);
        let which = session::which(answer);
        if which == session::FOUND {
            return Judgement {
                is_cacheable: is_cacheable(),
                has_ended: has_ended != 0,
                ..Judgement::once(answer as u32)
            };
        }
        if which == session::STALE {
            outcome = question.settle(key, answer);
            continue;
        }
        has_ended |= u32::from(which == session::ENDED) + question.zero;
        outcome = question.ask_rules(key, u32::from(arrival.direction));
        let answer = session::open(key, packed, outcome, epoch, question.zero);
        let which = session::which(answer);
        if which != session::EXISTS {
            return Judgement {
                outcome: answer as u32,
                is_cacheable: is_cacheable() && which != session::NO_ROOM,
                has_ended: has_ended != 0,
                has_opened: which == session::OPENED,
                had_no_room: which == session::NO_ROOM,
            };
        }
    }
    Judgement {
        has_ended: has_ended != 0,
        ..Judgement::once(outcome)
    }
}
