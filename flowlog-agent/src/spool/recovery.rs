//! Opening the spool: what is there is read and checked; what was not finished, or is damaged, goes.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::Arc,
};

use super::{
    Damage, Delivered, GivenUp, MAX_PENDING_WINDOWS, Recovered, Spool, SpoolConfig, SpoolError,
    State, StoredState,
    catalog::Shared,
    compaction::Progress,
    cursor,
    durable::{self, Folder, Unreadable},
    found::FoundDrains,
    names::{self, DrainRange, Name},
    open::Newest,
    window::Manifest,
};
use crate::lock::{HostLock, LockError};

/// Gives another random number each time that it is read.
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";

/// Digits of a spool's identity. The thirteenth digit of the UUID is its version, and the same each time.
const IDENTITY_DIGITS: usize = 12;

/// The names in the folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) metas: BTreeSet<DrainRange>,
    pub(super) flows: BTreeSet<DrainRange>,
    windows: BTreeSet<u64>,
    cursors: Vec<String>,
}

pub(super) fn open(config: SpoolConfig) -> Result<(Spool, Recovered), SpoolError> {
    let unusable = |source| SpoolError::Folder {
        path: config.path.clone(),
        source,
    };
    let folder = Arc::new(Folder::open(&config.path).map_err(unusable)?);
    let lock = HostLock::take(&folder.file(names::LOCK)).map_err(|error| match error {
        LockError::Io { source, .. } => unusable(source),
        held @ LockError::Held { .. } => SpoolError::Held(held),
    })?;
    let listing = list(&folder).map_err(unusable)?;
    let mut recovered = Recovered::default();
    let damage = &mut recovered.damage;
    let id = identity(&folder, damage).map_err(unusable)?;
    let found = FoundDrains::read(&folder, &listing, damage)?;
    let had_drains = !found.drains.is_empty();
    let mut spool = Spool {
        next_drain: found.newest() + 1,
        marked: found.marked(),
        drain_bytes: found.bytes(),
        window_bytes: 0,
        shared: Arc::new(Shared::new(folder, found.drains)),
        windows: BTreeMap::new(),
        delivered_early: BTreeSet::new(),
        cursors: BTreeMap::new(),
        open: None,
        saved: Vec::new(),
        next_window: 1,
        loss_unknown: false,
        witnesses: Vec::new(),
        max_pending: MAX_PENDING_WINDOWS,
        given_up: GivenUp::default(),
        full: None,
        compaction: Progress::default(),
        config,
        id,
        lock,
    };
    spool.read_cursors(&listing, damage)?;
    let newest = spool.read_windows(&listing, damage)?;
    let expected = had_drains || !newest.is_empty();
    recovered.state = spool.read_state(&newest, expected, damage)?;
    recovered.mark = found.mark;
    recovered.extras = found.extras;
    let ids: Vec<u64> = spool.windows.keys().copied().collect();
    for id in ids {
        spool.remove_if_delivered(id);
    }
    spool.check_drains(damage);
    spool.collect(0, u64::MAX);
    spool.shared.folder.make_reserve();
    Ok((spool, recovered))
}

/// Reads the identity; makes one for a new spool, and for one whose own cannot be read.
fn identity(folder: &Folder, damage: &mut Damage) -> io::Result<String> {
    match durable::read::<String>(folder, names::IDENTITY) {
        Ok((id, _)) => return Ok(id),
        Err(Unreadable::Missing) => {}
        Err(Unreadable::Io(error)) => return Err(error),
        Err(Unreadable::Damaged(_) | Unreadable::Format(_)) => damage.add(format!(
            "{} is damaged: windows that are delivered from now on are told from earlier ones by a new identity",
            folder.file(names::IDENTITY).display()
        )),
    }
    let uuid = fs::read_to_string(RANDOM_UUID)?;
    let digits = uuid.chars().filter(char::is_ascii_hexdigit);
    let id: String = digits.take(IDENTITY_DIGITS).collect();
    durable::write(folder, names::IDENTITY, &id)?;
    Ok(id)
}

/// Lists the folder, and removes what was not written to its end. Files that are not the spool's are let be.
fn list(folder: &Folder) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut foreign = 0_u64;
    for entry in fs::read_dir(folder.path())? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        match Name::parse(&name) {
            Some(Name::Meta(range)) => drop(listing.metas.insert(range)),
            Some(Name::Flows(range)) => drop(listing.flows.insert(range)),
            Some(Name::Window(id)) => drop(listing.windows.insert(id)),
            Some(Name::Cursor) => listing.cursors.push(name.into_owned()),
            Some(Name::Temporary) => folder.drop_file(&name),
            Some(Name::Single) => {}
            None => {
                foreign += 1;
                if foreign == 1 {
                    let path = folder.file(&name);
                    tracing::warn!("{} is no file of the spool: it is let be", path.display());
                }
            }
        }
    }
    if foreign > 1 {
        let path = folder.path().display();
        tracing::warn!("{foreign} files in {path} are not the spool's");
    }
    Ok(listing)
}

