//! A LogGroup that is read where it lies: a put has thousands of logs with some twenty keys each, so none becomes a text of its own first.
use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field,
};

use super::{LogGroupError, MAX_RAW_BYTES, check};

/// What the logs of a group have in common, and where they are.
#[derive(Clone, Debug)]
pub struct GroupView<'a> {
    /// The topic; empty where there is none.
    pub topic: &'a str,
    /// Where they come from; empty where nothing is said.
    pub source: &'a str,
    /// Keys and values that are true of all.
    pub tags: Vec<(&'a str, &'a str)>,
    logs: usize,
    bytes: &'a [u8],
}

/// A log of a group.
#[derive(Clone, Copy, Debug)]
pub struct LogView<'l, 'a> {
    /// Unix time, in seconds.
    pub time: u32,
    /// What `time` leaves out, in nanoseconds below a second.
    pub time_ns: Option<u32>,
    /// Keys and values: text, but a client may send any bytes as a value.
    pub contents: &'l [(&'a str, &'a [u8])],
}

impl<'a> GroupView<'a> {
    /// Reads what is no log, and counts the logs.
    ///
    /// # Errors
    /// [`LogGroupError`]. What is wrong within a log is told by [`Self::each_log`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, LogGroupError> {
        if bytes.len() > MAX_RAW_BYTES {
            let bytes = bytes.len();
            return Err(LogGroupError::TooLarge { bytes });
        }
        let (mut topic, mut source, mut tags, mut logs) = ("", "", Vec::new(), 0);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut rest)?;
            match tag {
                1 => {
                    slice(wire_type, &mut rest)?;
                    logs += 1;
                }
                3 => topic = text(wire_type, &mut rest)?,
                4 => source = text(wire_type, &mut rest)?,
                // Nothing that is kept: `Reserved` and `MachineUUID`.
                2 | 5 => {
                    text(wire_type, &mut rest)?;
                }
                6 => {
                    let (key, value) = pair(slice(wire_type, &mut rest)?)?;
                    tags.push((key, utf8(value)?));
                }
                _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default())?,
            }
            check(logs, tags.len())?;
        }
        Ok(Self {
            topic,
            source,
            tags,
            logs,
            bytes,
        })
    }

    /// How many logs there are.
    #[must_use]
    pub const fn logs(&self) -> usize {
        self.logs
    }

    /// Gives each log to `each`, in their order.
    ///
    /// # Errors
    /// [`LogGroupError`], and those of `each`, after which no more is read.
    pub fn each_log<E: From<LogGroupError>>(
        &self,
        mut each: impl FnMut(LogView<'_, 'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut contents = Vec::new();
        let mut count = self.tags.len();
        let mut rest = self.bytes;
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut rest).map_err(LogGroupError::from)?;
            if tag != 1 {
                skip_field(wire_type, tag, &mut rest, DecodeContext::default())
                    .map_err(LogGroupError::from)?;
                continue;
            }
            let log = slice(wire_type, &mut rest)?;
            contents.clear();
            let (time, time_ns) = read_log(log, &mut contents)?;
            count += contents.len();
            check(self.logs, count)?;
            each(LogView {
                time,
                time_ns,
                contents: &contents,
            })?;
        }
        Ok(())
    }
}

/// The times of a log; its keys and values are added to `contents`.
fn read_log<'a>(
    mut log: &'a [u8],
    contents: &mut Vec<(&'a str, &'a [u8])>,
) -> Result<(u32, Option<u32>), LogGroupError> {
    let (mut time, mut time_ns) = (0, None);
    while !log.is_empty() {
        let (tag, wire_type) = decode_key(&mut log)?;
        match tag {
            1 => {
                check_wire_type(WireType::Varint, wire_type)?;
                // Of more bits, the lower ones count, as everywhere in Protocol Buffers.
                time = decode_varint(&mut log)? as u32;
            }
            2 => contents.push(pair(slice(wire_type, &mut log)?)?),
            4 => {
                check_wire_type(WireType::ThirtyTwoBit, wire_type)?;
                let (octets, rest) = log.split_first_chunk().ok_or(LogGroupError::Cut)?;
                time_ns = Some(u32::from_le_bytes(*octets));
                log = rest;
            }
            _ => skip_field(wire_type, tag, &mut log, DecodeContext::default())?,
        }
    }
    Ok((time, time_ns))
}

