//! The Flowlog agent: one per host. It counts every flow on every elastic network interface in the kernel, and writes flow log
//! records, window by window.
//!
//! Data flows through the modules in this order: [`discovery`] (devices) → [`capture`] (programs and counters, by way of [`bpf`]) →
//! [`drain`] (kernel to [`spool`], in sorted runs of [`flows`]) → [`settle`] (verdicts put together) → [`route`] (records of a flow log) →
//! [`sink`]. [`agent`] is the loop that drives them.

mod adoption;
pub mod agent;
pub mod bpf;
pub mod capture;
mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod discovery;
pub mod drain;
pub mod failpoint;
mod firewall;
pub mod flows;
mod interfaces;
mod kernel;
pub mod ledger;
mod lock;
mod management;
pub mod metrics;
pub mod output;
mod policy;
mod privileges;
mod readiness;
mod report;
pub mod route;
mod security;
pub mod settle;
mod sink;
pub mod sizing;
pub mod slots;
pub mod spool;
pub mod status;
mod watch;
pub mod window;
mod windows;