impl Spool {
    fn read_cursors(&mut self, listing: &Listing, damage: &mut Damage) -> Result<(), SpoolError> {
        for name in &listing.cursors {
            let path = self.shared.folder.file(name);
            match durable::read::<cursor::Stored>(&self.shared.folder, name) {
                Ok((stored, _))
                    if names::cursor(&stored.flow_log) == *name
                        && stored.cursor.window <= names::MAX_NUMBER =>
                {
                    let known = Delivered {
                        window: stored.cursor.window,
                        forgotten: stored.forgotten,
                    };
                    self.next_window = self.next_window.max(known.window + 1);
                    self.cursors.insert(stored.flow_log, known);
                }
                Ok(_) => damage.add(format!("{} contradicts itself", path.display())),
                Err(Unreadable::Damaged(reason)) => damage.add(format!(
                    "{} is damaged ({reason}): its flow log may be given windows again",
                    path.display()
                )),
                Err(Unreadable::Missing) => {}
                Err(unreadable) => return Err(SpoolError::unreadable(path, unreadable)),
            }
        }
        Ok(())
    }

    /// Reads the manifests; removes those of windows that were joined to others. Gives the newest ones.
    fn read_windows(
        &mut self,
        listing: &Listing,
        damage: &mut Damage,
    ) -> Result<Newest, SpoolError> {
        let mut newest = Newest::default();
        // The newest first: so a window that others were joined to comes before them.
        let mut joined: BTreeMap<u64, u64> = BTreeMap::new();
        for &id in listing.windows.iter().rev() {
            let name = names::window(id);
            self.next_window = self.next_window.max(id + 1);
            match Manifest::read(&self.shared, id) {
                Ok((manifest, octets)) => {
                    let oldest = joined.entry(manifest.length_seconds).or_insert(u64::MAX);
                    if id >= *oldest {
                        self.shared.folder.drop_file(&name);
                        continue;
                    }
                    *oldest = manifest.first_id;
                    self.next_drain = self.next_drain.max(manifest.next_drain);
                    self.admit(&manifest, octets);
                    newest.note(&manifest);
                }
                Err(Unreadable::Damaged(reason)) => {
                    let path = self.shared.folder.file(&name);
                    damage.add(format!(
                        "{} is damaged ({reason}): its records are lost",
                        path.display()
                    ));
                    self.loss_unknown = true;
                    self.witnesses.push(name);
                }
                Err(Unreadable::Missing) => {}
                Err(unreadable) => {
                    let path = self.shared.folder.file(&name);
                    return Err(SpoolError::unreadable(path, unreadable));
                }
            }
        }
        Ok(newest)
    }

    /// Reads the state, and brings it up to what was closed since.
    fn read_state(
        &mut self,
        newest: &Newest,
        expected: bool,
        damage: &mut Damage,
    ) -> Result<Option<State>, SpoolError> {
        let path = self.shared.folder.file(names::STATE);
        let lost = match durable::read::<StoredState<State>>(&self.shared.folder, names::STATE) {
            Ok((stored, _)) if is_sane(&stored.state) => {
                self.loss_unknown |= stored.loss_unknown;
                let mut state = stored.state;
                self.saved.clone_from(&state.series);
                newest.bring_up(&mut state.series);
                let first_drains = state.series.iter().map(|series| series.first_drain);
                self.next_drain = first_drains.fold(self.next_drain, u64::max);
                self.open = Some(state.series.clone());
                return Ok(Some(state));
            }
            Ok(_) => "damaged (it contradicts itself)".to_owned(),
            Err(Unreadable::Missing) if !expected => return Ok(None),
            Err(Unreadable::Missing) => "missing".to_owned(),
            Err(Unreadable::Damaged(reason)) => format!("damaged ({reason})"),
            Err(unreadable) => return Err(SpoolError::unreadable(path, unreadable)),
        };
        damage.add(format!(
            "{} is {lost}: what was counted since the last windows were closed is lost",
            path.display()
        ));
        self.loss_unknown = true;
        Ok(None)
    }

    /// Tells of drains that open windows should have and have not, and of files of flows that are missing.
    fn check_drains(&mut self, damage: &mut Damage) {
        let first_open = self.first_open();
        let mut expected = first_open;
        let mut drains = self.shared.drains();
        for entry in drains.values_mut() {
            let range = entry.drain.range;
            let is_open = self.open.is_some() && range.last >= first_open;
            if is_open && range.first > expected {
                let number = range.first;
                damage.add(format!(
                    "the drains {expected} to {} are missing",
                    number - 1
                ));
            }
            if is_open {
                expected = range.last + 1;
            }
            let path = self.shared.folder.file(&range.flows());
            if entry.drain.flows_bytes == 0 || path.exists() {
                continue;
            }
            if is_open || entry.holders > 0 {
                let path = path.display();
                damage.add(format!("{path} is missing: its flows become SKIPDATA"));
            }
            self.drain_bytes = self.drain_bytes.saturating_sub(entry.drain.flows_bytes);
            entry.drain = Arc::new(entry.drain.without_flows());
        }
    }
}

fn is_sane(state: &State) -> bool {
    let mut series = state.series.iter();
    series.all(|series| series.first_drain <= names::MAX_NUMBER)
}
