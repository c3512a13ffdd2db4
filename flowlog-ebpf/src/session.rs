//! Sessions: found, followed, opened.
use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
};
use flowlog_common::{
    ACTION_REJECT, DECIDED_BY_NO_ROOM, DIRECTION_IN, DIRECTION_OUT, PacketKind, REQUEST_IN,
    REQUEST_NONE, SESSION_ANSWERED, SESSION_FIN_IN, SESSION_FIN_OUT, SESSION_OPENED_OUT,
    SESSION_RESET, Session, SessionKey, SessionVerdict, WAKE_FOR_SESSIONS, is_closing,
    max_idle_nanoseconds,
};

use crate::{
    atomic, eni,
    key::{self, pair},
    maps::{SESSION_ROOM, SESSIONS, WAKE},
    transport::{ACK, FIN, RST, SYN},
};

/// A [`SessionKey`] in words: those of the key of an IPv6 flow of packets that go out, but for the last.
#[repr(C)]
pub struct Key {
    words: [u64; 5],
    /// Protocol, request, version, 0: one word, for the verifier wants the stack aligned and the compiler joins writes of octets.
    last: u32,
    /// Fills up to a multiple of 8.
    padding: u32,
}

/// The ends of a packet, as it has them.
#[derive(Clone, Copy)]
pub struct Ends {
    /// IPv4 in the first word.
    pub src: [u32; 4],
    pub dst: [u32; 4],
    /// Both ports, the source's first.
    pub ports: u32,
    pub protocol: u8,
    pub version: u8,
}

impl Key {
    /// The session of a packet that is no query.
    #[inline(always)]
    pub fn new(ends: &Ends, direction: u8) -> Self {
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (ends.src, ends.dst);
        let words = [
            pair(eni::slot(), s0),
            pair(s1, s2),
            pair(s3, d0),
            pair(d1, d2),
            pair(d3, ends.ports),
        ];
        Self::of_words(words, (ends.protocol, ends.version), direction)
    }

    /// The session of the packets of a flow that are no queries.
    ///
    /// A function of its own because of the stack, where else each word would have a place.
    #[inline(never)]
    pub fn of_flow<K: key::Key>(flow: &K, direction: u8, to: &mut MaybeUninit<Self>) {
        let protocol_and_version = (flow.protocol(), K::VERSION);
        to.write(Self::of_words(
            flow.words(),
            protocol_and_version,
            direction,
        ));
    }

    #[inline(always)]
    fn of_words(words: [u64; 5], (protocol, version): (u8, u8), direction: u8) -> Self {
        Self {
            words: if direction == DIRECTION_OUT {
                words
            } else {
                key::reversed(words)
            },
            last: u32::from_ne_bytes([protocol, REQUEST_NONE, version, 0]),
            padding: 0,
        }
    }

    /// Makes it that of a query: `identifier` as it lies in the packet, which goes in `direction`.
    #[inline(always)]
    pub fn make_query(&mut self, kind: PacketKind, identifier: u16, direction: u8) {
        let request = if kind == PacketKind::Reply {
            direction ^ DIRECTION_OUT
        } else {
            direction
        };
        self.words[4] = pair(self.words[4] as u32, u32::from(identifier));
        self.last |= u32::from(REQUEST_IN + request) << 8;
    }

    /// All but the last.
    #[inline(always)]
    pub fn words(&self) -> [u64; 5] {
        self.words
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.last as u8
    }

    #[inline(always)]
    pub fn version(&self) -> u8 {
        (self.last >> 16) as u8
    }

    /// Whether it is a query's, in whose place of the ports is its identifier.
    #[inline(always)]
    pub fn is_query(&self) -> bool {
        self.last >> 8 & 0xff != u32::from(REQUEST_NONE)
    }
}

impl AsRef<SessionKey> for Key {
    #[inline(always)]
    fn as_ref(&self) -> &SessionKey {
        const { assert!(size_of::<Key>() >= size_of::<SessionKey>()) };
        // SAFETY: the fields are those of a `SessionKey` in order, of which any bit pattern is a value; alignment is 8 for 4.
        unsafe { &*(&raw const *self).cast() }
    }
}

/// What was judged of a packet.
#[derive(Clone, Copy)]
pub struct Judgement {
    /// The action, and `decided_by << 8`.
    pub outcome: u32,
    /// It holds for all packets of the flow in this unit of time, but such as change a session's state.
    pub is_cacheable: bool,
    /// It ended a session, so that what was judged of its flows before does not hold.
    pub has_ended: bool,
    /// Likewise, for it opened one.
    pub has_opened: bool,
    /// Its session had no room.
    pub had_no_room: bool,
}

