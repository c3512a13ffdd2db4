//! Files that are there as a whole or not at all: the spool's folder, and JSON with a checksum in it.
//!
//! Such a file has two lines: the JSON, and the CRC-32 of the first line in hexadecimal. It is written under another name, flushed to the
//! disk and then renamed, so that a crash leaves the old one or the new one. What else can happen to it, the checksum tells.
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::fcntl::posix_fallocate;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::names::{RESERVE, TEMPORARY};

/// Version of all files in a spool.
pub(super) const FORMAT: u32 = 1;

/// Largest JSON file that is read, in octets.
const MAX_JSON_OCTETS: u64 = 64 << 20;

/// Octets of the last line: eight digits and the line's end.
const CHECKSUM_OCTETS: usize = 9;

/// What is kept back for the sums of drains when the disk is full, in octets.
const RESERVE_OCTETS: i64 = 1 << 20;

/// What a file system with blocks of 4 KiB needs for a file, in bytes.
pub(super) fn on_disk(octets: u64) -> u64 {
    octets.div_ceil(4096).saturating_mul(4096)
}

/// Whether there is no room for what was to be written.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The spool's folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: File,
    has_reserve: AtomicBool,
}

impl Folder {
    /// Opens the folder; makes it, for its owner only, if it is not there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        for parent in missing.iter().filter_map(|made| made.parent()) {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            File::open(parent)?.sync_all()?;
        }
        let handle = File::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            handle,
            has_reserve: AtomicBool::new(false),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a file, which only its owner can read; empties one that is there.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(self.file(name))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from), self.file(to))
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a file that nobody needs. One that stays is looked at again when the spool is opened next.
    pub(super) fn drop_file(&self, name: &str) {
        if let Err(error) = self.remove(name) {
            tracing::warn!("cannot remove {}: {error}", self.file(name).display());
        }
    }

    /// Waits until what was made, renamed and removed is so on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Keeps some room of the disk back, if there is some.
    pub(super) fn make_reserve(&self) {
        if self.has_reserve.load(Ordering::Relaxed) {
            return;
        }
        let is_there = fs::metadata(self.file(RESERVE))
            .is_ok_and(|metadata| metadata.len() == RESERVE_OCTETS as u64);
        let made = if is_there {
            Ok(())
        } else {
            self.create(RESERVE)
                .and_then(|file| Ok(posix_fallocate(&file, 0, RESERVE_OCTETS)?))
        };
        match made {
            Ok(()) => self.has_reserve.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!("no room for {}: {error}", self.file(RESERVE).display());
                let _ = self.remove(RESERVE);
            }
        }
    }

    /// Gives back what was kept; tells whether there was something.
    pub(super) fn release_reserve(&self) -> bool {
        let had = self.has_reserve.swap(false, Ordering::Relaxed);
        if had {
            tracing::warn!(
                "the disk of the spool {} is full: using its reserve",
                self.path.display()
            );
            self.drop_file(RESERVE);
        }
        had
    }
}

#[derive(Serialize)]
struct Writing<'a, T> {
    format: u32,
    body: &'a T,
}

#[derive(Deserialize)]
struct Reading<T> {
    format: u32,
    body: T,
}

#[derive(Deserialize)]
struct OfFormat {
    format: u32,
}

/// Writes a JSON file, in place of the one that is there; gives its size in octets.
pub(super) fn write<T: Serialize>(folder: &Folder, name: &str, body: &T) -> io::Result<u64> {
    let format = FORMAT;
    let mut text = serde_json::to_vec(&Writing { format, body })?;
    text.push(b'\n');
    let checksum = crc32fast::hash(&text);
    writeln!(text, "{checksum:08x}")?;
    if text.len() as u64 > MAX_JSON_OCTETS {
        return Err(io::Error::other(format!(
            "it would be larger than {MAX_JSON_OCTETS} bytes"
        )));
    }
    let temporary = format!("{name}{TEMPORARY}");
    let written = folder
        .create(&temporary)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        })
        .and_then(|()| folder.rename(&temporary, name));
    if let Err(error) = written {
        let _ = folder.remove(&temporary);
        return Err(error);
    }
    folder.sync()?;
    Ok(text.len() as u64)
}

