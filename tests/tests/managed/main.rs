//! Flow logs that a service manages: service, command line, agent and interfaces together.
// These modules are tests themselves; the attribute says so to clippy, which lets helpers of tests panic.
#[cfg(test)]
mod away;
#[cfg(test)]
mod interfaces;
#[cfg(test)]
mod life;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod place;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sdk;
