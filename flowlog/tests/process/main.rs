//! The program as it is started: data folder, options, TLS, limits of connections, backup, end; and its commands, as a person runs them.
#[cfg(test)]
mod command;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod logstores;
#[cfg(test)]
mod service;
#[cfg(test)]
#[path = "../skip/mod.rs"]
mod skip;
#[cfg(test)]
mod start;
#[cfg(test)]
mod tls;
