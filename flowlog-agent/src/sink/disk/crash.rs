//! Crashes for tests: the disk's steps stop at a chosen one, for the thread that asked for it.
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

thread_local! {
    /// Steps until the crash; none if there is none to come.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    /// Lengths in bytes up to which files are on the disk, by inode.
    static SYNCED: RefCell<HashMap<u64, u64>> = RefCell::default();
}

/// Lets the step after the next `steps` fail, and all that follow.
pub(in crate::sink) fn after(steps: u32) {
    LEFT.set(Some(steps));
}

/// No more of it; gives whether it came to the crash.
pub(in crate::sink) fn none() -> bool {
    LEFT.take() == Some(0)
}

/// A step; an error once the crash has come.
pub(in crate::sink) fn step() -> io::Result<()> {
    match LEFT.get() {
        None => Ok(()),
        Some(0) => Err(io::Error::other("a crash")),
        Some(left) => {
            LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}

/// Only notes what would be on the disk: thousands of crashes are tried.
pub(in crate::sink) fn sync_now(file: &File) -> io::Result<()> {
    let file = file.metadata()?;
    SYNCED.with_borrow_mut(|synced| synced.insert(file.ino(), file.len()));
    Ok(())
}

/// What a power failure does: files lose what is not on the disk.
pub(in crate::sink) fn lose_what_is_not_synced(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let there = entry.metadata().unwrap();
        let synced = SYNCED.with_borrow(|synced| synced.get(&there.ino()).copied());
        let length = synced.unwrap_or(0).min(there.len());
        let file = File::options().write(true).open(entry.path()).unwrap();
        file.set_len(length).unwrap();
    }
}