impl Judgement {
    /// Of this packet alone.
    #[inline(always)]
    pub const fn once(outcome: u32) -> Self {
        Self {
            outcome,
            is_cacheable: false,
            has_ended: false,
            has_opened: false,
            had_no_room: false,
        }
    }

    #[inline(always)]
    pub fn action(&self) -> u8 {
        self.outcome as u8
    }

    #[inline(always)]
    pub fn decided_by(&self) -> u32 {
        self.outcome >> 8
    }
}

/// What the functions below say, in one word; in its lower half is an outcome, or the direction to ask the rules about.
type Answer = u64;

/// There is the session, and this is its outcome.
pub const FOUND: Answer = 1 << 32;
/// There is the session, and another policy has judged it: the rules are to be asked about the packet that opened it.
pub const STALE: Answer = 2 << 32;
/// There is no session.
pub const NONE: Answer = 3 << 32;
/// It was opened.
pub const OPENED: Answer = 4 << 32;
/// The packet opens none.
pub const OPENS_NONE: Answer = 5 << 32;
/// It had no room.
pub const NO_ROOM: Answer = 6 << 32;
/// Another CPU has opened it.
pub const EXISTS: Answer = 7 << 32;
/// There was one, which is over or which the packet does not belong to; there is none now.
pub const ENDED: Answer = 8 << 32;

/// Which of them it is.
#[inline(always)]
pub fn which(answer: Answer) -> Answer {
    answer & !0xffff_ffff
}

/// A packet as its session sees it.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub direction: u8,
    pub kind: PacketKind,
    /// 0 of what is not TCP.
    pub tcp_flags: u8,
}

impl Arrival {
    /// In one word, for functions take few arguments.
    #[inline(always)]
    pub fn pack(self) -> u32 {
        u32::from_ne_bytes([self.direction, self.kind as u8, self.tcp_flags, 0])
    }

    #[inline(always)]
    pub fn unpack(packed: u32) -> Self {
        let [direction, kind, tcp_flags, _] = packed.to_ne_bytes();
        Self {
            direction,
            kind: PacketKind::from_number(kind),
            tcp_flags,
        }
    }

    /// What it adds to its session's state.
    #[inline(always)]
    fn adds(self, state: u32) -> u32 {
        let mut adds = 0;
        if self.direction != opener(state) {
            adds |= SESSION_ANSWERED;
        }
        if self.tcp_flags & FIN != 0 {
            adds |= if self.direction == DIRECTION_IN {
                SESSION_FIN_IN
            } else {
                SESSION_FIN_OUT
            };
        }
        if self.tcp_flags & RST != 0 {
            adds |= SESSION_RESET;
        }
        adds
    }
}

/// The direction of the packet that opened a session: `SESSION_OPENED_OUT` is `DIRECTION_OUT`.
#[inline(always)]
fn opener(state: u32) -> u8 {
    const { assert!(SESSION_OPENED_OUT == DIRECTION_OUT as u32) };
    (state & SESSION_OPENED_OUT) as u8
}

/// A session, as it was found.
struct Found {
    session: *mut Session,
    state: u32,
    verdict: SessionVerdict,
    now: u64,
    is_over: bool,
}

#[inline(always)]
fn find(key: &Key) -> Option<Found> {
    let session = SESSIONS.get_ptr_mut(key.as_ref())?;
    let now = now();
    // SAFETY: a live map value: if it is deleted meanwhile, its memory stays a session's until this program has ended.
    let (state, verdict, last_packet) = unsafe {
        (
            (*session).state,
            (&raw const (*session).verdict).read_volatile(),
            (*session).last_packet,
        )
    };
    let max_idle = max_idle_nanoseconds(key.protocol(), state);
    Some(Found {
        session,
        state,
        verdict,
        now,
        is_over: now.saturating_sub(last_packet) > max_idle,
    })
}

impl Found {
    /// [`FOUND`], or [`STALE`] if it is not a policy of this epoch that has judged it.
    #[inline(always)]
    fn answer(&self, epoch: u32) -> Answer {
        if self.verdict.epoch() == epoch {
            FOUND | u64::from(self.verdict.outcome())
        } else {
            STALE | u64::from(opener(self.state))
        }
    }

