//! Making room: what nobody needs is removed, and what is too old or too much is given up.
use std::{io, sync::Arc};

use super::{
    Cause, GivenUp, Pending, Spool,
    catalog::{Drain, Shared, overlapping, overlapping_mut},
    durable::{self, is_full},
    names,
    window::Manifest,
};

impl Spool {
    /// The first drain that an open window has. Those from there on are needed.
    pub(super) fn first_open(&self) -> u64 {
        match &self.open {
            Some(open) => {
                let first_drains = open.iter().map(|series| series.first_drain);
                first_drains.min().unwrap_or(u64::MAX)
            }
            None => 0,
        }
    }

    /// Gives up what is too old or too much; makes the reserve again if it was used up. Tells of all that was given up since the last call.
    pub fn sweep(&mut self, now_wall_seconds: u64) -> GivenUp {
        let max_age = self.config.max_age_seconds;
        let too_old: Vec<u64> = self
            .windows
            .iter()
            .filter(|(_, pending)| !pending.given_up)
            .filter(|(_, pending)| {
                pending.window.label.end.saturating_add(max_age) < now_wall_seconds
            })
            .map(|(id, _)| *id)
            .collect();
        for id in too_old {
            self.give_up(id, Cause::Age);
        }
        self.keep_limits();
        self.shared.folder.make_reserve();
        std::mem::take(&mut self.given_up)
    }

    /// Gives up the oldest closed windows until the limits are kept, or nothing is left to be given up.
    pub(super) fn keep_limits(&mut self) {
        let max_bytes = self.config.max_bytes;
        while self.windows.len() > self.max_pending && self.join_oldest() {}
        // Where manifests are most of it, old labels go before younger flows.
        while self.bytes() > max_bytes
            && ((self.window_bytes > max_bytes / 2 && self.join_oldest())
                || self.give_up_oldest(Cause::Size))
        {}
    }

    pub(super) fn bytes(&self) -> u64 {
        self.drain_bytes + self.window_bytes
    }

    /// Whether there is room for `bytes` more within the limit, if need be after closed windows were given up.
    pub(super) fn make_room(&mut self, bytes: u64) -> bool {
        let max_bytes = self.config.max_bytes;
        let first_open = self.first_open();
        let fits = |used: u64| used.saturating_add(bytes) <= max_bytes;
        if fits(self.bytes()) {
            return true;
        }
        let to_be_had: u64 = self
            .shared
            .drains()
            .values()
            .filter(|entry| entry.drain.range.last < first_open)
            .map(|entry| entry.drain.flows_bytes)
            .sum();
        if !fits(self.bytes().saturating_sub(to_be_had)) {
            return false;
        }
        while !fits(self.bytes()) && self.give_up_oldest(Cause::Size) {}
        fits(self.bytes())
    }

