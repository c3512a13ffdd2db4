//! The BPF programs themselves, run on packets without a device (`BPF_PROG_TEST_RUN`), with etherparse's reading of these packets as
//! the oracle for every field of the key and every counter.
//!
//! Not here, for the kernel takes no such packets without a device: VLAN tags that the device took off the frame.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what the tests share fails the test that calls it"
)]

mod corpus;
mod fragments;
mod gso;
mod gso_tunnel;
mod layout;
mod ledger;
mod limits;
mod overflow;
mod random;
mod rig;
mod security;