    /// Whether the packet begins another session on the same 5-tuple.
    #[inline(always)]
    fn is_replaced_by(&self, arrival: Arrival) -> bool {
        let is_answer_to_rejected = arrival.direction != opener(self.state)
            && self.verdict.outcome() as u8 == ACTION_REJECT;
        arrival.tcp_flags & (SYN | ACK) == SYN && (is_closing(self.state) || is_answer_to_rejected)
    }
}

/// The packet as one of a session that there is: [`FOUND`], [`STALE`], [`ENDED`] or [`NONE`]. `packed` is [`Arrival::pack`], and `epoch` the
/// policy's.
///
/// This and those below are functions of their own because of the stack: what one of them needs there, the next one uses again.
#[inline(never)]
pub fn follow(key: &Key, packed: u32, epoch: u32) -> Answer {
    let arrival = Arrival::unpack(packed);
    let Some(found) = find(key) else {
        return NONE;
    };
    let answer = found.answer(epoch);
    if !found.is_over && which(answer) == STALE {
        return answer;
    }
    if found.is_over || found.is_replaced_by(arrival) {
        let _ = SESSIONS.remove(key.as_ref());
        return ENDED;
    }
    let adds = arrival.adds(found.state);
    // SAFETY: as in `find`.
    unsafe {
        if found.state & adds != adds {
            atomic::or(&raw mut (*found.session).state, adds);
        }
        (*found.session).last_packet = found.now;
    }
    answer
}

/// What was decided of the session that an ICMP error is about: [`FOUND`], [`STALE`] or [`NONE`]. It is not kept alive thereby.
#[inline(never)]
pub fn about(key: &Key, epoch: u32) -> Answer {
    match find(key) {
        Some(found) if !found.is_over => found.answer(epoch),
        _ => NONE,
    }
}

/// Notes what the policy that holds now says of a session.
#[inline(never)]
pub fn judged_again(key: &Key, outcome: u32, epoch: u32) {
    if let Some(session) = SESSIONS.get_ptr_mut(key.as_ref()) {
        let verdict = SessionVerdict::new(outcome, epoch);
        // SAFETY: as in `find`; it is written in one word.
        unsafe { (&raw mut (*session).verdict).write_volatile(verdict) };
    }
}

/// The packet, which the rules decided as `outcome` says, as one that opens a session, if it can: [`OPENED`], [`OPENS_NONE`], [`NO_ROOM`]
/// or [`EXISTS`], with the packet's outcome.
#[inline(never)]
pub fn open(key: &Key, packed: u32, outcome: u32, epoch: u32, zero: u32) -> Answer {
    let arrival = Arrival::unpack(packed);
    let is_rejected = outcome as u8 == ACTION_REJECT;
    if arrival.kind == PacketKind::Reply || (is_rejected && eni::enforces()) {
        return OPENS_NONE | u64::from(outcome);
    }
    let opened = if arrival.direction == DIRECTION_OUT {
        SESSION_OPENED_OUT
    } else {
        0
    };
    let session = Session {
        last_packet: now(),
        verdict: SessionVerdict::new(outcome, epoch),
        state: opened | arrival.adds(opened),
        reserved: 0,
    };
    match SESSIONS.insert(key.as_ref(), &session, u64::from(BPF_NOEXIST)) {
        Ok(()) => OPENED | u64::from(outcome),
        Err(EEXIST) => EXISTS | u64::from(outcome),
        Err(_) => {
            no_room(zero);
            if !is_rejected && eni::rejects_when_full() {
                return NO_ROOM | u64::from(u32::from(ACTION_REJECT) | DECIDED_BY_NO_ROOM << 8);
            }
            NO_ROOM | u64::from(outcome)
        }
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds; as of the last tick where the kernel tells that, for it is cheaper.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helpers take nothing.
    unsafe {
        if eni::has_coarse_clock() {
            bpf_ktime_get_coarse_ns()
        } else {
            bpf_ktime_get_ns()
        }
    }
}

/// `-EEXIST` of include/uapi/asm-generic/errno-base.h.
const EEXIST: i32 = -17;

/// Tells user space once, until it has made room.
#[inline(always)]
fn no_room(zero: u32) {
    let Some(room) = SESSION_ROOM.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a live map value.
    if unsafe { atomic::fetch_increment(&raw mut (*room).missed) } == 0 {
        // On the stack: a constant would be in a map of its own.
        let sign = WAKE_FOR_SESSIONS | u64::from(zero);
        // Were the ring full, user space would have been woken already.
        let _ = WAKE.output(&sign, 0);
    }
}
