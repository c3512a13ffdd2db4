//! A real agent, run as a process in tests: its configuration, its life and what it writes.
//!
//! ```no_run
//! use flowlog_tests::agent::{AgentPlan, AgentProcess, Direction, EniPlan, Volume, conserved};
//! use flowlog_tests::lab::{FloodPlan, Namespace, VethPair, VethPlan, udp_flood};
//!
//! # fn main() -> flowlog_tests::Result<()> {
//! let (left, right) = (Namespace::create("left")?, Namespace::create("right")?);
//! let pair = VethPair::create(VethPlan::between(&left, &right))?;
//!
//! // In an integration test the binary is env!("CARGO_BIN_EXE_flowlog-agent-under-test").
//! let binary = "flowlog-agent";
//! // One flow log of the whole VPC to standard output, JSON, windows of 1 s: see AgentPlan for the rest.
//! let plan = AgentPlan::capturing([EniPlan::end("eni-left", pair.left()), EniPlan::end("eni-right", pair.right())]);
//! let mut agent = AgentProcess::start(binary, &plan)?;
//! agent.wait_until_captured(&["eni-left", "eni-right"])?;
//!
//! let sent = udp_flood(&left, "left0", &FloodPlan::default())?;
//!
//! // SIGTERM: the open window is closed and written.
//! let outcome = agent.stop()?;
//! assert!(outcome.status.success(), "{}", outcome.stderr);
//! let volume = Volume { packets: sent.packets, bytes: sent.bytes };
//! conserved(&outcome.records, &[("eni-left", Direction::Out, volume), ("eni-right", Direction::In, volume)]);
//! # Ok(())
//! # }
//! ```
//!
//! What the network did by itself can be had from the devices: [`Volume::received`] and [`Volume::sent`] of the difference of two
//! [`device_stats`](crate::lab::device_stats). Everything that is awaited is awaited by an event (a line of the agent's, its end)
//! and for [`PATIENCE`] at most. An agent that ends while something is awaited of it is an error with all that it has said.
//!
//! Each agent has a folder of its own with configuration and inventory, a lock file and a pin path of its own, so that several
//! run side by side. When an [`AgentProcess`] is dropped, its process is ended, and folder and pins are removed.

mod crossed;
mod files;
mod output;
mod pins;
mod plan;
mod proc;
mod process;
mod record;
mod scrape;
mod waits;

pub use crossed::Crossed;
pub use files::{records_of, rotated};
pub use flowlog_agent::config::{AttachMode, OnExit};
pub use flowlog_model::flow_log::TrafficType;
pub use flowlog_model::inventory::{Hook, Side};
pub use output::LogMark;
pub use plan::{
    AgentPlan, DestinationPlan, EniPlan, FlowLogPlan, HAS_SPOOL, MatchPlan, OutputForm, Resource,
};
pub use process::{AgentProcess, Outcome, PATIENCE};
pub use record::{
    Action, Direction, IpType, LogStatus, Record, RejectReason, Volume, VolumeByEni, conserved,
    volume, volumes,
};
pub use scrape::{metric, scrape};
