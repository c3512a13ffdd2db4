//! Sessions: what the packets of both directions with one 5-tuple are.

/// Sessions that all ENIs of a host can have together, unless user space chooses another number.
pub const MAX_SESSIONS: u32 = 1 << 18;

/// What the ring `WAKE` holds when sessions had no room; else a generation of counters is half full, and it holds which.
pub const WAKE_FOR_SESSIONS: u64 = 1 << 32;

/// [`SessionKey::request`]: the session is no query's.
pub const REQUEST_NONE: u8 = 0;
/// [`SessionKey::request`]: the request came in. `REQUEST_IN + DIRECTION_OUT` is [`REQUEST_OUT`].
pub const REQUEST_IN: u8 = 1;
/// [`SessionKey::request`]: the request went out.
pub const REQUEST_OUT: u8 = 2;

/// [`Session::state`]: the session was opened by a packet that went out.
pub const SESSION_OPENED_OUT: u32 = 1;
/// [`Session::state`]: the other end has answered.
pub const SESSION_ANSWERED: u32 = 2;
/// [`Session::state`]: a FIN came in.
pub const SESSION_FIN_IN: u32 = 4;
/// [`Session::state`]: a FIN went out.
pub const SESSION_FIN_OUT: u32 = 8;
/// [`Session::state`]: there was an RST.
pub const SESSION_RESET: u32 = 16;

/// What kind of packet it is to sessions; of ICMP and ICMPv6, by its type.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketKind {
    /// Not ICMP: its 5-tuple is its session's.
    #[default]
    Tuple = 0,
    /// It asks, and has an identifier.
    Request = 1,
    /// It answers, and has an identifier.
    Reply = 2,
    /// It quotes a packet that could not be delivered.
    Error = 3,
    /// Neighbour discovery, which nothing judges.
    NeighborDiscovery = 4,
    /// Of no session: other ICMP, and fragments whose first is not known.
    Alone = 5,
}

impl PacketKind {
    /// The kind of this number; [`PacketKind::Alone`] of one that is none's.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Tuple,
            1 => Self::Request,
            2 => Self::Reply,
            3 => Self::Error,
            4 => Self::NeighborDiscovery,
            _ => Self::Alone,
        }
    }
}

/// What both directions of a session have in common.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Slot of the ENI.
    pub eni: u32,
    /// The ENI's own end; IPv4 in the first four octets.
    pub local_addr: [u8; 16],
    /// The other end; IPv4 in the first four octets.
    pub peer_addr: [u8; 16],
    /// The ENI's own port, big endian; 0 where the protocol has none. Of queries, the identifier.
    pub local_port: [u8; 2],
    /// The other end's port, big endian; 0 where the protocol has none.
    pub peer_port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// Of queries, where the request went, for a ping each way is two sessions: [`REQUEST_NONE`], [`REQUEST_IN`] or [`REQUEST_OUT`].
    pub request: u8,
    /// 4 or 6.
    pub version: u8,
    /// Always 0.
    pub reserved: u8,
}

/// What is known of a session.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// When its last packet was noted, in nanoseconds of `CLOCK_MONOTONIC_COARSE`. A packet is noted when a state changes by it, and else
    /// once in a unit of time: see [`TIME_UNIT_SHIFT`].
    pub last_packet: u64,
    /// What was decided, and by which policy.
    pub verdict: SessionVerdict,
    /// `SESSION_…` bits, which are only ever added.
    pub state: u32,
    /// Always 0.
    pub reserved: u32,
}

/// What was decided of a session, in one word so that it can be changed at once: the action in the lowest 8 bits, `decided_by` in the 24
/// above them, and the policy's epoch in the upper 32.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionVerdict(pub u64);

impl SessionVerdict {
    /// From its parts; `outcome` is as in [`crate::DirectionTables::outcomes`].
    #[must_use]
    pub const fn new(outcome: u32, epoch: u32) -> Self {
        Self(outcome as u64 | (epoch as u64) << 32)
    }

    /// The action, and `decided_by << 8`.
    #[must_use]
    pub const fn outcome(self) -> u32 {
        self.0 as u32
    }

    /// Of the policy that decided.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A unit of time is so many jiffies, as a power of two: 0.26 s to 2.6 s, as the kernel's `CONFIG_HZ` is. A flow whose session was looked up
/// need not look it up again in the same unit.
pub const TIME_UNIT_SHIFT: u32 = 8;

const SECOND: u64 = 1_000_000_000;

/// How long a session may be idle, in nanoseconds, by its protocol and state.
///
/// | protocol | opening | open | closing |
/// |---|---:|---:|---:|
/// | TCP | 60 s | 910 s | 60 s |
/// | SCTP, DCCP | 60 s | 910 s | |
/// | UDP, UDP-Lite | 60 s | 300 s | |
/// | ICMP, ICMPv6 | 60 s | 60 s | |
/// | others | 600 s | 600 s | |
#[must_use]
pub const fn max_idle_nanoseconds(protocol: u8, state: u32) -> u64 {
    let is_open = state & SESSION_ANSWERED != 0 && !is_closing(state);
    match (protocol, is_open) {
        (6 | 33 | 132, true) => 910 * SECOND,
        (17 | 136, true) => 300 * SECOND,
        (1 | 6 | 17 | 33 | 58 | 132 | 136, _) => 60 * SECOND,
        _ => 600 * SECOND,
    }
}

/// Whether both ends of a TCP session have sent FIN, or one RST.
#[must_use]
pub const fn is_closing(state: u32) -> bool {
    const FIN_BOTH: u32 = SESSION_FIN_IN | SESSION_FIN_OUT;
    state & SESSION_RESET != 0 || state & FIN_BOTH == FIN_BOTH
}

/// Whether sessions have had no room since user space last made some.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionRoom {
    /// How many packets found none. User space is woken by the first, and sets it back to 0.
    pub missed: u64,
}

assert_layout! {
    PacketKind: 1, 1;
    SessionKey: 44, 4;
    Session: 24, 8;
    SessionVerdict: 8, 8;
    SessionRoom: 8, 8;
}
