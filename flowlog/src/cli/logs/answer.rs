//! What the service is asked and what it answers: `POST /logstores/L/logs` of the Log Service.
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
pub(in crate::cli) struct Meta {
    /// `Complete`, or `Incomplete` if there are more rows.
    pub(in crate::cli) progress: String,
    /// Whether the query had an SQL.
    #[serde(default, rename = "hasSQL")]
    pub(in crate::cli) has_sql: bool,
    /// The names of the columns in their order.
    #[serde(default)]
    pub(in crate::cli) keys: Vec<String>,
}

impl Logs {
    /// Adds the rows of the next page.
    pub(super) fn append(&mut self, page: Self) {
        for key in page.meta.keys {
            if !self.meta.keys.contains(&key) {
                self.meta.keys.push(key);
            }
        }
        self.meta.progress = page.meta.progress;
        self.data.extend(page.data);
    }

    /// The names of the columns: as the service says, and what it did not say at the end.
    pub(super) fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self.meta.keys.iter().map(String::as_str).collect();
        for row in &self.data {
            for key in row.keys() {
                if !columns.contains(&key.as_str()) {
                    columns.push(key);
                }
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
