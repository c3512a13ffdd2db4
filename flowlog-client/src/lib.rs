//! How the agent and the CLI speak to the service: signed requests over HTTP or HTTPS, a connection for each.
//!
//! | module | what it holds |
//! |---|---|
//! | `key_file` | access keys, in files that their owner alone may read |
//! | `url` | where the service is |
//! | `tls` | whom an HTTPS connection trusts |
//! | `client` | requests, answers and what can go wrong with them |
//!
//! Nothing here reads a clock: who sends a request says what time it is.
mod client;
mod key_file;
mod tls;
mod url;

pub use client::{Answer, Call, Client, ClientError, LogCall};
pub use key_file::{AccessKey, KeyFileError};
pub use url::ServiceUrl;
