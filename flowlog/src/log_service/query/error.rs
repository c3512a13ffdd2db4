//! Why a query has no answer.
use std::time::Duration;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The query is not right; its author can mend it.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// Too many queries wait already.
    #[error("{waiting} queries wait already: try again later")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// It took too long, its waiting included.
    #[error("the query was ended after {} s: narrow the time range or the search", .limit.as_secs())]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// It needed more memory, or more room on the disk beside it, than all queries may have.
    #[error(
        "the query needs more memory than it may have: narrow the time range or the search, or group by fewer fields"
    )]
    Memory,
    /// The service's fault.
    #[error("the query failed: {0}")]
    Internal(String),
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", .position.map(|position| format!("character {position}: ")).unwrap_or_default())]
pub struct Wrong {
    /// Which character of the query, from 1; none where it is the query as a whole.
    pub position: Option<usize>,
    /// What was expected and what was found.
    pub message: String,
}

/// Most characters of what was found in a message.
const SHOWN: usize = 20;

impl Wrong {
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self {
            position: None,
            message: message.into(),
        }
    }

    /// At `offset` octets of the query.
    pub(crate) fn at(query: &str, offset: usize, message: impl Into<String>) -> Self {
        Self {
            position: Some(position(query, offset)),
            message: message.into(),
        }
    }

    /// At `offset` octets of the query, where something else was expected.
    pub(crate) fn expected(query: &str, offset: usize, expected: &str) -> Self {
        let rest = query.get(offset..).unwrap_or_default().trim_start();
        let found: String = rest
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .chars()
            .take(SHOWN)
            .collect();
        let found = if found.is_empty() {
            "the end of the query".to_owned()
        } else {
            format!("`{found}`")
        };
        Self::at(query, offset, format!("expected {expected}; found {found}"))
    }
}

/// Which character is at `offset` octets, from 1.
fn position(query: &str, offset: usize) -> usize {
    query
        .char_indices()
        .take_while(|(at, _)| *at < offset)
        .count()
        + 1
}
