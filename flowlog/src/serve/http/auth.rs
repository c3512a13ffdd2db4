//! Who asks: the limits of a request, its signature, its date, its nonce, and how many its key has made.
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use flowlog_model::protocol::{MAX_REPORT_BYTES, REPORT_PATH};
use flowlog_model::signature::acs3::{self, Authorization};
use flowlog_model::signature::encoding::{self, Parameter, ParametersError};
use flowlog_model::signature::v1;
use tokio::time::timeout;

use super::App;
use super::limits::{BODY_TIMEOUT, MAX_BODY_BYTES, MAX_PARAMETERS, MAX_UNKNOWN_BODY_BYTES};
use super::observe::Observed;
use crate::serve::error::{ApiError, Code};
use crate::serve::nonces::check_date;
use crate::serve::service::{Caller, Context, access_keys};

/// Longest text that was to be signed and that an error repeats, in bytes.
const MAX_TOLD_BYTES: usize = 16 * 1024;

/// A request whose signature is verified.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    /// Who asks, and when.
    pub(super) context: Context,
    /// The parameters of the query, then those of a form body.
    pub(super) parameters: Vec<Parameter>,
    /// The body.
    pub(super) body: Bytes,
    /// Whether the headers of action and version are signed too, as ACS3 has them. V1 signs no header: what stands in one may be anybody's.
    pub(super) signs_headers: bool,
}

/// Verifies a request before its face sees it.
pub(super) async fn authenticate(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let observed = parts
        .extensions
        .get::<Arc<Observed>>()
        .cloned()
        .ok_or_else(|| ApiError::internal("a request that is not observed"))?;
    let verified = verify(&app, &observed, &parts, body).await?;
    let mut request = Request::from_parts(parts, Body::empty());
    request.extensions_mut().insert(verified);
    Ok(next.run(request).await)
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            Code::RequestTooLarge,
            format!("The body is greater than {limit} bytes."),
        )
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // A client that is gone does not read the answer.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(ApiError::new(
            Code::RequestTimeout,
            format!("The body took more than {} s.", BODY_TIMEOUT.as_secs()),
        )),
    }
}

async fn verify(
    app: &App,
    observed: &Observed,
    parts: &Parts,
    body: Body,
) -> Result<Verified, ApiError> {
    let query = parameters(parts.uri.query().unwrap_or_default(), MAX_PARAMETERS)?;
    let proven = if parts.headers.contains_key(header::AUTHORIZATION) {
        by_headers(app, parts, query, body).await?
    } else {
        by_parameters(app, parts, query, body).await?
    };
    let key_id = &proven.caller.key_id;
    // Nobody else reads it before the answer.
    let _ = observed.key_id.set(key_id.clone());
    // Not before: a body that takes its time must not let a date be good for longer, nor let its nonce be forgotten first.
    let now = (app.clock)();
    let date = check_date(&proven.date, now)?;
    // Before the nonce, so that a client may send the same request again later.
    app.rates.take(key_id, now)?;
    app.nonces.claim(key_id, &proven.nonce, date, now)?;
    Ok(Verified {
        context: Context {
            caller: proven.caller,
            now,
            request_id: observed.request_id.clone(),
            config: Arc::clone(&app.config),
            uptime_ms: (app.uptime)(),
        },
        parameters: proven.parameters,
        body: proven.body,
        signs_headers: proven.signs_headers,
    })
}

/// What a request's signature proves.
struct Proven {
    caller: Caller,
    date: String,
    nonce: String,
    parameters: Vec<Parameter>,
    body: Bytes,
    signs_headers: bool,
}

/// Verifies ACS3. The signature is over a hash of the body, so it is verified first: nobody without an access key has the service hold a
/// large body.
async fn by_headers(
    app: &App,
    parts: &Parts,
    query: Vec<Parameter>,
    body: Body,
) -> Result<Proven, ApiError> {
    let authorization =
        Authorization::parse(single(&parts.headers, "authorization")?).ok_or_else(|| {
            incomplete("The Authorization header is not ACS3-HMAC-SHA256 with Credential, SignedHeaders and Signature.")
        })?;
    let date = single(&parts.headers, acs3::DATE)?.to_owned();
    let nonce = single(&parts.headers, acs3::NONCE)?.to_owned();
    check_date(&date, (app.clock)())?;
    let (caller, secret) = caller(app, &authorization.credential).await?;
    let sha256 = check_acs3(parts, &query, &authorization, &secret)?;
    let limit = match parts.uri.path() {
        REPORT_PATH => MAX_REPORT_BYTES,
        _ => MAX_BODY_BYTES,
    };
    let body = read_body(body, limit).await?;
    if acs3::sha256_hex(&body) != sha256.to_ascii_lowercase() {
        return Err(ApiError::new(
            Code::ContentHash,
            "x-acs-content-sha256 is not that of the body.",
        ));
    }
    let mut parameters = query;
    let form = form(&parts.headers, &body, MAX_PARAMETERS - parameters.len())?;
    parameters.extend(form);
    Ok(Proven {
        caller,
        date,
        nonce,
        parameters,
        body,
        signs_headers: true,
    })
}

