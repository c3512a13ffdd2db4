//! The Log Service's API, as the product's clients speak it.
//!
//! | module | what it holds |
//! |---|---|
//! | `auth` | who asks: signatures, dates, bodies |
//! | `target` | what is asked for: project and call |
//! | `params` | parameters, from a query or from JSON |
//! | `put` | putting logs |
//! | `search` | getting logs, histograms |
//! | `pull` | shards, cursors, pulling logs |
//! | `management` | projects, logstores, indexes |
//! | `error` | errors in the product's shape |
//!
//! A request is told from those of the other faces by its headers ([`is_for_log_service`]), for the paths are the same. It is
//! verified before its body is read.
mod auth;
mod error;
mod in_hand;
mod management;
mod params;
mod pull;
mod put;
mod search;
mod target;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flowlog_model::log_group::{MAX_LOGS, MAX_RAW_BYTES, compress};
use flowlog_model::signature::encoding::{self, Parameter};
use rusqlite::Transaction;
use serde::Serialize;
use tokio::sync::{Mutex, RwLock};
use tokio::time::timeout;

pub use auth::is_for_log_service;
pub use error::{Code, LogError};

use super::catalogue;
use super::query::{Engine, EngineConfig, QueryError};
use super::store::{ROW_OCTETS, Store, StoreConfig, StoreError};
use super::types::LogstoreKey;
use crate::serve::error::ApiError;
use crate::serve::http::{App, Observed};
use crate::serve::moment::Moment;
use crate::serve::service::{Context, Need, Role, access_keys};
use in_hand::InHand;
use put::{Put, Size};
use target::{Call, LogstoreCall, Target};

/// Folder of the logs, in the service's data folder.
const LOGS_FOLDER: &str = "logs";
/// Folder of what queries cannot hold in memory, likewise.
const SPILL_FOLDER: &str = "spill";
/// The most parameters of a query.
const MAX_PARAMETERS: usize = 100;
/// Longest body that is no put, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of puts that are in hand at the same time. The largest put has room in half of it: its body, four times as much for what is
/// in it, and its rows.
const MAX_IN_HAND_BYTES: usize = 640 << 20;
const _: () = assert!(5 * MAX_RAW_BYTES + MAX_LOGS * ROW_OCTETS <= MAX_IN_HAND_BYTES / 2);

/// What the Log Service needs besides what all faces have.
pub struct LogService {
    /// The logs.
    pub store: Arc<Store>,
    /// What searches them.
    pub engine: Engine,
    in_hand: Arc<InHand>,
    /// Held by every put while it is on its way; whoever removes a logstore waits for those that are.
    puts: RwLock<()>,
    /// Held by who removes logstores: another, with an older list of them, would remove what is of the same name by then.
    removals: Mutex<()>,
}

/// Why the logs cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What searches it.
    #[error(transparent)]
    Engine(#[from] QueryError),
}

impl LogService {
    /// Opens what the Log Service keeps in the service's data folder; it is made where there is none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(folder: &Path) -> Result<Self, OpenError> {
        let store = StoreConfig::new(folder.join(LOGS_FOLDER));
        Ok(Self {
            store: Arc::new(Store::open(store).await?),
            engine: Engine::new(EngineConfig::new(folder.join(SPILL_FOLDER)))?,
            in_hand: InHand::new(MAX_IN_HAND_BYTES),
            puts: RwLock::new(()),
            removals: Mutex::new(()),
        })
    }
}

/// A request whose signature is verified.
struct Asked {
    app: Arc<App>,
    cx: Context,
    parts: Parts,
    query: Vec<Parameter>,
    body: Bytes,
}

impl Asked {
    /// Makes a change of the catalogue, or none where it fails.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        self.cx.caller.may(Need::Change)?;
        self.with_state(change, true).await
    }

    /// Reads the catalogue.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        self.with_state(read, false).await
    }

    async fn with_state<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, LogError> + Send + 'static,
        is_change: bool,
    ) -> Result<T, LogError> {
        let cx = self.cx.clone();
        in_state(&self.app, is_change, move |state| work(state, &cx)).await
    }

    /// Whether an answer may be compressed.
    fn takes_lz4(&self) -> bool {
        let accepted = self.parts.headers.get(header::ACCEPT_ENCODING);
        accepted
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(',').any(|one| one.trim() == "lz4"))
    }
}

/// Works on the state; an error of ours rolls a change back too.
async fn in_state<T: Send + 'static>(
    app: &App,
    is_change: bool,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let failure = Arc::new(OnceLock::new());
    let told = Arc::clone(&failure);
    let work = move |state: &Transaction<'_>| {
        work(state).map_err(|error| {
            let _ = told.set(error);
            ApiError::internal("a change of the Log Service has failed")
        })
    };
    let result = if is_change {
        app.store.write(work).await
    } else {
        app.store.read(work).await
    };
    result.map_err(|error| failure.get().cloned().unwrap_or_else(|| error.into()))
}

