//! The official SDKs, unmodified, against a running service.
#[cfg(test)]
mod scripts;
#[cfg(test)]
#[path = "../skip/mod.rs"]
mod skip;
