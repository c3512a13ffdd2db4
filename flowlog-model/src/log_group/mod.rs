//! The body of a put: logs as they travel to the Log Service and from it, in Protocol Buffers and LZ4.
//!
//! The messages are written by hand after the product's, for they are few and never change. A body is somebody else's: its parts are
//! counted before memory is taken for them, so that a few bytes cannot ask for gigabytes.
//!
//! | limit | documentation | taken here, because the official client sends it |
//! |---|---|---|
//! | bytes of a LogGroup, not compressed | 3 MB ([`DOCUMENTED_RAW_BYTES`]) | 30 MiB ([`MAX_RAW_BYTES`]) |
//! | logs of a LogGroup | 4,096 ([`DOCUMENTED_LOGS`]) | 512,000 ([`MAX_LOGS`]) |
mod compression;
mod view;
mod writer;

pub use compression::{CompressionError, compress, decompress};
pub use view::{GroupView, LogView};
pub use writer::{GroupWriter, TOPIC};

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Most bytes of a LogGroup by the documentation.
pub const DOCUMENTED_RAW_BYTES: usize = 3_000_000;
/// Most logs of a LogGroup by the documentation.
pub const DOCUMENTED_LOGS: usize = 4096;
/// Most bytes of a LogGroup that is not compressed, or no longer.
pub const MAX_RAW_BYTES: usize = 30 << 20;
/// Most logs of a LogGroup.
pub const MAX_LOGS: usize = 512_000;
/// Most keys with values and tags of a LogGroup, together. Each takes about 50 bytes of memory besides its text.
pub const MAX_CONTENTS: usize = 4_000_000;

/// Key of the tag that has the identity of a batch: a group that is sent again under the same identity is stored once. The tag itself is
/// not stored by Flowlog's Log Service; another one keeps it, so that what is there twice can be told.
pub const BATCH_ID_TAG: &str = "flowlog-batch-id";

/// A log.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Log {
    /// Unix time, in seconds.
    #[prost(uint32, required, tag = "1")]
    pub time: u32,
    /// Keys and values.
    #[prost(message, repeated, tag = "2")]
    pub contents: Vec<Content>,
    /// What `time` leaves out, in nanoseconds below a second.
    #[prost(fixed32, optional, tag = "4")]
    pub time_ns: Option<u32>,
}

/// A key of a log, with its value.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Content {
    /// The key.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// The value: text, but a client may send any bytes.
    #[prost(bytes = "vec", required, tag = "2")]
    pub value: Vec<u8>,
}

/// Something that is true of all logs of a group.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogTag {
    /// The key.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// Logs that have a topic, a source and tags in common.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogGroup {
    /// The logs.
    #[prost(message, repeated, tag = "1")]
    pub logs: Vec<Log>,
    /// Nothing.
    #[prost(string, optional, tag = "2")]
    pub reserved: Option<String>,
    /// The topic.
    #[prost(string, optional, tag = "3")]
    pub topic: Option<String>,
    /// Where they come from.
    #[prost(string, optional, tag = "4")]
    pub source: Option<String>,
    /// The collector.
    #[prost(string, optional, tag = "5")]
    pub machine_uuid: Option<String>,
    /// What is true of all.
    #[prost(message, repeated, tag = "6")]
    pub log_tags: Vec<LogTag>,
}

/// Groups, as they are pulled.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogGroupList {
    /// The groups.
    #[prost(message, repeated, tag = "1")]
    pub log_groups: Vec<LogGroup>,
}

/// Why bytes are no LogGroup.
#[derive(Debug, thiserror::Error)]
pub enum LogGroupError {
    /// Too many bytes.
    #[error("it has {bytes} bytes, and allowed are {MAX_RAW_BYTES}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Too many logs.
    #[error("it has more than {MAX_LOGS} logs")]
    TooManyLogs,
    /// Too many keys and tags.
    #[error("its logs have more than {MAX_CONTENTS} keys")]
    TooManyContents,
    /// They are something else.
    #[error("it is not a LogGroup in Protocol Buffers: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// They end too early.
    #[error("it is not a LogGroup in Protocol Buffers: it ends within a field")]
    Cut,
    /// A key, a tag, the topic or the source has other bytes.
    #[error(
        "it is not a LogGroup in Protocol Buffers: it has a key, a tag, a topic or a source that is not UTF-8"
    )]
    NotText,
}

impl LogGroup {
    /// Reads a group.
    ///
    /// # Errors
    /// [`LogGroupError`]. Nothing is allocated for what is beyond a limit.
    pub fn read(bytes: &[u8]) -> Result<Self, LogGroupError> {
        if bytes.len() > MAX_RAW_BYTES {
            let bytes = bytes.len();
            return Err(LogGroupError::TooLarge { bytes });
        }
        check_counts(bytes)?;
        Ok(Self::decode(bytes)?)
    }
}

