//! Who asks: the limits of a request, its signature, its date, its nonce, and how many its key has made.
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
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
use super::limits::{BODY_TIMEOUT, MAX_BODY_BYTES, MAX_PARAMETERS};
use super::observe::Observed;
use crate::serve::error::{ApiError, Code};
use crate::serve::moment::Moment;
use crate::serve::nonces::check_date;
use crate::serve::service::{Context, access_keys};

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

/// What a request says about itself, to be verified.
struct Claim {
    key_id: String,
    date: String,
    nonce: String,
    proof: Proof,
}

enum Proof {
    Acs3(Authorization),
    V1(String),
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
    let limit = match parts.uri.path() {
        REPORT_PATH => MAX_REPORT_BYTES,
        _ => MAX_BODY_BYTES,
    };
    let body = read_body(body, limit).await?;
    // Not before: a body that takes its time must not let a date be good for longer, nor let its nonce be forgotten first.
    let now = (app.clock)();
    let verified = verify(&app, &observed, &parts, body, now).await?;
    let mut request = Request::from_parts(parts, Body::empty());
    request.extensions_mut().insert(verified);
    Ok(next.run(request).await)
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // A client that is gone does not read the answer.
        Ok(Err(_)) => Err(ApiError::new(
            Code::RequestTooLarge,
            format!("The body is greater than {limit} bytes."),
        )),
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
    body: Bytes,
    now: Moment,
) -> Result<Verified, ApiError> {
    let query = parameters(parts.uri.query().unwrap_or_default(), MAX_PARAMETERS)?;
    let form = form(&parts.headers, &body, MAX_PARAMETERS - query.len())?;
    let all: Vec<Parameter> = query.iter().chain(&form).cloned().collect();
    let claim = claim(parts, &all)?;
    let date = check_date(&claim.date, now)?;
    let key_id = claim.key_id.clone();
    let wanted = key_id.clone();
    let (caller, sealed) = app
        .store
        .read(move |state| access_keys::find_sealed(state, &wanted))
        .await?;
    let secret = app.seal.open_secret(&key_id, &sealed)?;
    match &claim.proof {
        Proof::Acs3(authorization) => {
            check_acs3(parts, &query, &body, authorization, &secret)?;
        }
        Proof::V1(signature) => check_v1(parts, &all, &secret, signature)?,
    }
    // Nobody else reads it before the answer.
    let _ = observed.key_id.set(key_id.clone());
    // Before the nonce, so that a client may send the same request again later.
    app.rates.take(&key_id, now)?;
    app.nonces.claim(&key_id, &claim.nonce, date, now)?;
    Ok(Verified {
        context: Context {
            caller,
            now,
            request_id: observed.request_id.clone(),
            config: Arc::clone(&app.config),
            started: app.started,
        },
        parameters: all,
        body,
        signs_headers: matches!(claim.proof, Proof::Acs3(_)),
    })
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

fn claim(parts: &Parts, parameters: &[Parameter]) -> Result<Claim, ApiError> {
    if parts.headers.contains_key(header::AUTHORIZATION) {
        let authorization = Authorization::parse(single(&parts.headers, "authorization")?)
            .ok_or_else(|| {
                incomplete(
                    "The Authorization header is not ACS3-HMAC-SHA256 with Credential, SignedHeaders and Signature.",
                )
            })?;
        return Ok(Claim {
            key_id: authorization.credential.clone(),
            date: single(&parts.headers, acs3::DATE)?.to_owned(),
            nonce: single(&parts.headers, acs3::NONCE)?.to_owned(),
            proof: Proof::Acs3(authorization),
        });
    }
    // The older signature has neither path nor headers: it is for the RPC face alone.
    if parts.uri.path() != "/" || !parameters.iter().any(|(name, _)| name == v1::SIGNATURE) {
        return Err(incomplete("The request is not signed."));
    }
    let once = |name| once(parameters, name);
    if once(v1::METHOD)? != v1::ALGORITHM || once(v1::VERSION)? != v1::SIGNATURE_VERSION {
        return Err(incomplete(
            "SignatureMethod is not HMAC-SHA1, or SignatureVersion not 1.0.",
        ));
    }
    Ok(Claim {
        key_id: once(v1::ACCESS_KEY_ID)?.to_owned(),
        date: once(v1::TIMESTAMP)?.to_owned(),
        nonce: once(v1::NONCE)?.to_owned(),
        proof: Proof::V1(once(v1::SIGNATURE)?.to_owned()),
    })
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

fn check_acs3(
    parts: &Parts,
    query: &[Parameter],
    body: &Bytes,
    authorization: &Authorization,
    secret: &str,
) -> Result<(), ApiError> {
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
    if acs3::sha256_hex(body) != content_sha256.to_ascii_lowercase() {
        return Err(ApiError::new(
            Code::ContentHash,
            "x-acs-content-sha256 is not that of the body.",
        ));
    }
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
        return Ok(());
    }
    let hash = acs3::sha256_hex(signed.canonical().as_bytes());
    Err(does_not_match(&format!(
        "the canonical request's SHA-256 is:{hash}"
    )))
}
