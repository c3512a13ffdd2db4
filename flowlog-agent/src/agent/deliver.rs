//! Giving closed windows to the sinks, and taking note of what they have delivered.
use std::sync::Arc;
use std::time::Duration;

use super::Agent;
use crate::{
    clock::Clock,
    failpoint,
    sink::{Output, SinkEvent, Sinks, StoredCursors, StoredDelivery},
    spool::Spool,
};

/// Windows that a flow log's sink has in hand. The others wait in the spool, which can join them when they are too many.
pub(super) const MAX_IN_HAND: usize = 16;

/// How the deliveries of a flow log go.
#[derive(Clone, Debug, Default)]
pub(super) struct SinkHealth {
    /// Windows delivered since the agent was started.
    pub(super) delivered: u64,
    /// The boot time and the sentence of the last failure.
    pub(super) last_error: Option<(Duration, String)>,
    /// The boot time of the next attempt; none unless the last one failed.
    pub(super) next_attempt: Option<Duration>,
}

impl Agent {
    /// Gives all that is not delivered yet to the sinks, which are new. Drops what no flow log is to have any more.
    pub(super) fn deliver_pending(&mut self) {
        self.forget_others();
        self.given.clear();
        self.forget_ended();
        self.deliver(MAX_IN_HAND);
    }

    /// Drops the windows of flow logs that nobody knows, unless they may be the service's.
    pub(super) fn forget_others(&mut self) {
        if self.others_stay() {
            return;
        }
        for name in self.spool.flow_logs() {
            if !has(&self.outputs, &name) && !has(&self.ending, &name) {
                let windows = self.spool.forget_flow_log(&name);
                if windows > 0 {
                    tracing::warn!(
                        flow_log = name,
                        "is no longer configured: {windows} windows that it has not had are dropped"
                    );
                }
            }
        }
    }

    /// Gives closed windows to the sinks of the flow logs that are to have them, in order, until each flow log's has `most` in hand.
    pub(super) fn deliver(&mut self, most: usize) {
        for output in [&*self.outputs, &*self.ending].concat() {
            self.deliver_to(&output, most);
        }
    }

    /// Follows these outputs from now on. The sinks go on where they can: then a flow log that is not among them any more still gets the
    /// windows that it is to have.
    pub(super) fn follow_outputs(&mut self, outputs: Vec<Arc<Output>>) {
        let before = std::mem::replace(&mut self.outputs, outputs);
        if !self.sinks.suit(&self.outputs) {
            self.replace_sinks();
            return;
        }
        self.ending.extend(before);
        self.ending
            .retain(|output| !has(&self.outputs, output.flow_log.name.as_str()));
        self.forget_ended();
        self.deliver(MAX_IN_HAND);
    }

    /// Forgets the flow logs that are followed no more and have all their windows.
    fn forget_ended(&mut self) {
        let Self {
            ending,
            spool,
            given,
            sinks,
            sink_health,
            metrics,
            ..
        } = self;
        ending.retain(|output| {
            let name = output.flow_log.name.as_str();
            let is_waiting = !spool.pending(name).is_empty();
            if !is_waiting {
                spool.forget_flow_log(name);
                sinks.forget(name);
                given.remove(name);
                sink_health.remove(name);
                metrics.forget_flow_log(name);
            }
            is_waiting
        });
    }

    /// Gives the sink of a flow log, which has one window less in hand, the next one. All flow logs are looked at when a window is closed.
    fn deliver_more_to(&mut self, flow_log: &str) {
        let mut outputs = self.outputs.iter().chain(&self.ending);
        let output = outputs.find(|output| output.flow_log.name.as_str() == flow_log);
        if let Some(output) = output.cloned() {
            self.deliver_to(&output, MAX_IN_HAND);
        }
    }

    fn deliver_to(&mut self, output: &Arc<Output>, most: usize) {
        let name = output.flow_log.name.as_str();
        let given = self.given.entry(name.to_owned()).or_default();
        for _ in self.spool.pending_until(name, *given, most)..most {
            let Some(window) = self.spool.next_pending(name, *given) else {
                return;
            };
            let id = window.id();
            let delivery = Arc::new(StoredDelivery::new(&self.spool, window));
            if let Err(error) = self.sinks.deliver(output, delivery) {
                // A later window must not go before it: to the spool, a flow log has all before the one that it was given.
                tracing::error!(flow_log = name, %error, "cannot start its sink; its records stay in the spool");
                return;
            }
            *given = id;
        }
    }

    pub(super) fn sink_event(&mut self, event: SinkEvent) {
        match event {
            SinkEvent::Delivered {
                flow_log,
                window,
                written,
            } => {
                self.spool.delivered(&flow_log, window);
                failpoint::reached("window-removed");
                self.metrics.delivered(&flow_log, &written);
                let health = self.sink_health.entry(flow_log.clone()).or_default();
                health.delivered += 1;
                health.next_attempt = None;
                if has(&self.ending, &flow_log) {
                    self.forget_ended();
                }
                if self.closed_unsaved == 0 {
                    self.deliver_more_to(&flow_log);
                }
            }
            SinkEvent::Failed {
                flow_log,
                error,
                pause,
                ..
            } => {
                let now = self.clock.now().boot;
                self.metrics.delivery_failed(&flow_log);
                self.last_error = Some((now, format!("flow log {flow_log}: {error}")));
                let health = self.sink_health.entry(flow_log).or_default();
                health.last_error = Some((now, error));
                health.next_attempt = Some(now + pause);
            }
            SinkEvent::Unreadable { window, error } => {
                tracing::error!(
                    "{error}: the window is lost, and those that are open will say that something is missing"
                );
                self.spool.abandon(window);
            }
            SinkEvent::StdoutClosed => {}
        }
    }
}

/// Sinks with their cursors in the spool.
pub(super) fn sinks(
    spool: &Spool,
    events: &tokio::sync::mpsc::UnboundedSender<SinkEvent>,
    clock: Clock,
) -> Sinks {
    Sinks::new(events.clone(), Arc::new(StoredCursors::new(spool)), clock)
}

fn has(outputs: &[Arc<Output>], flow_log: &str) -> bool {
    outputs
        .iter()
        .any(|output| output.flow_log.name.as_str() == flow_log)
}
