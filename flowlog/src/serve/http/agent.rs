//! The agent protocol: [`flowlog_model::protocol`] says what travels.
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Router};
use flowlog_model::protocol::{DESIRED_STATE_PATH, MAX_WAIT_SECONDS, REPORT_PATH, Report, Version};
use tokio::time::{Instant, timeout_at};

use super::App;
use super::auth::Verified;
use super::observe::Observed;
use super::params::Params;
use super::rest::{Answer, body, json};
use crate::serve::config::Config;
use crate::serve::error::ApiError;
use crate::serve::service::{Context, agents};

/// The paths.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(REPORT_PATH, post(report))
        .route(DESIRED_STATE_PATH, get(desired_state))
}

async fn report(
    State(app): State<Arc<App>>,
    Extension(observed): Extension<Arc<Observed>>,
    Extension(verified): Extension<Verified>,
) -> Answer {
    let _ = observed.action.set("AgentReport");
    let report: Report = body(&verified.body)?;
    let answer = app
        .change(verified.context, move |state, cx| {
            agents::report(state, cx, &report)
        })
        .await?;
    json(&answer)
}

async fn desired_state(
    State(app): State<Arc<App>>,
    Extension(observed): Extension<Arc<Observed>>,
    Extension(verified): Extension<Verified>,
) -> Answer {
    let _ = observed.action.set("AgentDesiredState");
    let mut cx = verified.context;
    let params = Params(verified.parameters);
    let after: Version = params.number("after")?.unwrap_or(0);
    let wait = params.number("wait")?.unwrap_or(0).min(MAX_WAIT_SECONDS);
    let until = Instant::now() + Duration::from_secs(wait);
    // From before the first look on, so that no change falls between.
    let mut changes = app.changes.subscribe();
    let mut ending = app.ending.clone();
    let mut version = touch(&app, &mut cx).await?;
    while version == after && Instant::now() < until && !*ending.borrow() {
        let woken = async {
            tokio::select! {
                _ = changes.changed() => (),
                _ = ending.changed() => (),
            }
        };
        let look = Instant::now() + presence(&cx.config);
        version = match timeout_at(until.min(look), woken).await {
            Ok(()) => app.read(cx.clone(), agents::version).await?,
            Err(_) => touch(&app, &mut cx).await?,
        };
    }
    json(&app.read(cx, agents::desired_state).await?)
}

/// Notes that the agent is there, and gives the version of its desired state.
async fn touch(app: &App, cx: &mut Context) -> Result<Version, ApiError> {
    cx.now = (app.clock)();
    cx.uptime_ms = (app.uptime)();
    let seen = cx.clone();
    app.store
        .write(move |state| agents::touch(state, &seen))
        .await
}

/// How often an agent that waits is noted as present: it must not be taken for one that is away.
fn presence(config: &Config) -> Duration {
    Duration::from_millis(config.agent_away_ms.unsigned_abs() / 3)
}
