//! Projects, logstores and indexes.
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::error::{Code, LogError};
use super::params::{Params, object};
use super::{Asked, finish_removals, json_answer};
use crate::log_service::catalogue::{self, LogstoreEntry, ProjectEntry, Range};
use crate::serve::moment::Moment;

/// The most entries of a page.
const MAX_PAGE: u64 = 500;
/// Entries of a page where the client says nothing.
const DEFAULT_PAGE: u32 = 100;
/// The most logstores that are deleted with a project; it cannot have as many.
const MAX_REMOVED: u32 = 10_000;
/// Days that logs are kept for where the client says nothing.
const DEFAULT_TTL_DAYS: u32 = 30;

/// The most keys of an index: SQL has a column for each.
const MAX_INDEX_KEYS: usize = 500;

/// What clients set of a logstore and read back, with what is answered where they have not set it. It makes no difference here.
const OPTIONS: [(&str, Value); 6] = [
    ("enable_tracking", Value::Bool(false)),
    ("appendMeta", Value::Bool(false)),
    ("autoSplit", Value::Bool(false)),
    ("maxSplitShard", Value::Null),
    ("telemetryType", Value::Null),
    ("mode", Value::Null),
];

fn seconds(moment: Moment) -> i64 {
    moment.0.div_euclid(1000)
}

fn done() -> Response {
    ().into_response()
}

impl Asked {
    pub(super) async fn create_project(&self) -> Result<Response, LogError> {
        let params = Params::of_json(&self.body)?;
        let name = params.text("projectName").unwrap_or_default().to_owned();
        let description = params.text("description").unwrap_or_default().to_owned();
        self.change(move |state, cx| catalogue::create_project(state, cx, &name, &description))
            .await?;
        Ok(done())
    }

    pub(super) async fn list_projects(&self) -> Result<Response, LogError> {
        let params = Params::of_query(&self.query);
        let (offset, size) = page(&params)?;
        let name = params.text("projectName").unwrap_or_default().to_owned();
        let page = self
            .read(move |state, cx| {
                catalogue::projects(
                    state,
                    cx,
                    Range {
                        name: &name,
                        offset,
                        size,
                    },
                )
            })
            .await?;
        let projects: Vec<Value> = page
            .entries
            .iter()
            .map(|entry| self.project_json(entry))
            .collect();
        Ok(json_answer(
            &json!({ "count": projects.len(), "total": page.total, "projects": projects }),
        ))
    }

    pub(super) async fn get_project(&self, name: String) -> Result<Response, LogError> {
        let entry = self
            .read(move |state, cx| catalogue::project(state, cx, &name))
            .await?;
        Ok(json_answer(&self.project_json(&entry)))
    }

    pub(super) async fn update_project(&self, name: String) -> Result<Response, LogError> {
        let params = Params::of_json(&self.body)?;
        let description = params.text("description").unwrap_or_default().to_owned();
        self.change(move |state, cx| catalogue::update_project(state, cx, &name, &description))
            .await?;
        Ok(done())
    }

    /// Its logstores go with it.
    pub(super) async fn delete_project(&self, name: String) -> Result<Response, LogError> {
        let project = name.clone();
        self.change(move |state, cx| {
            let range = Range {
                name: "",
                offset: 0,
                size: MAX_REMOVED,
            };
            for logstore in catalogue::logstores(state, cx, &project, range)?.entries {
                catalogue::mark_going(state, cx, &project, &logstore.name)?;
            }
            Ok(())
        })
        .await?;
        finish_removals(&self.app).await?;
        self.change(move |state, cx| catalogue::remove_project(state, cx, &name))
            .await?;
        Ok(done())
    }

    fn project_json(&self, entry: &ProjectEntry) -> Value {
        json!({
            "projectName": entry.name,
            "description": entry.description,
            "status": "Normal",
            "region": self.cx.config.default_region,
            "owner": entry.account_id,
            "createTime": entry.created.rfc3339(),
            "lastModifyTime": entry.changed.rfc3339(),
        })
    }

    pub(super) async fn create_logstore(&self, project: String) -> Result<Response, LogError> {
        let params = Params::of_json(&self.body)?;
        let name = params.text("logstoreName").unwrap_or_default().to_owned();
        let ttl = params
            .number("ttl", u64::from(u32::MAX))?
            .unwrap_or(DEFAULT_TTL_DAYS);
        let options = options(&self.body)?;
        self.change(move |state, cx| {
            catalogue::create_logstore(state, cx, &project, &name, ttl, &options)
        })
        .await?;
        Ok(done())
    }

