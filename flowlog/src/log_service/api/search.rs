//! Getting logs, and histograms.
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use flowlog_model::field::Field;
use flowlog_model::text::Text as _;
use serde_json::{Value, json};

use super::error::{Code, LogError, sentence};
use super::management::no_index;
use super::params::Params;
use super::{Asked, bytes_answer, json_answer};
use crate::log_service::query::{
    Bucket, HistogramRequest, IndexedField, IndexedKind, QueryError, QueryRequest, QueryResult,
};
use crate::log_service::types::LogstoreKey;

/// The most logs that a search gives at a time; more is taken for this, because some clients ask for it.
const MAX_LINES: usize = 100;
/// Logs that a search gives where the client says nothing.
const DEFAULT_LINES: usize = 100;

/// Longest id of a query, in bytes.
const MAX_ID_BYTES: usize = 64;

/// All that there is was found.
const COMPLETE: &str = "Complete";
/// There is more.
const INCOMPLETE: &str = "Incomplete";

/// The request in these parameters, but for the fields of the index.
///
/// # Errors
/// [`Code::InvalidTimestamp`], [`Code::ParameterInvalid`].
fn read(params: &Params) -> Result<QueryRequest, LogError> {
    let (from, to) = (params.time("from")?, params.time("to")?);
    if from > to {
        let message = format!("The range of time ends at {to}, before it begins at {from}.");
        return Err(LogError::new(Code::InvalidTimestamp, message));
    }
    let number = |name| params.number(name, u64::from(u32::MAX));
    Ok(QueryRequest {
        from,
        to,
        topic: params.text("topic").map(str::to_owned),
        query: params.text("query").unwrap_or("*").to_owned(),
        line: number("line")?.unwrap_or(DEFAULT_LINES).min(MAX_LINES),
        offset: number("offset")?.unwrap_or(0),
        reverse: params.truth("reverse")?,
        id: id(params)?,
        fields: Vec::new(),
    })
}

/// What the client calls its query.
///
/// # Errors
/// [`Code::ParameterInvalid`].
fn id(params: &Params) -> Result<Option<String>, LogError> {
    let id = params.text("queryId").map(str::to_owned);
    if id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
        let clause = format_args!("allowed are at most {MAX_ID_BYTES} bytes");
        return Err(LogError::parameter("queryId", clause));
    }
    Ok(id)
}

impl Asked {
    /// With parameters; answered with a list, and what is said of it in headers.
    pub(super) async fn get_logs(
        &self,
        project: String,
        logstore: String,
    ) -> Result<Response, LogError> {
        let request = read(&Params::of_query(&self.query))?;
        let answer = |found: QueryResult| {
            let rows = found.rows().map_err(internal)?;
            let mut headers = HeaderMap::new();
            headers.insert("x-log-progress", progress(found.complete));
            headers.insert("x-log-count", HeaderValue::from(rows.len()));
            let has_sql = if found.has_sql { "true" } else { "false" };
            headers.insert("x-log-has-sql", HeaderValue::from_static(has_sql));
            Ok((headers, json_answer(&rows)).into_response())
        };
        self.search(project, logstore, request, answer).await
    }

    /// With a body; answered with an object.
    pub(super) async fn get_logs_v2(
        &self,
        project: String,
        logstore: String,
    ) -> Result<Response, LogError> {
        let request = read(&Params::of_json(&self.body)?)?;
        let (query, takes_lz4) = (request.query.clone(), self.takes_lz4());
        let answer = move |found: QueryResult| {
            let (search, sql) = parts(&query, found.sql);
            let rows = found.rows().map_err(internal)?;
            let body = json!({
                "meta": {
                    "progress": if found.complete { COMPLETE } else { INCOMPLETE },
                    "count": rows.len(),
                    "hasSQL": found.has_sql,
                    "whereQuery": search,
                    "aggQuery": sql,
                    "keys": found.columns(),
                    "columnTypes": found.column_types(),
                    "isAccurate": true,
                    "mode": 0,
                },
                "data": rows,
            });
            let raw = serde_json::to_vec(&body).map_err(internal)?;
            Ok(bytes_answer(raw, "application/json", takes_lz4))
        };
        self.search(project, logstore, request, answer).await
    }

    /// How many logs there are in each part of the range.
    pub(super) async fn histogram(
        &self,
        project: String,
        logstore: String,
    ) -> Result<Response, LogError> {
        let QueryRequest {
            from,
            to,
            topic,
            query,
            ..
        } = read(&Params::of_query(&self.query))?;
        let (key, _) = self.searched(project, logstore).await?;
        let snapshot = self.app.logs.store.snapshot(&key, from, to);
        let request = HistogramRequest {
            from,
            to,
            topic,
            query,
        };
        let engine = &self.app.logs.engine;
        let account = &self.cx.caller.account_id;
        let buckets = engine.histogram(account, snapshot, request).await?;
        let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
        let part = |bucket: &Bucket| json!({ "from": bucket.from, "to": bucket.to, "count": bucket.count, "progress": COMPLETE });
        let parts: Vec<Value> = buckets.iter().map(part).collect();
        let mut headers = HeaderMap::new();
        headers.insert("x-log-progress", progress(true));
        headers.insert("x-log-count", HeaderValue::from(total));
        Ok((headers, json_answer(&parts)).into_response())
    }

