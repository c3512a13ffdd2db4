//! The steps by which sinks change files. All of them are here, so that a test can stop at each as a crash would.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

/// Makes a folder and those above it, so that they are there after a crash.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
        step()?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        sync_folder(parent)?;
    }
    Ok(())
}

/// Opens a file to append to it; makes it if need be.
pub(super) fn open_to_append(path: &Path) -> io::Result<File> {
    step()?;
    OpenOptions::new().create(true).append(true).open(path)
}

/// Opens an empty file; empties it if it is there.
pub(super) fn open_empty(path: &Path) -> io::Result<File> {
    step()?;
    File::create(path)
}

/// Writes all of it, or fails after a part.
pub(super) fn write(file: &mut File, octets: &[u8]) -> io::Result<()> {
    if let Err(crash) = step() {
        let part = octets.get(..octets.len() / 2).unwrap_or_default();
        return file.write_all(part).and(Err(crash));
    }
    file.write_all(octets)
}

/// Cuts a file to `length` bytes.
pub(super) fn cut(path: &Path, length: u64) -> io::Result<()> {
    step()?;
    OpenOptions::new().write(true).open(path)?.set_len(length)
}

/// Renames a file, if it is there, over one that may be there.
pub(super) fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    if_there(fs::rename(from, to))
}

/// Removes a file, if it is there.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    step()?;
    if_there(fs::remove_file(path))
}

/// Returns when what was written to the file is on the disk.
pub(super) fn sync(file: &File) -> io::Result<()> {
    step()?;
    sync_now(file)
}

/// Returns when the names in the folder are on the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    step()?;
    sync_now(&File::open(folder)?)
}

fn if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(not(test))]
fn sync_now(file: &File) -> io::Result<()> {
    file.sync_all()
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) mod crash;
#[cfg(test)]
use crash::{step, sync_now};
