//! What an agent writes to files.
use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Record;
use crate::{Error, Result};

/// The files of a rotated log that are there, the newest first.
#[must_use]
pub fn rotated(path: &Path) -> Vec<PathBuf> {
    let older = (1..).map(|number| PathBuf::from(format!("{}.{number}", path.display())));
    std::iter::once(path.to_owned())
        .chain(older)
        .take_while(|file| file.exists())
        .collect()
}

/// The records of a file of JSON lines and of those it was rotated to, the oldest first. There are none before the file is there.
///
/// # Errors
/// If a file cannot be read, or a line is no whole record.
pub fn records_of(path: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for file in rotated(path).into_iter().rev() {
        let text =
            fs::read_to_string(&file).map_err(Error::system(format!("read {}", file.display())))?;
        for line in text.split_inclusive('\n') {
            let record = serde_json::from_str(line)
                .ok()
                .filter(|_| line.ends_with('\n'));
            records.push(record.ok_or_else(|| {
                Error::Invalid(format!("{} has a line {line:?}", file.display()))
            })?);
        }
    }
    Ok(records)
}