    pub(super) async fn update_logstore(
        &self,
        project: String,
        name: String,
    ) -> Result<Response, LogError> {
        let ttl = Params::of_json(&self.body)?.number("ttl", u64::from(u32::MAX))?;
        let options = options(&self.body)?;
        self.change(move |state, cx| {
            catalogue::update_logstore(state, cx, &project, &name, ttl, options)
        })
        .await?;
        Ok(done())
    }

    pub(super) async fn get_logstore(
        &self,
        project: String,
        name: String,
    ) -> Result<Response, LogError> {
        let (_, entry) = self.logstore(project, name).await?;
        Ok(json_answer(&logstore_json(entry)))
    }

    /// The logs are gone when it is answered.
    pub(super) async fn delete_logstore(
        &self,
        project: String,
        name: String,
    ) -> Result<Response, LogError> {
        self.change(move |state, cx| catalogue::mark_going(state, cx, &project, &name))
            .await?;
        finish_removals(&self.app).await?;
        Ok(done())
    }

    pub(super) async fn list_logstores(&self, project: String) -> Result<Response, LogError> {
        let params = Params::of_query(&self.query);
        let (offset, size) = page(&params)?;
        let name = params.text("logstoreName").unwrap_or_default().to_owned();
        let page = self
            .read(move |state, cx| {
                catalogue::logstores(
                    state,
                    cx,
                    &project,
                    Range {
                        name: &name,
                        offset,
                        size,
                    },
                )
            })
            .await?;
        let names: Vec<&str> = page
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        Ok(json_answer(
            &json!({ "count": names.len(), "total": page.total, "logstores": names }),
        ))
    }

    pub(super) async fn set_index(
        &self,
        project: String,
        name: String,
        is_new: bool,
    ) -> Result<Response, LogError> {
        let index = index(&self.body)?;
        self.change(move |state, cx| {
            let has_one = catalogue::logstore(state, cx, &project, &name)?
                .index
                .is_some();
            match (is_new, has_one) {
                (true, true) => {
                    let message = format!("The logstore {name} has an index already.");
                    Err(LogError::new(Code::IndexAlreadyExist, message))
                }
                (false, false) => Err(no_index(&name)),
                _ => catalogue::set_index(state, cx, &project, &name, Some(&index)),
            }
        })
        .await?;
        Ok(done())
    }

    pub(super) async fn get_index(
        &self,
        project: String,
        name: String,
    ) -> Result<Response, LogError> {
        let (_, entry) = self.logstore(project, name).await?;
        let mut index = entry.index.ok_or_else(|| no_index(&entry.name))?;
        if let Value::Object(index) = &mut index {
            index.insert("ttl".into(), entry.ttl_days.into());
            index.insert("lastModifyTime".into(), seconds(entry.index_changed).into());
        }
        Ok(json_answer(&index))
    }

    pub(super) async fn delete_index(
        &self,
        project: String,
        name: String,
    ) -> Result<Response, LogError> {
        self.change(move |state, cx| {
            let entry = catalogue::logstore(state, cx, &project, &name)?;
            entry.index.ok_or_else(|| no_index(&name))?;
            catalogue::set_index(state, cx, &project, &name, None)
        })
        .await?;
        Ok(done())
    }
}

/// What is asked of a logstore that is not searched.
pub(super) fn no_index(logstore: &str) -> LogError {
    let message = format!("The logstore {logstore} has no index: it is not searched.");
    LogError::new(Code::IndexConfigNotExist, message)
}

fn page(params: &Params) -> Result<(u32, u32), LogError> {
    let offset = params.number("offset", u64::from(u32::MAX))?;
    let size = params.number("size", MAX_PAGE)?;
    Ok((offset.unwrap_or(0), size.unwrap_or(DEFAULT_PAGE)))
}

/// What of a body is in [`OPTIONS`], and no list nor object.
fn options(body: &[u8]) -> Result<Map<String, Value>, LogError> {
    let known = |name: &str| OPTIONS.iter().any(|(option, _)| *option == name);
    let is_plain = |value: &Value| !value.is_array() && !value.is_object() && !value.is_null();
    let given = object(body)?.into_iter();
    Ok(given
        .filter(|(name, value)| known(name) && is_plain(value))
        .collect())
}

