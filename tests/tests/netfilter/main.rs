//! What netfilter drops, on real interfaces with real rules: counted in the right flow, of the right ENI, to the packet and the octet.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what the tests share fails the test that calls it"
)]

mod datagrams;
mod elsewhere;
mod frames;
mod lifecycle;
mod rig;
mod verdicts;
