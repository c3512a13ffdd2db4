//! How many requests an access key may make: a bucket of tokens for each key, which fills with time.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::config::Config;
use super::error::{ApiError, Code};
use super::moment::Moment;

/// The buckets.
#[derive(Debug)]
pub struct Rates {
    per_second: u64,
    at_once: u64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a request.
    tokens: u64,
    filled: Moment,
}

/// The most buckets: access keys that are used within the time in which a bucket fills.
const MAX_BUCKETS: usize = 1_000_000;

/// Tokens that a request takes.
const REQUEST: u64 = 1000;
/// Tokens that a put of logs takes: a client sends many, and what they bring is bounded by their bytes.
const PUT: u64 = REQUEST / 20;

impl Rates {
    /// Full buckets of the configured size.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            per_second: config.requests_per_second,
            at_once: config.requests_at_once,
            buckets: Mutex::default(),
        }
    }

    /// Takes a request from the key's bucket.
    ///
    /// # Errors
    /// [`Code::Throttling`] where it is empty.
    pub fn take(&self, key_id: &str, now: Moment) -> Result<(), ApiError> {
        self.take_tokens(key_id, now, REQUEST)
    }

    /// Takes a put of logs from the key's bucket, which has room for twenty times as many of them.
    ///
    /// # Errors
    /// [`Code::Throttling`] where it is empty.
    pub fn take_put(&self, key_id: &str, now: Moment) -> Result<(), ApiError> {
        self.take_tokens(key_id, now, PUT)
    }

    fn take_tokens(&self, key_id: &str, now: Moment, tokens: u64) -> Result<(), ApiError> {
        let full = self.at_once.saturating_mul(REQUEST);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            // A bucket that is full by now is as good as none.
            let refill_ms = i64::try_from(full / self.per_second.max(1)).unwrap_or(i64::MAX);
            buckets.retain(|_, bucket| now.0.saturating_sub(bucket.filled.0) < refill_ms);
        }
        if buckets.len() >= MAX_BUCKETS {
            return Err(ApiError::new(
                Code::SystemBusy,
                "Too many access keys are in use at the same time: try again later.",
            ));
        }
        let bucket = buckets.entry(key_id.to_owned()).or_insert(Bucket {
            tokens: full,
            filled: now,
        });
        // A token is a millisecond's share of a request a second. A clock that goes back fills nothing.
        let passed_ms = now.0.saturating_sub(bucket.filled.0).max(0).unsigned_abs();
        let filled = bucket
            .tokens
            .saturating_add(passed_ms.saturating_mul(self.per_second));
        bucket.tokens = filled.min(full);
        bucket.filled = now;
        if let Some(left) = bucket.tokens.checked_sub(tokens) {
            bucket.tokens = left;
            return Ok(());
        }
        Err(ApiError::new(
            Code::Throttling,
            format!(
                "The access key makes more than {} requests a second.",
                self.per_second
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_fill_with_time() {
        let config = Config {
            requests_per_second: 10,
            requests_at_once: 2,
            ..Config::default()
        };
        let rates = Rates::new(&config);
        let takes = |key, now| rates.take(key, Moment(now)).is_ok();
        assert!(takes("a", 0) && takes("a", 0) && !takes("a", 0));
        assert!(takes("b", 0), "another key has its own");
        assert!(!takes("a", 99) && takes("a", 100) && !takes("a", 100));
        assert!(!takes("a", 50), "a clock that goes back fills nothing");
        assert!(takes("a", 10_000) && takes("a", 10_000) && !takes("a", 10_000));
        let puts = (0..100).filter(|_| rates.take_put("c", Moment(0)).is_ok());
        assert_eq!(puts.count(), 40, "twenty for each request");
    }
}
