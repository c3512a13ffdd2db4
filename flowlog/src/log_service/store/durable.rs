//! Files that are there as a whole or not at all.
//!
//! A file is written under another name, flushed to the disk and then renamed, so that a crash leaves the old one or the new one. JSON has
//! a second line with the CRC-32 of the first, in hexadecimal, which tells what else can happen to it.
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// What a file's name ends with while it is being written.
pub(super) const TEMPORARY: &str = ".tmp";

/// Octets of the last line of JSON: eight digits and the line's end.
const CHECKSUM_OCTETS: usize = 9;

/// Makes a folder and its parents, for their owner only, such that they are still there after a crash.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|path| !path.exists() && !path.as_os_str().is_empty())
        .collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    missing.iter().try_for_each(|made| sync_folder_of(made))
}

/// Makes a file, which only its owner can read; empties one that is there.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Waits until what was made, renamed and removed beside the file is so on the disk.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    super::failpoint::fails(path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Why a file was not written in place of another.
#[derive(Debug)]
pub(super) struct NotWritten {
    pub(super) error: io::Error,
    /// It has its name, but which of the two is there after a loss of power is not known.
    pub(super) in_doubt: bool,
}

impl NotWritten {
    const fn before(error: io::Error) -> Self {
        Self {
            error,
            in_doubt: false,
        }
    }
}

impl From<NotWritten> for io::Error {
    fn from(not_written: NotWritten) -> Self {
        not_written.error
    }
}

/// Writes a file in place of the one that is there.
pub(super) fn write(path: &Path, octets: &[u8]) -> Result<(), NotWritten> {
    let temporary = temporary(path);
    let written = create(&temporary)
        .and_then(|mut file| {
            file.write_all(octets)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(NotWritten::before(error));
    }
    sync_folder_of(path).map_err(|error| NotWritten {
        error,
        in_doubt: true,
    })
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes JSON with its checksum.
pub(super) fn write_json<T: Serialize>(path: &Path, body: &T) -> Result<(), NotWritten> {
    let text = || -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(body)?;
        text.push(b'\n');
        let checksum = crc32fast::hash(&text);
        writeln!(text, "{checksum:08x}")?;
        Ok(text)
    };
    write(path, &text().map_err(NotWritten::before)?)
}

/// Reads JSON with its checksum.
///
/// # Errors
/// `InvalidData` if it is not what was written.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let text = fs::read(path)?;
    let (json, checksum) = text
        .len()
        .checked_sub(CHECKSUM_OCTETS)
        .and_then(|at| text.split_at_checked(at))
        .filter(|(json, checksum)| {
            *checksum == format!("{:08x}\n", crc32fast::hash(json)).as_bytes()
        })
        .ok_or_else(|| damaged("it is damaged: its checksum is wrong".into()))?;
    debug_assert_eq!(checksum.len(), CHECKSUM_OCTETS);
    serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))
}

/// What the file system of a folder has left for us, in octets.
pub(super) fn free_octets(folder: &Path) -> io::Result<u64> {
    let status = nix::sys::statvfs::statvfs(folder)?;
    Ok(status
        .blocks_available()
        .saturating_mul(status.fragment_size()))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}
