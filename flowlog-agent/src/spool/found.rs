//! The drains that are found when the spool is opened.
use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use super::{
    Damage, KernelMark, SpoolError,
    catalog::{Drain, Drains, Entry, Meta},
    durable::{self, Folder, Unreadable},
    names::DrainRange,
    recovery::Listing,
};

/// The drains that count.
#[derive(Debug, Default)]
pub(super) struct FoundDrains {
    pub(super) drains: Drains,
    /// Where the kernel stood at the newest of them that knows.
    pub(super) mark: Option<KernelMark>,
    /// What the caller gave with it.
    pub(super) extras: serde_json::Value,
    /// The last sequence number in it; 0 if there is none.
    marked_last: u64,
    /// The newest sequence number that is known to be lost; 0 if there is none.
    newest_lost: u64,
}

impl FoundDrains {
    /// Reads the drains. What a crash has left of a compaction, or of a drain that was not committed, is removed.
    pub(super) fn read(
        folder: &Folder,
        listing: &Listing,
        damage: &mut Damage,
    ) -> Result<Self, SpoolError> {
        let mut found = Self::default();
        let mut broken = Vec::new();
        // The largest first: a drain that others were merged into comes before them.
        let mut ranges: Vec<DrainRange> = listing.metas.iter().copied().collect();
        ranges.sort_by_key(|range| Reverse((range.last - range.first, range.first)));
        for range in ranges {
            let name = range.meta();
            match durable::read::<Meta>(folder, &name) {
                Ok((meta, octets)) if meta.is_sane(range) => {
                    found.add(folder, meta, octets, damage);
                }
                Ok(_) => broken.push((range, "it contradicts itself".to_owned())),
                Err(Unreadable::Damaged(reason)) => broken.push((range, reason)),
                Err(Unreadable::Missing) => {}
                Err(unreadable) => {
                    return Err(SpoolError::unreadable(folder.file(&name), unreadable));
                }
            }
        }
        broken.sort_by_key(|(range, _)| *range);
        for (range, reason) in broken {
            found.lose(folder, range, &reason, damage);
        }
        found.remove_uncommitted(folder, &listing.flows);
        Ok(found)
    }

    fn add(&mut self, folder: &Folder, meta: Meta, octets: u64, damage: &mut Damage) {
        let range = meta.range();
        let overlaps = super::catalog::overlapping(&self.drains, range.first, range.last + 1)
            .map(|entry| entry.drain.range)
            .next();
        if let Some(other) = overlaps {
            if !other.contains(range) {
                let path = folder.file(&range.meta());
                damage.add(format!(
                    "{} overlaps the drains {other}: it is left out",
                    path.display()
                ));
            }
            folder.drop_file(&range.meta());
            folder.drop_file(&range.flows());
            return;
        }
        let drain = Arc::new(Drain::new(&meta, octets));
        self.drains.insert(range.first, Entry { drain, holders: 0 });
        if meta.mark.is_some() && meta.last > self.marked_last {
            (self.mark, self.extras) = (meta.mark, meta.extras);
            self.marked_last = meta.last;
        }
    }

    /// A drain whose meta file is damaged is lost, but for what there is of it before it was merged.
    fn lose(&mut self, folder: &Folder, range: DrainRange, reason: &str, damage: &mut Damage) {
        let (name, newest) = (range.meta(), self.newest_sound());
        let covered: u64 = super::catalog::overlapping(&self.drains, range.first, range.last + 1)
            .map(|entry| entry.drain.range)
            .map(|other| other.last.min(range.last) - other.first.max(range.first) + 1)
            .sum();
        if covered == range.last - range.first + 1 {
            folder.drop_file(&name);
            return;
        }
        let path = folder.file(&name);
        damage.add(format!(
            "{} is damaged ({reason}): what it counted is lost",
            path.display()
        ));
        self.newest_lost = self.newest_lost.max(range.last);
        if range.last <= newest {
            // The gap tells of it.
            folder.drop_file(&name);
            return;
        }
        // There is nothing newer, and so no gap: a drain of which nothing is known takes its place.
        let mut meta = Meta::empty(DrainRange {
            first: range.first.max(newest + 1),
            last: range.last,
        });
        meta.loss_unknown = true;
        match durable::write(folder, &meta.range().meta(), &meta) {
            Ok(octets) => {
                if meta.range() != range {
                    folder.drop_file(&name);
                }
                self.add(folder, meta, octets, damage);
            }
            Err(error) => tracing::warn!("cannot write {}: {error}", path.display()),
        }
    }

    fn remove_uncommitted(&self, folder: &Folder, flows: &BTreeSet<DrainRange>) {
        for range in flows {
            let entry = self.drains.get(&range.first);
            let counts = entry
                .is_some_and(|entry| entry.drain.range == *range && entry.drain.flows_bytes > 0);
            if !counts {
                tracing::info!("{} was not committed: removed", range.flows());
                folder.drop_file(&range.flows());
            }
        }
    }

    fn newest_sound(&self) -> u64 {
        self.drains
            .last_key_value()
            .map_or(0, |(_, entry)| entry.drain.range.last)
    }

    /// The newest sequence number that was given; 0 if none was.
    pub(super) fn newest(&self) -> u64 {
        self.newest_sound().max(self.newest_lost)
    }

    /// First of the drains that are kept for the mark.
    pub(super) fn marked(&self) -> u64 {
        let of_mark = self.drains.range(..=self.marked_last).next_back();
        let kept = of_mark.filter(|_| self.marked_last > 0);
        kept.or(self.drains.last_key_value())
            .map_or(0, |(first, _)| *first)
    }

    /// What they take on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.drains
            .values()
            .map(|entry| entry.drain.flows_bytes + entry.drain.meta_bytes)
            .sum()
    }
}
