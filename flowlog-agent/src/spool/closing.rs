//! Closing a window.
use std::{sync::Arc, time::Duration};

use super::{
    Closing, Pending, RuleIds, Spool, SpoolError, StoredWindow, Volumes, add_volumes,
    catalog::{Meta, overlapping, overlapping_mut},
    durable::{self, Unreadable, on_disk},
    names::{self, DrainRange},
    open::Newest,
    window::{Manifest, WindowEni},
};
use crate::slots::{CapturedEnis, EniInSlot};

/// What the drains of a window sum up to.
#[derive(Debug, Default)]
struct Sums {
    volumes: Volumes,
    skipped: Volumes,
    rule_ids: RuleIds,
    loss_unknown: bool,
}

impl Spool {
    /// Closes a window: durably, when this returns. It has the drains from its first to the newest. The next window of its length begins
    /// with the next drain.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the window is still open then.
    pub fn close_window(&mut self, closing: &Closing<'_>) -> Result<Arc<StoredWindow>, SpoolError> {
        let next_drain = self.next_drain;
        let first_drain = closing.first_drain.min(next_drain);
        let sums = self.sums(first_drain, next_drain)?;
        let id = self.next_window;
        let manifest = Manifest {
            id,
            first_id: id,
            length_seconds: closing.length_seconds,
            start: closing.label.start,
            end: closing.label.end.max(closing.label.start),
            opened_ns: nanoseconds(closing.opened),
            closed_ns: nanoseconds(closing.closed),
            enis: window_enis(closing.captured, closing.opened),
            not_captured: closing
                .captured
                .not_captured
                .iter()
                .map(|eni| eni.as_ref().clone())
                .collect(),
            flow_logs: closing.flow_logs.to_vec(),
            first_drain,
            next_drain,
            volumes: sums.volumes,
            skipped: sums.skipped,
            rule_ids: sums.rule_ids,
            loss_unknown: sums.loss_unknown || closing.loss_unknown,
            given_up: false,
        };
        let name = names::window(id);
        let octets = self
            .with_room(|shared| durable::write(&shared.folder, &name, &manifest))
            .map_err(|source| self.shared.error("write", &name, source))?;
        self.next_window += 1;
        if let Some(open) = &mut self.open {
            let mut newest = Newest::default();
            newest.note(&manifest);
            newest.bring_up(open);
        }
        let window = self.admit(&manifest, octets);
        self.remove_if_delivered(id);
        self.keep_limits();
        Ok(window)
    }

    /// Takes a window that is on the disk into the books.
    pub(super) fn admit(&mut self, manifest: &Manifest, octets: u64) -> Arc<StoredWindow> {
        // Windows of one length have the same flow logs as a rule, and there may be many.
        let same = self
            .windows
            .values()
            .rev()
            .take(8)
            .map(|pending| &pending.window.flow_logs)
            .find(|flow_logs| ***flow_logs == *manifest.flow_logs);
        let flow_logs = same.map_or_else(|| manifest.flow_logs.clone().into(), Arc::clone);
        let window = Arc::new(StoredWindow {
            id: manifest.id,
            length_seconds: manifest.length_seconds,
            label: manifest.label(),
            flow_logs,
            shared: Arc::clone(&self.shared),
        });
        let pending = Pending {
            window: Arc::clone(&window),
            first_drain: manifest.first_drain,
            next_drain: manifest.next_drain,
            total: manifest.total(),
            given_up: manifest.given_up,
            bytes: on_disk(octets),
        };
        self.window_bytes += pending.bytes;
        if !pending.given_up {
            let mut drains = self.shared.drains();
            for entry in overlapping_mut(&mut drains, pending.first_drain, pending.next_drain) {
                entry.holders += 1;
            }
        }
        self.windows.insert(manifest.id, pending);
        window
    }

    /// Sums up the drains `first..next`. One that is missing is lost without trace.
    fn sums(&mut self, first: u64, next: u64) -> Result<Sums, SpoolError> {
        let ranges: Vec<DrainRange> = overlapping(&self.shared.drains(), first, next)
            .map(|entry| entry.drain.range)
            .collect();
        let mut sums = Sums::default();
        let mut expected = first;
        for range in ranges {
            sums.loss_unknown |= range.first != expected || range.last >= next;
            expected = range.last + 1;
            if range.first < first || range.last >= next {
                continue;
            }
            let name = range.meta();
            match durable::read::<Meta>(&self.shared.folder, &name) {
                Ok((meta, _)) if meta.is_sane(range) => {
                    add_volumes(&mut sums.volumes, &meta.volumes);
                    add_volumes(&mut sums.skipped, &meta.skipped);
                    sums.rule_ids.extend(meta.rule_ids);
                    sums.loss_unknown |= meta.loss_unknown;
                }
                Ok(_) | Err(Unreadable::Missing | Unreadable::Damaged(_)) => {
                    tracing::error!(
                        "{} is damaged: what it counted is lost",
                        self.shared.folder.file(&name).display()
                    );
                    // Without its sums nobody could tell what is missing of its flows.
                    self.lose(range);
                    sums.loss_unknown = true;
                }
                Err(unreadable) => {
                    let path = self.shared.folder.file(&name);
                    return Err(SpoolError::unreadable(path, unreadable));
                }
            }
        }
        sums.loss_unknown |= expected != next;
        Ok(sums)
    }

    /// Takes a drain whose sums are lost off the books. Its files are left: the damaged one tells of the loss when the spool is opened again.
    fn lose(&mut self, range: DrainRange) {
        if let Some(entry) = self.shared.drains().remove(&range.first) {
            let bytes = entry.drain.flows_bytes + entry.drain.meta_bytes;
            self.drain_bytes = self.drain_bytes.saturating_sub(bytes);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn window_enis(captured: &CapturedEnis, opened: Duration) -> Vec<WindowEni> {
    let of_slot = |(slot, entry): (u32, &Option<EniInSlot>)| {
        let entry = entry.as_ref()?;
        Some(WindowEni {
            slot,
            eni: entry.eni.as_ref().clone(),
            captured: entry.gone_at.is_none_or(|gone_at| gone_at >= opened),
        })
    };
    (0..).zip(&captured.by_slot).filter_map(of_slot).collect()
}
