//! A file that is renamed away when it is full: `NAME`, `NAME.1` (newer), `NAME.2`, …
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::PathBuf,
};

/// A rotating file.
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    max_files: u16,
    open: Option<(File, u64)>,
}

impl RotatingFile {
    /// `max_files` are kept in all, with the one that is written to.
    pub(super) fn new(path: PathBuf, max_bytes: u64, max_files: u16) -> Self {
        Self {
            path,
            max_bytes,
            max_files,
            open: None,
        }
    }

    /// Opens the file if it is not open, and rotates if `octets` more have no room. Lines are not cut: a chunk larger than a file
    /// has a file of its own.
    pub(super) fn make_room_for(&mut self, octets: u64) -> io::Result<()> {
        let size = self.opened()?.1;
        if size > 0 && size.saturating_add(octets) > self.max_bytes {
            self.open = None;
            self.rotate()?;
            self.opened()?;
        }
        Ok(())
    }

    /// Appends; gives how many octets were written.
    pub(super) fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let (file, size) = self.opened()?;
        let written = file.write(octets)?;
        *size += written as u64;
        Ok(written)
    }

    fn opened(&mut self) -> io::Result<&mut (File, u64)> {
        if self.open.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?;
            let size = file.metadata()?.len();
            self.open = Some((file, size));
        }
        self.open
            .as_mut()
            .ok_or_else(|| io::Error::other("the file was just opened"))
    }

    fn rotate(&self) -> io::Result<()> {
        let numbered = |number: u16| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let kept = self.max_files.saturating_sub(1);
        if kept == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..kept).rev() {
            rename_if_there(&numbered(number), &numbered(number + 1))?;
        }
        rename_if_there(&self.path, &numbered(1))
    }
}

fn rename_if_there(from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_files_are_kept_and_no_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/flow.log");
        let mut file = RotatingFile::new(path, 10, 3);
        for line in [
            "first\n",
            "second\n",
            "a line longer than a file\n",
            "fourth\n",
            "5\n",
        ] {
            file.make_room_for(line.len() as u64).unwrap();
            assert_eq!(file.write(line.as_bytes()).unwrap(), line.len());
        }
        let read = |name: &str| fs::read_to_string(folder.path().join("logs").join(name)).unwrap();
        assert_eq!(read("flow.log"), "fourth\n5\n");
        assert_eq!(read("flow.log.1"), "a line longer than a file\n");
        assert_eq!(read("flow.log.2"), "second\n");
        assert!(!folder.path().join("logs/flow.log.3").exists());
    }

    #[test]
    fn an_existing_file_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flow.log");
        fs::write(&path, "before\n").unwrap();
        let mut file = RotatingFile::new(path.clone(), 100, 2);
        file.make_room_for(6).unwrap();
        file.write(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
    }
}
