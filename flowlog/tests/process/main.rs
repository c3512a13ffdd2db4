//! The program as it is started: data folder, options, TLS, limits of connections, backup, end.
#[cfg(test)]
mod connections;
#[cfg(test)]
mod service;
#[cfg(test)]
mod start;
#[cfg(test)]
mod tls;
