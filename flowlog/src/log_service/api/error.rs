//! What a client of the Log Service is told when something is wrong, in the product's shape: `{"errorCode", "errorMessage"}`.
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::json_answer;
use crate::log_service::store::{PutError, StoreError};
use crate::serve::error::{ApiError, Code as ManagementCode};

/// Declares the codes: variant and HTTP status. The variant's name is the spelling.
macro_rules! codes {
    ($($(#[$meta:meta])* $variant:ident = $status:ident;)+) => {
        /// A stable code. Those of the product where its clients handle them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$meta])* $variant,)+
        }

        impl Code {
            /// The spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }
        }
    };
}

codes! {
    /// There is no such project.
    ProjectNotExist = NOT_FOUND;
    /// There is no such logstore in the project.
    LogStoreNotExist = NOT_FOUND;
    /// The logstore has no index: it is not searched.
    IndexConfigNotExist = NOT_FOUND;
    /// A logstore has the shard 0 alone.
    ShardNotExist = NOT_FOUND;
    /// There is no such call.
    InvalidPath = NOT_FOUND;
    /// The project exists, perhaps in another account.
    ProjectAlreadyExist = BAD_REQUEST;
    /// The logstore exists.
    LogStoreAlreadyExist = BAD_REQUEST;
    /// The logstore has an index.
    IndexAlreadyExist = BAD_REQUEST;
    /// A parameter or a header is missing, or has a value that is not allowed.
    ParameterInvalid = BAD_REQUEST;
    /// The body is not what it should be.
    PostBodyInvalid = BAD_REQUEST;
    /// The body is greater than is allowed.
    PostBodyTooLarge = BAD_REQUEST;
    /// A range of time that ends before it begins, or is none.
    InvalidTimestamp = BAD_REQUEST;
    /// The date of the request is missing or none.
    InvalidDateFormat = BAD_REQUEST;
    /// The date of the request is off by more than 15 minutes.
    RequestTimeTooSkewed = BAD_REQUEST;
    /// The cursor is none that the service gave.
    InvalidCursor = BAD_REQUEST;
    /// A query has run for too long, or the body has not arrived in time.
    RequestTimeout = BAD_REQUEST;
    /// The signature is not that of the request and the key's secret.
    SignatureNotMatch = UNAUTHORIZED;
    /// The access key is unknown or may not do this, or the project is another account's.
    Unauthorized = UNAUTHORIZED;
    /// Logs are not taken for now: the disk is full, or the key puts too often.
    WriteQuotaExceed = FORBIDDEN;
    /// There are too many queries for now, or the key makes too many requests.
    ReadQuotaExceed = FORBIDDEN;
    /// There are as many projects or logstores as are allowed.
    QuotaExceed = FORBIDDEN;
    /// Something went wrong inside; the service's log has it under the request's id.
    InternalServerError = INTERNAL_SERVER_ERROR;
    /// The service has too much to do: the same will be taken later.
    ServerBusy = SERVICE_UNAVAILABLE;
}

/// An error as a client is told it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.code.as_str())]
pub struct LogError {
    code: Code,
    message: String,
    /// For the service's log alone.
    inside: Option<String>,
}

impl LogError {
    /// An error with a sentence of its own.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            inside: None,
        }
    }

    /// A parameter that is missing or not allowed; `clause` says what is: `allowed are whole numbers`.
    #[must_use]
    pub fn parameter(name: &str, clause: impl std::fmt::Display) -> Self {
        let message = format!("The parameter {name} is not valid: {clause}.");
        Self::new(Code::ParameterInvalid, message)
    }

    /// Something that went wrong inside, which is nothing to the client.
    #[must_use]
    pub fn internal(inside: impl std::fmt::Display) -> Self {
        Self {
            inside: Some(inside.to_string()),
            ..Self::new(
                Code::InternalServerError,
                "Something went wrong inside the service.",
            )
        }
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What the service's log says of it.
    #[must_use]
    pub fn inside(&self) -> Option<&str> {
        self.inside.as_deref()
    }
}

impl From<ApiError> for LogError {
    fn from(error: ApiError) -> Self {
        match error.kind() {
            ManagementCode::AccessKeyNotFound | ManagementCode::AccessKeyInactive => {
                Self::new(Code::Unauthorized, error.message())
            }
            ManagementCode::ForbiddenRole => Self::new(Code::Unauthorized, error.message()),
            _ => Self::internal(error.inside().unwrap_or_else(|| error.message())),
        }
    }
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        Self::internal(format!("the state: {error}"))
    }
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}

impl From<PutError> for LogError {
    fn from(error: PutError) -> Self {
        match &error {
            // The official client tries again what is answered with 5xx, after a second.
            PutError::Overloaded => Self::new(Code::ServerBusy, sentence(&error)),
            PutError::DiskFull { .. } => Self::new(Code::WriteQuotaExceed, sentence(&error)),
            PutError::Invalid(_) => Self::new(Code::PostBodyInvalid, sentence(&error)),
            PutError::Failed(_) => Self::internal(error),
        }
    }
}

/// An error's text as a sentence.
pub(super) fn sentence(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    let mut sentence: String = first.into_iter().chain(chars).collect();
    if !sentence.ends_with('.') {
        sentence.push('.');
    }
    sentence
}

impl IntoResponse for LogError {
    fn into_response(self) -> Response {
        let body = json!({ "errorCode": self.code.as_str(), "errorMessage": self.message });
        let mut response = (self.code.status(), json_answer(&body)).into_response();
        response.extensions_mut().insert(self);
        response
    }
}
