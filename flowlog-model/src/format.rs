//! Records as lines: JSON lines and text.
//!
//! | value | JSON | text |
//! |---|---|---|
//! | number | number | decimal |
//! | identifier, address, word | string | as it is |
//! | what does not apply | `null` | `-` |
//!
//! This is the hottest code of user space: a window may hold a million flows. So a [`Format`] is compiled once into fields with
//! the literal text before each, and [`Format::write`] only appends to the caller's buffer: no allocation but that buffer's growth.
use std::net::IpAddr;

use crate::address;
use crate::field::{Field, RECORD_VERSION};
use crate::record::{FlowTuple, Record};
use crate::template::{self, Part, TemplateError};

/// How records become lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    syntax: Syntax,
    pieces: Vec<Piece>,
    /// What ends each line; the line feed is its last byte.
    tail: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Json,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// Literal text before the field: in JSON the comma and the key.
    before: Vec<u8>,
    field: Field,
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Absent,
    Number(u64),
    Address(IpAddr),
    /// A word of ours: no character of it needs an escape.
    Word(&'static str),
    /// An identifier from outside.
    Id(&'a str),
}

impl Format {
    /// JSON lines: one object a record, its keys being `fields` in their order. A field that is named twice is written once.
    #[must_use]
    pub fn json(fields: &[Field]) -> Self {
        let mut pieces: Vec<Piece> = Vec::with_capacity(fields.len());
        for &field in fields {
            if pieces.iter().all(|piece| piece.field != field) {
                let separator = if pieces.is_empty() { '{' } else { ',' };
                pieces.push(Piece {
                    before: format!("{separator}\"{field}\":").into_bytes(),
                    field,
                });
            }
        }
        let tail = if pieces.is_empty() { "{}\n" } else { "}\n" };
        Self {
            syntax: Syntax::Json,
            pieces,
            tail: tail.into(),
        }
    }

    /// Text: the values of `fields` in their order, with a space between.
    #[must_use]
    pub fn text(fields: &[Field]) -> Self {
        let before = |index| {
            if index == 0 {
                Vec::new()
            } else {
                b" ".to_vec()
            }
        };
        let pieces = fields
            .iter()
            .enumerate()
            .map(|(index, &field)| Piece {
                before: before(index),
                field,
            })
            .collect();
        Self {
            syntax: Syntax::Text,
            pieces,
            tail: b"\n".to_vec(),
        }
    }

    /// Text by a template, as in `${srcaddr} ${dstaddr}`.
    ///
    /// # Errors
    /// [`TemplateError`] for a name that is no field's, a `${` that is not closed, and what would not make a line.
    pub fn template(template: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        for part in template::parse(template)? {
            match part {
                Part::Literal(text) => literal.extend_from_slice(text.as_bytes()),
                Part::Field(field) => pieces.push(Piece {
                    before: std::mem::take(&mut literal),
                    field,
                }),
            }
        }
        literal.push(b'\n');
        Ok(Self {
            syntax: Syntax::Text,
            pieces,
            tail: literal,
        })
    }

    /// Whether a line is a JSON object.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.syntax == Syntax::Json
    }

    /// The fields that a line has, in their order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field> + '_ {
        self.pieces.iter().map(|piece| piece.field)
    }

    /// Gives each field that the record has to `each`, in the line's order, with its value as in text. `scratch` is only reused.
    pub fn values(
        &self,
        record: &Record<'_>,
        scratch: &mut Vec<u8>,
        mut each: impl FnMut(Field, &[u8]),
    ) {
        for piece in &self.pieces {
            let value = value_of(piece.field, record);
            if !matches!(value, Value::Absent) {
                scratch.clear();
                write_text(value, scratch);
                each(piece.field, scratch);
            }
        }
    }

    /// Appends the record to `out` as one line, with its line feed.
    pub fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece.before.as_slice() {
                // The space of plain text; an append of known length is much the faster.
                &[byte] => out.push(byte),
                before => out.extend_from_slice(before),
            }
            let value = value_of(piece.field, record);
            match self.syntax {
                Syntax::Json => write_json(value, out),
                Syntax::Text => write_text(value, out),
            }
        }
        out.extend_from_slice(&self.tail);
    }
}