/// Answers a request of the Log Service's.
pub async fn handle(app: Arc<App>, request: Request) -> Response {
    let observed = request.extensions().get::<Arc<Observed>>().cloned();
    let Some(observed) = observed else {
        return LogError::internal("a request that is not observed").into_response();
    };
    let mut response = answer(app, request, &observed)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    if let Ok(id) = HeaderValue::from_str(&observed.request_id) {
        response.headers_mut().insert("x-log-requestid", id);
    }
    response
}

async fn answer(
    app: Arc<App>,
    request: Request,
    observed: &Observed,
) -> Result<Response, LogError> {
    let (parts, body) = request.into_parts();
    let query = encoding::parameters(parts.uri.query().unwrap_or_default(), MAX_PARAMETERS)
        .map_err(|error| LogError::new(Code::ParameterInvalid, error::sentence(&error)))?;
    let claim = auth::Claim::read(&parts, &query)?;
    let now = (app.clock)();
    let key_id = claim.key_id().to_owned();
    let found = app
        .store
        .read(move |state| access_keys::find_sealed(state, &key_id))
        .await;
    let (caller, sealed) = found?;
    let secret = app.seal.open_secret(&caller.key_id, &sealed)?;
    claim.check(&secret, now)?;
    // Nobody else sets them before the answer.
    let _ = observed.key_id.set(caller.key_id.clone());
    let host = header_text(&parts.headers, header::HOST.as_str());
    let target = Target::read(&parts.method, host, parts.uri.path(), &query);
    let is_put = matches!(
        &target,
        Ok(Target {
            call: Call::Logstore(_, LogstoreCall::Put),
            ..
        })
    );
    take_rate(&app, &caller.key_id, now, is_put)?;
    let target = target?;
    let _ = observed.action.set(target.call.name());
    let cx = Context {
        caller,
        now,
        request_id: observed.request_id.clone(),
        config: Arc::clone(&app.config),
        uptime_ms: (app.uptime)(),
    };
    check_role(&cx, &target.call)?;
    let size = is_put.then(|| Size::read(&parts.headers)).transpose()?;
    let account = cx.caller.account_id.clone();
    let take = |bytes| app.logs.in_hand.take(&account, bytes);
    // Both until the answer. A body that is slow to come holds no more than itself.
    let _body = size.map(|size| take(size.body)).transpose()?;
    let body = read_body(body, size.map_or(MAX_BODY_BYTES, |size| size.body)).await?;
    let _logs = size.map(|size| take(size.of_logs())).transpose()?;
    claim.check_body(&body)?;
    let asked = Asked {
        app,
        cx,
        parts,
        query,
        body,
    };
    match size {
        Some(size) => asked.put(target, size).await,
        None => asked.call(target).await,
    }
}

/// Counts a request against the rate of its key, as those of the other faces are.
fn take_rate(app: &App, key_id: &str, now: Moment, is_put: bool) -> Result<(), LogError> {
    let (taken, code) = if is_put {
        (app.rates.take_put(key_id, now), Code::WriteQuotaExceed)
    } else {
        (app.rates.take(key_id, now), Code::ReadQuotaExceed)
    };
    taken.map_err(|error| LogError::new(code, error.message()))
}

/// An agent puts, and does nothing else; a reader changes nothing.
fn check_role(cx: &Context, call: &Call) -> Result<(), LogError> {
    match (cx.caller.role, call) {
        (Role::Administrator | Role::Agent, Call::Logstore(_, LogstoreCall::Put)) => Ok(()),
        (_, Call::Logstore(_, LogstoreCall::Put)) => Ok(cx.caller.may(Need::Change)?),
        _ => Ok(cx.caller.may(Need::Read)?),
    }
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, LogError> {
    match timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // A client that is gone does not read the answer.
        Ok(Err(_)) => {
            let message = format!("The body has more than {limit} bytes.");
            Err(LogError::new(Code::PostBodyTooLarge, message))
        }
        Err(_) => {
            let message = format!("The body took more than {} s.", BODY_TIMEOUT.as_secs());
            Err(LogError::new(Code::RequestTimeout, message))
        }
    }
}

impl Asked {
    async fn call(self, target: Target) -> Result<Response, LogError> {
        let project = target.project;
        let named = || {
            project.clone().ok_or_else(|| {
                let message = "The request names no project: allowed is one as the first label of the host, as the first \
                               segment of the path, or as the parameter `project`.";
                LogError::new(Code::ProjectNotExist, message)
            })
        };
        match target.call {
            Call::CreateProject => self.create_project().await,
            Call::ListProjects => self.list_projects().await,
            Call::GetProject => self.get_project(named()?).await,
            Call::UpdateProject => self.update_project(named()?).await,
            Call::DeleteProject => self.delete_project(named()?).await,
            Call::CreateLogstore => self.create_logstore(named()?).await,
            Call::ListLogstores => self.list_logstores(named()?).await,
            Call::Logstore(logstore, call) => self.of_logstore(named()?, logstore, call).await,
        }
    }

