//! A file that is renamed away when it is full: `NAME`, `NAME.1` (newer), `NAME.2`, … It can go back to a position that it had, so
//! that a window that was not delivered to its end is delivered again without a line of it twice.
//!
//! Nobody else is to write to these files or to rename them while no agent runs. Whatever a crash leaves, the files from the oldest to
//! the newest hold what was there at the position, and then only what came after it:
//!
//! | crash | left | going back |
//! |---|---|---|
//! | while lines are written | more in `NAME`, perhaps half a line | cuts it to its length |
//! | while files are renamed | a number that no file has | closes the gap |
//! | after that | newer files | removes them, cuts the position's file, and gives it back its name |
//! | after so many renames that the position's file was the oldest | that file, emptied, as `.NAME.began` | removes all others |
//! | while going back | less of the same | goes on |
//!
//! The position's file never loses its inode while the position may be needed, so no newer file can have its inode number.
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{cursor::Position, disk};

/// A rotating file.
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    /// Files beside the one that is written to.
    max_rotated: u16,
    open: Option<OpenFile>,
    /// Where it stands if nothing was written since it came there.
    at: Option<Position>,
    /// Inode number of the file in which the window began.
    began_in: u64,
    folder_changed: bool,
}

struct OpenFile {
    file: File,
    inode: u64,
    bytes: u64,
}

impl RotatingFile {
    /// `max_files` are kept in all, with the one that is written to; 2 at least.
    pub(super) fn new(path: PathBuf, max_bytes: u64, max_files: u16) -> Self {
        Self {
            path,
            max_bytes,
            max_rotated: max_files.saturating_sub(1).max(1),
            open: None,
            at: None,
            began_in: 0,
            folder_changed: false,
        }
    }

    /// Goes back to the position at which the last delivery was complete; where there is none in this file, what is there is
    /// followed by what will be written. Gives the position from which it goes on, which is to be stored before anything is written.
    pub(super) fn begin(&mut self, at: &Position) -> io::Result<Position> {
        self.open = None;
        let unchanged = self.at.take().as_ref() == Some(at);
        let began_in = match at {
            Position::File {
                path,
                inode,
                length,
            } if *path == self.path => {
                // If nothing was written since, others have done what was done, such as to rotate it their way.
                if !unchanged {
                    self.go_back(*inode, *length)?;
                }
                Some(*inode)
            }
            _ => None,
        };
        let began = self.began();
        if inode(&began)?.is_some_and(|inode| Some(inode) != began_in) {
            disk::remove_if_there(&began)?;
        }
        self.began_in = self.opened()?.inode;
        self.stand()
    }

    /// Appends lines. They stay together: if they have no room, they begin the next file, however long they are.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.at = None;
        let max_bytes = self.max_bytes;
        let bytes = self.opened()?.bytes;
        if bytes > 0 && bytes.saturating_add(lines.len() as u64) > max_bytes {
            self.rotate()?;
        }
        let open = self.opened()?;
        disk::write(&mut open.file, lines)?;
        open.bytes = open.bytes.saturating_add(lines.len() as u64);
        Ok(())
    }

    /// Returns when all that was written is on the disk; gives the position behind it.
    pub(super) fn commit(&mut self) -> io::Result<Position> {
        disk::sync(&self.opened()?.file)?;
        self.stand()
    }

    /// The position behind what is there, once the names of the files are on the disk.
    fn stand(&mut self) -> io::Result<Position> {
        if self.folder_changed
            && let Some(folder) = self.path.parent()
        {
            disk::sync_folder(folder)?;
            self.folder_changed = false;
        }
        let path = self.path.clone();
        let OpenFile { inode, bytes, .. } = *self.opened()?;
        let position = Position::File {
            path,
            inode,
            length: bytes,
        };
        self.at = Some(position.clone());
        Ok(position)
    }

    fn opened(&mut self) -> io::Result<&mut OpenFile> {
        if self.open.is_none() {
            if let Some(folder) = self.path.parent() {
                disk::create_folder(folder)?;
            }
            self.folder_changed |= !self.path.exists();
            let file = disk::open_to_append(&self.path)?;
            let found = file.metadata()?;
            self.open = Some(OpenFile {
                file,
                inode: found.ino(),
                bytes: found.len(),
            });
        }
        self.open
            .as_mut()
            .ok_or_else(|| io::Error::other("the file was just opened"))
    }

    /// Renames each file to the next number. The oldest goes, but for the inode of the file in which the window began.
    fn rotate(&mut self) -> io::Result<()> {
        if let Some(full) = self.open.take() {
            disk::sync(&full.file)?;
        }
        self.folder_changed = true;
        let oldest = self.numbered(self.max_rotated);
        if inode(&oldest)? == Some(self.began_in) {
            let began = self.began();
            disk::rename_if_there(&oldest, &began)?;
            disk::cut(&began, 0)?;
        }
        for number in (0..self.max_rotated).rev() {
            disk::rename_if_there(&self.numbered(number), &self.numbered(number + 1))?;
        }
        Ok(())
    }

    /// Takes away all that came after the first `length` bytes of the file with this inode number.
    fn go_back(&mut self, position: u64, length: u64) -> io::Result<()> {
        let numbers = 0..=self.max_rotated;
        self.folder_changed = true;
        if inode(&self.began())? == Some(position) {
            // All that was there before the window was rotated out by it.
            for number in numbers {
                disk::remove_if_there(&self.numbered(number))?;
            }
            return Ok(());
        }
        for found in numbers.clone() {
            let path = self.numbered(found);
            if inode(&path)? != Some(position) {
                continue;
            }
            let bytes = fs::metadata(&path)?.len();
            if bytes < length {
                break;
            }
            for newer in 0..found {
                disk::remove_if_there(&self.numbered(newer))?;
            }
            if bytes > length {
                disk::cut(&path, length)?;
            }
            return self.close_gaps();
        }
        tracing::warn!(
            "{} was changed by others: what is there is kept, and followed by what was not delivered to its end",
            self.path.display()
        );
        Ok(())
    }

    /// Gives the files the numbers from 0 without a gap, in the order that they have.
    fn close_gaps(&self) -> io::Result<()> {
        let mut next = 0;
        for number in 0..=self.max_rotated {
            let path = self.numbered(number);
            if !path.exists() {
                continue;
            }
            if number != next {
                disk::rename_if_there(&path, &self.numbered(next))?;
            }
            next += 1;
        }
        Ok(())
    }

    /// The file itself is number 0.
    fn numbered(&self, number: u16) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn began(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        self.path
            .with_file_name(format!(".{}.began", name.display()))
    }
}

/// The inode number of a file; none if there is no such file.
fn inode(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
