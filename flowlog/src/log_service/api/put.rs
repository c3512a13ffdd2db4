//! Putting logs.
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use flowlog_model::log_group::{self, BATCH_ID_TAG, LogGroup};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{Code, LogError, sentence};
use crate::log_service::types::{Log, LogBatch};
use crate::serve::moment::Moment;

/// How far a log may be in the future, in seconds.
const MAX_AHEAD_SECONDS: i64 = 15 * 60;
/// Longest log, in bytes of its keys and values.
const MAX_LOG_BYTES: usize = 1 << 20;
/// Longest identity of a batch, in bytes.
const MAX_IDENTITY_BYTES: usize = 1024;
/// What a permit stands for, in bytes.
const PERMIT_BYTES: usize = 1024;

/// How much may be in hand at the same time, of all puts together: compressed, decompressed and read.
pub(super) struct InHand(Arc<Semaphore>);

impl InHand {
    /// At most so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / PERMIT_BYTES)))
    }

    /// Takes as much as a put with these headers needs, until the permit is dropped.
    ///
    /// # Errors
    /// [`Code::ServerBusy`] if there is not as much; it will be when other puts are done.
    pub(super) fn take(&self, size: &Size) -> Result<OwnedSemaphorePermit, LogError> {
        // A log that is read takes about three times as much as its bytes, and so does its way to the disk.
        let bytes = size.body + 4 * size.raw;
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.0)
            .try_acquire_many_owned(permits)
            .map_err(|_| {
                let message =
                    "As many logs as are allowed are on their way to the disk: try again.";
                LogError::new(Code::ServerBusy, message)
            })
    }
}

/// What the headers of a put say of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes of the body at most.
    pub(super) body: usize,
    /// Bytes when it is decompressed.
    raw: usize,
    is_compressed: bool,
}

impl Size {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`Code::ParameterInvalid`], [`Code::PostBodyTooLarge`].
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, LogError> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| header(name).and_then(|text| text.parse::<usize>().ok());
        let raw = number("x-log-bodyrawsize").ok_or_else(|| {
            LogError::parameter(
                "x-log-bodyrawsize",
                "it is to be the size of the body, not compressed, in bytes",
            )
        })?;
        let is_compressed = match header("x-log-compresstype").unwrap_or_default() {
            "" => false,
            "lz4" => true,
            _ => {
                return Err(LogError::parameter(
                    "x-log-compresstype",
                    "allowed is lz4, or none",
                ));
            }
        };
        let body = number("content-length").unwrap_or(log_group::MAX_RAW_BYTES);
        if raw.max(body) > log_group::MAX_RAW_BYTES {
            let message = format!(
                "Allowed are {} bytes of logs at a time.",
                log_group::MAX_RAW_BYTES
            );
            return Err(LogError::new(Code::PostBodyTooLarge, message));
        }
        Ok(Self {
            body,
            raw,
            is_compressed,
        })
    }
}

/// Logs that are to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    /// Logs, without those that are older than the logstore keeps any.
    pub(super) batch: LogBatch,
    /// The batch is stored once under this identity, however often it is sent.
    pub(super) identity: Option<String>,
}

impl Put {
    /// Reads a body. Logs older than `ttl_days` are left out: they would be removed at once.
    ///
    /// # Errors
    /// [`Code::PostBodyInvalid`], [`Code::PostBodyTooLarge`], [`Code::InvalidTimestamp`].
    pub(super) fn read(
        body: &[u8],
        size: &Size,
        ttl_days: u32,
        now: Moment,
    ) -> Result<Self, LogError> {
        let invalid = |error: &dyn std::fmt::Display| {
            LogError::new(
                Code::PostBodyInvalid,
                sentence(&format_args!("the body cannot be read: {error}")),
            )
        };
        let group = if size.is_compressed {
            let raw = log_group::decompress(body, size.raw).map_err(|error| invalid(&error))?;
            LogGroup::read(&raw)
        } else if body.len() == size.raw {
            LogGroup::read(body)
        } else {
            return Err(LogError::parameter(
                "x-log-bodyrawsize",
                "it is not the size of the body",
            ));
        };
        let group = group.map_err(|error| invalid(&error))?;
        let (mut identity, mut tags) = (None, Vec::with_capacity(group.log_tags.len()));
        for tag in group.log_tags {
            if tag.key == BATCH_ID_TAG {
                identity =
                    Some(tag.value).filter(|id| (1..=MAX_IDENTITY_BYTES).contains(&id.len()));
                if identity.is_none() {
                    let clause = format_args!("allowed are 1 to {MAX_IDENTITY_BYTES} bytes");
                    return Err(LogError::parameter(BATCH_ID_TAG, clause));
                }
            } else {
                tags.push((tag.key, tag.value));
            }
        }
        let now_seconds = now.0.div_euclid(1000);
        let oldest = now_seconds - i64::from(ttl_days) * 86_400;
        let mut logs = Vec::with_capacity(group.logs.len());
        for log in group.logs {
            let time = i64::from(log.time);
            if time > now_seconds + MAX_AHEAD_SECONDS {
                let message =
                    format!("A log has the time {time}, which is more than 15 minutes ahead.");
                return Err(LogError::new(Code::InvalidTimestamp, message));
            }
            if time >= oldest {
                logs.push(read_log(log)?);
            }
        }
        let batch = LogBatch {
            topic: group.topic.unwrap_or_default(),
            source: group.source.unwrap_or_default(),
            tags,
            logs,
        };
        Ok(Self { batch, identity })
    }
}

