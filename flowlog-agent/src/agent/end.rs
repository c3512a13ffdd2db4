//! The end.
use std::{collections::BTreeSet, time::Duration};

use super::{Agent, AgentError, deliver, windows::Why};
use crate::{
    capture::Capture,
    config::OnExit,
    drain::DrainError,
    window::Now,
    windows::{Closed, Windows},
};

/// Longest time that the agent's end waits for sinks. What they have not delivered then stays in the spool.
pub(super) const SINKS_PATIENCE: Duration = Duration::from_secs(10);

impl Agent {
    /// Ends: closes the open windows, unless as many windows as were asked for are closed, and has the sinks deliver what they can. Tells
    /// whether all that was counted is in the spool, so that the kernel's counters are needed no more.
    pub(super) fn end(mut self, result: Result<(), AgentError>) -> (bool, Result<(), AgentError>) {
        // After an error the next agent takes over: what is enforced stays in force.
        let detach = self.config.on_exit == OnExit::Detach && result.is_ok();
        if detach {
            // Before the last drain, so that nothing is counted after it.
            let devices: Vec<_> = self.capture.devices().map(|(_, key, _)| key).collect();
            self.with_capture(devices, None, Capture::release_all);
        }
        let stored = match &result {
            Ok(()) => self.store_all(detach),
            // The kernel's counters are in doubt. They are left as they are.
            Err(_) => Ok(false),
        };
        if !detach {
            self.capture.leave_all();
        }
        // They are tried once more, however many there are.
        self.deliver(usize::MAX);
        let Self {
            sinks,
            mut sink_events,
            ..
        } = self;
        sinks.close(SINKS_PATIENCE);
        sink_events.close();
        match stored {
            Ok(is_empty) => (is_empty, result),
            Err(DrainError::Spool(error)) => {
                tracing::error!(
                    "{error}; what is captured and not in the spool stays in the kernel, for the next agent"
                );
                (false, result)
            }
            Err(error) => (false, result.and(Err(error.into()))),
        }
    }

    /// Puts all that was counted into the spool; tells whether nothing is counted any more.
    fn store_all(&mut self, detach: bool) -> Result<bool, DrainError> {
        if self.windows_left != Some(0) {
            self.close_open_windows()?;
        }
        if detach {
            let may_have_left = self.found_pins && !self.leftovers_looked_for;
            if may_have_left || !self.adopted.is_empty() {
                // What the agent before this one has left on devices that this one was not told of, and what was counted by agents of other
                // versions: the next agent finds it as this one did.
                return Ok(false);
            }
            self.ledger.released_all();
            self.spool.save_state(&self.state(true))?;
        }
        Ok(detach)
    }

    /// Closes all windows before their time. Others follow at once.
    fn close_open_windows(&mut self) -> Result<(), DrainError> {
        self.close_before_their_time(Windows::close_all)
    }

    /// Closes the windows of these flow logs before their time. Others follow at once.
    pub(super) fn close_windows_of(
        &mut self,
        flow_logs: &BTreeSet<String>,
    ) -> Result<(), DrainError> {
        self.close_before_their_time(|windows, now, next_drain| {
            windows.close_of(flow_logs, now, next_drain)
        })
    }

    fn close_before_their_time(
        &mut self,
        close: impl FnOnce(&mut Windows, Now, u64) -> Vec<Closed>,
    ) -> Result<(), DrainError> {
        self.try_drain(Why::Now)?;
        let next_drain = self.spool.next_drain();
        let closed = close(&mut self.windows, self.clock.now(), next_drain);
        self.close(closed);
        self.store_closed_windows()?;
        Ok(self.try_save_state()?)
    }

    /// Has other sinks. Those that there were deliver what they can.
    pub(super) fn replace_sinks(&mut self) {
        let sinks = deliver::sinks(&self.spool, &self.sink_sender, self.clock);
        std::mem::replace(&mut self.sinks, sinks).close(SINKS_PATIENCE);
        while let Ok(event) = self.sink_events.try_recv() {
            self.sink_event(event);
        }
        let Self {
            ending, outputs, ..
        } = self;
        // What is another's destination now cannot be theirs any more.
        ending.retain(|ended| {
            outputs
                .iter()
                .all(|output| output.destination != ended.destination)
        });
        self.deliver_pending();
    }
}
