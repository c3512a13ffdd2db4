//! Sessions: found, followed, opened.
use core::mem::MaybeUninit;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_ktime_get_coarse_ns};
use flowlog_common::{
    ACTION_REJECT, DECIDED_BY_NO_ROOM, DIRECTION_IN, DIRECTION_OUT, PacketKind, REQUEST_IN,
    REQUEST_NONE, SESSION_ANSWERED, SESSION_FIN_IN, SESSION_FIN_OUT, SESSION_OPENED_OUT,
    SESSION_RESET, Session, SessionKey, SessionVerdict, WAKE_FOR_SESSIONS, is_closing,
    max_idle_nanoseconds,
};

use crate::{
    atomic, eni, key,
    maps::{SESSION_ROOM, SESSIONS, WAKE},
    transport::{ACK, FIN, RST, SYN},
};

/// A [`SessionKey`] in words.
#[repr(C, align(8))]
pub struct Key {
    eni: u32,
    pub local: [u32; 4],
    pub peer: [u32; 4],
    /// The local port, then the peer's, as they lie in a packet that goes out.
    ports: u32,
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
        let (local, peer, ports) = if direction == DIRECTION_OUT {
            (ends.src, ends.dst, ends.ports)
        } else {
            (ends.dst, ends.src, ends.ports.rotate_left(16))
        };
        Self {
            eni: eni::slot(),
            local,
            peer,
            ports,
            last: u32::from_ne_bytes([ends.protocol, REQUEST_NONE, ends.version, 0]),
            padding: 0,
        }
    }

    /// The session of the packets of a flow that are no queries.
    ///
    /// A function of its own because of the stack, where else each word of the ends would have a place.
    #[inline(never)]
    pub fn of_flow<K: key::Key>(flow: &K, direction: u8, to: &mut MaybeUninit<Self>) {
        to.write(Self::new(&flow.ends(), direction));
    }

    /// Makes it that of a query: `identifier` as it lies in the packet, which goes in `direction`.
    #[inline(always)]
    pub fn make_query(&mut self, kind: PacketKind, identifier: u16, direction: u8) {
        let request = if kind == PacketKind::Reply {
            direction ^ DIRECTION_OUT
        } else {
            direction
        };
        self.ports = u32::from(identifier);
        self.last |= u32::from(REQUEST_IN + request) << 8;
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.last as u8
    }

    #[inline(always)]
    pub fn version(&self) -> u8 {
        (self.last >> 16) as u8
    }

    /// The local port and the peer's, as the rules see them.
    #[inline(always)]
    pub fn ports(&self) -> (u16, u16) {
        if self.last >> 8 & 0xff != u32::from(REQUEST_NONE) {
            return (0, 0);
        }
        (
            u16::from_be(self.ports as u16),
            u16::from_be((self.ports >> 16) as u16),
        )
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
    /// It opened a session, so that what was judged of its flows before does not hold.
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
    fn unpack(packed: u32) -> Self {
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

/// The packet as one of a session that there is: [`FOUND`], [`STALE`] or [`NONE`]. `packed` is [`Arrival::pack`], and `epoch` the policy's.
///
/// This and those below are functions of their own because of the stack: what one of them needs there, the next one uses again.
#[inline(never)]
pub fn follow(key: &Key, packed: u32, epoch: u32) -> Answer {
    let arrival = Arrival::unpack(packed);
    let Some(session) = SESSIONS.get_ptr_mut(key.as_ref()) else {
        return NONE;
    };
    // SAFETY: a live map value: if it is deleted meanwhile, its memory stays a session's until this program has ended. The helper takes
    // nothing.
    let (state, verdict, last_packet, now) = unsafe {
        (
            (*session).state,
            (&raw const (*session).verdict).read_volatile(),
            (*session).last_packet,
            bpf_ktime_get_coarse_ns(),
        )
    };
    let is_over = is_over(key, state, last_packet, now);
    if !is_over && verdict.epoch() != epoch {
        return STALE | u64::from(opener(state));
    }
    let is_syn = arrival.tcp_flags & (SYN | ACK) == SYN;
    let is_answer_to_rejected =
        arrival.direction != opener(state) && verdict.outcome() as u8 == ACTION_REJECT;
    if is_over || (is_syn && (is_closing(state) || is_answer_to_rejected)) {
        let _ = SESSIONS.remove(key.as_ref());
        return NONE;
    }
    let adds = arrival.adds(state);
    // SAFETY: as above.
    unsafe {
        if state & adds != adds {
            atomic::or(&raw mut (*session).state, adds);
        }
        (*session).last_packet = now;
    }
    FOUND | u64::from(verdict.outcome())
}

/// What was decided of the session that an ICMP error is about: [`FOUND`], [`STALE`] or [`NONE`]. It is not kept alive thereby.
#[inline(never)]
pub fn about(key: &Key, epoch: u32) -> Answer {
    let Some(session) = SESSIONS.get_ptr_mut(key.as_ref()) else {
        return NONE;
    };
    // SAFETY: as in `follow`.
    let (state, verdict, last_packet, now) = unsafe {
        (
            (*session).state,
            (&raw const (*session).verdict).read_volatile(),
            (*session).last_packet,
            bpf_ktime_get_coarse_ns(),
        )
    };
    if is_over(key, state, last_packet, now) {
        return NONE;
    }
    if verdict.epoch() != epoch {
        return STALE | u64::from(opener(state));
    }
    FOUND | u64::from(verdict.outcome())
}

/// Notes what the policy that holds now says of a session.
#[inline(never)]
pub fn judged_again(key: &Key, outcome: u32, epoch: u32) {
    if let Some(session) = SESSIONS.get_ptr_mut(key.as_ref()) {
        let verdict = SessionVerdict::new(outcome, epoch);
        // SAFETY: as in `follow`; it is written in one word.
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
        // SAFETY: the helper takes nothing.
        last_packet: unsafe { bpf_ktime_get_coarse_ns() },
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

#[inline(always)]
fn is_over(key: &Key, state: u32, last_packet: u64, now: u64) -> bool {
    now.saturating_sub(last_packet) > max_idle_nanoseconds(key.protocol(), state)
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
