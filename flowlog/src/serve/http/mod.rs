//! The faces of the service, on one listener.
//!
//! | path | what |
//! |---|---|
//! | `/` | the product's API: `rpc` |
//! | `/api/v1/` | the same and more, as REST: `rest` |
//! | `/agent/v1/` | the agent protocol: `agent` |
//! | any | the Log Service's API: [`crate::log_service::api`], told by the headers, for its paths are the product's |
//! | `/health`, `/ready`, `/metrics` | for whoever watches the service; not signed |
//!
//! A request goes through `observe` (request id, access log, metrics, the body of errors) and `auth` (limits, signature) to its face.
mod agent;
mod auth;
mod limits;
mod metrics;
mod observe;
mod params;
mod rest;
mod rpc;
mod server;
mod unstuck;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use rusqlite::Transaction;
use tokio::sync::watch;

use super::config::Config;
use super::error::{ApiError, Code};
use super::moment::Moment;
use super::nonces::Nonces;
use super::rate::Rates;
use super::secrets::Seal;
use super::service::{Context, transitions};
use super::store::Store;
use crate::log_service::api::{self as log_api, LogService};
pub use metrics::Metrics;
pub(crate) use observe::Observed;
pub use rest::openapi;
pub use server::{Ended, serve};

/// All that requests need.
pub struct App {
    /// The configuration.
    pub config: Arc<Config>,
    /// The state.
    pub store: Store,
    /// What seals secrets.
    pub seal: Seal,
    /// Nonces that were used.
    pub nonces: Nonces,
    /// How many requests each key may make.
    pub rates: Rates,
    /// The Log Service.
    pub logs: LogService,
    /// What is counted.
    pub metrics: Metrics,
    /// The clock; read once for each request, when its body is there.
    pub clock: Box<dyn Fn() -> Moment + Send + Sync>,
    /// How long the service has run, in milliseconds, by a clock that nobody sets.
    pub uptime: Box<dyn Fn() -> i64 + Send + Sync>,
    /// Tells those who wait for a desired state that something has changed.
    pub changes: watch::Sender<()>,
    /// Whether the service is ending.
    pub ending: watch::Receiver<bool>,
}

impl App {
    /// Makes a change, and tells those who wait if it gave a new version of the desired state.
    ///
    /// # Errors
    /// The change's own.
    pub async fn change<T: Send + 'static>(
        &self,
        cx: Context,
        change: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let change = move |state: &Transaction<'_>| {
            let before = transitions::version(state)?;
            let result = change(state, &cx)?;
            Ok((result, before != transitions::version(state)?))
        };
        let (result, is_news) = self.store.write(change).await?;
        if is_news {
            self.changes.send_replace(());
        }
        Ok(result)
    }

    /// Reads.
    ///
    /// # Errors
    /// The reading's own.
    pub async fn read<T: Send + 'static>(
        &self,
        cx: Context,
        read: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.store.read(move |state| read(state, &cx)).await
    }
}

/// All paths.
pub fn router(app: Arc<App>) -> Router {
    let signed = Router::new()
        .route("/", any(rpc::handle))
        .merge(rest::routes())
        .merge(agent::routes())
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            auth::authenticate,
        ));
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics::answer))
        .route("/api/v1/openapi.json", get(rest::document))
        .merge(signed)
        .fallback(|| async { ApiError::new(Code::PathNotFound, "There is nothing at this path.") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                Code::MethodNotAllowed,
                "The path does not take this HTTP method.",
            )
        })
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            log_service,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            observe::observe,
        ))
        .with_state(app)
}

/// Gives the Log Service what is its own.
async fn log_service(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if log_api::is_for_log_service(request.headers()) {
        log_api::handle(app, request).await
    } else {
        next.run(request).await
    }
}

/// Whether the service can do its work: its state answers, and it is not ending.
async fn ready(State(app): State<Arc<App>>) -> Response {
    let answers = app
        .store
        .read(|state| Ok(state.query_row("SELECT 1", [], |_| Ok(()))?))
        .await;
    if *app.ending.borrow() || answers.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response();
    }
    "ready\n".into_response()
}
