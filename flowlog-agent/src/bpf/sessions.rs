//! The sessions of all ENIs.
use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use flowlog_common::{Session, SessionKey, SessionRoom, max_idle_nanoseconds};

use super::{
    error::BpfError,
    object::{SESSION_ROOM, SESSIONS},
    sys::{self, BATCH, BatchReader},
};

/// The sessions. The programs make them; here is cleared away what is over.
pub struct Sessions {
    sessions: OwnedFd,
    room: OwnedFd,
    limit: u32,
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sessions that there are after it.
    pub left: u64,
    /// Sessions that were over.
    pub removed: u64,
}

impl Sessions {
    /// Makes and pins the map, with room for so many sessions of all ENIs. To be called before [`super::Counters::create`], which makes
    /// one of [`flowlog_common::MAX_SESSIONS`] if there is none.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn create(pin_folder: &Path, max_sessions: u32) -> Result<Self, BpfError> {
        let sessions = sys::map_create_flagged::<SessionKey, Session>(
            sys::MAP_TYPE_HASH,
            sys::NO_PREALLOC,
            max_sessions,
            SESSIONS,
        )
        .map_err(BpfError::map(format!(
            "make a map of {max_sessions} sessions"
        )))?;
        let room = sys::map_create::<u32, SessionRoom>(sys::MAP_TYPE_ARRAY, 1, SESSION_ROOM)
            .map_err(BpfError::map("make the map of the sessions' room"))?;
        for (map, name) in [(&sessions, SESSIONS), (&room, SESSION_ROOM)] {
            sys::obj_pin(map.as_fd(), &pin_folder.join(name))
                .map_err(BpfError::map(format!("pin the map {name}")))?;
        }
        Ok(Self {
            sessions,
            room,
            limit: max_sessions,
        })
    }

    /// Takes over the sessions that a previous agent has pinned. Their room stays what it is.
    ///
    /// # Errors
    ///
    /// The kernel's; and if the maps are others.
    pub fn take_over(pin_folder: &Path) -> Result<Self, BpfError> {
        let failed = |name: &str| BpfError::map(format!("open the map {name}"));
        let sessions =
            sys::pinned_map::<SessionKey, Session>(&pin_folder.join(SESSIONS), sys::MAP_TYPE_HASH)
                .map_err(failed(SESSIONS))?;
        let room = sys::pinned_map::<u32, SessionRoom>(
            &pin_folder.join(SESSION_ROOM),
            sys::MAP_TYPE_ARRAY,
        )
        .map_err(failed(SESSION_ROOM))?;
        let info = sys::map_info(sessions.as_fd()).map_err(failed(SESSIONS))?;
        Ok(Self {
            sessions,
            room,
            limit: info.max_entries,
        })
    }

    /// Most sessions that there can be.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Clears away the sessions that are over. `now` is of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn sweep(&mut self, now: Duration) -> Result<Swept, BpfError> {
        // First, so that a packet which finds no room from now on wakes the agent again.
        sys::map_update(self.room.as_fd(), &0_u32, &SessionRoom::default())
            .map_err(BpfError::map("note that sessions may have room"))?;
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.remove_if(|key, session| is_over(key, session, now))
    }

    /// Removes the sessions of a slot, which is nobody's any more.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove_of(&mut self, slot: u32) -> Result<u64, BpfError> {
        let swept = self.remove_if(|key, _| key.eni == slot)?;
        Ok(swept.removed)
    }

    fn remove_if(
        &self,
        is_removed: impl Fn(&SessionKey, &Session) -> bool,
    ) -> Result<Swept, BpfError> {
        let failed = || BpfError::map("clear sessions away");
        let mut reader = BatchReader::<SessionKey, Session>::new(self.sessions.as_fd(), BATCH);
        let mut swept = Swept::default();
        loop {
            let (keys, sessions) = reader.next().map_err(failed())?;
            if keys.is_empty() {
                return Ok(swept);
            }
            for (key, session) in keys.iter().zip(sessions) {
                if is_removed(key, session) && self.remove(key, &is_removed).map_err(failed())? {
                    swept.removed += 1;
                } else {
                    swept.left += 1;
                }
            }
        }
    }

    /// Removes a session; whether it is gone. A program may have put another in its place since it was read: that one is put back, unless
    /// there is yet another.
    fn remove(
        &self,
        key: &SessionKey,
        is_removed: impl Fn(&SessionKey, &Session) -> bool,
    ) -> std::io::Result<bool> {
        let map = self.sessions.as_fd();
        match sys::map_take::<SessionKey, Session>(map, key)? {
            Some(session) if !is_removed(key, &session) => {
                sys::map_insert(map, key, &session)?;
                Ok(false)
            }
            _ => Ok(true),
        }
    }
}

fn is_over(key: &SessionKey, session: &Session, now: u64) -> bool {
    let idle = now.saturating_sub(session.last_packet);
    idle > max_idle_nanoseconds(key.protocol, session.state)
}

#[cfg(test)]
mod tests {
    use flowlog_common::{
        SESSION_ANSWERED, SESSION_FIN_IN, SESSION_FIN_OUT, SESSION_OPENED_OUT, SESSION_RESET,
    };
    use flowlog_model::security_group::session::Stage;

    use super::*;

    #[test]
    fn a_session_is_over_when_the_reference_says_so() {
        let stages = [
            (0, Stage::Opening),
            (SESSION_FIN_IN, Stage::Opening),
            (SESSION_ANSWERED, Stage::Open),
            (SESSION_ANSWERED | SESSION_FIN_OUT, Stage::Open),
            (SESSION_FIN_IN | SESSION_FIN_OUT, Stage::Closing),
            (SESSION_ANSWERED | SESSION_RESET, Stage::Closing),
        ];
        for protocol in 0..=u8::MAX {
            for (state, stage) in stages {
                // Only TCP closes.
                if stage == Stage::Closing && protocol != 6 {
                    continue;
                }
                let max_idle = stage.max_idle(protocol).as_nanos();
                for state in [state, state | SESSION_OPENED_OUT] {
                    let nanoseconds = max_idle_nanoseconds(protocol, state);
                    assert_eq!(u128::from(nanoseconds), max_idle, "{protocol} {stage:?}");
                }
            }
        }
    }

    #[test]
    fn over_is_what_was_idle_for_longer() {
        let key = SessionKey {
            protocol: 17,
            ..SessionKey::default()
        };
        let session = Session {
            last_packet: 1000,
            ..Session::default()
        };
        let minute = 60_000_000_000;
        assert!(!is_over(&key, &session, 1000 + minute));
        assert!(is_over(&key, &session, 1001 + minute));
        // Another CPU may be ahead.
        assert!(!is_over(&key, &session, 0));
    }
}
