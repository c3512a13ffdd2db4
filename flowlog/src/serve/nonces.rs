//! The nonces of accepted requests, so that none is accepted twice.
//!
//! They stand in a SQLite file of their own that is synced only when its write-ahead log is taken over, not with each request: no nonce is
//! lost with the service, also a killed one; a machine that loses its power loses the last ones, and never the file. A nonce is kept for as long as its request's date would be accepted, and a minute longer.
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::error::{ApiError, Code};
use super::moment::Moment;

/// The file, in the data folder.
pub const NONCE_FILE: &str = "nonces.sqlite";
/// How far a request's date may be off, in milliseconds.
pub const MAX_APART_MS: i64 = 15 * 60 * 1000;
/// How much longer a nonce is kept than its date is good, in milliseconds: requests that are under way together may have their times the
/// other way round, and the system's clock may be set back a little.
const KEPT_LONGER_MS: i64 = 60 * 1000;
/// Longest nonce, in bytes.
const MAX_NONCE_BYTES: usize = 128;
/// The most nonces that are kept.
const MAX_NONCES: u64 = 1_000_000;
/// The most nonces of an access key, so that one alone keeps nobody else out.
const MAX_NONCES_OF_KEY: u64 = 200_000;

/// The nonces.
pub struct Nonces(Mutex<Kept>);

struct Kept {
    connection: Connection,
    count: u64,
    /// Of each access key that has any.
    of_keys: HashMap<String, u64>,
}

impl Kept {
    fn read(connection: Connection) -> rusqlite::Result<Self> {
        let of_keys: HashMap<String, u64> = connection
            .prepare("SELECT key_id, count(*) FROM nonce GROUP BY key_id")?
            .query_map([], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
            })?
            .collect::<Result<_, _>>()?;
        Ok(Self {
            connection,
            count: of_keys.values().sum(),
            of_keys,
        })
    }

    /// Forgets the nonces whose dates are past.
    fn forget(&mut self, now: Moment) -> rusqlite::Result<()> {
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM nonce WHERE expires_at < ? RETURNING key_id")?;
        let mut gone = delete.query([now.0])?;
        while let Some(row) = gone.next()? {
            let key_id: String = row.get(0)?;
            self.count = self.count.saturating_sub(1);
            if let Some(of_key) = self.of_keys.get_mut(&key_id) {
                *of_key = of_key.saturating_sub(1);
                if *of_key == 0 {
                    self.of_keys.remove(&key_id);
                }
            }
        }
        Ok(())
    }

    /// Refuses where too many are kept.
    fn check_room(&self, key_id: &str) -> Result<(), ApiError> {
        if self
            .of_keys
            .get(key_id)
            .is_some_and(|count| *count >= MAX_NONCES_OF_KEY)
        {
            let message =
                "The access key has made too many requests in the last minutes: try again later.";
            return Err(ApiError::new(Code::Throttling, message));
        }
        if self.count >= MAX_NONCES {
            let message = "There were too many requests in the last minutes: try again later.";
            return Err(ApiError::new(Code::SystemBusy, message));
        }
        Ok(())
    }
}

impl Nonces {
    /// Opens the file in the data folder, or makes it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(folder: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(folder.join(NONCE_FILE))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS nonce (
                key_id TEXT NOT NULL, nonce TEXT NOT NULL, expires_at INTEGER NOT NULL, PRIMARY KEY (key_id, nonce)
             ) STRICT, WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS nonce_expires ON nonce (expires_at);",
        )?;
        Kept::read(connection).map(|kept| Self(Mutex::new(kept)))
    }

    /// Checks the date of a request, and uses its nonce up.
    ///
    /// # Errors
    /// Where the date is off, or the nonce was used before.
    pub fn claim(
        &self,
        key_id: &str,
        nonce: &str,
        date: Moment,
        now: Moment,
    ) -> Result<(), ApiError> {
        if nonce.is_empty() || nonce.len() > MAX_NONCE_BYTES {
            return Err(ApiError::new(
                Code::IncompleteSignature,
                format!("The nonce has 1 to {MAX_NONCE_BYTES} bytes."),
            ));
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(now)?;
        kept.check_room(key_id)?;
        let expires_at = date.0.saturating_add(MAX_APART_MS + KEPT_LONGER_MS);
        let made = kept
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO nonce (key_id, nonce, expires_at) VALUES (?, ?, ?)",
            )?
            .execute(params![key_id, nonce, expires_at])?;
        if made == 0 {
            return Err(ApiError::new(
                Code::NonceUsed,
                "The nonce has been used before.",
            ));
        }
        kept.count += 1;
        *kept.of_keys.entry(key_id.to_owned()).or_default() += 1;
        Ok(())
    }
}

