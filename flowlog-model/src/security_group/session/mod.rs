//! Sessions: what becomes of the packets that follow the one that opened them.
//!
//! This is the reference for the kernel's session tracking, written plainly: one table per ENI, and time as an argument.
//!
//! - **A session** is what the packets of both directions with one 5-tuple are. The first packet is judged by the rules, and all others
//!   pass, or do not, as it did. TCP that is found in the middle is a session like any other: connections may be older than the rules.
//! - **Requests** of ICMP and ICMPv6 open sessions by their identifier, each direction its own; a reply opens none. Other ICMP belongs to
//!   no session. **Errors** pass as the session that they are about, whose packet they quote, and do not keep it alive. **Neighbour
//!   discovery** is to IPv6 what ARP is to IPv4: nothing judges it, for without it no rule could let anything pass.
//! - **Fragments** have the ports of their first. If that is not known (it was forgotten, or comes later), they have ports 0,
//!   which only rules for all ports match, and open no session.
//! - **Expiry**: a session that is idle for longer than [`Stage::max_idle`] is over. A SYN on a closing session is a new one.
//! - **A changed policy** has another generation. A session is judged again, by the packet that opened it, when its next packet comes: if
//!   the outcome is the same, nothing changes but the rule that is named. If it is not, the session passes, or does not, as the outcome
//!   is now; were it forgotten instead, its next reply would open it again from the other end.
//! - **Rejected packets** open no session where they are dropped (`enforce`): whoever is inside has not seen them, so what it sends is not
//!   an answer, and a stranger could otherwise block the ENI's own sessions. Where they pass (`observe`) the answers are not to be taken
//!   for sessions of their own, so they are rejected as the session is; a SYN from the other end is a session of its own.
//! - **Full**: what is over is cleared away first. Then [`WhenFull`] decides, and each session that has no room is counted.
use std::collections::HashMap;
use std::time::Duration;

mod fragments;
mod packet;
mod state;

use fragments::Fragments;
use packet::SessionKey;
pub use packet::{ACK, Detail, FIN, Fragment, IcmpKind, Packet, Query, Quoted, RST, SYN, reversed};
pub use state::{MAX_IDLE, Stage};
use state::{State, is_syn};

use super::{Policy, PolicyRule, Reason, SecurityMode, Verdict};
use crate::record::{Action, Direction, FlowTuple};
use crate::spelled_enum;

spelled_enum! {
    /// What becomes of a packet that the rules accept when there is no room for its session.
    #[derive(Default)]
    pub enum WhenFull {
        /// It passes. Its replies are judged by the rules, as if they opened a session.
        #[default]
        Accept = "accept",
        /// It is rejected.
        Reject = "reject",
    }
}

/// How large a table is, and how it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Most sessions at a time.
    pub max_sessions: usize,
    /// Most fragmented datagrams whose first fragment is remembered.
    pub max_fragmented_datagrams: usize,
    /// What becomes of sessions that have no room.
    pub when_full: WhenFull,
    /// Whether rejected packets pass. Nothing is judged where it is off.
    pub mode: SecurityMode,
}

/// The sessions of an ENI.
#[derive(Clone, Debug)]
pub struct Sessions {
    config: SessionConfig,
    sessions: HashMap<SessionKey, Session>,
    fragments: Fragments,
    without_room: u64,
}

#[derive(Clone, Debug)]
struct Session {
    /// The packet that opened it.
    opener: (Direction, FlowTuple),
    verdict: Verdict,
    /// Of the policy that gave the verdict.
    generation: u64,
    state: State,
    last_packet: Duration,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it is allowed.
    pub action: Action,
    /// Why.
    pub basis: Basis,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The ENI's mode is off, or nothing judges such packets.
    NotJudged,
    /// The rules, asked about this packet.
    Packet(Reason),
    /// The session that it belongs to or is about, and what the rules said of the packet that opened it.
    Session(Reason),
    /// There is no room for its session.
    NoRoom,
}

impl Judgement {
    const NOT_JUDGED: Self = Self {
        action: Action::Accept,
        basis: Basis::NotJudged,
    };

    /// The rule that decided, of the packet or of its session.
    #[must_use]
    pub fn rule(&self) -> Option<&PolicyRule> {
        match &self.basis {
            Basis::Packet(reason) | Basis::Session(reason) => reason.rule(),
            Basis::NotJudged | Basis::NoRoom => None,
        }
    }

    fn of_packet(verdict: Verdict) -> Self {
        Self {
            action: verdict.action,
            basis: Basis::Packet(verdict.reason),
        }
    }

    fn of_session(verdict: &Verdict) -> Self {
        Self {
            action: verdict.action,
            basis: Basis::Session(verdict.reason.clone()),
        }
    }
}

/// A policy, and which one it is: another generation may decide otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Current<'p> {
    /// The policy.
    pub policy: &'p Policy,
    /// Its generation.
    pub generation: u64,
}

