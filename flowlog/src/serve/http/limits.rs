//! The limits of a request and of a connection.
use std::time::Duration;

/// Longest body, in bytes; that of an agent's report may have [`MAX_REPORT_BYTES`](flowlog_model::protocol::MAX_REPORT_BYTES).
pub(super) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Longest body that is read before it is known who sends it, in bytes: that of a request which has its signature among its parameters.
pub(super) const MAX_UNKNOWN_BODY_BYTES: usize = 64 * 1024;
/// The most parameters, in query and body together.
pub(super) const MAX_PARAMETERS: usize = 1000;
/// Longest head of a request (its line and all headers), in bytes.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most headers.
pub(super) const MAX_HEADERS: usize = 100;
/// How long the head of a request may take, and how long a connection may be idle.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the body may take.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may read nothing of its answer.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the TLS handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests that are under way may take when the service ends.
pub(super) const GRACE: Duration = Duration::from_secs(10);
