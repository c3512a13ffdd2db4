//! The faces of the service, asked as clients ask, without a network between.
#[cfg(test)]
mod agent;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod log_service;
#[cfg(test)]
mod replays;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod rpc;
#[cfg(test)]
mod signatures;
