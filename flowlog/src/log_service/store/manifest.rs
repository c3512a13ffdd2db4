//! Manifests: what files a logstore has, and up to which log. `manifests/PROJECT/LOGSTORE.json`.
//!
//! A file that no manifest names does not count, and a log of a write-ahead segment counts only if the manifest's files do not have it
//! yet. So replacing the manifest is the one step by which logs go from memory to files, from files to larger ones, and away.
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::durable::{self, NotWritten};
use crate::log_service::types::LogstoreKey;

const FORMAT: u32 = 1;

/// How far apart the notes about arrivals are at least, in seconds.
const ARRIVALS_APART: u32 = 60;
/// How many of them there are at most; beyond that, the older half is thinned out.
const MAX_ARRIVALS: usize = 4096;

/// A Parquet file of a logstore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Where it is in the object store.
    #[serde(serialize_with = "path_as_text", deserialize_with = "path_of_text")]
    pub path: ObjectPath,
    /// Its size in octets.
    pub octets: u64,
    /// How many logs it has.
    pub rows: u64,
    /// The hour of its logs' `__time__`, counted from 1970.
    pub hour: u32,
    /// The least `__time__`.
    pub min_time: u32,
    /// The greatest `__time__`.
    pub max_time: u32,
    /// The least `__seq__`.
    pub min_sequence: u64,
    /// The greatest `__seq__`.
    pub max_sequence: u64,
    /// When it was made, in Unix seconds.
    pub made: u32,
    /// Octets of its logs in memory; 0 if the manifest is from before this was noted.
    #[serde(default)]
    pub memory_octets: u64,
}

fn path_as_text<S: Serializer>(path: &ObjectPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path.as_ref())
}

fn path_of_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectPath, D::Error> {
    ObjectPath::parse(String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// What is stored of a logstore in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// Sequence number of the first log that is in no file, and was in none before.
    pub(super) flushed: u64,
    /// Number of the next file.
    pub(super) next_file: u64,
    /// How often a logstore of this name was removed.
    pub(super) incarnation: u32,
    /// When logs arrived: Unix seconds, and the sequence number of the first that arrived then or later. Both grow.
    pub(super) arrivals: Vec<(u32, u64)>,
    pub(super) files: Vec<Arc<DataFile>>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            format: FORMAT,
            flushed: 0,
            next_file: 0,
            incarnation: 0,
            arrivals: Vec::new(),
            files: Vec::new(),
        }
    }
}

impl Manifest {
    /// Notes when a log arrived.
    pub(super) fn note_arrival(&mut self, arrived: u32, sequence: u64) {
        let is_due = self.arrivals.last().is_none_or(|&(last, before)| {
            arrived >= last.saturating_add(ARRIVALS_APART) && sequence > before
        });
        if is_due {
            self.arrivals.push((arrived, sequence));
        }
        if self.arrivals.len() > MAX_ARRIVALS {
            let half = self.arrivals.len() / 2;
            let mut place = 0;
            self.arrivals.retain(|_| {
                place += 1;
                place > half || place % 2 == 1
            });
        }
    }

    /// What is left when the logstore is removed: nothing of it may come back from a write-ahead segment.
    pub(super) fn removed(&self, next: u64) -> Self {
        Self {
            flushed: next,
            incarnation: self.incarnation.wrapping_add(1),
            arrivals: Vec::new(),
            files: Vec::new(),
            ..self.clone()
        }
    }

    /// With other files in place of some.
    pub(super) fn exchange(&self, old: &[Arc<DataFile>], new: Vec<DataFile>) -> Self {
        let mut manifest = self.clone();
        manifest
            .files
            .retain(|file| old.iter().all(|old| old.path != file.path));
        manifest.next_file += new.len() as u64;
        manifest.files.extend(new.into_iter().map(Arc::new));
        if let Some(least) = manifest.files.iter().map(|file| file.min_sequence).min() {
            // Of what is gone, one note is enough.
            let gone = manifest
                .arrivals
                .partition_point(|&(_, sequence)| sequence <= least);
            manifest.arrivals.drain(..gone.saturating_sub(1));
        }
        manifest
    }
}

/// The folder of the manifests.
#[derive(Clone, Debug)]
pub(super) struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        durable::make_folder(&folder)?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self, key: &LogstoreKey) -> PathBuf {
        self.folder
            .join(key.project.as_str())
            .join(format!("{}.json", key.logstore))
    }

    pub(super) fn save(&self, key: &LogstoreKey, manifest: &Manifest) -> Result<(), NotWritten> {
        let path = self.path(key);
        if let Some(folder) = path.parent() {
            durable::make_folder(folder).map_err(|error| NotWritten {
                error,
                in_doubt: false,
            })?;
        }
        durable::write_json(&path, manifest)
    }

    /// All manifests. What was not renamed any more is removed.
    ///
    /// # Errors
    /// If one cannot be read; the text says which.
    pub(super) fn load(&self) -> io::Result<HashMap<LogstoreKey, Manifest>> {
        let mut manifests = HashMap::new();
        for project in fs::read_dir(&self.folder)? {
            let project = project?;
            for file in fs::read_dir(project.path())? {
                let path = file?.path();
                if path.extension().is_some_and(|extension| extension == "tmp") {
                    durable::remove(&path)?;
                    continue;
                }
                let name = |path: &Path| {
                    path.file_stem()
                        .and_then(|stem| stem.to_str().map(str::to_owned))
                };
                let key = name(&project.path())
                    .zip(name(&path))
                    .and_then(|(project, logstore)| {
                        Some(LogstoreKey {
                            project: project.parse().ok()?,
                            logstore: logstore.parse().ok()?,
                        })
                    });
                let manifest: Manifest = durable::read_json(&path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?;
                if manifest.format != FORMAT {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "{}: its format is {}, and only {FORMAT} is known",
                            path.display(),
                            manifest.format
                        ),
                    ));
                }
                if let Some(key) = key {
                    manifests.insert(key, manifest);
                }
            }
        }
        Ok(manifests)
    }
}
