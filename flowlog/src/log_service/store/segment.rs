//! Write-ahead segments: `wal/GENERATION.wal`, frames one after the other.
//!
//! A segment has the puts of one generation of memory. It is removed when all of that generation is in Parquet files.
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::durable;

/// The folder of the segments.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    folder: PathBuf,
}

/// The segment that grows.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    /// How many octets of it are on the disk and count.
    octets: u64,
    /// What is behind `octets` could not be cut off, so that nothing more may be appended.
    broken: bool,
}

impl Segments {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        durable::make_folder(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("{generation:020}.wal"))
    }

    /// The generations that have a segment, the oldest first.
    pub(super) fn list(&self) -> io::Result<Vec<u64>> {
        let mut generations = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let generation = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse::<u64>().ok())
                .filter(|_| path.extension().is_some_and(|extension| extension == "wal"));
            generations.extend(generation);
        }
        generations.sort_unstable();
        Ok(generations)
    }

    pub(super) fn read(&self, generation: u64) -> io::Result<Vec<u8>> {
        fs::read(self.path(generation))
    }

    pub(super) fn create(&self, generation: u64) -> io::Result<Segment> {
        let path = self.path(generation);
        let file = durable::create(&path)?;
        durable::sync_folder_of(&path)?;
        Ok(Segment {
            file,
            octets: 0,
            broken: false,
        })
    }

    /// Removes the segments of the generations up to this one.
    pub(super) fn remove_up_to(&self, generation: u64) -> io::Result<()> {
        for old in self.list()? {
            if old <= generation {
                durable::remove(&self.path(old))?;
            }
        }
        Ok(())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Segment {
    /// Appends frames, and waits until they are on the disk. If that fails, they are cut off again.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the segment cannot be written any more"));
        }
        let appended = self
            .file
            .write_all(frames)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = appended {
            self.broken = self.cut().is_err();
            // What the kernel did with pages that it failed to write is not known: such a segment gets nothing more.
            self.broken |= !matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
            return Err(error);
        }
        self.octets += frames.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        use std::io::{Seek as _, SeekFrom};
        self.file.set_len(self.octets)?;
        self.file.seek(SeekFrom::Start(self.octets))?;
        self.file.sync_data()
    }

    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}
