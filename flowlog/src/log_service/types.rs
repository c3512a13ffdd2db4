//! Logs and where they belong.
//!
//! A log is what the Log Service keeps: a time, and keys with their values. A flow log record is a log whose keys are the fields
//! of [`flowlog_model::field`].
use std::fmt;

use flowlog_model::managed::{Logstore, Project};

/// A logstore, known by its project's name and its own. Both are safe as a folder's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogstoreKey {
    /// The project.
    pub project: Project,
    /// The logstore in it.
    pub logstore: Logstore,
}

impl fmt::Display for LogstoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.logstore)
    }
}

/// Logs that have a topic, a source and tags in common: a LogGroup of the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// `__topic__`; empty where there is none.
    pub topic: String,
    /// `__source__`; empty where there is none.
    pub source: String,
    /// Tags: key and value.
    pub tags: Vec<(String, String)>,
    /// The logs, in the order in which they were sent.
    pub logs: Vec<Log>,
}

/// A log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// `__time__`, in Unix seconds.
    pub time: u32,
    /// What `time` leaves out, in nanoseconds below a second.
    pub time_ns: Option<u32>,
    /// Keys and values.
    pub contents: Vec<(String, String)>,
}
