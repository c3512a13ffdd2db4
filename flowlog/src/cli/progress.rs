//! What standard error shows while a query takes long, if it is a terminal.
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// What takes less needs no word.
const LONG: Duration = Duration::from_secs(1);

/// Steps of a bar that shows a share.
const STEPS: f64 = 1000.0;

/// How a query is getting on; gone when dropped.
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

    /// So many logs are there after so long, and this share of what the next ones are looked for in is read, from 0 to 1.
    pub(super) fn tick(&mut self, elapsed: Duration, logs: u64, share: Option<f64>) {
        if elapsed < LONG {
            return;
        }
        // It shows nothing where there is no terminal.
        let bar = self.bar.get_or_insert_with(ProgressBar::no_length);
        let (form, position, length) = match share {
            _ if logs > 0 => (
                "{bar:40} {human_pos} of at most {human_len} logs, {msg}",
                logs,
                self.limit,
            ),
            Some(share) => (
                "{bar:40} {percent} % searched, {msg}",
                (share * STEPS) as u64,
                STEPS as u64,
            ),
            None => ("{spinner} searching, {msg}", 0, 0),
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(format!("{} s", elapsed.as_secs()));
        bar.set_length(length);
        bar.set_position(position);
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
