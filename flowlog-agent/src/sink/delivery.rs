//! What is delivered: a closed window, under an identity that is the same however often it is tried.
use std::{fmt, io};

use flowlog_model::{flow_log::FlowLog, record::Record};

use crate::window::Window;

/// Records of a batch at most.
const MAX_BATCH_RECORDS: u64 = 4096;

/// What tells a window from all others, also those of other hosts. It is displayed as `<spool>-<length>-<window>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowIdentity {
    /// The random number that the spool got when it was made, in hexadecimal digits.
    pub spool: String,
    /// Number of the window in its spool: a later one has a greater one.
    pub window: u64,
    /// Length that the window should have had, in seconds.
    pub length_seconds: u64,
}

impl fmt::Display for WindowIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            spool,
            window,
            length_seconds,
        } = self;
        write!(f, "{spool}-{length_seconds}-{window}")
    }
}

/// A closed window on its way to the destinations of flow logs.
pub(crate) trait Delivery: Send + Sync {
    /// What tells it from all others.
    fn identity(&self) -> &WindowIdentity;

    /// Its label.
    fn label(&self) -> Window;

    /// Gives each record that belongs to the flow log to `each`: the same ones in the same order each time. Tells how many packets
    /// netfilter dropped of flows that the window does not have.
    ///
    /// # Errors
    ///
    /// If the window cannot be read now. Another attempt begins with the first record. [`io::ErrorKind::InvalidData`] if it can never be
    /// read.
    fn render(&self, flow_log: &FlowLog, each: &mut dyn FnMut(&Record<'_>)) -> io::Result<u64>;
}

/// Cuts a window's records into batches, and gives each the identity of its batch: `<flow log>-<window>-<number>`, numbers from 0.
///
/// The flow log is part of it because flow logs can share a destination, and of one window each has records of its own.
pub(super) struct Batches {
    of: String,
    records: u64,
    identity: String,
}

impl Batches {
    pub(super) fn new(flow_log: &FlowLog, window: &WindowIdentity) -> Self {
        Self {
            of: format!("{}-{window}", flow_log.name.as_str()),
            records: 0,
            identity: String::new(),
        }
    }

    /// The identity of the batch of the next record.
    pub(super) fn of_next(&mut self) -> &str {
        if self.records.is_multiple_of(MAX_BATCH_RECORDS) {
            self.identity = format!("{}-{}", self.of, self.records / MAX_BATCH_RECORDS);
        }
        self.records += 1;
        &self.identity
    }
}