fn logstore_json(entry: LogstoreEntry) -> Value {
    let mut body = json!({
        "logstoreName": entry.name,
        "ttl": entry.ttl_days,
        "shardCount": 1,
        "maxSplitShard": 1,
        "createTime": seconds(entry.created),
        "lastModifyTime": seconds(entry.changed),
    });
    if let Value::Object(body) = &mut body {
        let defaults = OPTIONS.into_iter().filter(|(_, value)| !value.is_null());
        body.extend(defaults.map(|(name, value)| (name.to_owned(), value)));
        body.extend(entry.options);
    }
    body
}

/// An index as a client sends it: an object, whose keys have a type that there is. What the official client needs to read it back, and
/// others leave out, is added.
fn index(body: &[u8]) -> Result<Value, LogError> {
    let invalid = |message: String| LogError::new(Code::PostBodyInvalid, message);
    let mut index = object(body)?;
    let tokens = || {
        json!([
            ",", " ", "'", "\"", ";", "=", "(", ")", "[", "]", "{", "}", "?", "@", "&", "<", ">",
            "/", ":", "\n", "\t"
        ])
    };
    for part in ["line", "keys"] {
        if index.get(part).is_some_and(|part| !part.is_object()) {
            return Err(invalid(format!("The index's {part} is no object.")));
        }
    }
    if let Some(Value::Object(line)) = index.get_mut("line") {
        line.entry("token").or_insert_with(tokens);
    }
    if let Some(Value::Object(keys)) = index.get_mut("keys") {
        if keys.len() > MAX_INDEX_KEYS {
            return Err(invalid(format!(
                "The index has {} keys, and allowed are {MAX_INDEX_KEYS}.",
                keys.len()
            )));
        }
        for (name, key) in keys {
            let Value::Object(key) = key else {
                return Err(invalid(format!(
                    "The index's key {} is no object.",
                    name.escape_debug()
                )));
            };
            let kind = key.entry("type").or_insert_with(|| "text".into());
            match kind.as_str() {
                Some("text" | "json") => {
                    key.entry("token").or_insert_with(tokens);
                }
                Some("long" | "double") => {}
                _ => {
                    let message = format!(
                        "The index's key {} has a type that is not known: allowed are text, long, double and json.",
                        name.escape_debug()
                    );
                    return Err(invalid(message));
                }
            }
        }
    }
    Ok(Value::Object(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_what_the_official_client_reads() {
        let sent = br#"{"line": {"caseSensitive": true}, "keys": {"action": {"type": "text"}, "bytes": {"type": "long", "doc_value": true}, "x": {}}}"#;
        let index = index(sent).unwrap();
        assert!(index["line"]["token"].is_array() && index["keys"]["action"]["token"].is_array());
        assert_eq!(
            index["keys"]["bytes"],
            json!({ "type": "long", "doc_value": true })
        );
        assert_eq!(index["keys"]["x"]["type"], "text");
        for bad in [
            "[]",
            r#"{"keys": []}"#,
            r#"{"line": 1}"#,
            r#"{"keys": {"a": 1}}"#,
            r#"{"keys": {"a": {"type": "int"}}}"#,
        ] {
            assert_eq!(
                super::index(bad.as_bytes()).unwrap_err().code(),
                Code::PostBodyInvalid,
                "{bad}"
            );
        }
    }

    #[test]
    fn an_index_has_so_many_keys_and_no_more() {
        let sent = |count: usize| {
            let keys = (0..count).map(|key| (format!("k{key}"), json!({})));
            let keys: Map<String, Value> = keys.collect();
            index(json!({ "keys": keys }).to_string().as_bytes()).map_err(|error| error.code())
        };
        assert!(sent(MAX_INDEX_KEYS).is_ok());
        assert_eq!(sent(MAX_INDEX_KEYS + 1), Err(Code::PostBodyInvalid));
    }

    #[test]
    fn options_are_answered_as_they_were_set() {
        let options = options(
            br#"{"ttl": 3, "autoSplit": true, "encrypt_conf": {}, "mode": "query", "other": 1}"#,
        )
        .unwrap();
        assert_eq!(
            Value::from(options.clone()),
            json!({ "autoSplit": true, "mode": "query" })
        );
        let entry = LogstoreEntry {
            name: "flows".into(),
            ttl_days: 3,
            options,
            index: None,
            index_changed: Moment(0),
            created: Moment(1_999),
            changed: Moment(2_000),
        };
        let expected = json!({
            "logstoreName": "flows", "ttl": 3, "shardCount": 1, "maxSplitShard": 1, "createTime": 1, "lastModifyTime": 2,
            "enable_tracking": false, "appendMeta": false, "autoSplit": true, "mode": "query",
        });
        assert_eq!(logstore_json(entry), expected);
    }
}
