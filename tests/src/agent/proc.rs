//! What `/proc` tells of an agent.
use std::{collections::BTreeSet, fs};

use crate::{Error, Result};

/// The most memory that a process has had resident at once, in KiB.
pub(super) fn peak_memory_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(Error::system(format!("read {path}")))?;
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        })
        .ok_or_else(|| Error::Invalid(format!("{path} has no VmHWM")))
}

/// Tags of the BPF programs that a process holds open, by themselves or by a link.
pub(super) fn program_tags(pid: u32) -> Result<BTreeSet<String>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).map_err(Error::system(format!("read {folder}")))?;
    // A file that was closed meanwhile has no tag.
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    Ok(texts
        .filter_map(|text| {
            let tag = text
                .lines()
                .find_map(|line| line.strip_prefix("prog_tag:"))?;
            Some(tag.trim().to_owned())
        })
        .collect())
}
