//! The fields that have a column of their own, and what kind of value each holds.
use flowlog_model::field::Field;

pub(crate) use crate::log_service::store::schema::{SOURCE, TIME, TOPIC};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whole numbers.
    Number,
    /// Addresses as text.
    Address,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
}

/// A field with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name with underscores, as in the files.
    pub(crate) name: String,
    /// Its name as in the product, with hyphens.
    pub(crate) key: String,
    /// What it holds.
    pub(crate) kind: Kind,
}

/// The column of the field that a query calls `key`, with hyphens or underscores; none if it is a client's own field.
pub(crate) fn of(key: &str) -> Option<Column> {
    if key == TIME {
        return Some(column(key, Kind::Number));
    }
    if key == TOPIC || key == SOURCE {
        return Some(column(key, Kind::Text));
    }
    let field = key.replace('_', "-").parse::<Field>().ok()?;
    Some(column(field.as_str(), kind(field)))
}

/// All fields with a column, but for the time.
pub(crate) fn searched() -> impl Iterator<Item = Column> {
    [TOPIC, SOURCE]
        .into_iter()
        .map(|key| column(key, Kind::Text))
        .chain(
            Field::ALL
                .iter()
                .map(|field| column(field.as_str(), kind(*field))),
        )
}

fn column(key: &str, kind: Kind) -> Column {
    Column {
        name: key.replace('-', "_"),
        key: key.to_owned(),
        kind,
    }
}

const fn kind(field: Field) -> Kind {
    match field {
        Field::Version
        | Field::SrcPort
        | Field::DstPort
        | Field::Protocol
        | Field::Packets
        | Field::Bytes
        | Field::Start
        | Field::End
        | Field::TcpFlags => Kind::Number,
        Field::SrcAddr | Field::DstAddr => Kind::Address,
        Field::Direction => Kind::Word(&["in", "out"]),
        Field::LogStatus => Kind::Word(&["OK", "NODATA", "SKIPDATA"]),
        Field::Action => Kind::Word(&["ACCEPT", "REJECT"]),
        Field::Type => Kind::Word(&["IPv4", "IPv6"]),
        Field::VSwitchId
        | Field::VmId
        | Field::VpcId
        | Field::AccountId
        | Field::EniId
        | Field::Region
        | Field::RejectReason
        | Field::SecurityGroupRuleId
        | Field::BatchId => Kind::Text,
    }
}
