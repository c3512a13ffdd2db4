//! Flushing memory to files, compaction, retention.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    StoreError, failpoint,
    files::{self, Encoded},
    identities::Identities,
    manifest::{DataFile, Manifest},
    merge,
    shared::Shared,
};
use crate::log_service::types::LogstoreKey;

/// How long after its end an hour is taken for complete, and after its last file for quiet, in seconds.
const SETTLED_SECONDS: u32 = 900;
/// How many files of about the same size become one before their hour is complete.
const FAN_IN: usize = 8;
/// How many files become one at most.
const MAX_INPUTS: usize = 64;
/// Octets of logs in memory that become one file at most: a merge, or a query, may have all of them in memory at once where they are long.
const MAX_MEMORY_OCTETS: u64 = 1 << 30;
/// What a log is taken to have of them where that is not noted.
const USUAL_OCTETS: u64 = 256;
/// How many merges of a logstore there are before another one's.
const MAX_MERGES: usize = 64;

/// Unix seconds.
pub(super) fn seconds(now: SystemTime) -> u32 {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Flush, retention in days, compaction. Tries all; gives the first error.
pub(super) async fn all(
    shared: &Arc<Shared>,
    logstores: Vec<(Option<u32>, LogstoreKey)>,
    now: u32,
) -> Result<(), StoreError> {
    let mut result = flush(shared, now).await;
    for (ttl_days, key) in &logstores {
        if let Some(days) = ttl_days {
            result = result.and(retain(shared, key, *days, now).await);
        }
    }
    result = result.and(remove_obsolete(shared).await);
    for (_, key) in &logstores {
        for _ in 0..MAX_MERGES {
            match compact(shared, key, now).await {
                // What was frozen meanwhile comes before the next merge: puts are refused when there is too much of it.
                Ok(true) => result = result.and(flush(shared, now).await),
                Ok(false) => break,
                Err(error) => {
                    result = result.and(Err(error));
                    break;
                }
            }
        }
    }
    result.and(remove_obsolete(shared).await)
}

/// Writes the rows of frozen generations to files, and removes their write-ahead segments.
pub(super) async fn flush(shared: &Arc<Shared>, now: u32) -> Result<(), StoreError> {
    let (generation, keys) = {
        let state = shared.state();
        let generation = state.generation;
        let keys: Vec<LogstoreKey> = state
            .logstores
            .iter()
            .filter(|(_, logstore)| !logstore.frozen(generation).is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        (generation, keys)
    };
    let mut result = Ok(());
    for key in &keys {
        // One logstore that cannot be written holds up no other.
        result = result.and(flush_logstore(shared, key, generation, now).await);
    }
    result?;
    if shared.is_in_doubt() {
        return Err(in_doubt("manifests"));
    }
    let Some(last) = generation.checked_sub(1) else {
        return Ok(());
    };
    let segments = shared.segments.clone();
    let remove = shared
        .segments
        .list()
        .is_ok_and(|found| found.first().is_some_and(|&first| first <= last));
    if !remove {
        return Ok(());
    }
    let identities = shared.identities().to_octets();
    let file = shared.identities_file.clone();
    blocking(move || {
        Identities::save(&file, &identities)
            .map_err(|error| StoreError::io("cannot write", &file, error))?;
        failpoint::reached("identities-saved");
        segments.remove_up_to(last).map_err(|error| {
            StoreError::io("cannot remove segments from", segments.folder(), error)
        })?;
        failpoint::reached("segments-removed");
        Ok(())
    })
    .await
}

async fn flush_logstore(
    shared: &Arc<Shared>,
    key: &LogstoreKey,
    generation: u64,
    now: u32,
) -> Result<(), StoreError> {
    let (rows, manifest) = match shared.state().logstores.get(key) {
        Some(logstore) => (
            logstore.frozen(generation).to_vec(),
            Arc::clone(&logstore.manifest),
        ),
        None => return Ok(()),
    };
    let Some(end) = rows.last().map(super::memory::Rows::end) else {
        return Ok(());
    };
    let mut manifest = Manifest::clone(&manifest);
    manifest.flushed = end;
    for rows in &rows {
        manifest.note_arrival(rows.arrived, rows.first);
    }
    let batches: Vec<_> = rows.into_iter().map(|rows| rows.batch).collect();
    let encoded = blocking(move || merge::encode(&batches)).await?;
    replace(shared, key, &manifest, &[], encoded, now).await?;
    failpoint::reached("flushed");
    Ok(())
}

fn in_doubt(what: impl Into<String>) -> StoreError {
    StoreError::InDoubt { what: what.into() }
}

/// Writes files, and then the manifest that has them in place of others. If that fails, what was written is removed, unless the manifest may
/// be there.
async fn replace(
    shared: &Arc<Shared>,
    key: &LogstoreKey,
    manifest: &Manifest,
    old: &[Arc<DataFile>],
    encoded: Vec<Encoded>,
    now: u32,
) -> Result<(), StoreError> {
    let mut new = Vec::with_capacity(encoded.len());
    let written = async {
        for (Encoded { octets, mut file }, number) in encoded.into_iter().zip(manifest.next_file..)
        {
            file.path = files::path(key, file.hour, number);
            file.made = now;
            let path = file.path.clone();
            new.push(file);
            shared.files.write(&path, octets).await?;
            failpoint::reached("file-written");
        }
        let manifest = manifest.exchange(old, new.clone());
        publish(shared, key, manifest, old).await
    }
    .await;
    if written.is_err() && !matches!(written, Err(StoreError::InDoubt { .. })) {
        for file in &new {
            let _ = shared.files.remove(&file.path).await;
        }
    }
    written
}

/// Replaces a manifest on the disk, and then in memory.
async fn publish(
    shared: &Arc<Shared>,
    key: &LogstoreKey,
    manifest: Manifest,
    old: &[Arc<DataFile>],
) -> Result<(), StoreError> {
    let (manifests, of, saved) = (shared.manifests.clone(), key.clone(), manifest.clone());
    let result = blocking(move || {
        manifests.save(&of, &saved).map_err(|error| {
            let what = format!("the manifest of the logstore {of}: {}", error.error);
            if error.in_doubt {
                return in_doubt(what);
            }
            StoreError::Io {
                what: format!("cannot write the manifest of the logstore {of}"),
                error: error.into(),
            }
        })
    })
    .await;
    match &result {
        Ok(()) => failpoint::reached("manifest-written"),
        Err(StoreError::InDoubt { .. }) => shared.doubt(),
        Err(_) => return result,
    }
    // It is what is read from now on, also if it is in doubt: otherwise its files would be written over.
    if let Some(logstore) = shared.state().logstores.get_mut(key) {
        shared.grow(-logstore.take_over(manifest));
    }
    shared.obsolete().extend(old.iter().cloned());
    result
}

/// Lets go of the hours that are older than the retention.
async fn retain(
    shared: &Arc<Shared>,
    key: &LogstoreKey,
    ttl_days: u32,
    now: u32,
) -> Result<(), StoreError> {
    let Some(manifest) = manifest(shared, key) else {
        return Ok(());
    };
    let kept_from = u64::from(now).saturating_sub(u64::from(ttl_days) * 86_400);
    let old: Vec<_> = manifest
        .files
        .iter()
        .filter(|file| (u64::from(file.hour) + 1) * 3600 <= kept_from)
        .cloned()
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    let manifest = manifest.exchange(&old, Vec::new());
    publish(shared, key, manifest, &old).await?;
    failpoint::reached("retained");
    Ok(())
}

/// Makes a large file of small ones, where there is occasion; tells whether there was.
async fn compact(shared: &Arc<Shared>, key: &LogstoreKey, now: u32) -> Result<bool, StoreError> {
    let Some(manifest) = manifest(shared, key) else {
        return Ok(false);
    };
    let Some(old) = choose(&manifest.files, shared.config.file_rows, now) else {
        return Ok(false);
    };
    if !shared
        .files
        .has_room(old.iter().map(|file| file.octets).sum())
    {
        tracing::warn!("there is no room on the disk to merge files of the logstore {key}");
        return Ok(false);
    }
    let mut inputs = Vec::with_capacity(old.len());
    for file in &old {
        inputs.push(shared.files.read(file).await?);
    }
    let hour = old.first().map_or(0, |file| file.hour);
    let longest = old
        .iter()
        .map(|file| memory_octets(file) / file.rows.max(1))
        .max();
    let chunk_rows = merge::chunk_rows(longest.unwrap_or_default());
    let merged = blocking(move || merge::merge(hour, inputs, chunk_rows)).await?;
    failpoint::reached("merged");
    replace(shared, key, &manifest, &old, vec![merged], now).await?;
    failpoint::reached("compacted");
    Ok(true)
}

/// The files that are to become one: all of an hour that is complete and quiet; else some of about the same size.
fn choose(files: &[Arc<DataFile>], file_rows: u64, now: u32) -> Option<Vec<Arc<DataFile>>> {
    let mut hours: BTreeMap<u32, Vec<&Arc<DataFile>>> = BTreeMap::new();
    let is_small =
        |file: &DataFile| file.rows < file_rows / 2 && memory_octets(file) < MAX_MEMORY_OCTETS / 2;
    for file in files.iter().filter(|file| is_small(file)) {
        hours.entry(file.hour).or_default().push(file);
    }
    hours.into_iter().find_map(|(hour, mut files)| {
        files.sort_by_key(|file| file.rows);
        let end = (u64::from(hour) + 1) * 3600;
        let quiet_since = files
            .iter()
            .map(|file| u64::from(file.made))
            .max()
            .unwrap_or_default()
            .max(end);
        if quiet_since + u64::from(SETTLED_SECONDS) <= u64::from(now) {
            return some_of(files.into_iter(), file_rows, 2);
        }
        let mut tiers: BTreeMap<u32, Vec<&Arc<DataFile>>> = BTreeMap::new();
        for file in files {
            // Three binary digits, so that eight of a tier are one of the next.
            tiers
                .entry(file.rows.max(1).ilog2() / 3)
                .or_default()
                .push(file);
        }
        tiers
            .into_values()
            .find_map(|files| some_of(files.into_iter(), file_rows, FAN_IN))
    })
}

fn memory_octets(file: &DataFile) -> u64 {
    match file.memory_octets {
        0 => file.rows.saturating_mul(USUAL_OCTETS),
        octets => octets,
    }
}

/// As many as may become one, if those are enough.
fn some_of<'a>(
    files: impl Iterator<Item = &'a Arc<DataFile>>,
    file_rows: u64,
    least: usize,
) -> Option<Vec<Arc<DataFile>>> {
    let (mut rows, mut octets) = (0, 0_u64);
    let chosen: Vec<_> = files
        .take(MAX_INPUTS)
        .take_while(|file| {
            rows += file.rows;
            octets = octets.saturating_add(memory_octets(file));
            rows <= file_rows && octets <= MAX_MEMORY_OCTETS
        })
        .cloned()
        .collect();
    (chosen.len() >= least).then_some(chosen)
}

/// Removes the files that no manifest names and no snapshot needs any more.
pub(super) async fn remove_obsolete(shared: &Shared) -> Result<(), StoreError> {
    if shared.is_in_doubt() {
        return Ok(());
    }
    let unused: Vec<_> = {
        let mut obsolete = shared.obsolete();
        // A snapshot cannot begin to need a file that is in no manifest, so a count of 1 stays.
        let (unused, needed) = obsolete
            .drain(..)
            .partition(|file| Arc::strong_count(file) == 1);
        *obsolete = needed;
        unused
    };
    for (at, file) in unused.iter().enumerate() {
        if let Err(error) = shared.files.remove(&file.path).await {
            shared.obsolete().extend(unused[at..].iter().cloned());
            return Err(error);
        }
        failpoint::reached("file-removed");
    }
    Ok(())
}

fn manifest(shared: &Shared, key: &LogstoreKey) -> Option<Arc<Manifest>> {
    shared
        .state()
        .logstores
        .get(key)
        .map(|logstore| Arc::clone(&logstore.manifest))
}

/// Does what takes long beside the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Io {
            what: "the work was not finished".into(),
            error: std::io::Error::other(error.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;

    /// A file of an hour that is long over.
    fn file(number: u64, rows: u64, memory_octets: u64) -> Arc<DataFile> {
        Arc::new(DataFile {
            path: Path::from(format!("{number}.parquet")),
            octets: 1000,
            rows,
            hour: 0,
            min_time: 0,
            max_time: 0,
            min_sequence: 0,
            max_sequence: 0,
            made: 0,
            memory_octets,
        })
    }

    #[test]
    fn files_of_long_logs_become_one_only_as_far_as_memory_goes() {
        let chosen =
            |files: &[Arc<DataFile>]| choose(files, 1 << 22, 1 << 30).map(|files| files.len());
        let of =
            |octets: u64| -> Vec<_> { (0..60).map(|number| file(number, 96, octets)).collect() };
        assert_eq!(chosen(&of(96 * 100)), Some(60));
        // A megabyte for each log.
        assert_eq!(chosen(&of(96 << 20)), Some(10));
        assert_eq!(chosen(&of(600 << 20)), None);
        // What was not noted is what a record has.
        assert_eq!(chosen(&of(0)), Some(60));
        assert_eq!(
            (
                merge::chunk_rows(250),
                merge::chunk_rows(1 << 20),
                merge::chunk_rows(1 << 30)
            ),
            (8192, 8, 1)
        );
    }
}
