//! What goes into the spool and comes out of it.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    time::Duration,
};

use flowlog_model::record::Eni;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Volumes,
    durable::{FORMAT, Unreadable},
};
use crate::{lock::LockError, slots::CapturedEnis, window::Window};

/// Sentences that are kept of what is damaged.
pub const MAX_SENTENCES: usize = 32;

/// Where the spool is and how large it may become.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Its folder; made if it is not there.
    pub path: PathBuf,
    /// What drains and closed windows may take on the disk, in bytes, each file rounded up to 4 KiB. When flows have no more room, their sums
    /// are kept beyond it. A reserve of 1 MiB, the state and the cursors come on top.
    pub max_bytes: u64,
    /// Age at which a closed window's flows are given up, in seconds since its end.
    pub max_age_seconds: u64,
    /// Flows that a drain gathers in memory before it writes them as a sorted run; at most 64 octets each.
    pub max_flows_in_memory: usize,
}

/// Ids of rules of security groups, by the numbers that stand for them in flows.
pub type RuleIds = BTreeMap<u32, String>;

/// What is kept with a drain beside its flows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Ids of the rules that its flows name, as far as they are known: the numbers mean nothing without the kernel's maps.
    pub rule_ids: RuleIds,
    /// The caller's, for [`Recovered::extras`].
    pub extras: serde_json::Value,
}

/// Where the kernel stood at a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelMark {
    /// What the numbers count within: they start again with every boot and every new set of maps.
    pub epoch: String,
    /// Flips so far.
    pub flips: u64,
    /// Position in the overflow ring up to which the drain has read, in octets.
    pub ring_position: u64,
}

/// What was found when the spool was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Where the kernel stood at the newest drain that was committed and is not lost.
    pub mark: Option<KernelMark>,
    /// What the caller gave with that drain.
    pub extras: serde_json::Value,
    /// As saved last, with the series moved on over windows that were closed since.
    pub state: Option<State>,
    /// What is damaged.
    pub damage: Damage,
}

/// What was found damaged: how often, and what it was, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Files and parts of files.
    pub count: u64,
    /// A sentence for each of the first [`MAX_SENTENCES`].
    pub sentences: Vec<String>,
}

/// What the agent needs to go on where the one before it stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The open windows: those of a length are for different flow logs.
    pub series: Vec<OpenSeries>,
    /// The ENIs that have a slot.
    pub enis: Vec<StoredEni>,
    /// Whatever else the caller keeps.
    #[serde(default)]
    pub ledger: serde_json::Value,
}

/// An open window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSeries {
    /// Length of the windows of its series, in seconds.
    pub length_seconds: u64,
    /// Its first second, in Unix seconds.
    pub start: u64,
    /// The boot time at which it was opened, in nanoseconds; of the boot in which the state was saved.
    pub opened_ns: u64,
    /// Sequence number of its first drain.
    pub first_drain: u64,
    /// Names of the flow logs that are to have it. Where there are none, it is the only one of its length.
    #[serde(default)]
    pub flow_logs: Vec<String>,
}

/// An ENI that has a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEni {
    /// Its slot.
    pub slot: u32,
    /// The ENI.
    pub eni: Eni,
    /// The boot time at which it ceased to be captured, in nanoseconds, likewise; none if it still is.
    pub gone_at_ns: Option<u64>,
}

/// A window that is to be closed.
#[derive(Clone, Debug)]
pub struct Closing<'a> {
    /// Length that it should have had, in seconds.
    pub length_seconds: u64,
    /// Its label.
    pub label: Window,
    /// The boot time at which it was opened.
    pub opened: Duration,
    /// The boot time at which it was closed.
    pub closed: Duration,
    /// The ENIs of the host.
    pub captured: &'a CapturedEnis,
    /// Names of the flow logs that are to have it.
    pub flow_logs: &'a [String],
    /// Sequence number of its first drain. Its last is the newest that is committed.
    pub first_drain: u64,
    /// Whether something was lost in it of which nobody knows how much.
    pub loss_unknown: bool,
}

/// A drain that is on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Its sequence number.
    pub sequence: u64,
    /// IPv4 flows that it was given, each as often as it was.
    pub flows_v4: u64,
    /// IPv6 flows, likewise.
    pub flows_v6: u64,
    /// What its flows sum up to.
    pub volumes: Volumes,
    /// What of that no device saw: it was dropped before.
    pub unseen: Volumes,
    /// Numbers of the rules that its flows name.
    pub rules: BTreeSet<u32>,
    /// Why only the sums were kept, if so: they are in the window's `skipped`, and `volumes` are not in its flows.
    pub sums_only: Option<Full>,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `max_bytes` are reached.
    Limit,
    /// The file system is full.
    Disk,
}

/// Why a window is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Size,
    Age,
    Disk,
}

/// Closed windows that were given up, by cause: their flows are deleted, their sums are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// For `max_bytes`.
    pub size: Lost,
    /// For `max_age_seconds`.
    pub age: Lost,
    /// Because the file system was full.
    pub disk: Lost,
}

/// What windows that were given up had in their flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Windows.
    pub windows: u64,
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

/// How full the spool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What drains and closed windows take on the disk, in bytes, each file rounded up to 4 KiB.
    pub bytes: u64,
    /// Closed windows that are not delivered to all their flow logs.
    pub pending_windows: u64,
    /// Start of the oldest of them, in Unix seconds.
    pub oldest: Option<u64>,
    /// Drains that are kept for open and pending windows; several may be one by now.
    pub drains: u64,
    /// Files of flows, sums, windows, cursors and the state.
    pub files: u64,
}

/// Why the spool cannot be used, or could not do something.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The folder.
    #[error("the spool cannot use the folder {path}: {source}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else uses it.
    #[error(transparent)]
    Held(LockError),
    /// A file in it.
    #[error("cannot {what} {path} of the spool: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Written by another version.
    #[error("{path} of the spool has format {format}, and this flowlog-agent knows only format {known}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it has.
        format: u32,
        /// What is known.
        known: u32,
    },
    /// A file that was sound when the spool was opened is damaged now.
    #[error("{path} of the spool is damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
}

impl SpoolError {
    /// A file that cannot be read and is neither missing nor of no concern.
    pub(super) fn unreadable(path: PathBuf, unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Missing => Self::Damaged {
                path,
                reason: "it is missing".to_owned(),
            },
            Unreadable::Damaged(reason) => Self::Damaged { path, reason },
            Unreadable::Format(format) => Self::Format {
                path,
                format,
                known: FORMAT,
            },
            Unreadable::Io(source) => Self::Io {
                what: "read",
                path,
                source,
            },
        }
    }
}

impl Damage {
    /// Adds a sentence, and logs it.
    pub(super) fn add(&mut self, sentence: String) {
        self.count += 1;
        if self.sentences.len() < MAX_SENTENCES {
            tracing::error!("{sentence}");
            self.sentences.push(sentence);
        }
    }
}

impl GivenUp {
    pub(super) fn of_mut(&mut self, cause: Cause) -> &mut Lost {
        match cause {
            Cause::Size => &mut self.size,
            Cause::Age => &mut self.age,
            Cause::Disk => &mut self.disk,
        }
    }
}
