//! Logs on their way into the store: gathered in columns, and as a frame of a write-ahead segment has them.
use std::borrow::Cow;

use arrow::array::RecordBatch;

use super::{PutError, columns::Columns, frame, schema::TAG_PREFIX};
use crate::log_service::types::LogBatch;

/// Rows for which there is room at first; more are made room for as they come.
const FIRST_ROWS: usize = 16_384;
/// What a log takes besides its keys and values, in octets.
const LOG_OCTETS: usize = 16;
/// Most nanoseconds below a second.
const MAX_NANOSECONDS: u32 = 999_999_999;

/// What a row takes besides its keys and values, at most, in octets of memory: a place in each column, which may grow to twice what is
/// needed, and as much in the frame.
pub const ROW_OCTETS: usize = 320;

/// Logs of a put, gathered in columns one after the other. No log is held besides.
pub struct Gathered {
    columns: Columns,
    topic: String,
    source: String,
    tags: Vec<(String, String)>,
    /// Octets that each log has of topic, source and tags: they are kept with each.
    each: usize,
    logs: usize,
    octets: usize,
    most: usize,
}

/// Logs that are ready to be written.
pub struct Prepared {
    pub(super) contents: RecordBatch,
    /// `contents` as a frame has it.
    pub(super) frame: Vec<u8>,
    /// Of keys and values.
    pub(super) octets: usize,
}

impl Prepared {
    /// The logs as columns, without their order of arrival.
    #[must_use]
    pub const fn rows(&self) -> &RecordBatch {
        &self.contents
    }
}

impl Gathered {
    /// For about so many logs, of at most so many octets of keys and values.
    #[must_use]
    pub fn new(logs: usize, most: usize) -> Self {
        Self {
            columns: Columns::new(logs.min(FIRST_ROWS)),
            topic: String::new(),
            source: String::new(),
            tags: Vec::new(),
            each: LOG_OCTETS,
            logs: 0,
            octets: 0,
            most,
        }
    }

    /// Says what the logs have in common that are added from now on.
    pub fn begin<'t>(
        &mut self,
        topic: &str,
        source: &str,
        tags: impl IntoIterator<Item = (&'t str, &'t str)>,
    ) {
        topic.clone_into(&mut self.topic);
        source.clone_into(&mut self.source);
        self.tags.clear();
        let keyed = |(key, value)| (format!("{TAG_PREFIX}{key}"), String::from(value));
        self.tags.extend(tags.into_iter().map(keyed));
        let tags = self.tags.iter();
        let tags: usize = tags
            .map(|(key, value)| key.len() - TAG_PREFIX.len() + value.len())
            .sum();
        self.each = topic.len() + source.len() + tags + LOG_OCTETS;
    }

    /// Adds a log: its time in Unix seconds, what that leaves out in nanoseconds, its keys and values.
    ///
    /// # Errors
    /// [`PutError::Invalid`] if the logs are more than a put may have, or the time is none.
    pub fn add<'c>(
        &mut self,
        time: u32,
        time_ns: Option<u32>,
        contents: impl Iterator<Item = (&'c str, Cow<'c, str>)>,
    ) -> Result<(), PutError> {
        if let Some(ns) = time_ns.filter(|&ns| ns > MAX_NANOSECONDS) {
            return Err(PutError::Invalid(format!(
                "a log's time has {ns} nanoseconds below a second: allowed are at most {MAX_NANOSECONDS}"
            )));
        }
        let mut octets = self.each;
        let counted = contents.inspect(|(key, value)| octets = octets + key.len() + value.len());
        self.columns
            .append(
                (time, time_ns),
                (&self.topic, &self.source),
                &self.tags,
                counted,
            )
            .map_err(|error| PutError::Invalid(error.to_string()))?;
        self.logs += 1;
        self.octets += octets;
        if self.octets > self.most {
            return Err(PutError::Invalid(format!(
                "the logs have more than {} bytes, which are allowed at once",
                self.most
            )));
        }
        Ok(())
    }

    /// Adds the logs of batches.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_batches(&mut self, batches: &[LogBatch]) -> Result<(), PutError> {
        for batch in batches {
            let tags = batch.tags.iter();
            self.begin(
                &batch.topic,
                &batch.source,
                tags.map(|(key, value)| (key.as_str(), value.as_str())),
            );
            for log in &batch.logs {
                let contents = log.contents.iter();
                let contents =
                    contents.map(|(key, value)| (key.as_str(), Cow::Borrowed(value.as_str())));
                self.add(log.time, log.time_ns, contents)?;
            }
        }
        Ok(())
    }

    /// How many logs there are.
    #[must_use]
    pub const fn logs(&self) -> usize {
        self.logs
    }

    /// The logs as they are to be written. It takes milliseconds.
    ///
    /// # Errors
    /// [`PutError::Invalid`] if a column would be larger than 2 GiB.
    pub fn prepare(self) -> Result<Prepared, PutError> {
        let invalid = |error: arrow::error::ArrowError| PutError::Invalid(error.to_string());
        let contents = self.columns.finish().map_err(invalid)?;
        let frame = frame::encode(&contents).map_err(invalid)?;
        Ok(Prepared {
            contents,
            frame,
            octets: self.octets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_no_more_than_is_counted() {
        // One more than what a power of two has room for.
        for logs in [1 << 14, (1 << 16) + 1, 100_000] {
            let mut gathered = Gathered::new(logs, usize::MAX);
            for _ in 0..logs {
                gathered.add(1, None, std::iter::empty()).unwrap();
            }
            let prepared = gathered.prepare().unwrap();
            let octets = prepared.contents.get_array_memory_size() + prepared.frame.capacity();
            assert!(octets <= logs * ROW_OCTETS, "{} a row", octets / logs);
        }
    }
}
