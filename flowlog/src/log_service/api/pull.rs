//! Shards, cursors, and logs in the order in which they came.
use axum::http::HeaderValue;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flowlog_model::log_group::{Content, Log, LogGroup, LogGroupList, LogTag};
use prost::Message as _;
use serde_json::json;

use super::error::{Code, LogError};
use super::params::Params;
use super::{Asked, bytes_answer, json_answer};
use crate::log_service::store::{Cursor, Position};
use crate::log_service::types::LogBatch;
use crate::serve::service::shown;

/// The most that a client may ask for at a time.
const MAX_COUNT: u64 = 1000;
/// Logs that are read first; and where the client says no number, all.
const STEP: usize = 100;
/// When there are as many bytes, no more logs are added.
const ENOUGH_BYTES: usize = 10 << 20;

impl Asked {
    /// A logstore has one shard: everything is in the order of arrival.
    pub(super) async fn list_shards(
        &self,
        project: String,
        logstore: String,
    ) -> Result<Response, LogError> {
        let (_, entry) = self.logstore(project, logstore).await?;
        let shard = json!({
            "shardID": 0,
            "status": "readwrite",
            "inclusiveBeginKey": "0".repeat(32),
            "exclusiveEndKey": "f".repeat(32),
            "createTime": entry.created.0.div_euclid(1000),
        });
        Ok(json_answer(&json!([shard])))
    }

    pub(super) async fn cursor(
        &self,
        project: String,
        logstore: String,
    ) -> Result<Response, LogError> {
        let (key, _) = self.logstore(project, logstore).await?;
        let params = Params::of_query(&self.query);
        let position = match params.text("from") {
            Some("begin") => Position::Begin,
            Some("end") => Position::End,
            _ => match params.time("from")? {
                // Nothing has come then or later yet.
                time if i64::from(time) > self.cx.now.0.div_euclid(1000) => Position::End,
                time => Position::Arrived(time),
            },
        };
        let cursor = self.app.logs.store.cursor(&key, position);
        Ok(json_answer(&json!({ "cursor": encode(cursor) })))
    }

    /// At most `count` logs; the product counts groups, which have at least one each.
    pub(super) async fn pull(
        &self,
        project: String,
        logstore: String,
    ) -> Result<Response, LogError> {
        let (key, _) = self.logstore(project, logstore).await?;
        let params = Params::of_query(&self.query);
        if params.text("query").is_some() || params.text("processor").is_some() {
            return Err(LogError::parameter(
                "query",
                "logs are pulled whole; a search gets some of them",
            ));
        }
        let mut cursor = decode(params.text("cursor"))?;
        let end = params
            .text("end_cursor")
            .map(|end| decode(Some(end)))
            .transpose()?;
        let count = params.number("count", MAX_COUNT)?.unwrap_or(STEP);
        let (mut groups, mut logs, mut bytes) = (Vec::new(), 0, 0);
        while logs < count && bytes < ENOUGH_BYTES {
            // A cursor is a number of logs, so the end is so many logs ahead.
            let until_end = end.map_or(u64::MAX, |end| end.0.saturating_sub(cursor.0));
            let step = next_step(logs, bytes)
                .min(count - logs)
                .min(usize::try_from(until_end).unwrap_or(usize::MAX));
            if step == 0 {
                break;
            }
            let (batches, next) = self.app.logs.store.pull(&key, cursor, step).await?;
            // What was before the end may not be kept any more.
            if let Some(end) = end.filter(|end| next > *end) {
                cursor = end;
                break;
            }
            cursor = next;
            let found: usize = batches.iter().map(|batch| batch.logs.len()).sum();
            if found == 0 {
                break;
            }
            logs += found;
            let more = batches.into_iter().map(group);
            groups.extend(more.inspect(|group| bytes += group.encoded_len()));
        }
        let count = groups.len();
        let raw = LogGroupList { log_groups: groups }.encode_to_vec();
        let mut answer = bytes_answer(raw, "application/x-protobuf", self.takes_lz4());
        let headers = answer.headers_mut();
        headers.insert("x-log-count", HeaderValue::from(count));
        let cursor = HeaderValue::from_str(&encode(cursor)).map_err(LogError::internal)?;
        headers.insert("x-log-cursor", cursor);
        Ok(answer)
    }
}

/// How many logs are read next, when so many with so many bytes were: as many as are enough if they are like those. Each step goes through
/// the sequence numbers of a file.
fn next_step(logs: usize, bytes: usize) -> usize {
    let average = bytes
        .checked_div(logs)
        .unwrap_or(ENOUGH_BYTES / STEP)
        .max(1);
    (ENOUGH_BYTES.saturating_sub(bytes) / average).max(1)
}

/// A cursor as clients know it: the number in base64. The official client counts with it.
fn encode(cursor: Cursor) -> String {
    STANDARD.encode(cursor.0.to_string())
}

fn decode(text: Option<&str>) -> Result<Cursor, LogError> {
    let text = text.unwrap_or_default();
    let number = STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    number.map(Cursor).ok_or_else(|| {
        let message = format!(
            "The cursor \"{}\" is none that the service gave.",
            shown(text)
        );
        LogError::new(Code::InvalidCursor, message)
    })
}

fn group(batch: LogBatch) -> LogGroup {
    let content = |(key, value): (String, String)| Content {
        key,
        value: value.into_bytes(),
    };
    let logs = batch.logs.into_iter().map(|log| Log {
        time: log.time,
        contents: log.contents.into_iter().map(content).collect(),
        time_ns: log.time_ns,
    });
    LogGroup {
        logs: logs.collect(),
        topic: Some(batch.topic),
        source: Some(batch.source),
        log_tags: batch
            .tags
            .into_iter()
            .map(|(key, value)| LogTag { key, value })
            .collect(),
        ..LogGroup::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_logs_are_read_as_are_enough() {
        assert_eq!(next_step(0, 0), STEP);
        assert_eq!(next_step(100, 100 * 250), (ENOUGH_BYTES - 25_000) / 250);
        assert_eq!(next_step(9, 9 << 20), 1);
        assert_eq!(next_step(9, 90 << 20), 1);
    }

    #[test]
    fn cursors_are_numbers_in_base64() {
        assert_eq!(encode(Cursor(1_234)), "MTIzNA==");
        assert_eq!(decode(Some("MTIzNA==")), Ok(Cursor(1_234)));
        for bad in [
            None,
            Some(""),
            Some("1234"),
            Some("LTE="),
            Some("流"),
            Some("OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ=="),
        ] {
            assert_eq!(
                decode(bad).unwrap_err().code(),
                Code::InvalidCursor,
                "{bad:?}"
            );
        }
    }
}
