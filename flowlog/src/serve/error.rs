//! What a client is told when something is wrong: a stable code, an HTTP status, and one sentence.
//!
//! `error-codes.md` lists the codes; a test sees to it that it is current.
use std::borrow::Cow;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rusqlite::ErrorCode;

/// Declares the codes: variant, spelling, HTTP status, meaning.
macro_rules! codes {
    ($($variant:ident = $spelling:literal, $status:ident, $meaning:literal;)+) => {
        /// A stable code. Those of the product where its clients handle them; the others are coined in its manner.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The spelling, without the parameter's name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $spelling,)+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

codes! {
    IncompleteSignature = "IncompleteSignature", BAD_REQUEST,
        "The request is not signed, or a part of the signature is missing, or something that must be signed is not.";
    AccessKeyNotFound = "InvalidAccessKeyId.NotFound", NOT_FOUND, "There is no such access key.";
    AccessKeyInactive = "InvalidAccessKeyId.Inactive", FORBIDDEN, "The access key is not active.";
    SignatureDoesNotMatch = "SignatureDoesNotMatch", BAD_REQUEST, "The signature is not that of the request and the key's secret.";
    TimeStampFormat = "InvalidTimeStamp.Format", BAD_REQUEST, "The date of the request is not as `2026-11-22T04:52:11Z`.";
    TimeStampExpired = "InvalidTimeStamp.Expired", BAD_REQUEST, "The date of the request is off by more than 15 minutes.";
    NonceUsed = "SignatureNonceUsed", BAD_REQUEST, "The nonce has been used before.";
    ContentHash = "InvalidContentHash", BAD_REQUEST, "`x-acs-content-sha256` is not that of the body.";
    Throttling = "Throttling.User", TOO_MANY_REQUESTS, "The access key makes more requests than it is allowed to.";
    ForbiddenRole = "Forbidden.Role", FORBIDDEN, "The access key's role may not do this.";
    ForbiddenHost = "Forbidden.Host", FORBIDDEN, "The agent's access key is bound to another host, or the host to another access key.";
    AgentNotReported = "IncorrectStatus.Agent", CONFLICT, "The agent has not reported yet, and so has no desired state.";
    ActionNotFound = "InvalidAction.NotFound", NOT_FOUND, "There is no such action.";
    UnsupportedVersion = "InvalidVersion", BAD_REQUEST, "The version of the API is not 2016-04-28.";
    UnsupportedFormat = "InvalidFormat", BAD_REQUEST, "Answers are JSON; no other format can be had.";
    PathNotFound = "InvalidPath.NotFound", NOT_FOUND, "There is nothing at this path.";
    MethodNotAllowed = "UnsupportedHTTPMethod", METHOD_NOT_ALLOWED, "The path does not take this HTTP method.";
    ContentType = "UnsupportedContentType", UNSUPPORTED_MEDIA_TYPE, "The body is not of the type that is taken here.";
    MalformedRequest = "MalformedRequest", BAD_REQUEST, "The query, a header or the body cannot be read.";
    TooManyParameters = "TooManyParameters", BAD_REQUEST, "The request has more than 1,000 parameters.";
    RequestTooLarge = "RequestTooLarge", PAYLOAD_TOO_LARGE, "The body is greater than 1 MiB; that of an agent's report than 4 MiB, that of a request signed by HMAC-SHA1 than 64 KiB.";
    RequestTimeout = "RequestTimeout", REQUEST_TIMEOUT, "The body did not arrive in time.";
    MissingParameter = "MissingParameter", BAD_REQUEST, "A parameter is missing; its name follows, as in `MissingParameter.RegionId`.";
    InvalidParameter = "InvalidParameter", BAD_REQUEST,
        "A parameter has a value that is not allowed; its name follows, as in `InvalidParameter.FlowLogName`.";
    UnsupportedFeature = "UnsupportedFeature", BAD_REQUEST,
        "A value is one of the product's that Flowlog cannot do; the parameter's name follows, as in `UnsupportedFeature.TrafficPath`.";
    RegionNotFound = "InvalidRegionId.NotFound", NOT_FOUND, "The service has no such region.";
    FlowLogNotFound = "InvalidFlowLogId.NotFound", NOT_FOUND, "There is no such flow log in the region.";
    ResourceNotFound = "InvalidResourceId.NotFound", NOT_FOUND, "No agent has reported such an ENI, VSwitch or VPC in the region.";
    QuotaFlowLogs = "QuotaExceeded.FlowLog", BAD_REQUEST, "The region has as many flow logs as its quota allows.";
    QuotaRegions = "QuotaExceeded.Region", BAD_REQUEST, "The account uses as many regions as its quota allows.";
    QuotaTags = "QuotaExceeded.Tag", BAD_REQUEST, "A flow log has at most 20 tags.";
    QuotaAccessKeys = "QuotaExceeded.AccessKey", BAD_REQUEST, "The account has as many access keys as it is allowed to.";
    QuotaAgents = "QuotaExceeded.Agent", BAD_REQUEST, "The report has more ENIs or flow logs than are allowed.";
    IncorrectStatus = "IncorrectStatus.flowlog", CONFLICT,
        "The flow log's status does not allow this, or another change of it is under way: try again when that is done.";
    ServiceOpen = "OperationFailed.ExceedPurchaseLimit", BAD_REQUEST, "The service is open in the region already.";
    LastAdministrator = "OperationDenied.LastAdministrator", CONFLICT, "The only active administrator's access key of the account must stay.";
    SystemBusy = "SystemBusy", SERVICE_UNAVAILABLE, "The service has too much to do: try again.";
    ServiceUnavailable = "ServiceUnavailable", SERVICE_UNAVAILABLE, "The service cannot reach or change its state now, as when its disk is full: try again later.";
    InternalError = "InternalError", INTERNAL_SERVER_ERROR, "Something went wrong inside; the service's log has it under the request id.";
}

/// An error as a client is told it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.code())]
pub struct ApiError {
    code: Code,
    parameter: Option<Cow<'static, str>>,
    message: String,
    /// For the service's log alone.
    inside: Option<String>,
}

impl ApiError {
    /// An error with a sentence of its own.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            parameter: None,
            message: message.into(),
            inside: None,
        }
    }

    /// A parameter that is missing.
    #[must_use]
    pub fn missing(parameter: &'static str) -> Self {
        Self {
            parameter: Some(parameter.into()),
            ..Self::new(
                Code::MissingParameter,
                format!("The parameter {parameter} is missing."),
            )
        }
    }

    /// A parameter with a value that is not allowed; `clause` says what is: `allowed are 1, 5 and 10`.
    #[must_use]
    pub fn invalid(parameter: &'static str, clause: impl std::fmt::Display) -> Self {
        Self {
            parameter: Some(parameter.into()),
            ..Self::new(
                Code::InvalidParameter,
                format!("The parameter {parameter} is not valid: {clause}."),
            )
        }
    }

    /// A parameter with a value that the product has and Flowlog cannot do; `why` is a clause.
    #[must_use]
    pub fn unsupported(parameter: &'static str, why: impl std::fmt::Display) -> Self {
        Self {
            parameter: Some(parameter.into()),
            ..Self::new(
                Code::UnsupportedFeature,
                format!("The value of the parameter {parameter} is not supported: {why}."),
            )
        }
    }

    /// Something that went wrong inside, which is nothing to the client.
    #[must_use]
    pub fn internal(inside: impl std::fmt::Display) -> Self {
        Self {
            inside: Some(inside.to_string()),
            ..Self::new(
                Code::InternalError,
                "Something went wrong inside the service.",
            )
        }
    }

    /// The code, with the parameter's name where it belongs.
    #[must_use]
    pub fn code(&self) -> String {
        match &self.parameter {
            Some(parameter) => format!("{}.{parameter}", self.code.as_str()),
            None => self.code.as_str().to_owned(),
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Code {
        self.code
    }

    /// The sentence.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the service's log says of it.
    #[must_use]
    pub fn inside(&self) -> Option<&str> {
        self.inside.as_deref()
    }
}

impl From<rusqlite::Error> for ApiError {
    /// What may be well again by itself, such as a disk that is full, is no bug: clients may try again.
    fn from(error: rusqlite::Error) -> Self {
        let passing = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::CannotOpen
                    | ErrorCode::ReadOnly
                    | ErrorCode::OutOfMemory
            )
        );
        let error = Self::internal(format!("the state: {error}"));
        if !passing {
            return error;
        }
        Self {
            code: Code::ServiceUnavailable,
            message: "The service cannot reach or change its state now: try again later.".into(),
            ..error
        }
    }
}

/// The body needs the request's id and host: `http::observe` writes it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_codes_is_current() {
        let mut list = String::from(
            "# Error codes\n\nOf the management API, both faces, and of the agent protocol. An error's body is\n\
             `{\"RequestId\", \"HostId\", \"Code\", \"Message\", \"Recommend\"}`.\n\n| code | HTTP status | meaning |\n|---|---|---|\n",
        );
        for code in Code::ALL {
            list.push_str(&format!(
                "| `{}` | {} | {} |\n",
                code.as_str(),
                code.status().as_u16(),
                code.meaning()
            ));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/error-codes.md");
        if std::env::var_os("FLOWLOG_UPDATE").is_some() {
            std::fs::write(path, &list).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            committed, list,
            "run this test with FLOWLOG_UPDATE=1 and commit error-codes.md"
        );
    }
}
