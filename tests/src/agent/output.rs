//! What an agent writes, read by threads while it runs.
use std::{
    io::{BufRead as _, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Record;
use crate::{Error, Result};

/// A place in what an agent has said on standard error so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogMark(usize);

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Records from standard output.
    pub(super) records: Vec<Record>,
    /// Lines of standard output that are not records.
    pub(super) lines: Vec<String>,
    /// Lines of standard error.
    pub(super) log: Vec<String>,
    /// Streams that have not ended.
    open: u8,
    /// Standard output is not read.
    stdout_held: bool,
}

impl Heard {
    pub(super) fn since(&self, mark: LogMark) -> &[String] {
        self.log.get(mark.0..).unwrap_or_default()
    }
}

/// What was read, shared with the threads that read.
#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait_for_release(&self) {
        let released = self
            .changed
            .wait_while(self.lock(), |heard| heard.stdout_held);
        drop(released.unwrap_or_else(PoisonError::into_inner));
    }
}

/// The output of one process.
#[derive(Debug)]
pub(super) struct Output {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Output {
    /// Reads both streams to their ends; standard output not before [`Self::release_stdout`] if it is `held`.
    pub(super) fn read(
        stdout: impl Read + Send + 'static,
        stderr: impl Read + Send + 'static,
        held: bool,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        shared.change(|heard| {
            heard.open = 2;
            heard.stdout_held = held;
        });
        let (out, err) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || {
                out.wait_for_release();
                read_batches(stdout, |lines| take_stdout(&out, lines));
                out.change(|heard| heard.open -= 1);
            }),
            thread::spawn(move || {
                read_batches(stderr, |mut lines| {
                    err.change(|heard| heard.log.append(&mut lines));
                });
                err.change(|heard| heard.open -= 1);
            }),
        ];
        Self { shared, threads }
    }

    /// Has standard output read, if it was held.
    pub(super) fn release_stdout(&self) {
        self.shared.change(|heard| heard.stdout_held = false);
    }

    /// Looks at what was read so far.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.shared.lock())
    }

    /// The end of what was said on standard error so far.
    pub(super) fn mark(&self) -> LogMark {
        self.look(|heard| LogMark(heard.log.len()))
    }

    /// Waits until `found` gives something, looking whenever there is something new.
    ///
    /// # Errors
    /// If it does not within `limit`, or both streams end before; with what was said on standard error.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut found: impl FnMut(&Heard) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut heard = self.shared.lock();
        loop {
            if let Some(value) = found(&heard) {
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let why = if heard.open == 0 {
                "the agent ended before"
            } else if left.is_zero() {
                "it took too long"
            } else {
                heard = self
                    .shared
                    .changed
                    .wait_timeout(heard, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            };
            return Err(Error::Invalid(format!(
                "{what} did not happen within {limit:?} ({why}). {} records; standard error:\n{}",
                heard.records.len(),
                heard.log.join("\n")
            )));
        }
    }

    /// Waits until both streams have ended; false if they have not within `limit`.
    pub(super) fn wait_for_end(&self, limit: Duration) -> bool {
        let heard = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), limit, |heard| heard.open > 0)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        heard.open == 0
    }

    /// Waits for the ends of both streams, which a process that has ended has closed, and gives all that was read.
    pub(super) fn finish(self) -> Heard {
        for thread in self.threads {
            // A thread that panicked has said so on the test's standard error.
            let _ = thread.join();
        }
        std::mem::take(&mut *self.shared.lock())
    }
}

fn take_stdout(shared: &Shared, lines: Vec<String>) {
    let (mut records, mut others) = (Vec::new(), Vec::new());
    for line in lines {
        match serde_json::from_str(&line) {
            Ok(record) => records.push(record),
            _ => others.push(line),
        }
    }
    shared.change(|heard| {
        heard.records.append(&mut records);
        heard.lines.append(&mut others);
    });
}

/// Gives the lines of `stream` to `take`, as many at a time as there are. Ends with the stream.
fn read_batches(stream: impl Read, mut take: impl FnMut(Vec<String>)) {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        lines.push(String::from_utf8_lossy(&line).into_owned());
        line.clear();
        if !reader.buffer().contains(&b'\n') {
            take(std::mem::take(&mut lines));
        }
    }
}