    /// The share of its files that a query has read, from 0 to 1; null if there is none of this id.
    pub(super) async fn query_progress(
        &self,
        project: String,
        logstore: String,
    ) -> Result<Response, LogError> {
        self.logstore(project, logstore).await?;
        let id = id(&Params::of_query(&self.query))?.unwrap_or_default();
        let share = self
            .app
            .logs
            .engine
            .progress(&self.cx.caller.account_id, &id);
        Ok(json_answer(&json!({ "progress": share })))
    }

    async fn search(
        &self,
        project: String,
        logstore: String,
        mut request: QueryRequest,
        answer: impl FnOnce(QueryResult) -> Result<Response, QueryError> + Send + 'static,
    ) -> Result<Response, LogError> {
        let (key, index) = self.searched(project, logstore).await?;
        request.fields = fields(&index);
        let logs = &self.app.logs;
        let snapshot = logs.store.snapshot(&key, request.from, request.to);
        let account = &self.cx.caller.account_id;
        let answer = logs.engine.query_and(account, snapshot, request, answer);
        Ok(answer.await?)
    }

    /// A logstore that is searched, and its index.
    async fn searched(
        &self,
        project: String,
        logstore: String,
    ) -> Result<(LogstoreKey, Value), LogError> {
        let (key, entry) = self.logstore(project, logstore).await?;
        let index = entry.index.ok_or_else(|| no_index(&entry.name))?;
        Ok((key, index))
    }
}

/// The client's own fields that an index names, and what they hold.
fn fields(index: &Value) -> Vec<IndexedField> {
    let is_own = |name: &str| Field::from_text(&name.replace('_', "-")).is_none();
    let keys = index.get("keys").and_then(Value::as_object);
    let named = keys.into_iter().flatten().filter(|(name, _)| is_own(name));
    let field = |(name, key): (&String, &Value)| IndexedField {
        name: name.clone(),
        kind: match key.get("type").and_then(Value::as_str) {
            Some("long") => IndexedKind::Long,
            Some("double") => IndexedKind::Double,
            _ => IndexedKind::Text,
        },
    };
    named.map(field).collect()
}

fn internal(error: impl std::fmt::Display) -> QueryError {
    QueryError::Internal(error.to_string())
}

/// The search and the SQL of a query, whose SQL begins at `sql` octets, after the `|`. A `|` in quotes is part of the search.
fn parts(query: &str, sql: Option<usize>) -> (&str, &str) {
    let (search, sql) = sql
        .and_then(|at| query.split_at_checked(at))
        .unwrap_or((query, ""));
    let search = if sql.is_empty() {
        search
    } else {
        search.strip_suffix('|').unwrap_or(search)
    };
    (search.trim(), sql.trim())
}

impl From<QueryError> for LogError {
    fn from(error: QueryError) -> Self {
        let code = match &error {
            QueryError::Wrong(_) => Code::ParameterInvalid,
            QueryError::Busy { .. } | QueryError::Memory => Code::ReadQuotaExceed,
            QueryError::TimeLimit { .. } => Code::RequestTimeout,
            QueryError::Internal(inside) => return Self::internal(inside),
        };
        Self::new(code, sentence(&error))
    }
}

fn progress(is_complete: bool) -> HeaderValue {
    HeaderValue::from_static(if is_complete { COMPLETE } else { INCOMPLETE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<QueryRequest, Code> {
        Params::of_json(body.as_bytes())
            .and_then(|params| super::read(&params))
            .map_err(|error| error.code())
    }

    #[test]
    fn what_the_official_client_sends() {
        let request = read(
            r#"{"from": 1, "to": 2, "line": 200, "offset": 3, "powerSql": false, "accurate": true, "fromNs": 0, "toNs": 0, "topic": "t",
            "query": "a: b", "reverse": true, "forward": true}"#,
        );
        let expected = QueryRequest {
            from: 1,
            to: 2,
            topic: Some("t".into()),
            query: "a: b".into(),
            line: 100,
            offset: 3,
            reverse: true,
            id: None,
            fields: Vec::new(),
        };
        assert_eq!(request, Ok(expected));
        let least = read(r#"{"from": 1, "to": 1}"#).unwrap();
        assert_eq!((least.query.as_str(), least.line), ("*", 100));
        assert_eq!(read(r#"{"from": 2, "to": 1}"#), Err(Code::InvalidTimestamp));
        assert_eq!(read(r#"{"to": 1}"#), Err(Code::InvalidTimestamp));
        assert_eq!(
            read(r#"{"from": 1, "to": 2, "line": -1}"#),
            Err(Code::ParameterInvalid)
        );
    }

    #[test]
    fn a_query_has_two_parts() {
        assert_eq!(parts("a: b ", None), ("a: b", ""));
        assert_eq!(
            parts(r#""a|b" | SELECT 1"#, Some(7)),
            (r#""a|b""#, "SELECT 1")
        );
        assert_eq!(parts("| SELECT 1", Some(1)), ("", "SELECT 1"));
    }

    #[test]
    fn the_fields_of_an_index_that_are_no_records() {
        let index = json!({ "keys": {
            "eni-id": { "type": "text" }, "eni_id": { "type": "text" }, "bytes": { "type": "long" },
            "a": { "type": "long" }, "b": { "type": "double" }, "c": { "type": "json" },
        } });
        let kinds: Vec<(String, IndexedKind)> = fields(&index)
            .into_iter()
            .map(|field| (field.name, field.kind))
            .collect();
        let expected = [
            ("a", IndexedKind::Long),
            ("b", IndexedKind::Double),
            ("c", IndexedKind::Text),
        ];
        assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert_eq!(fields(&json!({ "line": {} })), []);
    }
}
