//! Who asks: the Log Service's signatures, the date, and the body that is signed with them.
//!
//! The signature covers a hash of the body, so it is verified before the body is read: nobody who has no access key makes the service
//! hold a large body.
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use flowlog_model::signature::encoding::Parameter;
use flowlog_model::signature::log_v4::Authorization;
use flowlog_model::signature::{log_v1, log_v4};

use super::error::{Code, LogError};
use crate::serve::moment::Moment;
use crate::serve::service::shown;

/// How far the date of a request may be off, in milliseconds: 15 minutes.
const MAX_SKEW_MS: u64 = 15 * 60 * 1000;

/// Whether a request is one for the Log Service, by its headers: it is signed its way, or names the version of its API.
#[must_use]
pub fn is_for_log_service(headers: &HeaderMap) -> bool {
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let scheme = authorization.split(' ').next().unwrap_or_default();
    matches!(scheme, log_v1::SCHEME | log_v4::ALGORITHM) || headers.contains_key("x-log-apiversion")
}

/// What a request says about itself, to be verified.
pub(super) struct Claim<'r> {
    method: &'r str,
    path: &'r str,
    query: &'r [Parameter],
    headers: Vec<(&'r str, &'r str)>,
    proof: Proof<'r>,
}

enum Proof<'r> {
    V1 { key_id: &'r str, signature: &'r str },
    V4(Authorization<'r>),
}

impl<'r> Claim<'r> {
    /// Reads it from the head of a request.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] if the request is not signed.
    pub(super) fn read(parts: &'r Parts, query: &'r [Parameter]) -> Result<Self, LogError> {
        // A value that is not ASCII is in no header that is signed: it would not be what the client has signed.
        let headers: Vec<(&str, &str)> = parts
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let authorization = headers
            .iter()
            .find(|(name, _)| *name == header::AUTHORIZATION.as_str())
            .map_or("", |(_, value)| *value);
        let v1 = log_v1::authorization(authorization)
            .map(|(key_id, signature)| Proof::V1 { key_id, signature });
        let proof = v1.or_else(|| Authorization::parse(authorization).map(Proof::V4));
        let proof = proof.ok_or_else(|| {
            let message = "The request is not signed: the header Authorization is to be \
                           `LOG KEY:SIGNATURE` or `SLS4-HMAC-SHA256 Credential=…,Signature=…`.";
            LogError::new(Code::Unauthorized, message)
        })?;
        Ok(Self {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query,
            headers,
            proof,
        })
    }

    /// The access key that the request says it is signed with.
    pub(super) const fn key_id(&self) -> &'r str {
        match self.proof {
            Proof::V1 { key_id, .. } => key_id,
            Proof::V4(Authorization { key_id, .. }) => key_id,
        }
    }

    /// Checks the signature and the date.
    ///
    /// # Errors
    /// [`Code::SignatureNotMatch`], [`Code::InvalidDateFormat`], [`Code::RequestTimeTooSkewed`].
    pub(super) fn check(&self, secret: &str, now: Moment) -> Result<(), LogError> {
        let (is_signed, date) = match &self.proof {
            Proof::V1 { signature, .. } => {
                let signed = self.v1();
                let date = signed.date().map(|date| (date, http_date(date)));
                (signed.is_signature(secret, signature), date)
            }
            Proof::V4(authorization) => {
                let signed = self.v4(authorization);
                let date = signed.date().map(|date| (date, compact_date(date)));
                (signed.is_signed(secret, authorization), date)
            }
        };
        if !is_signed {
            return Err(LogError::new(
                Code::SignatureNotMatch,
                "The signature is not that of the request and the access key's secret.",
            ));
        }
        let (text, date) =
            date.ok_or_else(|| LogError::new(Code::InvalidDateFormat, "The request has no date."))?;
        let date = date.ok_or_else(|| {
            let message = format!(
                "The date of the request, \"{}\", is none: allowed are `Sun, 22 Nov 2026 04:52:11 GMT` with version 1 of the \
                 signature and `20261122T045211Z` with version 4.",
                shown(text)
            );
            LogError::new(Code::InvalidDateFormat, message)
        })?;
        if now.apart(date) > MAX_SKEW_MS {
            let message = format!(
                "The date of the request, {}, is off by more than 15 minutes: it is {}.",
                date.rfc3339(),
                now.rfc3339()
            );
            return Err(LogError::new(Code::RequestTimeTooSkewed, message));
        }
        Ok(())
    }

    /// Checks that the body is the one that is signed.
    ///
    /// # Errors
    /// [`Code::SignatureNotMatch`].
    pub(super) fn check_body(&self, body: &[u8]) -> Result<(), LogError> {
        let header = |wanted| {
            let found = self.headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| *value)
        };
        let (is_body, name) = match self.proof {
            Proof::V1 { .. } => (
                log_v1::is_body(header(log_v1::CONTENT_MD5), body),
                "Content-MD5",
            ),
            Proof::V4(_) => (
                log_v4::is_body(header(log_v4::CONTENT_SHA256), body),
                log_v4::CONTENT_SHA256,
            ),
        };
        if is_body {
            return Ok(());
        }
        let message = format!("The header {name} is not that of the body.");
        Err(LogError::new(Code::SignatureNotMatch, message))
    }

    fn v1(&self) -> log_v1::Signed<'_> {
        log_v1::Signed {
            method: self.method,
            path: self.path,
            query: self.query,
            headers: &self.headers,
        }
    }

    fn v4(&self, authorization: &Authorization<'r>) -> log_v4::Signed<'_> {
        log_v4::Signed {
            method: self.method,
            path: self.path,
            query: self.query,
            headers: &self.headers,
            region: authorization.region,
        }
    }
}

