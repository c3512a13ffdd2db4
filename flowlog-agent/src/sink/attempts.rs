//! Trying again what failed, with pauses that grow, until it succeeds or the agent ends.
use std::{
    io,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::mpsc::UnboundedSender;

use super::SinkEvent;

/// Pauses between attempts: from a tenth of a second doubled up to 15 s, each made longer by a random part of itself, so that
/// those that failed together do not come back together. A pause is shorter than 30 s.
pub(super) const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_factor(2.0)
    .with_max_delay(Duration::from_secs(15))
    .without_max_times()
    .with_jitter();

/// Tells the threads of the sinks that the agent ends, also those that pause.
#[derive(Default)]
pub(super) struct Closing {
    begun: Mutex<bool>,
    changed: Condvar,
    over: AtomicBool,
}

impl Closing {
    pub(super) fn begin(&self) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(super) fn has_begun(&self) -> bool {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for the sinks any longer: others may take their place.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Returns after `pause`, or as soon as the agent ends.
    fn pause(&self, pause: Duration) {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.changed
                .wait_timeout_while(begun, pause, |begun| !*begun),
        );
    }
}

/// The attempts to deliver a window.
pub(super) struct Attempts<'a> {
    flow_log: &'a str,
    closing: &'a Closing,
    events: &'a UnboundedSender<SinkEvent>,
    pauses: ExponentialBuilder,
    next_pauses: <ExponentialBuilder as BackoffBuilder>::Backoff,
    failed: u32,
    told: Option<String>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        flow_log: &'a str,
        pauses: ExponentialBuilder,
        closing: &'a Closing,
        events: &'a UnboundedSender<SinkEvent>,
    ) -> Self {
        Self {
            flow_log,
            closing,
            events,
            pauses,
            next_pauses: pauses.build(),
            failed: 0,
            told: None,
        }
    }

    /// An error if nobody waits for the sinks any longer.
    pub(super) fn check_not_over(&self) -> io::Result<()> {
        if self.closing.is_over() {
            return Err(io::Error::other("it took too long when the agent ended"));
        }
        Ok(())
    }

    /// An attempt has failed. Says why, unless it is for the same reason as before, and pauses. False if there is to be no other
    /// attempt, because the agent ends; one that ends within the pause has one more.
    pub(super) fn again_after(&mut self, error: &io::Error) -> bool {
        self.failed = self.failed.saturating_add(1);
        let closing = self.closing.has_begun();
        let error = error.to_string();
        if self.told.as_ref() != Some(&error) {
            let what_now = if closing { "" } else { "; trying again" };
            tracing::error!(
                flow_log = self.flow_log,
                "its records cannot be delivered: {error}{what_now}"
            );
            self.told = Some(error.clone());
        }
        if closing {
            return false;
        }
        let pause = self.next_pauses.next().unwrap_or_default();
        // Whether anybody listens is no concern of the sink's.
        let _ = self.events.send(SinkEvent::Failed {
            flow_log: self.flow_log.to_owned(),
            error,
            attempts: self.failed,
            pause,
        });
        self.closing.pause(pause);
        true
    }

    /// An attempt has succeeded. Says so if others had failed.
    pub(super) fn succeeded(&mut self) {
        if self.failed > 0 {
            tracing::info!(
                flow_log = self.flow_log,
                "its records are delivered again, after {} failed attempts",
                self.failed
            );
            self.failed = 0;
            self.told = None;
            self.next_pauses = self.pauses.build();
        }
    }

    /// Tries until it succeeds; none if it does not before the agent ends.
    pub(super) fn until_done<T>(
        &mut self,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> Option<T> {
        let mut failed = false;
        loop {
            match attempt() {
                Ok(done) => {
                    if failed {
                        self.succeeded();
                    }
                    return Some(done);
                }
                Err(error) if !self.again_after(&error) => return None,
                Err(_) => failed = true,
            }
        }
    }
}