    async fn of_logstore(
        self,
        project: String,
        logstore: String,
        call: LogstoreCall,
    ) -> Result<Response, LogError> {
        match call {
            LogstoreCall::Get => self.get_logstore(project, logstore).await,
            LogstoreCall::Update => self.update_logstore(project, logstore).await,
            LogstoreCall::Delete => self.delete_logstore(project, logstore).await,
            LogstoreCall::GetIndex => self.get_index(project, logstore).await,
            LogstoreCall::CreateIndex => self.set_index(project, logstore, true).await,
            LogstoreCall::UpdateIndex => self.set_index(project, logstore, false).await,
            LogstoreCall::DeleteIndex => self.delete_index(project, logstore).await,
            LogstoreCall::GetLogs => self.get_logs(project, logstore).await,
            LogstoreCall::GetLogsV2 => self.get_logs_v2(project, logstore).await,
            LogstoreCall::Histogram => self.histogram(project, logstore).await,
            LogstoreCall::QueryProgress => self.query_progress(project, logstore).await,
            LogstoreCall::ListShards => self.list_shards(project, logstore).await,
            LogstoreCall::Cursor => self.cursor(project, logstore).await,
            LogstoreCall::Pull => self.pull(project, logstore).await,
            // It is told apart before: its body may be larger.
            LogstoreCall::Put => Err(LogError::internal("a put is no such call")),
        }
    }

    async fn put(self, target: Target, size: Size) -> Result<Response, LogError> {
        let Target { project, call } = target;
        let (Some(project), Call::Logstore(logstore, _)) = (project, call) else {
            let message = "The request names no project.";
            return Err(LogError::new(Code::ProjectNotExist, message));
        };
        let _on_its_way = self.app.logs.puts.read().await;
        let (key, entry) = self.logstore(project, logstore).await?;
        let (body, now) = (self.body.clone(), self.cx.now);
        let store = Arc::clone(&self.app.logs.store);
        let in_hand = Arc::clone(&self.app.logs.in_hand);
        let account = self.cx.caller.account_id.clone();
        let read = move || {
            let mut rows = None;
            let put = Put::read(&body, &size, entry.ttl_days, now, |logs| {
                rows = Some(in_hand.take(&account, logs * ROW_OCTETS)?);
                Ok(store.gather(logs))
            })?;
            Ok::<_, LogError>((put, rows))
        };
        // The rows are in hand until they are on the disk.
        let (put, _rows) = tokio::task::spawn_blocking(read)
            .await
            .map_err(LogError::internal)??;
        let received = UNIX_EPOCH + Duration::from_millis(now.0.unsigned_abs());
        let store = &self.app.logs.store;
        store
            .put_prepared(&key, put.logs, put.identity.as_deref(), received)
            .await?;
        Ok(put::answer())
    }

    /// A logstore, and what its logs are known by.
    async fn logstore(
        &self,
        project: String,
        logstore: String,
    ) -> Result<(LogstoreKey, catalogue::LogstoreEntry), LogError> {
        self.read(move |state, cx| {
            let entry = catalogue::logstore(state, cx, &project, &logstore)?;
            Ok((catalogue::key(&project, &logstore)?, entry))
        })
        .await
    }
}

/// An answer of JSON.
fn json_answer(body: &impl Serialize) -> Response {
    // Text and numbers with text keys always can be.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// An answer of bytes, compressed if the client takes that and there are any.
fn bytes_answer(raw: Vec<u8>, kind: &'static str, takes_lz4: bool) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("x-log-bodyrawsize", HeaderValue::from(raw.len()));
    if takes_lz4 && !raw.is_empty() {
        headers.insert("x-log-compresstype", HeaderValue::from_static("lz4"));
        return (headers, compress(&raw)).into_response();
    }
    (headers, raw).into_response()
}

/// Removes the logs of logstores that are going, and forgets those.
///
/// # Errors
/// Of the state and the store; what is left is done the next time.
pub async fn finish_removals(app: &App) -> Result<(), LogError> {
    let _alone = app.logs.removals.lock().await;
    let going = in_state(app, false, catalogue::going).await?;
    if going.is_empty() {
        return Ok(());
    }
    // Puts that saw the logstore before it was marked have come to their end when this is taken.
    drop(app.logs.puts.write().await);
    let mut result = Ok(());
    for (project, logstore) in going {
        // One that cannot be removed holds up no other.
        result = result.and(finish_removal(app, project, logstore).await);
    }
    result
}

async fn finish_removal(app: &App, project: String, logstore: String) -> Result<(), LogError> {
    let key = catalogue::key(&project, &logstore)?;
    app.logs.store.drop_logstore(&key).await?;
    let forget = move |state: &Transaction<'_>| catalogue::forget(state, &project, &logstore);
    in_state(app, true, forget).await
}

/// Looks after the store: flushes, compacts, and removes what is no longer kept. Called again and again, by one task.
///
/// # Errors
/// Of the state and the store: the first, after all has been tried.
pub async fn look_after(app: &App) -> Result<(), LogError> {
    // Where that fails, because the disk is full, it is what follows that makes room.
    let removed = finish_removals(app).await;
    let retentions = in_state(app, false, catalogue::retentions).await?;
    let now = UNIX_EPOCH + Duration::from_millis((app.clock)().0.unsigned_abs());
    let ttl_days = |key: &LogstoreKey| retentions.get(key).copied();
    app.logs.store.maintain(now, ttl_days).await?;
    removed
}