fn read_log(log: log_group::Log) -> Result<Log, LogError> {
    let bytes: usize = log
        .contents
        .iter()
        .map(|content| content.key.len() + content.value.len())
        .sum();
    if bytes > MAX_LOG_BYTES {
        let message = format!("A log has {bytes} bytes, and allowed are {MAX_LOG_BYTES}.");
        return Err(LogError::new(Code::PostBodyTooLarge, message));
    }
    let text = |value: Vec<u8>| {
        String::from_utf8(value)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    };
    let contents = log
        .contents
        .into_iter()
        .map(|content| (content.key, text(content.value)));
    Ok(Log {
        time: log.time,
        time_ns: log.time_ns,
        contents: contents.collect(),
    })
}

/// The answer to a put that is on the disk.
pub(super) fn answer() -> Response {
    ().into_response()
}

#[cfg(test)]
mod tests {
    use flowlog_model::log_group::{Content, LogTag};
    use prost::Message as _;

    use super::*;

    const NOW: Moment = Moment(1_795_323_131_500);
    const NOW_SECONDS: u32 = 1_795_323_131;

    fn group(times: &[u32], tags: &[(&str, &str)]) -> LogGroup {
        let content = Content {
            key: "k".into(),
            value: b"a\xffb".to_vec(),
        };
        LogGroup {
            logs: times
                .iter()
                .map(|time| log_group::Log {
                    time: *time,
                    contents: vec![content.clone()],
                    time_ns: None,
                })
                .collect(),
            topic: Some("t".into()),
            log_tags: tags
                .iter()
                .map(|(key, value)| LogTag {
                    key: (*key).into(),
                    value: (*value).into(),
                })
                .collect(),
            ..LogGroup::default()
        }
    }

    fn read(group: &LogGroup) -> Result<Put, Code> {
        let raw = group.encode_to_vec();
        let body = log_group::compress(&raw);
        let size = Size {
            body: body.len(),
            raw: raw.len(),
            is_compressed: true,
        };
        Put::read(&body, &size, 2, NOW).map_err(|error| error.code())
    }

    #[test]
    fn a_put_with_its_identity() {
        let put = read(&group(
            &[NOW_SECONDS],
            &[("a", "b"), (BATCH_ID_TAG, "fl-1-0")],
        ))
        .unwrap();
        assert_eq!(put.identity.as_deref(), Some("fl-1-0"));
        assert_eq!(put.batch.tags, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(
            (put.batch.topic.as_str(), put.batch.source.as_str()),
            ("t", "")
        );
        // What is no text is kept as near as text can be.
        assert_eq!(
            put.batch.logs[0].contents,
            [("k".to_owned(), "a\u{fffd}b".to_owned())]
        );
        for id in ["", &"x".repeat(1025)] {
            assert_eq!(
                read(&group(&[], &[(BATCH_ID_TAG, id)])),
                Err(Code::ParameterInvalid)
            );
        }
    }

    #[test]
    fn times() {
        let day = 86_400;
        let put = read(&group(
            &[
                NOW_SECONDS - 2 * day,
                NOW_SECONDS - 2 * day - 1,
                NOW_SECONDS + 900,
            ],
            &[],
        ))
        .unwrap();
        let times: Vec<u32> = put.batch.logs.iter().map(|log| log.time).collect();
        assert_eq!(times, [NOW_SECONDS - 2 * day, NOW_SECONDS + 900]);
        assert_eq!(
            read(&group(&[NOW_SECONDS + 901], &[])),
            Err(Code::InvalidTimestamp)
        );
    }

    #[test]
    fn sizes() {
        let size = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            Size::read(&headers.collect()).map_err(|error| error.code())
        };
        let raw = ("x-log-bodyrawsize", "10");
        assert_eq!(size(&[]), Err(Code::ParameterInvalid));
        assert_eq!(
            size(&[raw, ("x-log-compresstype", "zstd")]),
            Err(Code::ParameterInvalid)
        );
        assert_eq!(
            size(&[raw, ("content-length", "31457281")]),
            Err(Code::PostBodyTooLarge)
        );
        assert_eq!(
            size(&[("x-log-bodyrawsize", "31457281")]),
            Err(Code::PostBodyTooLarge)
        );
        let plain = size(&[raw, ("content-length", "10")]).unwrap();
        assert_eq!(
            plain,
            Size {
                body: 10,
                raw: 10,
                is_compressed: false
            }
        );
        assert_eq!(
            Put::read(b"123", &plain, 1, NOW).unwrap_err().code(),
            Code::ParameterInvalid
        );
        assert_eq!(
            Put::read(b"1234567890", &plain, 1, NOW).unwrap_err().code(),
            Code::PostBodyInvalid
        );
    }

    #[test]
    fn what_is_in_hand_is_bounded() {
        let in_hand = InHand::new(1 << 20);
        let size = Size {
            body: 1 << 17,
            raw: 1 << 17,
            is_compressed: false,
        };
        let first = in_hand.take(&size).unwrap();
        assert_eq!(in_hand.take(&size).unwrap_err().code(), Code::ServerBusy);
        drop(first);
        assert!(in_hand.take(&size).is_ok());
    }

    #[test]
    fn a_long_log_is_refused() {
        let mut group = group(&[NOW_SECONDS], &[]);
        group.logs[0].contents[0].value = vec![b'x'; MAX_LOG_BYTES];
        assert_eq!(read(&group), Err(Code::PostBodyTooLarge));
    }
}