/// Counts logs, and their keys with the tags.
fn check_counts(bytes: &[u8]) -> Result<(), LogGroupError> {
    let (mut logs, mut contents) = (0, 0);
    each_field(bytes, |tag, inner| {
        match tag {
            1 => {
                logs += 1;
                each_field(inner, |tag, _| {
                    contents += usize::from(tag == 2);
                    check(logs, contents)
                })?;
            }
            6 => contents += 1,
            _ => {}
        }
        check(logs, contents)
    })
}

fn check(logs: usize, contents: usize) -> Result<(), LogGroupError> {
    if logs > MAX_LOGS {
        return Err(LogGroupError::TooManyLogs);
    }
    if contents > MAX_CONTENTS {
        return Err(LogGroupError::TooManyContents);
    }
    Ok(())
}

/// Gives each field that has a length to `each`: its tag, and its bytes.
fn each_field(
    mut bytes: &[u8],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), LogGroupError>,
) -> Result<(), LogGroupError> {
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes)?;
        if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut bytes)?).unwrap_or(usize::MAX);
            // The decoder says it in its words.
            let (inner, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            each(tag, inner)?;
            bytes = rest;
        } else {
            skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the official client (aliyun-log-python-sdk 0.9.52) sends.
    const SENT: &str = "0a2008fbe989d80612130a0773726361646472120831302e302e302e3225070000001a08666c6f775f6c6f67\
                        220831302e302e302e31320f0a0862617463682d69641203782d31";

    fn from_hex(text: &str) -> Vec<u8> {
        let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
        text.as_bytes()
            .chunks(2)
            .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
            .collect()
    }

    #[test]
    fn what_the_official_client_sends() {
        let bytes = from_hex(SENT);
        let group = LogGroup::read(&bytes).unwrap();
        let expected = LogGroup {
            logs: vec![Log {
                time: 1_795_323_131,
                contents: vec![Content {
                    key: "srcaddr".into(),
                    value: b"10.0.0.2".to_vec(),
                }],
                time_ns: Some(7),
            }],
            reserved: None,
            topic: Some("flow_log".into()),
            source: Some("10.0.0.1".into()),
            machine_uuid: None,
            log_tags: vec![LogTag {
                key: "batch-id".into(),
                value: "x-1".into(),
            }],
        };
        assert_eq!(group, expected);
        assert_eq!(group.encode_to_vec(), bytes);
    }

    /// The client's own messages have required fields: it refuses a group in which one is missing.
    #[test]
    fn fields_that_are_required_are_sent_also_when_they_are_empty() {
        let log = Log {
            time: 0,
            contents: vec![Content {
                key: String::new(),
                value: Vec::new(),
            }],
            time_ns: None,
        };
        assert_eq!(log.encode_to_vec(), from_hex("080012040a001200"));
    }

    #[test]
    fn limits() {
        let logs = |count: usize| [0x0a, 0].repeat(count);
        assert_eq!(
            LogGroup::read(&logs(MAX_LOGS)).unwrap().logs.len(),
            MAX_LOGS
        );
        assert!(matches!(
            LogGroup::read(&logs(MAX_LOGS + 1)),
            Err(LogGroupError::TooManyLogs)
        ));
        // A log with so many empty keys; the length is a varint of three bytes and more.
        let contents = [0x12, 0].repeat(MAX_CONTENTS + 1);
        let mut bytes = vec![0x0a];
        prost::encoding::encode_varint(contents.len() as u64, &mut bytes);
        bytes.extend(contents);
        assert!(matches!(
            LogGroup::read(&bytes),
            Err(LogGroupError::TooManyContents)
        ));
        assert!(matches!(
            LogGroup::read(&[0x32, 0].repeat(MAX_CONTENTS + 1)),
            Err(LogGroupError::TooManyContents)
        ));
        assert!(matches!(
            LogGroup::read(&vec![0; MAX_RAW_BYTES + 1]),
            Err(LogGroupError::TooLarge { .. })
        ));
    }

    pub(super) fn groups() -> impl Strategy<Value = LogGroup> {
        let content = (".{0,4}", prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(key, value)| Content { key, value });
        let log = (
            any::<u32>(),
            prop::collection::vec(content, 0..5),
            any::<Option<u32>>(),
        );
        let log = log.prop_map(|(time, contents, time_ns)| Log {
            time,
            contents,
            time_ns,
        });
        let tag = (".{0,4}", ".{0,4}").prop_map(|(key, value)| LogTag { key, value });
        let texts = prop::array::uniform4(prop::option::of(".{0,5}"));
        (
            prop::collection::vec(log, 0..5),
            texts,
            prop::collection::vec(tag, 0..3),
        )
            .prop_map(
                |(logs, [reserved, topic, source, machine_uuid], log_tags)| LogGroup {
                    logs,
                    reserved,
                    topic,
                    source,
                    machine_uuid,
                    log_tags,
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(group in groups()) {
            prop_assert_eq!(LogGroup::read(&group.encode_to_vec()).unwrap(), group);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = LogGroup::read(&bytes);
        }

        /// Nearly right is where mistakes hide.
        #[test]
        fn no_change_of_a_group_makes_it_panic(group in groups(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = group.encode_to_vec();
            prop_assume!(!bytes.is_empty());
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            let _ = LogGroup::read(&bytes);
        }
    }
}