/// Key and value of a content or a tag.
fn pair(mut bytes: &[u8]) -> Result<(&str, &[u8]), LogGroupError> {
    let (mut key, mut value) = ("", &[][..]);
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes)?;
        match tag {
            1 => key = text(wire_type, &mut bytes)?,
            2 => value = slice(wire_type, &mut bytes)?,
            _ => skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?,
        }
    }
    Ok((key, value))
}

/// The bytes of a field with a length; `bytes` goes on behind it.
fn slice<'a>(wire_type: WireType, bytes: &mut &'a [u8]) -> Result<&'a [u8], LogGroupError> {
    check_wire_type(WireType::LengthDelimited, wire_type)?;
    let length = usize::try_from(decode_varint(bytes)?).unwrap_or(usize::MAX);
    let (inner, rest) = bytes.split_at_checked(length).ok_or(LogGroupError::Cut)?;
    *bytes = rest;
    Ok(inner)
}

fn text<'a>(wire_type: WireType, bytes: &mut &'a [u8]) -> Result<&'a str, LogGroupError> {
    utf8(slice(wire_type, bytes)?)
}

fn utf8(bytes: &[u8]) -> Result<&str, LogGroupError> {
    std::str::from_utf8(bytes).map_err(|_| LogGroupError::NotText)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::super::{Content, Log, LogGroup, LogTag, tests::groups};
    use super::*;

    /// What the view says, as the message does.
    fn viewed(bytes: &[u8]) -> Result<LogGroup, LogGroupError> {
        let view = GroupView::read(bytes)?;
        let mut logs = Vec::new();
        view.each_log(|log| {
            let contents = log.contents.iter().map(|&(key, value)| Content {
                key: key.to_owned(),
                value: value.to_owned(),
            });
            logs.push(Log {
                time: log.time,
                time_ns: log.time_ns,
                contents: contents.collect(),
            });
            Ok::<_, LogGroupError>(())
        })?;
        assert_eq!(logs.len(), view.logs());
        let tag = |&(key, value): &(&str, &str)| LogTag {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        Ok(LogGroup {
            logs,
            topic: Some(view.topic.to_owned()),
            source: Some(view.source.to_owned()),
            log_tags: view.tags.iter().map(tag).collect(),
            ..LogGroup::default()
        })
    }

    /// What the decoder of messages says, without what a view has not.
    fn decoded(bytes: &[u8]) -> Option<LogGroup> {
        let mut group = LogGroup::read(bytes).ok()?;
        group.topic.get_or_insert_default();
        group.source.get_or_insert_default();
        (group.reserved, group.machine_uuid) = (None, None);
        Some(group)
    }

    #[test]
    fn more_keys_than_allowed_are_refused() {
        let contents = [0x12, 0].repeat(super::super::MAX_CONTENTS + 1);
        let mut bytes = vec![0x0a];
        prost::encoding::encode_varint(contents.len() as u64, &mut bytes);
        bytes.extend(contents);
        assert!(matches!(
            viewed(&bytes),
            Err(LogGroupError::TooManyContents)
        ));
        assert!(matches!(
            viewed(&vec![0; MAX_RAW_BYTES + 1]),
            Err(LogGroupError::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn a_view_says_what_the_message_says(group in groups()) {
            let bytes = group.encode_to_vec();
            prop_assert_eq!(viewed(&bytes).ok(), decoded(&bytes));
        }

        /// Nearly right is where the two could differ.
        #[test]
        fn of_a_changed_group_too(group in groups(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = group.encode_to_vec();
            prop_assume!(!bytes.is_empty());
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            prop_assert_eq!(viewed(&bytes).ok(), decoded(&bytes));
        }

        #[test]
        fn of_any_bytes_too(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(viewed(&bytes).ok(), decoded(&bytes));
        }
    }
}
