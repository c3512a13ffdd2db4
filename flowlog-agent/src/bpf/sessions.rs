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

    /// Makes the sessions of one slot known in another too, unless it has them; how many it had not.
    ///
    /// # Errors
    ///
    /// The kernel's, which may have room for some of them alone.
    pub fn copy(&mut self, from: u32, to: u32) -> Result<u64, BpfError> {
        let failed = || BpfError::map("copy the sessions of an ENI");
        let map = self.sessions.as_fd();
        let mut reader = BatchReader::<SessionKey, Session>::new(map, BATCH);
        let mut copied = 0;
        loop {
            let (keys, sessions) = reader.next().map_err(failed())?;
            if keys.is_empty() {
                return Ok(copied);
            }
            for (key, session) in keys.iter().zip(sessions) {
                if key.eni == from {
                    let key = SessionKey { eni: to, ..*key };
                    copied += u64::from(sys::map_insert(map, &key, session).map_err(failed())?);
                }
            }
        }
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
    use crate::bpf::testing::TestPins;

    fn key(slot: u32, port: u8) -> SessionKey {
        SessionKey {
            eni: slot,
            protocol: port,
            ..SessionKey::default()
        }
    }

    fn session(last_packet: u64) -> Session {
        Session {
            last_packet,
            ..Session::default()
        }
    }

    /// Last packets of the sessions with these keys.
    fn last_packets(sessions: &Sessions, keys: &[SessionKey]) -> Vec<Option<u64>> {
        let map = sessions.sessions.as_fd();
        let last = |key| {
            Some(
                sys::map_lookup::<_, Session>(map, key)
                    .unwrap()?
                    .last_packet,
            )
        };
        keys.iter().map(last).collect()
    }

    #[test]
    fn sessions_are_known_in_another_slot_too_unless_it_has_them() {
        let Some(pins) = TestPins::new() else { return };
        let mut sessions = Sessions::create(pins.path(), 6).unwrap();
        let known = [
            (key(1, 6), 10),
            (key(1, 17), 20),
            (key(3, 6), 30),
            (key(2, 17), 40),
        ];
        for (key, last) in known {
            let map = sessions.sessions.as_fd();
            sys::map_update(map, &key, &session(last)).unwrap();
        }
        assert_eq!(sessions.copy(1, 2).unwrap(), 1);
        assert_eq!(sessions.copy(1, 2).unwrap(), 0);
        assert_eq!(sessions.copy(9, 2).unwrap(), 0);
        let all = [key(1, 6), key(1, 17), key(2, 6), key(2, 17), key(3, 6)];
        let told = [Some(10), Some(20), Some(10), Some(40), Some(30)];
        assert_eq!(last_packets(&sessions, &all), told);
        assert_eq!(sessions.remove_of(1).unwrap(), 2);
        let told = [None, None, Some(10), Some(40), Some(30)];
        assert_eq!(last_packets(&sessions, &all), told);
        // There is room for three more, and none is lost for the others.
        sessions.copy(2, 4).unwrap();
        sessions.copy(3, 5).unwrap();
        sessions.copy(2, 6).unwrap_err();
        assert_eq!(last_packets(&sessions, &all), told);
    }

    /// A kernel that cannot take an element in one step takes it in two.
    #[test]
    fn an_element_is_taken_alike_in_one_step_and_in_two() {
        let Some(pins) = TestPins::new() else { return };
        let sessions = Sessions::create(pins.path(), 4).unwrap();
        let map = sessions.sessions.as_fd();
        for take in [
            sys::map_take_at_once::<SessionKey, Session>,
            sys::map_take_in_two_steps,
            sys::map_take,
        ] {
            for port in [6, 17] {
                sys::map_update(map, &key(1, port), &session(port.into())).unwrap();
            }
            assert_eq!(take(map, &key(1, 6)).unwrap(), Some(session(6)));
            assert_eq!(take(map, &key(1, 6)).unwrap(), None);
            let left = last_packets(&sessions, &[key(1, 6), key(1, 17)]);
            assert_eq!(left, [None, Some(17)]);
        }
    }

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
