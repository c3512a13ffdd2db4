//! Records read back from lines: JSON lines, and text with the default fields first.
//!
//! Fields that a line has besides are passed over, so that lines of any flow log in these forms can be read.
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

use crate::field::{DEFAULT_FIELDS, Field, RECORD_VERSION};
use crate::record::{Action, Direction, FlowTuple};
use crate::text::in_words;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A flow: a record of status `OK`.
    Flow(RecordedFlow),
    /// `NODATA`: there was no traffic.
    NoData,
    /// `SKIPDATA`: there was traffic that is in no other record.
    SkipData,
}

/// A flow, as a record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFlow {
    /// `eni-id`.
    pub eni_id: String,
    /// Direction as the VM saw it.
    pub direction: Direction,
    /// The 5-tuple.
    pub flow: FlowTuple,
    /// Packets.
    pub packets: u64,
    /// Octets of the IP datagrams.
    pub bytes: u64,
    /// Start of the capture window, in Unix seconds.
    pub start: u64,
    /// Whether it was allowed.
    pub action: Action,
    /// TCP flags OR-ed over the window; none where the line does not have them.
    pub tcp_flags: Option<u8>,
    /// `reject-reason`; none where the line does not have it.
    pub reject_reason: Option<String>,
}

/// Why a line is no record, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotARecord(String);

impl FromStr for Recorded {
    type Err = NotARecord;

    /// Reads a line without its line feed. One that begins with `{` is JSON.
    fn from_str(line: &str) -> Result<Self, NotARecord> {
        if line.starts_with('{') {
            let fields: Fields<'_> = serde_json::from_str(line)
                .map_err(|error| NotARecord(format!("it is not the JSON of a record: {error}")))?;
            return fields.recorded();
        }
        Fields::of_text(line)?.recorded()
    }
}

/// The fields that matter here; those that are not there are none.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields<'l> {
    version: Option<u8>,
    #[serde(borrow)]
    eni_id: Option<Cow<'l, str>>,
    #[serde(borrow)]
    srcaddr: Option<Cow<'l, str>>,
    srcport: Option<u16>,
    #[serde(borrow)]
    dstaddr: Option<Cow<'l, str>>,
    dstport: Option<u16>,
    protocol: Option<u8>,
    #[serde(borrow)]
    direction: Option<Cow<'l, str>>,
    packets: Option<u64>,
    bytes: Option<u64>,
    start: Option<u64>,
    #[serde(borrow)]
    log_status: Option<Cow<'l, str>>,
    #[serde(borrow)]
    action: Option<Cow<'l, str>>,
    tcp_flags: Option<u8>,
    #[serde(borrow)]
    reject_reason: Option<Cow<'l, str>>,
}

impl<'l> Fields<'l> {
    fn of_text(line: &'l str) -> Result<Self, NotARecord> {
        let mut fields = Self::default();
        let mut words = line.split_ascii_whitespace();
        for (index, field) in DEFAULT_FIELDS.into_iter().enumerate() {
            let Some(word) = words.next() else {
                let names = in_words(DEFAULT_FIELDS.iter().map(|field| field.as_str()));
                return Err(NotARecord(format!(
                    "it has {index} fields: allowed are JSON and the text of {names}"
                )));
            };
            if word != "-" {
                fields.set(field, word)?;
            }
        }
        Ok(fields)
    }

    fn set(&mut self, field: Field, word: &'l str) -> Result<(), NotARecord> {
        match field {
            Field::Version => self.version = Some(number(field, word)?),
            Field::EniId => self.eni_id = Some(word.into()),
            Field::SrcAddr => self.srcaddr = Some(word.into()),
            Field::SrcPort => self.srcport = Some(number(field, word)?),
            Field::DstAddr => self.dstaddr = Some(word.into()),
            Field::DstPort => self.dstport = Some(number(field, word)?),
            Field::Protocol => self.protocol = Some(number(field, word)?),
            Field::Direction => self.direction = Some(word.into()),
            Field::Packets => self.packets = Some(number(field, word)?),
            Field::Bytes => self.bytes = Some(number(field, word)?),
            Field::Start => self.start = Some(number(field, word)?),
            Field::LogStatus => self.log_status = Some(word.into()),
            Field::Action => self.action = Some(word.into()),
            _ => {}
        }
        Ok(())
    }

    fn recorded(self) -> Result<Recorded, NotARecord> {
        if let Some(version) = self.version
            && version != RECORD_VERSION
        {
            return Err(refused(Field::Version, version, "1"));
        }
        match given(Field::LogStatus, self.log_status.as_deref())? {
            "OK" => self.flow().map(Recorded::Flow),
            "NODATA" => Ok(Recorded::NoData),
            "SKIPDATA" => Ok(Recorded::SkipData),
            other => Err(refused(Field::LogStatus, other, "OK, NODATA and SKIPDATA")),
        }
    }

    fn flow(self) -> Result<RecordedFlow, NotARecord> {
        let direction = match given(Field::Direction, self.direction.as_deref())? {
            "in" => Direction::In,
            "out" => Direction::Out,
            other => return Err(refused(Field::Direction, other, "in and out")),
        };
        let action = match given(Field::Action, self.action.as_deref())? {
            "ACCEPT" => Action::Accept,
            "REJECT" => Action::Reject,
            other => return Err(refused(Field::Action, other, "ACCEPT and REJECT")),
        };
        Ok(RecordedFlow {
            eni_id: given(Field::EniId, self.eni_id)?.into_owned(),
            direction,
            flow: FlowTuple {
                src_addr: address(Field::SrcAddr, self.srcaddr.as_deref())?,
                src_port: given(Field::SrcPort, self.srcport)?,
                dst_addr: address(Field::DstAddr, self.dstaddr.as_deref())?,
                dst_port: given(Field::DstPort, self.dstport)?,
                protocol: given(Field::Protocol, self.protocol)?,
            },
            packets: given(Field::Packets, self.packets)?,
            bytes: given(Field::Bytes, self.bytes)?,
            start: given(Field::Start, self.start)?,
            action,
            tcp_flags: self.tcp_flags,
            reject_reason: self.reject_reason.map(Cow::into_owned),
        })
    }
}

fn given<T>(field: Field, value: Option<T>) -> Result<T, NotARecord> {
    value.ok_or_else(|| NotARecord(format!("`{field}` is missing")))
}

fn number<T: FromStr>(field: Field, word: &str) -> Result<T, NotARecord> {
    let allowed = match field {
        Field::SrcPort | Field::DstPort => "whole numbers up to 65535",
        Field::Version | Field::Protocol => "whole numbers up to 255",
        _ => "whole numbers",
    };
    word.parse().map_err(|_| refused(field, word, allowed))
}

fn address(field: Field, value: Option<&str>) -> Result<IpAddr, NotARecord> {
    let text = given(field, value)?;
    text.parse()
        .map_err(|_| refused(field, text, "IPv4 and IPv6 addresses"))
}

fn refused(field: Field, value: impl fmt::Display, allowed: &str) -> NotARecord {
    let value: String = value.to_string().chars().take(40).collect();
    NotARecord(format!(
        "`{field}` is \"{}\": allowed are {allowed}",
        value.escape_debug()
    ))
}

#[cfg(test)]
mod tests;