/// A date as `Sun, 22 Nov 2026 04:52:11 GMT`.
fn http_date(text: &str) -> Option<Moment> {
    httpdate::parse_http_date(text)
        .ok()
        .map(Moment::from_system)
}

/// A date as `20261122T045211Z`.
fn compact_date(text: &str) -> Option<Moment> {
    let is_compact = text.len() == 16 && text.is_ascii();
    let part = |range| text.get(range).filter(|_| is_compact);
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    let spelled = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    Moment::parse(&spelled).filter(|_| part(8..9) == Some("T") && part(15..16) == Some("Z"))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const NOW: Moment = Moment(1_795_323_131_000);

    #[test]
    fn dates() {
        assert_eq!(http_date("Sun, 22 Nov 2026 04:52:11 GMT"), Some(NOW));
        assert_eq!(compact_date("20261122T045211Z"), Some(NOW));
        for bad in [
            "",
            "20261122 045211Z",
            "20261322T045211Z",
            "20261122T045211",
            "2026112+T045211Z",
            "流流流流流Z",
        ] {
            assert_eq!(compact_date(bad), None, "{bad}");
        }
    }

    /// A request signed by version 1 with `id` and `secret`, whose headers `change` may change.
    fn check(change: impl FnOnce(&mut HeaderMap), now: Moment) -> Result<(), Code> {
        let outgoing = log_v1::Outgoing {
            method: "POST",
            path: "/logstores/flows/shards/lb",
            query: &[],
            headers: &[("x-log-apiversion", "0.6.0")],
            body: b"body",
            date: "Sun, 22 Nov 2026 04:52:11 GMT",
        };
        let mut request =
            Request::post("/logstores/flows/shards/lb").header("x-log-apiversion", "0.6.0");
        for (name, value) in outgoing.headers("id", "secret") {
            request = request.header(name, value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        assert!(is_for_log_service(&parts.headers));
        change(&mut parts.headers);
        let claim = Claim::read(&parts, &[]).map_err(|error| error.code())?;
        assert_eq!(claim.key_id(), "id");
        let checked = claim
            .check("secret", now)
            .and_then(|()| claim.check_body(b"body"));
        checked.map_err(|error| error.code())
    }

    #[test]
    fn what_is_not_as_it_was_signed_is_refused() {
        let unchanged = |_: &mut HeaderMap| {};
        assert_eq!(check(unchanged, NOW), Ok(()));
        assert_eq!(check(unchanged, Moment(NOW.0 + 900_000)), Ok(()));
        let late = check(unchanged, Moment(NOW.0 + 900_001));
        assert_eq!(late, Err(Code::RequestTimeTooSkewed));
        let early = check(unchanged, Moment(NOW.0 - 900_001));
        assert_eq!(early, Err(Code::RequestTimeTooSkewed));
        let set = |name: &'static str, value: &'static str| {
            move |headers: &mut HeaderMap| {
                headers.insert(name, value.parse().unwrap());
            }
        };
        for (name, value) in [
            ("x-log-apiversion", "0.7.0"),
            ("x-log-added", "1"),
            ("content-md5", "841A2D689AD86BD1611447453C22C6FD"),
            ("date", "Sun, 22 Nov 2026 04:52:12 GMT"),
            ("content-type", "text/plain"),
        ] {
            assert_eq!(
                check(set(name, value), NOW),
                Err(Code::SignatureNotMatch),
                "{name}"
            );
        }
        let unsigned = check(set("authorization", "Basic x"), NOW);
        assert_eq!(unsigned, Err(Code::Unauthorized));
    }
}
