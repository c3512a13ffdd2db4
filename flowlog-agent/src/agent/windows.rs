//! Draining, closing windows, and keeping what the next agent needs.
use std::{collections::BTreeSet, time::Duration};

use flowlog_common::Volume;
use flowlog_model::record::Eni;

use super::{Agent, AgentError, deliver::MAX_IN_HAND};
use crate::{
    drain::{Books, Drain, DrainError},
    failpoint,
    ledger::Cause,
    slots::CapturedEnis,
    spool::{Closing, Compacted, GivenUp, Lost, SpoolError},
    windows::Closed,
};

/// Time after which the spool is tried again when it takes nothing.
const SPOOL_RETRY: Duration = Duration::from_secs(1);

/// What a drain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A flow map is half full, or something in the kernel is to be accounted for.
    Early,
    /// A window is due.
    WindowDue,
    /// Somebody asks, or the windows are about to be closed: what the devices have counted is entered, too.
    Now,
}

/// A window that is closed by the clock, with what the spool is to have of it.
pub(super) struct ToClose {
    pub(super) window: Closed,
    pub(super) captured: CapturedEnis,
    /// The boot time at which it was closed.
    pub(super) closed: Duration,
    /// Whether counters were lost in it of which nobody knows what was in them.
    pub(super) loss_unknown: bool,
}

