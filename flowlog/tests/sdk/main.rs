//! The official SDKs, unmodified, against a running service.
#[cfg(test)]
mod scripts;
