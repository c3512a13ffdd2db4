//! How much memory puts have at the same time.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{Code, LogError};

/// How many bytes all puts together may have in hand, compressed, decompressed and read: half of them those of one account, so that it does
/// not hold up the others.
#[derive(Debug)]
pub(super) struct InHand {
    bytes: usize,
    /// What each account has. None has nothing.
    taken: Mutex<HashMap<String, usize>>,
}

/// Bytes that an account has in hand until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    of: Arc<InHand>,
    account: String,
    bytes: usize,
}

impl InHand {
    /// At most so many bytes.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            taken: Mutex::default(),
        })
    }

    /// Takes so many bytes for an account.
    ///
    /// # Errors
    /// [`Code::ServerBusy`] if there are not as many; there will be when other puts are done.
    pub(super) fn take(self: &Arc<Self>, account: &str, bytes: usize) -> Result<Taken, LogError> {
        let mut taken = self.lock();
        let of_all: usize = taken.values().sum();
        let of_account = taken.get(account).copied().unwrap_or_default();
        if of_all.saturating_add(bytes) > self.bytes
            || of_account.saturating_add(bytes) > self.bytes / 2
        {
            let message = "As many logs as are allowed are on their way to the disk: try again.";
            return Err(LogError::new(Code::ServerBusy, message));
        }
        taken.insert(account.to_owned(), of_account + bytes);
        Ok(Taken {
            of: Arc::clone(self),
            account: account.to_owned(),
            bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        let left = taken.get(&self.account).map(|of| of - self.bytes);
        match left {
            Some(left) if left > 0 => taken.insert(self.account.clone(), left),
            _ => taken.remove(&self.account),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_hand_is_bounded_for_all_and_for_each() {
        let in_hand = InHand::new(100);
        let take = |account, bytes| {
            let taken = in_hand.take(account, bytes);
            taken.map_err(|error| error.code())
        };
        let first = take("a", 40).unwrap();
        assert_eq!(take("a", 11).unwrap_err(), Code::ServerBusy);
        let second = take("a", 10).unwrap();
        let other = take("b", 50).unwrap();
        assert_eq!(take("c", 1).unwrap_err(), Code::ServerBusy);
        drop(first);
        assert_eq!(take("b", 1).unwrap_err(), Code::ServerBusy);
        drop(take("a", 40).unwrap());
        drop((second, other));
        assert!(in_hand.lock().is_empty(), "nothing is left over");
        assert_eq!(take("a", usize::MAX).unwrap_err(), Code::ServerBusy);
    }
}