#[inline]
fn value_of<'a>(field: Field, record: &Record<'a>) -> Value<'a> {
    let eni = record.eni;
    let flow = record.flow.as_ref();
    let number = |value: fn(&FlowTuple) -> u64| {
        flow.map_or(Value::Absent, |flow| Value::Number(value(flow)))
    };
    match field {
        Field::Version => Value::Number(u64::from(RECORD_VERSION)),
        Field::VSwitchId => Value::Id(&eni.vswitch_id),
        Field::VmId => eni.vm_id.as_deref().map_or(Value::Absent, Value::Id),
        Field::VpcId => Value::Id(&eni.vpc_id),
        Field::AccountId => Value::Id(&eni.account_id),
        Field::EniId => Value::Id(&eni.eni_id),
        Field::SrcAddr => flow.map_or(Value::Absent, |flow| Value::Address(flow.src_addr)),
        Field::SrcPort => number(|flow| flow.src_port.into()),
        Field::DstAddr => flow.map_or(Value::Absent, |flow| Value::Address(flow.dst_addr)),
        Field::DstPort => number(|flow| flow.dst_port.into()),
        Field::Protocol => number(|flow| flow.protocol.into()),
        Field::Direction => record
            .direction
            .map_or(Value::Absent, |direction| Value::Word(direction.as_str())),
        Field::Packets => record.packets.map_or(Value::Absent, Value::Number),
        Field::Bytes => record.bytes.map_or(Value::Absent, Value::Number),
        Field::Start => Value::Number(record.start),
        Field::End => Value::Number(record.end),
        Field::LogStatus => Value::Word(record.log_status.as_str()),
        Field::Action => record
            .action
            .map_or(Value::Absent, |action| Value::Word(action.as_str())),
        Field::Region => eni.region.as_deref().map_or(Value::Absent, Value::Id),
        Field::TcpFlags => record
            .tcp_flags
            .map_or(Value::Absent, |flags| Value::Number(flags.into())),
        Field::Type => flow.map_or(Value::Absent, |flow| {
            Value::Word(if flow.src_addr.is_ipv4() {
                "IPv4"
            } else {
                "IPv6"
            })
        }),
        Field::RejectReason => record
            .reject_reason
            .map_or(Value::Absent, |reason| Value::Word(reason.as_str())),
        Field::SecurityGroupRuleId => record
            .security_group_rule_id
            .map_or(Value::Absent, Value::Id),
        Field::BatchId => record.batch_id.map_or(Value::Absent, Value::Id),
    }
}

#[inline]
fn write_json(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Absent => out.extend_from_slice(b"null"),
        Value::Number(number) => write_number(number, out),
        Value::Id(id) => write_json_string(id, out),
        Value::Word(word) => {
            out.push(b'"');
            out.extend_from_slice(word.as_bytes());
            out.push(b'"');
        }
        Value::Address(address) => {
            out.push(b'"');
            address::write(address, out);
            out.push(b'"');
        }
    }
}

#[inline]
fn write_text(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Absent => out.push(b'-'),
        Value::Number(number) => write_number(number, out),
        Value::Id(id) => out.extend_from_slice(id.as_bytes()),
        Value::Word(word) => out.extend_from_slice(word.as_bytes()),
        Value::Address(address) => address::write(address, out),
    }
}

#[inline]
fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a JSON string. Identifiers of the inventory never need an escape, but a [`crate::record::Eni`] can be made without
/// an inventory.
fn write_json_string(text: &str, out: &mut Vec<u8>) {
    let needs_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    // Without an early end, so that the compiler can look at many bytes at once.
    if text
        .bytes()
        .fold(false, |found, byte| found | needs_escape(byte))
    {
        // Text always serialises, and writing to a Vec always succeeds; `null` keeps the line valid if that ever changed.
        let length = out.len();
        if serde_json::to_writer(&mut *out, text).is_err() {
            out.truncate(length);
            out.extend_from_slice(b"null");
        }
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests;
