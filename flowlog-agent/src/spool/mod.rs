//! The spool: what was drained and is not delivered yet, on the disk.
//!
//! | file | what it is |
//! |---|---|
//! | `drain-FIRST-LAST.flows` | the flows of a drain, or of consecutive ones that were merged: sorted runs, in blocks with checksums |
//! | `drain-FIRST-LAST.meta` | what is in it: runs, sums by slot and direction, and where the kernel stood. Without it the flows count for nothing |
//! | `window-ID.json` | a closed window: label, ENIs, flow logs, which drains it has, and what these sum up to |
//! | `cursor-FLOW-LOG.json` | how far a flow log's sink is |
//! | `state.json` | the open windows, and what the agent needs to go on after a restart |
//! | `managed.json` | what the service wants of the agent |
//! | `identity.json` | the random number that tells it from all others |
//! | `reserve` | 1 MiB that is given back when the disk is full |
//! | `lock` | its lock says that the spool is in use |
//!
//! - **Nothing is half there.** A file is written under another name, flushed to the disk, and renamed; the meta file of a drain after its
//!   flows. So a crash leaves a drain, a window, a state as it was before or as it is after, and what it leaves beside is removed when the
//!   spool is opened. A drain that cannot be committed changes nothing: the kernel still has it, and it is made again.
//! - **Nothing is missing silently.** Windows of several lengths share drains. A closed window knows what its drains sum up to; whatever
//!   cannot be read of them, because it is damaged or was given up, is what the sums have more, to the packet and the octet. What not even the
//!   sums are known of makes [`WindowReader::loss_unknown`] true: of the windows that had it, if they are known, else of those that are open
//!   when it is found.
//! - **Room.** When `max_bytes` are reached, or the disk is full, the oldest closed windows are given up: their flows are removed as far as
//!   nobody else needs them, their sums are kept. When only open windows are left, drains are kept as sums only, and at last in the reserve.
//!   Beyond 65,536 pending windows (or when manifests take half of `max_bytes`) the oldest are joined.
//! - **Memory.** A drain that is written has `max_flows_in_memory` flows of 40 (IPv4) or 64 octets (IPv6) in memory; a window that is read has
//!   32 KiB for each run of the family that is read, and an open file for each drain; a pending window takes some 200 octets, and a drain
//!   on the disk as many. Compaction keeps the runs between two boundaries of windows below about 100.
//!
//! The spool has one owner. [`StoredWindow`], [`WindowReader`], [`CursorFile`] and [`CompactionJob`] are for other threads. Nothing here
//! reads a clock.
mod blocks;
mod catalog;
mod closing;
mod compaction;
mod cursor;
mod durable;
mod flows_file;
mod found;
mod joining;
mod managed;
mod names;
mod open;
mod reader;
mod recovery;
mod room;
#[cfg(test)]
mod tests;
mod types;
mod volumes;
mod window;
mod writer;

pub use compaction::{Compacted, CompactionJob};
pub use cursor::{Cursor, CursorFile, Cursors};
pub(crate) use names::LOCK as LOCK_FILE;
pub use reader::WindowReader;
pub use types::*;
use volumes::add_unseen;
pub use volumes::{Volumes, add_flows, add_volumes, missing};
pub use window::StoredWindow;
pub use writer::DrainWriter;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowlog_common::Volume;
use serde::{Deserialize, Serialize};

use crate::lock::HostLock;
use catalog::Shared;

/// Closed windows that may be pending. Beyond, the oldest are given up and joined.
const MAX_PENDING_WINDOWS: usize = 64 << 10;

/// A spool. It has its folder for itself.
#[derive(Debug)]
pub struct Spool {
    config: SpoolConfig,
    id: String,
    shared: Arc<Shared>,
    /// Closed windows by id.
    windows: BTreeMap<u64, Pending>,
    /// Windows that everybody has, and that the saved state does not know to be closed.
    delivered_early: BTreeSet<u64>,
    /// By name of the flow log.
    cursors: BTreeMap<String, Delivered>,
    /// The open windows; none as long as they are not known, and everything is kept.
    open: Option<Vec<OpenSeries>>,
    /// The windows that the saved state takes for open.
    saved: Vec<OpenSeries>,
    next_drain: u64,
    next_window: u64,
    /// First of the drains that are kept for their mark: the newest.
    marked: u64,
    /// Something was lost of which nobody knows how much: the next drain is to say so.
    loss_unknown: bool,
    /// Damaged files that tell of it until then.
    witnesses: Vec<String>,
    /// What the drains take on the disk.
    drain_bytes: u64,
    /// What the manifests take on the disk.
    window_bytes: u64,
    max_pending: usize,
    /// Since the last sweep.
    given_up: GivenUp,
    /// Why the newest drain has sums only, if so.
    full: Option<Full>,
    compaction: compaction::Progress,
    #[expect(dead_code, reason = "held for its effect")]
    lock: HostLock,
}