/// Checks that a request's date is not off by more than 15 minutes.
///
/// # Errors
/// [`Code::TimeStampFormat`], [`Code::TimeStampExpired`].
pub fn check_date(text: &str, now: Moment) -> Result<Moment, ApiError> {
    let date = Moment::parse(text).ok_or_else(|| {
        ApiError::new(
            Code::TimeStampFormat,
            "The date of the request is not as 2026-11-22T04:52:11Z.",
        )
    })?;
    if date.apart(now) > MAX_APART_MS.unsigned_abs() {
        return Err(ApiError::new(
            Code::TimeStampExpired,
            format!(
                "The date of the request is off by more than 15 minutes: here it is {}.",
                now.rfc3339()
            ),
        ));
    }
    Ok(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_used_once_also_after_a_restart_until_its_date_is_past() {
        let folder = tempfile::tempdir().unwrap();
        let nonces = Nonces::open(folder.path()).unwrap();
        let pragma = |name: &str| {
            let kept = nonces.0.lock().unwrap();
            let value = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
            kept.connection
                .pragma_query_value(None, name, value)
                .unwrap()
        };
        // Without a sync at all, a loss of power could break the file, and the service would not start.
        assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
        assert_eq!(pragma("synchronous"), 1.into(), "NORMAL");
        let date = Moment(1_000_000);
        let claim = |nonces: &Nonces, key: &str, nonce: &str, now| {
            nonces.claim(key, nonce, date, Moment(now))
        };
        claim(&nonces, "k", "n", 1_000_000).unwrap();
        let error = claim(&nonces, "k", "n", 1_000_001).unwrap_err();
        assert_eq!(error.kind(), Code::NonceUsed);
        // Another key's nonces are others.
        claim(&nonces, "l", "n", 1_000_001).unwrap();
        drop(nonces);
        let nonces = Nonces::open(folder.path()).unwrap();
        let last = 1_000_000 + MAX_APART_MS + KEPT_LONGER_MS;
        assert!(claim(&nonces, "k", "n", last).is_err());
        assert_eq!(nonces.0.lock().unwrap().count, 2);
        claim(&nonces, "m", "n", last + 1).unwrap();
        assert_eq!(nonces.0.lock().unwrap().count, 1);
        assert!(claim(&nonces, "k", "", last).is_err());
        assert!(claim(&nonces, "k", &"n".repeat(129), last).is_err());
    }

    #[test]
    fn one_key_does_not_fill_it_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let nonces = Nonces::open(folder.path()).unwrap();
        let fill = |key: &str, from: u64, to: u64| {
            let kept = nonces.0.lock().unwrap();
            let many = "WITH RECURSIVE number (n) AS (SELECT ?2 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < ?3)
                INSERT INTO nonce SELECT ?1, n, 1000000 FROM number";
            let row = params![key, from.cast_signed(), to.cast_signed()];
            kept.connection.execute(many, row).unwrap();
        };
        let claim = |nonces: &Nonces, key: &str, nonce: &str| {
            let claimed = nonces.claim(key, nonce, Moment(0), Moment(0));
            claimed.map_err(|error| error.kind())
        };
        fill("k", 0, MAX_NONCES_OF_KEY - 1);
        let nonces = Nonces::open(folder.path()).unwrap();
        assert_eq!(claim(&nonces, "k", "last"), Ok(()));
        assert_eq!(claim(&nonces, "k", "one more"), Err(Code::Throttling));
        assert_eq!(claim(&nonces, "l", "n"), Ok(()));
        let later = nonces.claim("k", "n", Moment(2_000_000), Moment(2_000_000));
        assert_eq!(later, Ok(()));
        assert_eq!(nonces.0.lock().unwrap().of_keys.len(), 1);
    }

    #[test]
    fn dates_may_be_off_by_a_quarter_of_an_hour() {
        let now = Moment::parse("2026-11-22T05:00:00Z").unwrap();
        for (text, kind) in [
            ("2026-11-22T04:45:00Z", None),
            ("2026-11-22T05:15:00Z", None),
            ("2026-11-22T04:44:59Z", Some(Code::TimeStampExpired)),
            ("2026-11-22T05:15:01Z", Some(Code::TimeStampExpired)),
            ("Sun, 22 Nov 2026 05:00:00 GMT", Some(Code::TimeStampFormat)),
        ] {
            assert_eq!(
                check_date(text, now).err().map(|error| error.kind()),
                kind,
                "{text}"
            );
        }
    }
}