/// Why a JSON file cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is not there.
    Missing,
    /// It is not what was written, for this reason.
    Damaged(String),
    /// It is sound, and of another version.
    Format(u32),
    /// The system.
    Io(io::Error),
}

/// Reads a JSON file; gives also its size in octets.
pub(super) fn read<T: DeserializeOwned>(
    folder: &Folder,
    name: &str,
) -> Result<(T, u64), Unreadable> {
    let unreadable = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOENT) => Unreadable::Missing,
        // The disk cannot give it: that does not pass.
        Some(libc::EIO) => Unreadable::Damaged(error.to_string()),
        _ => Unreadable::Io(error),
    };
    let mut text = Vec::new();
    File::open(folder.file(name))
        .and_then(|file| file.take(MAX_JSON_OCTETS + 1).read_to_end(&mut text))
        .map_err(unreadable)?;
    let damaged = |reason: &str| Unreadable::Damaged(reason.to_owned());
    if text.len() as u64 > MAX_JSON_OCTETS {
        return Err(damaged("it is too large"));
    }
    let json = sound(&text).ok_or_else(|| damaged("its checksum is wrong"))?;
    match serde_json::from_slice::<Reading<T>>(json) {
        Ok(Reading {
            format: FORMAT,
            body,
        }) => Ok((body, text.len() as u64)),
        Ok(Reading { format, .. }) => Err(Unreadable::Format(format)),
        Err(error) => match serde_json::from_slice::<OfFormat>(json) {
            Ok(OfFormat { format }) if format != FORMAT => Err(Unreadable::Format(format)),
            _ => Err(Unreadable::Damaged(error.to_string())),
        },
    }
}

/// The JSON of a file, if its checksum is right.
fn sound(text: &[u8]) -> Option<&[u8]> {
    let (json, checksum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_OCTETS)?)?;
    (checksum == format!("{:08x}\n", crc32fast::hash(json)).as_bytes()).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("a/b")).unwrap();
        (temporary, folder)
    }

    #[test]
    fn a_file_is_read_as_written_and_not_if_an_octet_of_it_is_missing_or_another() {
        let (_temporary, folder) = folder();
        let body = vec!["one".to_owned(), "two\n".to_owned()];
        let size = write(&folder, "state.json", &body).unwrap();
        let read_body = || read::<Vec<String>>(&folder, "state.json");
        assert_eq!(read_body().unwrap(), (body, size));
        let path = folder.file("state.json");
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len() as u64, size);
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(read_body(), Err(Unreadable::Damaged(_))));
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&path, &flipped).unwrap();
                assert!(matches!(read_body(), Err(Unreadable::Damaged(_))));
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(read_body(), Err(Unreadable::Missing)));
    }

    #[test]
    fn a_file_of_another_version_is_told_from_a_damaged_one() {
        let (_temporary, folder) = folder();
        let mut text = b"{\"format\":2,\"body\":{\"unheard\":\"of\"}}\n".to_vec();
        let checksum = crc32fast::hash(&text);
        writeln!(text, "{checksum:08x}").unwrap();
        fs::write(folder.file("x"), text).unwrap();
        assert!(matches!(
            read::<Vec<u8>>(&folder, "x"),
            Err(Unreadable::Format(2))
        ));
    }

    #[test]
    fn the_reserve_is_given_back_once_and_can_be_made_again() {
        let (_temporary, folder) = folder();
        assert!(!folder.release_reserve());
        for _ in 0..2 {
            folder.make_reserve();
            let size = fs::metadata(folder.file(RESERVE)).unwrap().len();
            assert_eq!(size, 1 << 20);
            assert!(folder.release_reserve());
            assert!(!folder.release_reserve() && !folder.file(RESERVE).exists());
        }
    }
}
