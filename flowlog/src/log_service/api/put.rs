//! Putting logs.
use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use flowlog_model::log_group::{self, BATCH_ID_TAG, GroupView, LogGroupError};

use super::error::{Code, LogError, sentence};
use crate::log_service::store::{Gathered, Prepared};
use crate::serve::moment::Moment;

/// How far a log may be in the future, in seconds.
const MAX_AHEAD_SECONDS: i64 = 15 * 60;
/// Longest log, in bytes of its keys and values.
const MAX_LOG_BYTES: usize = 1 << 20;
/// Longest identity of a batch, in bytes.
const MAX_IDENTITY_BYTES: usize = 1024;

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
    /// Bytes of memory that the logs take on their way to the disk, besides the body.
    pub(super) const fn of_logs(&self) -> usize {
        // A log that is read takes about three times as much as its bytes, and so does its way to the disk.
        4 * self.raw
    }

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
pub(super) struct Put {
    /// Logs, without those that are older than the logstore keeps any.
    pub(super) logs: Prepared,
    /// The batch is stored once under this identity, however often it is sent.
    pub(super) identity: Option<String>,
}

impl Put {
    /// Reads a body, and makes columns of it on the way, in what `gather` gives for so many logs. Logs older than `ttl_days` are left out:
    /// they would be removed at once.
    ///
    /// # Errors
    /// [`Code::PostBodyInvalid`], [`Code::PostBodyTooLarge`], [`Code::InvalidTimestamp`], that of `gather`, and what the store does not
    /// take.
    pub(super) fn read(
        body: &[u8],
        size: &Size,
        ttl_days: u32,
        now: Moment,
        gather: impl FnOnce(usize) -> Result<Gathered, LogError>,
    ) -> Result<Self, LogError> {
        let raw: Cow<'_, [u8]> = if size.is_compressed {
            log_group::decompress(body, size.raw)
                .map_err(|error| invalid(&error))?
                .into()
        } else if body.len() == size.raw {
            body.into()
        } else {
            return Err(LogError::parameter(
                "x-log-bodyrawsize",
                "it is not the size of the body",
            ));
        };
        let group = GroupView::read(&raw).map_err(|error| invalid(&error))?;
        let (mut identity, mut tags) = (None, Vec::with_capacity(group.tags.len()));
        for &(key, value) in &group.tags {
            if key == BATCH_ID_TAG {
                identity = Some(value.to_owned())
                    .filter(|id| (1..=MAX_IDENTITY_BYTES).contains(&id.len()));
                if identity.is_none() {
                    let clause = format_args!("allowed are 1 to {MAX_IDENTITY_BYTES} bytes");
                    return Err(LogError::parameter(BATCH_ID_TAG, clause));
                }
            } else {
                tags.push((key, value));
            }
        }
        let now_seconds = now.0.div_euclid(1000);
        let oldest = now_seconds - i64::from(ttl_days) * 86_400;
        let mut gathered = gather(group.logs())?;
        gathered.begin(group.topic, group.source, tags);
        group
            .each_log(|log| {
                let time = i64::from(log.time);
                if time > now_seconds + MAX_AHEAD_SECONDS {
                    let message =
                        format!("A log has the time {time}, which is more than 15 minutes ahead.");
                    return Err(Wrong(LogError::new(Code::InvalidTimestamp, message)));
                }
                if time < oldest {
                    return Ok(());
                }
                let bytes = log.contents.iter();
                let bytes: usize = bytes.map(|(key, value)| key.len() + value.len()).sum();
                if bytes > MAX_LOG_BYTES {
                    let message =
                        format!("A log has {bytes} bytes, and allowed are {MAX_LOG_BYTES}.");
                    return Err(Wrong(LogError::new(Code::PostBodyTooLarge, message)));
                }
                let contents = log.contents.iter().map(|&(key, value)| (key, text(value)));
                let added = gathered.add(log.time, log.time_ns, contents);
                added.map_err(|error| Wrong(error.into()))
            })
            .map_err(|Wrong(error)| error)?;
        Ok(Self {
            logs: gathered.prepare()?,
            identity,
        })
    }
}

/// What is wrong with a body.
struct Wrong(LogError);

impl From<LogGroupError> for Wrong {
    fn from(error: LogGroupError) -> Self {
        Self(invalid(&error))
    }
}

fn invalid(error: &dyn std::fmt::Display) -> LogError {
    LogError::new(
        Code::PostBodyInvalid,
        sentence(&format_args!("the body cannot be read: {error}")),
    )
}

/// A value as text; what is none is kept as near as text can be.
fn text(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(value),
    }
}

/// The answer to a put that is on the disk.
pub(super) fn answer() -> Response {
    ().into_response()
}

#[cfg(test)]
mod tests {
    use flowlog_model::log_group::{Content, LogGroup, LogTag};
    use prost::Message as _;

    use super::*;
    use crate::log_service::store::to_batches;
    use crate::log_service::types::LogBatch;

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
        Put::read(&body, &size, 2, NOW, gather).map_err(|error| error.code())
    }

    fn gather(logs: usize) -> Result<Gathered, LogError> {
        Ok(Gathered::new(logs, log_group::MAX_RAW_BYTES))
    }

    fn batches(put: &Put) -> Vec<LogBatch> {
        to_batches(put.logs.rows()).unwrap()
    }

    #[test]
    fn a_put_with_its_identity() {
        let put = read(&group(
            &[NOW_SECONDS],
            &[("a", "b"), (BATCH_ID_TAG, "fl-1-0")],
        ))
        .unwrap();
        assert_eq!(put.identity.as_deref(), Some("fl-1-0"));
        let batch = &batches(&put)[0];
        assert_eq!(batch.tags, [("a".to_owned(), "b".to_owned())]);
        assert_eq!((batch.topic.as_str(), batch.source.as_str()), ("t", ""));
        // What is no text is kept as near as text can be.
        assert_eq!(
            batch.logs[0].contents,
            [("k".to_owned(), "a\u{fffd}b".to_owned())]
        );
        for id in ["", &"x".repeat(1025)] {
            assert_eq!(
                read(&group(&[], &[(BATCH_ID_TAG, id)])).err(),
                Some(Code::ParameterInvalid)
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
        let times: Vec<u32> = batches(&put)[0].logs.iter().map(|log| log.time).collect();
        assert_eq!(times, [NOW_SECONDS - 2 * day, NOW_SECONDS + 900]);
        assert_eq!(
            read(&group(&[NOW_SECONDS + 901], &[])).err(),
            Some(Code::InvalidTimestamp)
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
            Put::read(b"123", &plain, 1, NOW, gather)
                .err()
                .map(|error| error.code()),
            Some(Code::ParameterInvalid)
        );
        assert_eq!(
            Put::read(b"1234567890", &plain, 1, NOW, gather)
                .err()
                .map(|error| error.code()),
            Some(Code::PostBodyInvalid)
        );
    }

    #[test]
    fn a_long_log_is_refused() {
        let mut group = group(&[NOW_SECONDS], &[]);
        group.logs[0].contents[0].value = vec![b'x'; MAX_LOG_BYTES];
        assert_eq!(read(&group).err(), Some(Code::PostBodyTooLarge));
    }
}
