//! Security groups in the programs, held against the reference in flowlog-model.

mod changes;
mod classify;
mod frames;
mod hooks;
mod host;
mod sequences;
mod world;
