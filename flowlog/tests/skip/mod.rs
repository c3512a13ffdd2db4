//! Tests that cannot run here say so.
use std::{fs::OpenOptions, io::Write as _};

/// Says why a test does nothing. What a test that passes prints is not shown, so `cargo xtask test` shows the file `FLOWLOG_SKIPS`.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    if let Some(file) = std::env::var_os("FLOWLOG_SKIPS") {
        let mut skips = OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
            .unwrap();
        skips
            .write_all(format!("{test}: {reason}\n").as_bytes())
            .unwrap();
    }
}
