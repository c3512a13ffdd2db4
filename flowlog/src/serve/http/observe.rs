//! What happens around every request: its id, its line in the access log, its place in the metrics, and the body of its error.
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use crate::api::ErrorBody;
use crate::log_service::api::LogError;
use crate::serve::error::{ApiError, Code};
use crate::serve::secrets::request_id;

/// Where an error's reader is sent.
const RECOMMEND: &str = "See error-codes.md of Flowlog for what each code means.";
/// Longest host that an error repeats, in bytes.
const MAX_HOST_BYTES: usize = 255;

/// A request as the access log knows it. What is found out on the way is noted here.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The request's id.
    pub(crate) request_id: String,
    /// The access key, once its signature is verified.
    pub(crate) key_id: OnceLock<String>,
    /// The action, once it is known that there is such.
    pub(crate) action: OnceLock<&'static str>,
}

/// Observes a request.
pub(super) async fn observe(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let observed = Arc::new(Observed {
        // Without random numbers nothing that is signed is let in either.
        request_id: request_id().unwrap_or_default(),
        key_id: OnceLock::new(),
        action: OnceLock::new(),
    });
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| host.len() <= MAX_HOST_BYTES)
        .unwrap_or_default()
        .to_owned();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    request.extensions_mut().insert(Arc::clone(&observed));
    let mut response = next.run(request).await;
    // The Log Service writes its errors itself.
    let log_error = response.extensions_mut().remove::<LogError>();
    let error = response.extensions_mut().remove().or_else(|| {
        // The router's own, of a path that is not UTF-8 once decoded.
        (log_error.is_none() && response.status() == StatusCode::BAD_REQUEST)
            .then(|| ApiError::new(Code::MalformedRequest, "The path cannot be read."))
    });
    if let Some(error) = &error {
        write_error(&mut response, error, &observed, host);
    }
    if let Ok(id) = HeaderValue::from_str(&observed.request_id) {
        response.headers_mut().insert("x-acs-request-id", id);
    }
    let action = observed.action.get().copied().unwrap_or("-");
    let code = error.as_ref().map_or("OK", |error| error.kind().as_str());
    let elapsed = began.elapsed();
    app.metrics.request(action, code, elapsed);
    tracing::info!(
        target: "access",
        request_id = observed.request_id,
        key_id = observed.key_id.get().map_or("-", String::as_str),
        %method,
        path = %path.chars().take(128).collect::<String>().escape_debug(),
        action,
        status = response.status().as_u16(),
        code,
        duration_ms = elapsed.as_secs_f64() * 1000.0,
    );
    let inside = error.as_ref().and_then(ApiError::inside);
    if let Some(inside) = inside.or_else(|| log_error.as_ref()?.inside()) {
        tracing::error!(request_id = observed.request_id, "{inside}");
    }
    response
}

fn write_error(response: &mut Response, error: &ApiError, observed: &Observed, host: String) {
    let body = ErrorBody {
        request_id: observed.request_id.clone(),
        host_id: host,
        code: error.code(),
        message: error.message().to_owned(),
        recommend: RECOMMEND.to_owned(),
    };
    *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
}