    /// Writes; when the disk is full, gives up the oldest closed windows and tries again, and at last with the reserve.
    pub(super) fn with_room<T>(
        &mut self,
        mut write: impl FnMut(&Shared) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match write(&self.shared) {
                Err(error) if is_full(&error) => {
                    if !self.give_up_oldest(Cause::Disk) && !self.shared.folder.release_reserve() {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }

    /// Gives up the closed windows that the oldest flows are of which no open window needs; false if there are none.
    pub(super) fn give_up_oldest(&mut self, cause: Cause) -> bool {
        let first_open = self.first_open();
        let oldest = self
            .shared
            .drains()
            .values()
            .map(|entry| &entry.drain)
            .take_while(|drain| drain.range.last < first_open)
            .find(|drain| drain.flows_bytes > 0)
            .map(|drain| drain.range);
        let Some(range) = oldest else {
            return false;
        };
        let of_it: Vec<u64> = self
            .windows
            .iter()
            .filter(|(_, pending)| !pending.given_up)
            .filter(|(_, pending)| {
                pending.first_drain <= range.last && range.first < pending.next_drain
            })
            .map(|(id, _)| *id)
            .collect();
        for id in of_it {
            self.give_up(id, cause);
        }
        self.collect(range.first, range.last + 1);
        let drains = self.shared.drains();
        drains
            .get(&range.first)
            .is_none_or(|entry| entry.drain.flows_bytes == 0)
    }

    /// Gives a window up: it holds its flows no longer. What it then cannot read is missing from its volumes.
    pub(super) fn give_up(&mut self, id: u64, cause: Cause) {
        let Some(pending) = self.windows.get_mut(&id).filter(|p| !p.given_up) else {
            return;
        };
        pending.given_up = true;
        let (first, next, total) = (pending.first_drain, pending.next_drain, pending.total);
        if total.packets == 0 {
            self.release(first, next);
            return;
        }
        // First, so that what is missing is no damage after a crash; or at least when there is room.
        let noted = self.note_given_up(id);
        self.release(first, next);
        if !noted && !self.note_given_up(id) {
            tracing::debug!(
                "cannot note that window {id} is given up: after a restart it is counted again"
            );
        }
        let lost = self.given_up.of_mut(cause);
        lost.windows += 1;
        lost.packets = lost.packets.saturating_add(total.packets);
        lost.bytes = lost.bytes.saturating_add(total.bytes);
    }

    fn note_given_up(&self, id: u64) -> bool {
        let Ok((mut manifest, _)) = Manifest::read(&self.shared, id) else {
            return false;
        };
        manifest.given_up = true;
        durable::write(&self.shared.folder, &names::window(id), &manifest).is_ok()
    }

    /// A window needs its drains no longer.
    fn release(&mut self, first: u64, next: u64) {
        for entry in overlapping_mut(&mut self.shared.drains(), first, next) {
            entry.holders = entry.holders.saturating_sub(1);
        }
        self.collect(first, next);
    }

    /// Removes those of the drains `first..next` that no window needs.
    pub(super) fn collect(&mut self, first: u64, next: u64) {
        let first_open = self.first_open();
        let mut drains = self.shared.drains();
        let unneeded: Vec<Arc<Drain>> = overlapping(&drains, first, next)
            .filter(|entry| entry.holders == 0 && entry.drain.range.last < first_open)
            .map(|entry| Arc::clone(&entry.drain))
            .collect();
        for drain in &unneeded {
            if drain.range.first < self.marked {
                drains.remove(&drain.range.first);
            } else if let Some(entry) = drains.get_mut(&drain.range.first) {
                entry.drain = Arc::new(drain.without_flows());
            }
        }
        drop(drains);
        for drain in unneeded {
            if drain.range.first < self.marked {
                self.shared.folder.drop_file(&drain.range.meta());
                self.drain_bytes = self.drain_bytes.saturating_sub(drain.meta_bytes);
            }
            if drain.flows_bytes > 0 {
                self.shared.folder.drop_file(&drain.range.flows());
                self.drain_bytes = self.drain_bytes.saturating_sub(drain.flows_bytes);
            }
        }
    }

    /// Takes a window off the list, and lets go of what it held. Its manifest is still there.
    pub(super) fn take_window(&mut self, id: u64) -> Option<Pending> {
        let pending = self.windows.remove(&id)?;
        self.delivered_early.remove(&id);
        self.window_bytes = self.window_bytes.saturating_sub(pending.bytes);
        if !pending.given_up {
            self.release(pending.first_drain, pending.next_drain);
        }
        Some(pending)
    }

    /// Whether the saved state takes a closed window for open.
    pub(super) fn is_early(&self, pending: &Pending) -> bool {
        let window = &pending.window;
        self.saved.iter().any(|open| {
            open.length_seconds == window.length_seconds
                && open.begins_before((pending.next_drain, window.label.end))
                && open.is_for_any_of(&window.flow_logs)
        })
    }

    /// Removes a window that nobody waits for. If the saved state takes it for open its manifest stays, lest it is closed again after a
    /// crash.
    pub(super) fn remove_if_delivered(&mut self, id: u64) {
        let Some(pending) = self.windows.get(&id) else {
            return;
        };
        if self.waiting(&pending.window).next().is_some() {
            return;
        }
        if !self.is_early(pending) {
            self.shared.folder.drop_file(&names::window(id));
            self.take_window(id);
            return;
        }
        self.delivered_early.insert(id);
        let (first, next) = (pending.first_drain, pending.next_drain);
        let holds = self.windows.get_mut(&id).filter(|p| !p.given_up);
        if let Some(pending) = holds {
            pending.given_up = true;
            self.release(first, next);
        }
    }
}
