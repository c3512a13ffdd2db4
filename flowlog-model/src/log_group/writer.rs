//! Records as a LogGroup, written as they come: a window may hold a million flows, so none becomes a message of its own first.
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{LogGroup, LogTag};
use crate::field::Field;
use crate::format::Format;
use crate::record::Record;

/// What `__topic__` is of records.
pub const TOPIC: &str = "flow_log";

/// Writes records as logs: a key for each field that a record has. A log's time is the end of its window.
#[derive(Clone, Debug)]
pub struct GroupWriter {
    /// The fields in question.
    format: Format,
    logs: Vec<u8>,
    count: usize,
    /// Only reused: a log, and a value of it.
    log: Vec<u8>,
    value: Vec<u8>,
}

impl GroupWriter {
    /// Writes the fields that a line of this format has, but for `batch-id`: the group's tag has it.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self {
            format,
            logs: Vec::new(),
            count: 0,
            log: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Adds a record.
    pub fn write(&mut self, record: &Record<'_>) {
        let Self {
            format,
            logs,
            count,
            log,
            value,
        } = self;
        log.clear();
        encode_key(1, WireType::Varint, log);
        encode_varint(
            u64::from(u32::try_from(record.end).unwrap_or(u32::MAX)),
            log,
        );
        format.values(record, value, |field, value| {
            if field == Field::BatchId {
                return;
            }
            let key = field.as_str();
            let length = field_length(key.len()) + field_length(value.len());
            encode_key(2, WireType::LengthDelimited, log);
            encode_varint(length as u64, log);
            write_bytes(1, key.as_bytes(), log);
            write_bytes(2, value, log);
        });
        write_bytes(1, log, logs);
        *count += 1;
    }

    /// How many records there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// How many bytes they take.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.logs.len()
    }

    /// The group of what there is, with its source and the identity of its batch. What is written next begins another group.
    pub fn finish(&mut self, source: &str, tags: &[(&str, &str)]) -> Vec<u8> {
        let tag = |(key, value): &(&str, &str)| LogTag {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let rest = LogGroup {
            topic: Some(TOPIC.to_owned()),
            source: Some(source.to_owned()),
            log_tags: tags.iter().map(tag).collect(),
            ..LogGroup::default()
        };
        self.count = 0;
        let room = self.logs.capacity();
        let mut group = std::mem::replace(&mut self.logs, Vec::with_capacity(room));
        group.extend(rest.encode_to_vec());
        group
    }
}

/// Bytes of a field with a length, whose number is less than 16.
fn field_length(length: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(length as u64) + length
}

fn write_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::DEFAULT_FIELDS;
    use crate::log_group::BATCH_ID_TAG;
    use crate::record::{Action, Direction, Eni, FlowTuple, LogStatus};

    #[test]
    fn records_are_logs_with_the_fields_that_they_have() {
        let long = "e".repeat(200);
        let eni = Eni {
            eni_id: long.clone(),
            vswitch_id: "vsw-1".into(),
            vm_id: None,
            vpc_id: "vpc-1".into(),
            account_id: "1".into(),
            region: Some("r".into()),
        };
        let no_data = Record {
            eni: &eni,
            flow: None,
            direction: None,
            packets: None,
            bytes: None,
            start: 1_795_323_000,
            end: 1_795_323_060,
            log_status: LogStatus::NoData,
            action: None,
            tcp_flags: None,
            reject_reason: None,
            security_group_rule_id: None,
            batch_id: Some("b"),
        };
        let flow = Record {
            flow: Some(FlowTuple {
                src_addr: [10, 0, 0, 1].into(),
                src_port: 53_870,
                dst_addr: "2001:db8::1".parse().unwrap(),
                dst_port: 80,
                protocol: 6,
            }),
            direction: Some(Direction::In),
            packets: Some(u64::MAX),
            bytes: Some(0),
            log_status: LogStatus::Ok,
            action: Some(Action::Accept),
            ..no_data
        };
        let mut fields = DEFAULT_FIELDS.to_vec();
        fields.extend([Field::BatchId, Field::Region]);
        let mut writer = GroupWriter::new(Format::text(&fields));
        writer.write(&flow);
        writer.write(&no_data);
        assert_eq!(writer.count(), 2);
        let written = writer.bytes();
        let bytes = writer.finish("host", &[(BATCH_ID_TAG, "x-0")]);
        assert!(bytes.len() > written && (writer.count(), writer.bytes()) == (0, 0));
        let group = LogGroup::read(&bytes).unwrap();
        assert_eq!(group.topic.as_deref(), Some("flow_log"));
        assert_eq!(group.source.as_deref(), Some("host"));
        assert_eq!(group.log_tags[0].value, "x-0");
        let texts = |log: usize| -> Vec<(String, String)> {
            let contents = group.logs[log].contents.iter();
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            contents
                .map(|content| (content.key.clone(), text(&content.value)))
                .collect()
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect()
        };
        let expected = [
            ("version", "1"),
            ("vswitch-id", "vsw-1"),
            ("vpc-id", "vpc-1"),
            ("account-id", "1"),
            ("eni-id", &long),
            ("srcaddr", "10.0.0.1"),
            ("srcport", "53870"),
            ("dstaddr", "2001:db8::1"),
            ("dstport", "80"),
            ("protocol", "6"),
            ("direction", "in"),
            ("packets", "18446744073709551615"),
            ("bytes", "0"),
            ("start", "1795323000"),
            ("end", "1795323060"),
            ("log-status", "OK"),
            ("action", "ACCEPT"),
            ("region", "r"),
        ];
        assert_eq!(texts(0), pairs(&expected));
        let expected = [
            ("version", "1"),
            ("vswitch-id", "vsw-1"),
            ("vpc-id", "vpc-1"),
            ("account-id", "1"),
            ("eni-id", &long),
            ("start", "1795323000"),
            ("end", "1795323060"),
            ("log-status", "NODATA"),
            ("region", "r"),
        ];
        assert_eq!(texts(1), pairs(&expected));
        assert_eq!(group.logs[0].time, 1_795_323_060);
        // As the messages write it themselves.
        assert_eq!(group.encode_to_vec(), bytes);
    }
}
