//! What the service is asked and what it answers: `POST /logstores/L/logs` of the Log Service.
use std::{collections::HashSet, iter::repeat};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most rows that a search without SQL gives at once.
pub(super) const MAX_LINES: usize = 100;

/// A query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct GetLogs {
    /// The least `__time__`, in Unix seconds.
    pub(in crate::cli) from: u32,
    /// The first `__time__` after that, in Unix seconds.
    pub(in crate::cli) to: u32,
    /// `search`, or `search | SQL`.
    pub(in crate::cli) query: String,
    /// At most how many logs; not for SQL.
    pub(in crate::cli) line: usize,
    /// How many logs to pass over; not for SQL.
    pub(in crate::cli) offset: usize,
    /// The newest logs first; not for SQL.
    pub(in crate::cli) reverse: bool,
    /// What the service knows it by, for who asks how far it has come.
    #[serde(rename = "queryId", skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) id: Option<String>,
}

/// What the service has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct Logs {
    /// What is to be known of the rows.
    pub(in crate::cli) meta: Meta,
    /// The rows.
    pub(in crate::cli) data: Vec<Map<String, Value>>,
}

/// What is to be known of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Meta {
    /// `Complete`, or `Incomplete` if there are more rows.
    pub(in crate::cli) progress: String,
    /// Whether the query had an SQL.
    #[serde(default, rename = "hasSQL")]
    pub(in crate::cli) has_sql: bool,
    /// The names of the columns in their order.
    #[serde(default)]
    pub(in crate::cli) keys: Vec<String>,
    /// Their types; columns after the last of them are texts.
    #[serde(default)]
    pub(in crate::cli) column_types: Vec<ColumnType>,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum ColumnType {
    /// An integer of 64 bits.
    BigInt,
    /// A floating-point number of 64 bits.
    Double,
    /// True or false.
    Boolean,
    /// A text, and what is written as one.
    #[serde(other)]
    Text,
}

impl Logs {
    /// Adds the rows of the next page.
    pub(super) fn append(&mut self, page: Self) {
        let Meta {
            progress,
            keys,
            column_types,
            ..
        } = page.meta;
        let types = column_types.into_iter().chain(repeat(ColumnType::Text));
        for (key, column_type) in keys.into_iter().zip(types) {
            if !self.meta.keys.contains(&key) {
                let Meta {
                    keys, column_types, ..
                } = &mut self.meta;
                column_types.resize(keys.len(), ColumnType::Text);
                column_types.push(column_type);
                keys.push(key);
            }
        }
        self.meta.progress = progress;
        self.data.extend(page.data);
    }

    /// The columns with their types: as the service says, and what it did not say at the end.
    pub(super) fn columns(&self) -> Vec<(&str, ColumnType)> {
        let Meta {
            keys, column_types, ..
        } = &self.meta;
        let keys = keys.iter().map(String::as_str);
        let types = column_types.iter().copied();
        let types = types.chain(repeat(ColumnType::Text));
        let mut known: HashSet<&str> = keys.clone().collect();
        let mut columns: Vec<_> = keys.zip(types).collect();
        for key in self.data.iter().flat_map(Map::keys) {
            if known.insert(key) {
                columns.push((key, ColumnType::Text));
            }
        }
        columns
    }
}

/// The text of a value; none if there is none.
pub(super) fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A text of somebody else's, as it can be shown in a line.
pub(super) fn visible(text: &str) -> String {
    text.replace(char::is_control, " ")
}
