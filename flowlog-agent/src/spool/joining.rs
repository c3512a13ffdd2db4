//! Joining pending windows, when there are too many of them: what they lost stays known, to the packet.
use std::{collections::BTreeMap, sync::Arc};

use flowlog_model::record::Eni;

use super::{
    Cause, RuleIds, Spool, Volumes, add_volumes, durable, names,
    window::{MAX_SLOTS, Manifest, WindowEni},
};

impl Spool {
    /// Gives up two consecutive windows of the same length that are for the same flow logs, and makes one of them; the oldest that nobody
    /// is reading. False if there are none.
    pub(super) fn join_oldest(&mut self) -> bool {
        // By length, the window before.
        let mut before: BTreeMap<u64, u64> = BTreeMap::new();
        let ids: Vec<u64> = self.windows.keys().copied().collect();
        for id in ids {
            let Some(pending) = self.windows.get(&id) else {
                continue;
            };
            let earlier = before.insert(pending.window.length_seconds, id);
            if let Some(earlier) = earlier
                && self.can_be_joined(earlier, id)
                && let Some(joined) = self.joined(earlier, id)
            {
                return self.join(earlier, &joined);
            }
        }
        false
    }

    fn can_be_joined(&self, earlier: u64, later: u64) -> bool {
        let (Some(earlier), Some(later)) = (self.windows.get(&earlier), self.windows.get(&later))
        else {
            return false;
        };
        // Whoever has a window in hand would deliver it as it was, and then once more as a part of another.
        let unread = |window| Arc::strong_count(window) == 1;
        unread(&earlier.window)
            && unread(&later.window)
            // By the flow logs that it names it is known after a crash, and joined windows name only those that wait.
            && !self.is_early(later)
            && self.waiting(&earlier.window).next().is_some()
            && self
                .waiting(&earlier.window)
                .eq(self.waiting(&later.window))
    }

    /// What two windows are together; none if they cannot be read, or have too many ENIs.
    fn joined(&self, earlier: u64, later: u64) -> Option<Manifest> {
        let read = |id| Some(Manifest::read(&self.shared, id).ok()?.0);
        let mut joined = joined(&read(earlier)?, read(later)?)?;
        let waiting = self.waiting(&self.windows.get(&later)?.window);
        joined.flow_logs = waiting.map(str::to_owned).collect();
        Some(joined)
    }

    /// Puts the joined window in the place of the later one, and removes the earlier one.
    fn join(&mut self, earlier: u64, joined: &Manifest) -> bool {
        let later = joined.id;
        for id in [earlier, later] {
            self.give_up(id, Cause::Size);
        }
        let written = durable::write(&self.shared.folder, &names::window(later), joined);
        let octets = match written {
            Ok(octets) => octets,
            Err(error) => {
                tracing::warn!("cannot join the windows {earlier} and {later}: {error}");
                return false;
            }
        };
        self.shared.folder.drop_file(&names::window(earlier));
        for id in [earlier, later] {
            self.take_window(id);
        }
        self.admit(joined, octets);
        true
    }
}

/// The ENIs of joined windows, in slots that are given out anew: a slot may have been of two ENIs, one after the other.
#[derive(Default)]
struct Slots {
    by_eni: BTreeMap<String, Vec<u32>>,
    enis: Vec<WindowEni>,
}

impl Slots {
    fn take(&mut self, eni: Eni, captured: bool) -> u32 {
        let known = self.by_eni.entry(eni.eni_id.clone()).or_default();
        let same = known.iter().find(|slot| {
            self.enis
                .get(**slot as usize)
                .is_some_and(|entry| entry.eni == eni)
        });
        if let Some(slot) = same.copied() {
            if let Some(entry) = self.enis.get_mut(slot as usize) {
                entry.captured |= captured;
            }
            return slot;
        }
        let slot = self.enis.len() as u32;
        known.push(slot);
        self.enis.push(WindowEni {
            slot,
            eni,
            captured,
        });
        slot
    }
}

/// One window without flows instead of two; none if it would have too many ENIs.
fn joined(first: &Manifest, second: Manifest) -> Option<Manifest> {
    let mut slots = Slots::default();
    let mut skipped = Volumes::new();
    let mut not_captured = first.not_captured.clone();
    not_captured.extend(second.not_captured.iter().cloned());
    not_captured.sort_by(|a, b| a.eni_id.cmp(&b.eni_id));
    not_captured.dedup();
    let mut of_nobody = false;
    for manifest in [first, &second] {
        let mut lost = manifest.skipped.clone();
        add_volumes(&mut lost, &manifest.volumes);
        for WindowEni {
            slot,
            eni,
            captured,
        } in &manifest.enis
        {
            let new = slots.take(eni.clone(), *captured);
            if let Some(volume) = lost.remove(slot) {
                add_volumes(&mut skipped, &Volumes::from([(new, volume)]));
            }
        }
        // Its slot may be another's now.
        of_nobody |= !lost.is_empty();
    }
    let fits = slots.enis.len() <= MAX_SLOTS as usize && not_captured.len() <= MAX_SLOTS as usize;
    fits.then_some(Manifest {
        first_id: first.first_id,
        start: first.start,
        opened_ns: first.opened_ns,
        enis: slots.enis,
        not_captured,
        first_drain: second.next_drain,
        volumes: Volumes::new(),
        skipped,
        rule_ids: RuleIds::new(),
        loss_unknown: first.loss_unknown || second.loss_unknown || of_nobody,
        given_up: true,
        ..second
    })
}