/// A closed window that is not delivered to all its flow logs.
#[derive(Debug)]
struct Pending {
    window: Arc<StoredWindow>,
    first_drain: u64,
    next_drain: u64,
    /// What its flows sum up to.
    total: Volume,
    /// Its flows are not kept for its sake any more.
    given_up: bool,
    /// What its manifest takes on the disk.
    bytes: u64,
}

/// What a flow log has already.
#[derive(Clone, Copy, Debug, Default)]
struct Delivered {
    /// This window and all before it.
    window: u64,
    /// It is not configured any more.
    forgotten: bool,
}

/// The state as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct StoredState<S> {
    /// Something was lost that the next drain is to tell of.
    loss_unknown: bool,
    state: S,
}

impl Spool {
    /// Opens the spool, or makes it. What is damaged is left out and told of.
    ///
    /// # Errors
    ///
    /// If somebody else uses it, if its folder cannot be used, or if another version has written it.
    pub fn open(config: SpoolConfig) -> Result<(Self, Recovered), SpoolError> {
        recovery::open(config)
    }

    /// The random number that tells it from all others, in hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Begins a drain. Nothing of it is to be seen until [`DrainWriter::commit`]; if that fails or is not called, nothing has happened.
    pub fn begin_drain(&mut self) -> DrainWriter<'_> {
        DrainWriter::new(self)
    }

    /// Sequence number that the next drain will have. A window that opens now begins with it.
    #[must_use]
    pub fn next_drain(&self) -> u64 {
        self.next_drain
    }

    /// Saves the state, in place of the one before. To be called before the first drain, and whenever windows were opened or closed.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the one before is still there then.
    pub fn save_state(&mut self, state: &State) -> Result<(), SpoolError> {
        let stored = StoredState {
            loss_unknown: self.loss_unknown,
            state,
        };
        self.with_room(|shared| durable::write(&shared.folder, names::STATE, &stored))
            .map_err(|source| self.shared.error("write", names::STATE, source))?;
        self.saved.clone_from(&state.series);
        self.open = Some(state.series.clone());
        for id in std::mem::take(&mut self.delivered_early) {
            self.remove_if_delivered(id);
        }
        self.collect(0, u64::MAX);
        self.remove_forgotten_cursors();
        Ok(())
    }

    /// The windows that are to be delivered to a flow log, in order. Those that somebody has in hand are not joined, so that there may be
    /// more than the bound: hold few.
    #[must_use]
    pub fn pending(&self, flow_log: &str) -> Vec<Arc<StoredWindow>> {
        self.pending_for(flow_log, 0).map(Arc::clone).collect()
    }

    /// The first of them after `window`.
    #[must_use]
    pub fn next_pending(&self, flow_log: &str, window: u64) -> Option<Arc<StoredWindow>> {
        self.pending_for(flow_log, window).next().map(Arc::clone)
    }

    /// How many of them there are up to `window`, but at most `most`.
    #[must_use]
    pub fn pending_until(&self, flow_log: &str, window: u64, most: usize) -> usize {
        self.pending_for(flow_log, 0)
            .take_while(|pending| pending.id <= window)
            .take(most)
            .count()
    }

    fn pending_for(&self, flow_log: &str, after: u64) -> impl Iterator<Item = &Arc<StoredWindow>> {
        let after = self.delivered_to(flow_log).max(after);
        self.windows
            .range(after.saturating_add(1)..)
            .map(|(_, pending)| &pending.window)
            .filter(move |window| window.flow_logs.iter().any(|name| name == flow_log))
    }

    fn delivered_to(&self, flow_log: &str) -> u64 {
        self.cursors.get(flow_log).map_or(0, |known| known.window)
    }

    /// The flow logs that the spool knows: those that have windows to be delivered, or have a cursor.
    #[must_use]
    pub fn flow_logs(&self) -> BTreeSet<String> {
        let with_windows = self
            .windows
            .values()
            .flat_map(|pending| self.waiting(&pending.window));
        let with_cursor = self
            .cursors
            .iter()
            .filter(|(_, known)| !known.forgotten)
            .map(|(name, _)| name.as_str());
        with_windows.chain(with_cursor).map(str::to_owned).collect()
    }

    /// The flow logs that wait for a window.
    fn waiting<'a>(&'a self, window: &'a StoredWindow) -> impl Iterator<Item = &'a str> {
        window
            .flow_logs
            .iter()
            .map(String::as_str)
            .filter(|name| self.delivered_to(name) < window.id)
    }

    /// Where the sinks of flow logs note how far they are; for the sinks' threads.
    #[must_use]
    pub fn cursors(&self) -> Cursors {
        Cursors::new(&self.shared.folder)
    }

    fn cursor(&self, flow_log: &str) -> CursorFile {
        CursorFile::new(&self.shared.folder, flow_log)
    }

    /// The flow log has this window and all before it. What nobody needs any more is removed.
    pub fn delivered(&mut self, flow_log: &str, window: u64) {
        let before = self.delivered_to(flow_log);
        if window <= before {
            return;
        }
        let cursor = self.cursor(flow_log);
        let noted = cursor.read().map(Option::unwrap_or_default);
        let written = match noted {
            Ok(noted) if noted.window >= window => Ok(()),
            Ok(noted) => cursor.write(&Cursor { window, ..noted }),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::error!(
                flow_log,
                "{error}: after a restart it may be given windows again"
            );
        }
        self.has_until(flow_log, window, false);
    }

    fn has_until(&mut self, flow_log: &str, window: u64, forgotten: bool) {
        let before = self.delivered_to(flow_log);
        let known = Delivered { window, forgotten };
        self.cursors.insert(flow_log.to_owned(), known);
        let ids: Vec<u64> = self
            .windows
            .range(before.saturating_add(1)..)
            .map(|(id, _)| *id)
            .take_while(|id| *id <= window)
            .collect();
        for id in ids {
            self.remove_if_delivered(id);
        }
    }

    /// The flow log is no longer configured: its windows are dropped. Gives how many were pending for it.
    pub fn forget_flow_log(&mut self, flow_log: &str) -> u64 {
        let pending = self.pending_for(flow_log, 0).count() as u64;
        if pending == 0 && !self.cursors.contains_key(flow_log) {
            return 0;
        }
        let newest = self.next_window - 1;
        if let Err(error) = self.cursor(flow_log).forget(newest) {
            tracing::warn!(flow_log, "{error}: it is to be forgotten again later");
        }
        self.has_until(flow_log, newest, true);
        pending
    }

    /// A cursor that was forgotten is needed as long as there are manifests that name its flow log.
    fn remove_forgotten_cursors(&mut self) {
        let forgotten = |known: &Delivered| known.forgotten;
        if !self.cursors.values().any(forgotten) {
            return;
        }
        let named: BTreeSet<&str> = self
            .windows
            .values()
            .flat_map(|pending| pending.window.flow_logs.iter().map(String::as_str))
            .collect();
        let folder = &self.shared.folder;
        self.cursors.retain(|name, known| {
            let keep = !known.forgotten || named.contains(name.as_str());
            if !keep {
                folder.drop_file(CursorFile::new(folder, name).name());
            }
            keep
        });
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let pending = |pending: &&Pending| self.waiting(&pending.window).next().is_some();
        let drains = self.shared.drains();
        let with_flows = |entry: &&catalog::Entry| entry.drain.flows_bytes > 0;
        let flows = drains.values().filter(with_flows).count();
        Usage {
            drains: drains.len() as u64,
            files: (drains.len() + flows + self.windows.len() + self.cursors.len() + 1) as u64,
            bytes: self.bytes(),
            pending_windows: (self.windows.len() - self.delivered_early.len()) as u64,
            oldest: self
                .windows
                .values()
                .find(pending)
                .map(|pending| pending.window.label.start),
        }
    }

    /// Drops a window whose manifest turned out damaged when it was to be read. The next drain, and so the windows that are open then,
    /// will say that something was lost.
    pub fn abandon(&mut self, window: u64) {
        if self.take_window(window).is_some() {
            self.loss_unknown = true;
            self.witnesses.push(names::window(window));
        }
    }
}