impl Agent {
    /// Drains the kernel into the spool, and then closes the windows whose time has come, if that is what it is for.
    ///
    /// If the spool takes nothing, what was counted stays in the kernel, which counts on, and the drain is tried again after a while.
    pub(super) fn drain(&mut self, why: Why) -> Result<(), AgentError> {
        match self.try_drain(why) {
            Ok(()) => {
                if self.spool_retry.take().is_some() {
                    tracing::info!("the spool takes what is captured again");
                }
                Ok(())
            }
            Err(DrainError::Spool(error)) => {
                self.spool_failed(&error);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn spool_failed(&mut self, error: &SpoolError) {
        if self.spool_retry.is_none() {
            tracing::error!(
                "{error}; what is captured stays in the kernel, and the spool is tried again every {SPOOL_RETRY:?}"
            );
        }
        let now = self.clock.now().boot;
        self.last_error = Some((now, error.to_string()));
        self.spool_retry = Some(now + SPOOL_RETRY);
    }

    pub(super) fn try_drain(&mut self, why: Why) -> Result<(), DrainError> {
        // What is drained from now on belongs to the windows after those.
        self.store_closed_windows()?;
        self.try_save_state()?;
        if why != Why::Early {
            // Before the drain, so that what they have counted is in the window, and their slots are free after it.
            self.remove_leftovers()?;
        }
        if why == Why::Early {
            self.drain_kernel(why)?;
        } else {
            let before = self.device_counters();
            self.drain_kernel(why)?;
            let after = self.device_counters();
            self.enter_counters(&before, &after);
            self.metrics.accounted(&self.conservation());
        }
        if why == Why::WindowDue {
            let next_drain = self.spool.next_drain();
            let closed = self.windows.close_due(self.clock.now(), next_drain);
            self.close(closed);
            self.store_closed_windows()?;
            self.try_save_state()?;
        }
        let given_up = self.spool.sweep(self.clock.now().wall.as_secs());
        self.gave_up(given_up);
        self.start_compaction();
        Ok(())
    }

    /// Takes off what a previous agent has left on devices that are not captured any more, once, when the devices have been told of.
    /// Then no program of another version is left, and what they have counted is drained.
    fn remove_leftovers(&mut self) -> Result<(), DrainError> {
        if !self.leftovers_looked_for && self.discovery.has_told_all() {
            self.leftovers_looked_for = true;
            self.capture
                .remove_leftovers(self.discovery.devices().cloned(), self.clock.now().boot);
        }
        if self.leftovers_looked_for {
            self.drain_adopted()?;
        }
        Ok(())
    }

    fn drain_adopted(&mut self) -> Result<(), DrainError> {
        while let Some(adopted) = self.adopted.last() {
            let now = self.clock.now().boot;
            let identities = adopted.identities()?;
            let ours = |(slot, eni): &(u32, Eni)| Some((*slot, self.capture.slot_of(eni, now)?));
            let our_slots = identities.iter().filter_map(ours).collect();
            // The next agent must know whose they are.
            self.state_is_saved = false;
            self.try_save_state()?;
            let Some(adopted) = self.adopted.last() else {
                return Ok(());
            };
            let enis = self.capture.enis().by_slot;
            let mut books = Books {
                rule_ids: &|rules| self.capture.security().rule_ids(rules),
                ledger: &mut self.ledger,
                enis: &enis,
                now: &|| now,
            };
            let committed = adopted.drain(&mut self.spool, &mut books, &our_slots)?;
            tracing::info!(
                flows = committed.flows_v4 + committed.flows_v6,
                "drained what an agent of another version has counted"
            );
            if let Some(adopted) = self.adopted.pop() {
                adopted.remove();
            }
        }
        Ok(())
    }

    /// Drains the kernel into the spool.
    fn drain_kernel(&mut self, why: Why) -> Result<(), DrainError> {
        let clock = self.clock;
        let now = || clock.now().boot;
        let began = now();
        let enis = self.capture.enis();
        let books = Books {
            rule_ids: &|rules| self.capture.security().rule_ids(rules),
            ledger: &mut self.ledger,
            enis: &enis.by_slot,
            now: &now,
        };
        if let Some(drain) = self.drainer.drain_held(&mut self.spool, books)? {
            self.drained(&drain, &enis, began, Why::Early);
        }
        let books = Books {
            rule_ids: &|rules| self.capture.security().rule_ids(rules),
            ledger: &mut self.ledger,
            enis: &enis.by_slot,
            now: &now,
        };
        let closes = why == Why::WindowDue;
        let drain = self.drainer.drain(&mut self.spool, books, closes)?;
        self.drained(&drain, &enis, began, why);
        self.capture.security_mut().drained();
        Ok(())
    }

    fn drained(&mut self, drain: &Drain, enis: &CapturedEnis, began: Duration, why: Why) {
        if self.adopted.is_empty() {
            self.ledger.settle();
        }
        for counters in &drain.aside {
            self.packets_without_session += counters.without_session;
            self.unmatched_drops += counters.unmatched_drops;
        }
        let seconds = (self.clock.now().boot - began).as_secs_f64();
        self.metrics
            .drained(drain, &enis.by_slot, seconds, why == Why::Early);
        if drain.committed.sums_only.is_some() {
            self.ledger
                .kept_sums_only(&drain.committed.volumes, &enis.by_slot);
            self.state_is_saved = false;
            tracing::error!(
                "the spool has no room for flows: of what was just drained, only the sums are kept, as SKIPDATA"
            );
        }
    }

    fn gave_up(&mut self, given_up: GivenUp) {
        let GivenUp { size, age, disk } = given_up;
        for (cause, lost) in [
            (Cause::GivenUpSize, size),
            (Cause::GivenUpAge, age),
            (Cause::GivenUpDisk, disk),
        ] {
            let Lost {
                windows,
                packets,
                bytes,
            } = lost;
            if windows > 0 {
                tracing::error!(
                    cause = cause.as_str(),
                    "gave up {windows} windows of the spool that were not delivered: {packets} packets become SKIPDATA"
                );
                self.ledger.lose(cause, Volume { packets, bytes }, windows);
                self.state_is_saved = false;
            }
        }
    }

    /// These windows are closed. They have what was drained until now.
    pub(super) fn close(&mut self, windows: Vec<Closed>) {
        if windows.is_empty() {
            return;
        }
        self.state_is_saved = false;
        let closed = self.clock.now().boot;
        let captured = self.capture.enis();
        for window in windows {
            self.to_close.push_back(ToClose {
                loss_unknown: window.opened < self.started && !self.ledger.lost_enis().is_empty(),
                window,
                captured: captured.clone(),
                closed,
            });
        }
    }

    /// Puts the windows that are closed into the spool, in order.
    pub(super) fn store_closed_windows(&mut self) -> Result<(), SpoolError> {
        while let Some(ToClose {
            window,
            captured,
            closed,
            loss_unknown,
        }) = self.to_close.front()
        {
            self.spool.close_window(&Closing {
                length_seconds: window.length_seconds,
                label: window.label,
                opened: window.opened,
                closed: *closed,
                captured,
                flow_logs: &window.flow_logs,
                first_drain: window.first_drain,
                loss_unknown: *loss_unknown,
            })?;
            failpoint::reached("window-manifest-written");
            if window.is_shortest {
                self.windows_left = self.windows_left.map(|left| left.saturating_sub(1));
            }
            self.windows_committed += 1;
            self.last_closed = Some((window.length_seconds, window.label));
            self.to_close.pop_front();
            self.metrics.window_closed();
            self.closed_unsaved += 1;
        }
        Ok(())
    }

    /// Saves the state if it has changed, and publishes the windows that it follows.
    pub(super) fn try_save_state(&mut self) -> Result<(), SpoolError> {
        if !self.state_is_saved && self.to_close.is_empty() {
            self.spool.save_state(&self.state(false))?;
            self.state_is_saved = true;
            // Not earlier: after a crash the windows that were closed would be open again, and may name a slot that is another ENI's by then.
            self.capture.windows_opened(self.windows.opened());
            if self.windows.opened() >= self.started {
                self.ledger.lost_enis_told();
            }
            self.forget_enis();
            failpoint::reached("window-state-saved");
        }
        if self.state_is_saved {
            self.publish_closed();
        }
        Ok(())
    }

    /// Forgets ENIs that no open window can name, when there were many.
    fn forget_enis(&mut self) {
        if self.ledger.is_large() {
            let enis = self.capture.enis().by_slot;
            let named: BTreeSet<&str> = enis
                .iter()
                .flatten()
                .map(|entry| entry.eni.eni_id.as_str())
                .collect();
            self.ledger.forget(|eni_id| named.contains(eni_id));
        }
    }

    fn publish_closed(&mut self) {
        if self.closed_unsaved == 0 {
            return;
        }
        self.closed_unsaved = 0;
        self.deliver(MAX_IN_HAND);
        failpoint::reached("window-published");
    }

    /// Saves the state if it has changed. If that fails, it is tried again with the next drain.
    pub(super) fn save_state(&mut self) {
        if let Err(error) = self.try_save_state() {
            self.spool_failed(&error);
        }
    }

    fn start_compaction(&mut self) {
        if self.compaction.is_none()
            && let Some(job) = self.spool.compaction_due()
        {
            self.compaction = Some(tokio::task::spawn_blocking(move || job.run()));
        }
    }

    pub(super) fn compacted(&mut self, outcome: Option<Compacted>) {
        match outcome {
            Some(outcome) => self.spool.compacted(outcome),
            None => tracing::error!("a compaction of the spool has panicked"),
        }
        self.start_compaction();
    }
}
