//! How far a session has come, and how long it may be idle.
use std::time::Duration;

use super::packet::{ACK, Detail, FIN, RST, SYN};
use crate::record::Direction;

/// Longest time that a session can be idle.
pub const MAX_IDLE: Duration = Duration::from_secs(910);

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Only its opener has sent.
    Opening,
    /// Both have sent.
    Open,
    /// TCP: both have sent FIN, or one RST.
    Closing,
}

impl Stage {
    /// How long a session may be idle, by its IANA protocol number:
    ///
    /// | protocol | opening | open | closing |
    /// |---|---:|---:|---:|
    /// | TCP | 60 s | 910 s | 60 s |
    /// | SCTP, DCCP | 60 s | 910 s | |
    /// | UDP, UDP-Lite | 60 s | 300 s | |
    /// | ICMP, ICMPv6 | 60 s | 60 s | |
    /// | others, which may well go one way only | 600 s | 600 s | |
    #[must_use]
    pub const fn max_idle(self, protocol: u8) -> Duration {
        match (protocol, self) {
            (6 | 33 | 132, Self::Open) => MAX_IDLE,
            (17 | 136, Self::Open) => Duration::from_secs(300),
            (1 | 6 | 17 | 33 | 58 | 132 | 136, _) => Duration::from_secs(60),
            (_, _) => Duration::from_secs(600),
        }
    }
}

/// What the packets of a session have said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    opener: Direction,
    pub(super) stage: Stage,
    fin_in: bool,
    fin_out: bool,
}

impl State {
    pub(super) const fn new(opener: Direction) -> Self {
        Self {
            opener,
            stage: Stage::Opening,
            fin_in: false,
            fin_out: false,
        }
    }

    /// A packet of the session.
    pub(super) fn advance(&mut self, direction: Direction, detail: &Detail) {
        if self.stage == Stage::Opening && direction != self.opener {
            self.stage = Stage::Open;
        }
        let Detail::Tcp { flags } = *detail else {
            return;
        };
        if flags & FIN != 0 {
            match direction {
                Direction::In => self.fin_in = true,
                Direction::Out => self.fin_out = true,
            }
        }
        if flags & RST != 0 || (self.fin_in && self.fin_out) {
            self.stage = Stage::Closing;
        }
    }
}

/// Whether a packet asks for a new TCP connection.
pub(super) const fn is_syn(detail: &Detail) -> bool {
    matches!(detail, Detail::Tcp { flags } if *flags & (SYN | ACK) == SYN)
}
