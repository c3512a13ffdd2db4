//! The agent as a process on interfaces of the lab: what it captures, how it follows changes, what it refuses and how it ends.
// These modules are tests themselves; the attribute says so to clippy, which lets helpers of tests panic.
#[cfg(test)]
mod ending;
#[cfg(test)]
mod life;
#[cfg(test)]
mod namespaces;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod scope;
#[cfg(test)]
mod sinks;
#[cfg(test)]
mod tun;
#[cfg(test)]
mod wire;

/// The agent that cargo has built with these tests.
const AGENT: &str = env!("CARGO_BIN_EXE_flowlog-agent-under-test");

/// A window that no test outlives, in seconds: it closes when the agent ends. ([`flowlog_tests::agent::AgentProcess::start`] waits
/// where it would end earlier, at a full hour by the clock.)
const LONG_WINDOW_SECONDS: u64 = 3600;
