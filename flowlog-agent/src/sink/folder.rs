//! A folder with a file for each window. A file appears whole, under a name made of the window's label and identity: the order of the
//! names is that of time, and a window that is delivered again takes its own place.
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{delivery::WindowIdentity, disk};
use crate::window::Window;

/// Files that are removed at once. Where there are more too many of them, the others go with the next windows.
const MAX_REMOVED: usize = 1024;

/// The last second that a name can have: the end of the year 9999, in Unix seconds.
const LAST_SECOND: u64 = 253_402_300_799;

/// A folder of files.
pub(super) struct Folder {
    folder: PathBuf,
    max_files: u32,
    open: Option<OpenFile>,
    /// Files of windows in the folder, or more, for others may have removed some; none before they are counted.
    files: Option<usize>,
}

struct OpenFile {
    file: File,
    name: String,
}

impl Folder {
    /// The newest `max_files` are kept.
    pub(super) fn new(folder: PathBuf, max_files: u32) -> Self {
        Self {
            folder,
            max_files,
            open: None,
            files: None,
        }
    }

    /// Begins a window's file, whose name will be `name`.
    pub(super) fn begin(&mut self, name: String) -> io::Result<()> {
        if self.files.is_none() {
            disk::create_folder(&self.folder)?;
            self.files = Some(self.look(0)?.files);
        }
        let file = disk::open_empty(&self.temporary(&name))?;
        self.open = Some(OpenFile { file, name });
        Ok(())
    }

    /// Appends lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some(open) => disk::write(&mut open.file, lines),
            None => Err(io::Error::other("no file was begun")),
        }
    }

    /// Returns when the file is on the disk under its name.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        let Some(OpenFile { file, name }) = self.open.take() else {
            return Err(io::Error::other("no file was begun"));
        };
        disk::sync(&file)?;
        let path = self.folder.join(&name);
        let is_new = !path.exists();
        disk::rename_if_there(&self.temporary(&name), &path)?;
        disk::sync_folder(&self.folder)?;
        if is_new {
            self.files = self.files.map(|files| files + 1);
        }
        // The window is delivered, whether or not there are too many others.
        if let Err(error) = self.remove_oldest() {
            tracing::warn!(
                "the oldest files of {} cannot be removed: {error}",
                self.folder.display()
            );
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> io::Result<()> {
        let max_files = self.max_files as usize;
        if self.files.is_none_or(|files| files <= max_files) {
            return Ok(());
        }
        let Found { files, oldest } = self.look(MAX_REMOVED)?;
        self.files = Some(files);
        for name in oldest.iter().take(files.saturating_sub(max_files)) {
            disk::remove_if_there(&self.folder.join(name))?;
            self.files = self.files.map(|files| files.saturating_sub(1));
        }
        Ok(())
    }

    /// Counts the files of windows, and finds the oldest of them, at most `most`. Removes what was not completed.
    fn look(&self, most: usize) -> io::Result<Found> {
        let mut found = Found::default();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if is_of_a_window(name) {
                found.files += 1;
                found.oldest.insert(name.to_owned());
                if found.oldest.len() > most {
                    found.oldest.pop_last();
                }
            } else if is_temporary(name) {
                disk::remove_if_there(&self.folder.join(name))?;
            }
        }
        Ok(found)
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}.tmp"))
    }
}

/// What is in a folder.
#[derive(Default)]
struct Found {
    files: usize,
    oldest: BTreeSet<String>,
}

/// Name of a window's file, as in `20260102T030405Z-20260102T031405Z-9f86d081884c7d65-600-12.log`.
///
/// # Errors
///
/// If the label cannot be written.
pub(super) fn file_name(
    label: Window,
    identity: &WindowIdentity,
    is_json: bool,
) -> io::Result<String> {
    let extension = if is_json { "json" } else { "log" };
    let (start, end) = (moment(label.start)?, moment(label.end)?);
    Ok(format!("{start}-{end}-{identity}.{extension}"))
}

/// A Unix time in ISO 8601's basic format, in UTC.
fn moment(unix_seconds: u64) -> io::Result<String> {
    use std::fmt::Write as _;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds.min(LAST_SECOND));
    let mut text = String::new();
    write!(text, "{}", humantime::format_rfc3339_seconds(time)).map_err(io::Error::other)?;
    text.retain(|character| !matches!(character, '-' | ':'));
    Ok(text)
}

/// Whether it is a name that [`file_name`] gives.
fn is_of_a_window(name: &str) -> bool {
    let Some((stem, "log" | "json")) = name.rsplit_once('.') else {
        return false;
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_moment = |text: &str| {
        text.strip_suffix('Z')
            .and_then(|text| text.split_once('T'))
            .is_some_and(|(day, time)| is_number(day) && is_number(time))
    };
    let parts: Vec<&str> = stem.splitn(6, '-').collect();
    let [start, end, spool, length, window] = parts.as_slice() else {
        return false;
    };
    let is_spool = !spool.is_empty() && spool.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_moment(start) && is_moment(end) && is_spool && is_number(length) && is_number(window)
}

/// Whether it is the name of a window's file that is not complete.
fn is_temporary(name: &str) -> bool {
    name.strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"))
        .is_some_and(is_of_a_window)
}
