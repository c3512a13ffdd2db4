//! What the store does with what it finds when it is opened.
use std::collections::{HashMap, HashSet};

use super::{
    StoreError, columns,
    frame::{self, Frame},
    identities::Identity,
    manifest::Manifest,
    memory::{Logstore, Rows},
    shared::Shared,
};
use crate::log_service::types::LogstoreKey;

/// Reads manifests and write-ahead segments, and removes files that no manifest names; gives the generation to go on with.
pub(super) fn recover(shared: &Shared) -> Result<u64, StoreError> {
    let mut manifests = shared.manifests.load().map_err(|error| StoreError::Io {
        what: "cannot read a manifest".into(),
        error,
    })?;
    check_files(shared, &mut manifests)?;
    let mut state = shared.state();
    state.logstores = manifests
        .into_iter()
        .map(|(key, manifest)| (key, Logstore::new(manifest)))
        .collect();
    let mut identities = shared.identities();
    identities
        .load(&shared.identities_file)
        .map_err(|error| StoreError::io("cannot read", &shared.identities_file, error))?;
    let mut seen = HashSet::new();
    let folder = shared.segments.folder();
    let generations = shared
        .segments
        .list()
        .map_err(|error| StoreError::io("cannot read", folder, error))?;
    for &generation in &generations {
        let segment = shared
            .segments
            .read(generation)
            .map_err(|error| StoreError::io("cannot read", folder, error))?;
        let (bodies, mut lost) = frame::split(&segment);
        for body in bodies {
            let Some(frame) = frame::decode(body) else {
                lost += body.len();
                continue;
            };
            if let Some(identity) = frame.identity {
                identities.insert(identity, frame.arrived);
            }
            let grown = replay(&mut state.logstores, &mut seen, frame, generation)?;
            shared.grow(grown);
        }
        if lost > 0 {
            // Nothing that was acknowledged, unless the disk is damaged.
            tracing::warn!(
                "{lost} bytes of the write-ahead segment {generation} are of a put that was not finished, or damaged"
            );
        }
    }
    Ok(generations.last().map_or(1, |last| last + 1))
}

/// Adds a frame to memory, if it is in no file; gives by how many octets memory has grown.
///
/// A put whose flush failed may be there twice: once as what could not be cut off, and once as it was sent again. `seen` has the
/// identities of the frames before this one.
fn replay(
    logstores: &mut HashMap<LogstoreKey, Logstore>,
    seen: &mut HashSet<Identity>,
    frame: Frame,
    generation: u64,
) -> Result<i64, StoreError> {
    let logstore = logstores.entry(frame.key).or_default();
    let is_again = frame
        .identity
        .is_some_and(|identity| !seen.insert(identity));
    if is_again || frame.first < logstore.next {
        return Ok(0);
    }
    let first = i64::try_from(frame.first).unwrap_or(i64::MAX);
    let batch = columns::with_sequence(&frame.contents, first)?;
    Ok(logstore.push(Rows::new(batch, generation, frame.first, frame.arrived)))
}

/// Removes what no manifest names; leaves out of the manifests what is not there.
fn check_files(
    shared: &Shared,
    manifests: &mut HashMap<LogstoreKey, Manifest>,
) -> Result<(), StoreError> {
    let named = manifests.values().flat_map(|manifest| &manifest.files);
    let named: HashSet<_> = named.map(|file| file.path.clone()).collect();
    let found = shared.files.keep(&named)?;
    for (key, manifest) in manifests {
        manifest.files.retain(|file| {
            let is_there = found.contains(&file.path);
            if !is_there {
                tracing::error!(
                    "{} logs of the logstore {key} are gone: the file {} is missing",
                    file.rows,
                    file.path
                );
            }
            is_there
        });
    }
    Ok(())
}
