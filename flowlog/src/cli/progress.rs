//! What standard error shows while a search takes long, if it is a terminal.
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// What takes less needs no word.
const LONG: Duration = Duration::from_secs(1);

/// How a search is getting on; gone when dropped.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// At most how many logs are got, page by page.
    limit: u64,
}

impl Progress {
    /// Nothing is shown yet.
    pub(super) const fn new(limit: u64) -> Self {
        Self { bar: None, limit }
    }

    /// So many logs are there after so long.
    pub(super) fn tick(&mut self, elapsed: Duration, logs: u64) {
        if elapsed < LONG {
            return;
        }
        let limit = self.limit;
        // It shows nothing where there is no terminal.
        let bar = self.bar.get_or_insert_with(|| ProgressBar::new(limit));
        // How far a page, or an SQL, has come is not known.
        let form = if logs == 0 {
            "{spinner} searching, {msg}"
        } else {
            "{bar:40} {human_pos} of at most {human_len} logs, {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(format!("{} s", elapsed.as_secs()));
        bar.set_position(logs);
        bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
