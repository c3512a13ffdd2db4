//! Flowlog's domain, pure and without I/O: it is given text and values, and gives values and bytes.
//!
//! | module | what it holds |
//! |---|---|
//! | [`record`] | the flow log record and the identity of an ENI |
//! | [`field`] | the names and the order of a record's fields |
//! | [`mod@format`], [`template`] | records as JSON lines and as text |
//! | [`recorded`] | records read back from lines |
//! | [`flow_log`] | the flow log resource: what it captures, and which records it takes |
//! | [`managed`] | the flow log as the service manages it: names, limits and states of the API |
//! | [`protocol`] | what the agent and the service tell each other |
//! | [`log_group`] | the body of a put to the Log Service |
//! | [`signature`] | how requests are signed |
//! | [`inventory`], [`glob`] | which device is which ENI |
//! | [`security_group`] | which packets of an ENI are allowed |
//! | [`input`] | reading TOML, with errors of one sentence that name file, line and key |
//! | [`text`] | values that are written as text, and what is allowed of them |
#![forbid(unsafe_code)]

mod address;
pub mod field;
pub mod flow_log;
pub mod format;
pub mod glob;
pub mod input;
pub mod inventory;
pub mod log_group;
pub mod managed;
pub mod protocol;
pub mod record;
pub mod recorded;
pub mod security_group;
pub mod signature;
pub mod template;
pub mod text;
