//! Signals that reach the demo.
use std::{io, thread, time::Duration};

use nix::sys::signal::{SigSet, Signal};
use tokio::{
    signal::unix::{self, SignalKind},
    time::timeout,
};

/// What a signal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A child has ended: the agent, or an `ip`.
    Child,
    /// We are told to end.
    End,
}

/// The signals that are waited for.
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
    child: unix::Signal,
}

impl Signals {
    /// From now on.
    ///
    /// # Errors
    ///
    /// If the system has no more room for it.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
            child: unix::signal(SignalKind::child())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.interrupt.recv() => Event::End,
            _ = self.terminate.recv() => Event::End,
            _ = self.hangup.recv() => Event::End,
            _ = self.child.recv() => Event::Child,
        }
    }

    /// Whether we have been told to end already.
    pub(crate) async fn end_came(&mut self) -> bool {
        loop {
            match timeout(Duration::ZERO, self.next()).await {
                Ok(Event::End) => return true,
                Ok(Event::Child) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Does work that starts programs which Ctrl-C must not reach, for it reaches all programs of the terminal: the lab is made and
/// taken down by `ip`. The programs inherit the thread's mask.
pub(crate) fn shielded<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let shield = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // It fails for no valid set.
            let _ = shield.thread_block();
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
