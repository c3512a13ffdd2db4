//! Queries over a logstore: `search | SQL`.
//!
//! | module | what it holds |
//! |---|---|
//! | `search` | the search language: parsed, written, and as DataFusion's expressions |
//! | `sql` | the SQL: held to what is allowed, and in the product's manners |
//! | `functions` | functions that are not DataFusion's own |
//! | `grouping` | groups by numbers in place of texts |
//! | `table` | a snapshot of a logstore as a table |
//! | `engine` | runs queries, within bounds |
//! | `gate` | whose turn it is |
//! | `plan` | what is asked, as DataFusion's plans |
//! | `progress` | how far queries have come |
//! | `result` | what a query found |
//! | `error` | why a query has no answer |
mod engine;
mod error;
mod functions;
mod gate;
mod grouping;
mod plan;
mod progress;
mod result;
mod search;
mod sql;
mod table;
#[cfg(test)]
mod tests;

pub use engine::{Engine, EngineConfig, THREADS};
pub use error::{QueryError, Wrong};
pub use result::QueryResult;
pub use search::{MAX_CONDITIONS, MAX_DEPTH, MAX_QUERY_BYTES, MAX_VALUE_BYTES};

/// Whether the query can be run, as far as that can be told without a logstore.
///
/// # Errors
/// [`QueryError::Wrong`].
pub fn check(query: &str) -> Result<(), QueryError> {
    if let Some(start) = search::parse(query)?.sql {
        sql::parse(query, start)?;
    }
    Ok(())
}

/// A query's search as it would be written anew, for those who hold parser and writer against each other.
///
/// # Errors
/// [`QueryError::Wrong`].
pub fn written(query: &str) -> Result<String, QueryError> {
    Ok(search::parse(query)?.search.to_string())
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRequest {
    /// The least `__time__`, in Unix seconds.
    pub from: u32,
    /// The first `__time__` after that, in Unix seconds.
    pub to: u32,
    /// Only logs of this topic; empty as none.
    pub topic: Option<String>,
    /// `search`, or `search | SQL`.
    pub query: String,
    /// At most how many logs; not for SQL, which has LIMIT.
    pub line: usize,
    /// How many logs to pass over; not for SQL.
    pub offset: usize,
    /// The newest logs first; not for SQL.
    pub reverse: bool,
    /// What [`Engine::progress`] knows it by; not for others.
    pub id: Option<String>,
    /// The client's own fields that SQL may name, beside those of a record.
    pub fields: Vec<IndexedField>,
}

/// A client's own field that SQL may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedField {
    /// Its key.
    pub name: String,
    /// What it holds.
    pub kind: IndexedKind,
}

/// What a client's own field holds. Values that are no number are NULL in a field of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexedKind {
    /// Text.
    Text,
    /// Whole numbers of 64 bits.
    Long,
    /// Numbers.
    Double,
}

/// What is to be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramRequest {
    /// The least `__time__`, in Unix seconds.
    pub from: u32,
    /// The first `__time__` after that, in Unix seconds.
    pub to: u32,
    /// Only logs of this topic; empty as none.
    pub topic: Option<String>,
    /// `search`; what is after a `|` is passed over.
    pub query: String,
}

/// How many logs there are in a part of the time range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Where it begins, in Unix seconds.
    pub from: u32,
    /// Where the next one begins, in Unix seconds.
    pub to: u32,
    /// How many logs.
    pub count: u64,
}

/// Most parts that a histogram has.
const MAX_BUCKETS: u32 = 60;

impl Bucket {
    /// The parts of a time range: of the least width, of those that people read well, that makes no more than [`MAX_BUCKETS`].
    fn of(from: u32, to: u32) -> Vec<Self> {
        const WIDTHS: [u32; 12] = [
            1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 86_400,
        ];
        let length = to.saturating_sub(from);
        let narrowest = length.div_ceil(MAX_BUCKETS).max(1);
        let width = WIDTHS
            .into_iter()
            .find(|width| *width >= narrowest)
            .unwrap_or_else(|| narrowest.next_multiple_of(86_400));
        let starts = (0..length.div_ceil(width)).map(|index| from + index * width);
        starts
            .map(|start| Self {
                from: start,
                to: start.saturating_add(width).min(to),
                count: 0,
            })
            .collect()
    }
}
