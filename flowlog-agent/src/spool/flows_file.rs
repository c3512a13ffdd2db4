//! A file of flows: a header of 32 octets (the magic, the version, the range of drains, and the CRC-32 of these) and sorted runs, each
//! a sequence of blocks. Where the runs are says the drain's meta file.
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    blocks::{self, Family, MAX_BLOCK_OCTETS, Place, StoredKey},
    durable::{FORMAT, Folder},
    names::{DrainRange, TEMPORARY},
};
use crate::flows::Flow;

const MAGIC: [u8; 8] = *b"FLOWLOGF";

/// Octets of the header.
pub(super) const HEADER_OCTETS: u64 = 32;

/// A sorted run in a file, each key once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunIndex {
    /// Family of its flows.
    pub(super) family: Family,
    /// Where its first block begins, in octets.
    pub(super) offset: u64,
    /// Flows.
    pub(super) flows: u64,
}

impl RunIndex {
    /// Where its last block ends; none if there is no such place.
    pub(super) fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.family.run_octets(self.flows)?)
    }
}

fn header(range: DrainRange) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&range.first.to_le_bytes());
    header.extend_from_slice(&range.last.to_le_bytes());
    let checksum = crc32fast::hash(&header);
    header.extend_from_slice(&checksum.to_le_bytes());
    header
}

/// A file of flows that is being written, under a temporary name. It is removed unless it is given its name.
#[derive(Debug)]
pub(super) struct FlowsWriter {
    folder: Arc<Folder>,
    file: File,
    range: DrainRange,
    octets: u64,
    runs: Vec<RunIndex>,
    block: Vec<u8>,
    keep: bool,
}

impl FlowsWriter {
    pub(super) fn create(folder: &Arc<Folder>, range: DrainRange) -> io::Result<Self> {
        let name = range.flows() + TEMPORARY;
        let writer = Self {
            folder: Arc::clone(folder),
            file: folder.create(&name)?,
            range,
            octets: HEADER_OCTETS,
            runs: Vec::new(),
            block: Vec::with_capacity(MAX_BLOCK_OCTETS),
            keep: false,
        };
        writer.file.write_all_at(&header(range), 0)?;
        Ok(writer)
    }

    /// Size so far, in octets.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Writes a run. If that fails it is to be tried again, with the same flows, or the file is to be dropped.
    pub(super) fn write_run<K: StoredKey>(
        &mut self,
        flows: impl IntoIterator<Item = Flow<K>>,
    ) -> io::Result<()> {
        let mut flows = flows.into_iter();
        let run = self.runs.len() as u32;
        let mut index = RunIndex {
            family: K::FAMILY,
            offset: self.octets,
            flows: 0,
        };
        let mut offset = self.octets;
        let mut gathered = Vec::with_capacity(K::FAMILY.flows_of_block());
        loop {
            gathered.clear();
            gathered.extend(flows.by_ref().take(K::FAMILY.flows_of_block()));
            if gathered.is_empty() {
                break;
            }
            let place = Place {
                range: self.range,
                run,
                offset,
            };
            blocks::encode(&mut self.block, place, &gathered);
            self.file.write_all_at(&self.block, offset)?;
            offset += self.block.len() as u64;
            index.flows += gathered.len() as u64;
        }
        if index.flows > 0 {
            self.octets = offset;
            self.runs.push(index);
        }
        Ok(())
    }

    /// Waits until the file is on the disk, and gives it its name. It counts for nothing until its meta file is there.
    pub(super) fn finish(mut self) -> io::Result<(Vec<RunIndex>, u64)> {
        self.file.sync_all()?;
        let name = self.range.flows();
        self.folder.rename(&(name.clone() + TEMPORARY), &name)?;
        self.keep = true;
        Ok((std::mem::take(&mut self.runs), self.octets))
    }
}

impl Drop for FlowsWriter {
    fn drop(&mut self) {
        if !self.keep {
            self.folder.drop_file(&(self.range.flows() + TEMPORARY));
        }
    }
}

/// Counts what cannot be read of a set of files, and tells of the first.
#[derive(Debug, Default)]
pub(super) struct DamageCount(AtomicU64);

impl DamageCount {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, path: &Path, what: &str) {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(
                "{} is damaged ({what}): its flows become SKIPDATA, as everything that is damaged beside it",
                path.display()
            );
        }
    }
}

/// A file of flows that is read.
#[derive(Debug)]
pub(super) struct FlowsFile {
    path: PathBuf,
    file: File,
    range: DrainRange,
    damage: Arc<DamageCount>,
}

impl FlowsFile {
    /// Opens the file; none if it is another, or cannot be read.
    pub(super) fn open(
        folder: &Folder,
        range: DrainRange,
        damage: &Arc<DamageCount>,
    ) -> io::Result<Option<Self>> {
        let path = folder.file(&range.flows());
        let file = File::open(&path)?;
        let mut found = [0; HEADER_OCTETS as usize];
        let read = file.read_exact_at(&mut found, 0);
        if read.is_err() || found[..] != *header(range) {
            damage.add(&path, "its header");
            return Ok(None);
        }
        Ok(Some(Self {
            path,
            file,
            range,
            damage: Arc::clone(damage),
        }))
    }
}

/// Reads a run, a block at a time: 32 KiB of memory. Damaged blocks are left out.
#[derive(Debug)]
pub(super) struct RunReader<K> {
    file: Arc<FlowsFile>,
    run: u32,
    /// Of the next block.
    offset: u64,
    /// Flows in the blocks that are not read yet.
    left: u64,
    block: Vec<u8>,
    /// Number of the next flow in the block, and of the flow after its last.
    next: usize,
    end: usize,
    key: std::marker::PhantomData<K>,
}

impl<K: StoredKey> RunReader<K> {
    pub(super) fn new(file: &Arc<FlowsFile>, run: u32, index: &RunIndex) -> Self {
        Self {
            file: Arc::clone(file),
            run,
            offset: index.offset,
            left: index.flows,
            block: Vec::new(),
            next: 0,
            end: 0,
            key: std::marker::PhantomData,
        }
    }

    fn damaged(&self, reason: &str, offset: u64) {
        let what = format!("the block at {offset}: {reason}");
        self.file.damage.add(&self.file.path, &what);
    }

    /// Reads the next sound block; false if there is none.
    fn read_block(&mut self) -> bool {
        while self.left > 0 {
            let flows = self.left.min(K::FAMILY.flows_of_block() as u64) as usize;
            let place = Place {
                range: self.file.range,
                run: self.run,
                offset: self.offset,
            };
            self.block.resize(K::FAMILY.block_octets(flows), 0);
            self.offset += self.block.len() as u64;
            self.left -= flows as u64;
            match self.file.file.read_exact_at(&mut self.block, place.offset) {
                Ok(()) if blocks::is_sound(K::FAMILY, place, flows, &self.block) => {
                    (self.next, self.end) = (0, flows);
                    return true;
                }
                Ok(()) => self.damaged("its checksum is wrong", place.offset),
                Err(error) => self.damaged(&error.to_string(), place.offset),
            }
        }
        self.block = Vec::new();
        false
    }
}

impl<K: StoredKey> Iterator for RunReader<K> {
    type Item = Flow<K>;

    fn next(&mut self) -> Option<Flow<K>> {
        if self.next == self.end && !self.read_block() {
            return None;
        }
        let flow = blocks::decode(&self.block, self.next);
        self.next += 1;
        flow
    }
}