/// Verifies V1, which has neither path nor headers: it is for the RPC face alone. The signature may be in the body.
async fn by_parameters(
    app: &App,
    parts: &Parts,
    query: Vec<Parameter>,
    body: Body,
) -> Result<Proven, ApiError> {
    let not_signed = || incomplete("The request is not signed.");
    if parts.uri.path() != "/" {
        return Err(not_signed());
    }
    let body = read_body(body, MAX_UNKNOWN_BODY_BYTES).await?;
    let mut parameters = query;
    let form = form(&parts.headers, &body, MAX_PARAMETERS - parameters.len())?;
    parameters.extend(form);
    if !parameters.iter().any(|(name, _)| name == v1::SIGNATURE) {
        return Err(not_signed());
    }
    let once = |name| once(&parameters, name);
    if once(v1::METHOD)? != v1::ALGORITHM || once(v1::VERSION)? != v1::SIGNATURE_VERSION {
        return Err(incomplete(
            "SignatureMethod is not HMAC-SHA1, or SignatureVersion not 1.0.",
        ));
    }
    let date = once(v1::TIMESTAMP)?.to_owned();
    let nonce = once(v1::NONCE)?.to_owned();
    check_date(&date, (app.clock)())?;
    let (caller, secret) = caller(app, once(v1::ACCESS_KEY_ID)?).await?;
    check_v1(parts, &parameters, &secret, once(v1::SIGNATURE)?)?;
    Ok(Proven {
        caller,
        date,
        nonce,
        parameters,
        body,
        signs_headers: false,
    })
}

/// Whose an access key is, and its secret.
async fn caller(app: &App, key_id: &str) -> Result<(Caller, String), ApiError> {
    let wanted = key_id.to_owned();
    let (caller, sealed) = app
        .store
        .read(move |state| access_keys::find_sealed(state, &wanted))
        .await?;
    let secret = app.seal.open_secret(&caller.key_id, &sealed)?;
    Ok((caller, secret))
}

fn parameters(encoded: &str, limit: usize) -> Result<Vec<Parameter>, ApiError> {
    encoding::parameters(encoded, limit).map_err(|error| match error {
        ParametersError::TooMany { .. } => ApiError::new(
            Code::TooManyParameters,
            format!("The request has more than {MAX_PARAMETERS} parameters."),
        ),
        error => ApiError::new(Code::MalformedRequest, format!("In the request, {error}.")),
    })
}

/// The parameters of a form body; none where the body is no form.
fn form(headers: &HeaderMap, body: &Bytes, limit: usize) -> Result<Vec<Parameter>, ApiError> {
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| {
            kind.trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
    if !is_form {
        return Ok(Vec::new());
    }
    let text = std::str::from_utf8(body)
        .map_err(|_| ApiError::new(Code::MalformedRequest, "The form body is not UTF-8."))?;
    parameters(text, limit)
}

fn incomplete(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::IncompleteSignature, message)
}

/// A parameter that stands in the request once.
fn once<'a>(parameters: &'a [Parameter], name: &str) -> Result<&'a str, ApiError> {
    let mut found = parameters.iter().filter(|(found, _)| found == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Ok(value),
        _ => Err(incomplete(format!(
            "The parameter {name} must be there once."
        ))),
    }
}

/// A header that stands in the request once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, ApiError> {
    let mut found = headers.get_all(name).iter();
    match (found.next().map(|value| value.to_str()), found.next()) {
        (Some(Ok(value)), None) => Ok(value),
        _ => Err(incomplete(format!(
            "The header {name} must be there once, in ASCII."
        ))),
    }
}

fn check_v1(
    parts: &Parts,
    parameters: &[Parameter],
    secret: &str,
    signature: &str,
) -> Result<(), ApiError> {
    let method = parts.method.as_str();
    if v1::is_signature(secret, method, parameters, signature) {
        return Ok(());
    }
    let text = v1::string_to_sign(method, parameters);
    let told = if text.len() > MAX_TOLD_BYTES {
        "too long to be told"
    } else {
        &text
    };
    // The older SDK compares what follows the colon with its own.
    Err(does_not_match(&format!("the string to sign is:{told}")))
}

fn does_not_match(here: &str) -> ApiError {
    ApiError::new(
        Code::SignatureDoesNotMatch,
        format!(
            "The signature is not that of the request and the access key's secret; here {here}"
        ),
    )
}

/// Checks the signature; gives the SHA-256 that the body must have, in hex.
fn check_acs3<'p>(
    parts: &'p Parts,
    query: &[Parameter],
    authorization: &Authorization,
    secret: &str,
) -> Result<&'p str, ApiError> {
    let also: &[&str] = if parts.uri.path() == "/" {
        &[acs3::ACTION, acs3::VERSION]
    } else {
        &[]
    };
    for name in acs3::ALWAYS_SIGNED.iter().chain(also) {
        if !authorization
            .signed_headers
            .iter()
            .any(|signed| signed == name)
        {
            return Err(incomplete(format!("The header {name} must be signed.")));
        }
    }
    let content_sha256 = single(&parts.headers, acs3::CONTENT_SHA256)?;
    let signed: Vec<(&str, &str)> = authorization
        .signed_headers
        .iter()
        .map(|name| Ok((name.as_str(), single(&parts.headers, name)?)))
        .collect::<Result<_, ApiError>>()?;
    let signed = acs3::Signed {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query,
        headers: &signed,
        content_sha256,
    };
    if signed.is_signature(secret, &authorization.signature) {
        return Ok(content_sha256);
    }
    let hash = acs3::sha256_hex(signed.canonical().as_bytes());
    Err(does_not_match(&format!(
        "the canonical request's SHA-256 is:{hash}"
    )))
}
