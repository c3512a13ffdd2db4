//! The `flowlog` program: the service that manages flow logs, and its command line.
//!
//! | module | what it holds |
//! |---|---|
//! | [`api`] | the bodies of the REST face, for the service and for its clients |
//! | [`cli`] | the command line |
//! | [`log_service`] | the Log Service: where the records go, and where they are searched |
//! | [`serve`] | the service: `flowlog serve` and `flowlog backup` |
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod log_service;
pub mod serve;