impl Sessions {
    /// A table without sessions.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        Self {
            config,
            sessions: HashMap::new(),
            fragments: Fragments::new(config.max_fragmented_datagrams),
            without_room: 0,
        }
    }

    /// What becomes of a packet. `now` is any time that never goes backwards.
    pub fn judge(&mut self, packet: &Packet, current: Current<'_>, now: Duration) -> Judgement {
        if self.config.mode == SecurityMode::Off || current.policy.group_type().is_none() {
            return Judgement::NOT_JUDGED;
        }
        let Some(packet) = self.fragments.whole(packet) else {
            return Judgement::of_packet(current.policy.decide(packet.direction, &packet.flow));
        };
        let of_rules =
            || Judgement::of_packet(current.policy.decide(packet.direction, &packet.flow));
        match packet.detail {
            Detail::NeighborDiscovery => return Judgement::NOT_JUDGED,
            Detail::Error(Some(quoted)) => {
                let about = self.about(packet.direction, &quoted, current, now);
                return about.unwrap_or_else(of_rules);
            }
            _ => {}
        }
        let Some(key) = SessionKey::of(packet.direction, &packet.flow, &packet.detail) else {
            return of_rules();
        };
        self.follow(key, &packet, current, now)
            .unwrap_or_else(|| self.open(key, &packet, current, now))
    }

    /// How many sessions there are, also such as are over and were not cleared away yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many packets would have opened a session for which there was no room.
    #[must_use]
    pub const fn without_room(&self) -> u64 {
        self.without_room
    }

    /// The session that an ICMP error is about.
    fn about(
        &mut self,
        direction: Direction,
        quoted: &Quoted,
        current: Current<'_>,
        now: Duration,
    ) -> Option<Judgement> {
        let detail = quoted.query.map_or(Detail::None, Detail::Query);
        let key = SessionKey::of(direction.opposite(), &quoted.flow, &detail)?;
        let session = self.sessions.get_mut(&key)?;
        if session.is_over(&key, now) {
            return None;
        }
        session.judge_again(current);
        Some(Judgement::of_session(&session.verdict))
    }

    /// The packet as one of a session that there is.
    fn follow(
        &mut self,
        key: SessionKey,
        packet: &Packet,
        current: Current<'_>,
        now: Duration,
    ) -> Option<Judgement> {
        let session = self.sessions.get_mut(&key)?;
        session.judge_again(current);
        if session.is_over(&key, now) || session.is_replaced_by(packet) {
            self.sessions.remove(&key);
            return None;
        }
        session.state.advance(packet.direction, &packet.detail);
        session.last_packet = now;
        Some(Judgement::of_session(&session.verdict))
    }

    /// The packet as one that opens a session, if it can.
    fn open(
        &mut self,
        key: SessionKey,
        packet: &Packet,
        current: Current<'_>,
        now: Duration,
    ) -> Judgement {
        let verdict = current.policy.decide(packet.direction, &packet.flow);
        let is_reply = matches!(packet.detail, Detail::Query(Query { is_reply: true, .. }));
        let is_dropped =
            verdict.action == Action::Reject && self.config.mode == SecurityMode::Enforce;
        if is_reply || is_dropped {
            return Judgement::of_packet(verdict);
        }
        if !self.has_room(now) {
            self.without_room += 1;
            return match (verdict.action, self.config.when_full) {
                (Action::Accept, WhenFull::Reject) => Judgement {
                    action: Action::Reject,
                    basis: Basis::NoRoom,
                },
                _ => Judgement::of_packet(verdict),
            };
        }
        let mut state = State::new(packet.direction);
        state.advance(packet.direction, &packet.detail);
        let session = Session {
            opener: (packet.direction, packet.flow),
            verdict: verdict.clone(),
            generation: current.generation,
            state,
            last_packet: now,
        };
        self.sessions.insert(key, session);
        Judgement::of_packet(verdict)
    }

    fn has_room(&mut self, now: Duration) -> bool {
        if self.sessions.len() >= self.config.max_sessions {
            self.sessions
                .retain(|key, session| !session.is_over(key, now));
        }
        self.sessions.len() < self.config.max_sessions
    }
}

impl Session {
    fn is_over(&self, key: &SessionKey, now: Duration) -> bool {
        let idle = now.saturating_sub(self.last_packet);
        idle > self.state.stage.max_idle(key.protocol())
    }

    /// Whether the packet begins a connection of its own on the same 5-tuple.
    fn is_replaced_by(&self, packet: &Packet) -> bool {
        let (opener, _) = self.opener;
        let is_answer = packet.direction != opener;
        is_syn(&packet.detail)
            && (self.state.stage == Stage::Closing
                || (is_answer && self.verdict.action == Action::Reject))
    }

    fn judge_again(&mut self, current: Current<'_>) {
        if self.generation != current.generation {
            let (direction, flow) = &self.opener;
            self.verdict = current.policy.decide(*direction, flow);
            self.generation = current.generation;
        }
    }
}

#[cfg(test)]
mod tests;
