//! The faces of the service, asked as clients ask, without a network between.
mod agent;
mod limits;
mod replays;
mod rest;
mod rig;
mod rpc;
mod signatures;
