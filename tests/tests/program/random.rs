//! Random packets: well formed, mutated, and noise.
use std::cell::RefCell;

use flowlog_tests::{lab::skip_unless_root, packets::strategy};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use crate::rig::Rig;

/// Sends the frames of each case through the rig, and holds the counters against the oracle. A failure shrinks to the frame that
/// makes it.
fn hold_against_the_oracle(rig: Rig, cases: u32, frames: &impl Strategy<Value = Vec<Vec<u8>>>) {
    let rig = RefCell::new(rig);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(frames, |frames| {
        let mut rig = rig.borrow_mut();
        rig.forget_fragments();
        frames.iter().for_each(|frame| rig.send(frame));
        rig.check().map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn a_random_frame_is_counted_as_the_oracle_reads_it() {
    if skip_unless_root("a_random_frame_is_counted_as_the_oracle_reads_it") {
        return;
    }
    let one = strategy::any_frame().prop_map(|frame| vec![frame]);
    hold_against_the_oracle(Rig::of_all_programs(), 256, &one);
}

/// So many more frames that not every one has a flip of its own.
#[test]
fn many_random_frames_are_counted_as_the_oracle_reads_them() {
    if skip_unless_root("many_random_frames_are_counted_as_the_oracle_reads_them") {
        return;
    }
    let many = vec(strategy::any_frame(), 1..400);
    hold_against_the_oracle(Rig::of_all_programs(), 64, &many);
}

#[test]
fn random_packets_are_counted_on_an_eni_without_ethernet_header() {
    if skip_unless_root("random_packets_are_counted_on_an_eni_without_ethernet_header") {
        return;
    }
    let packet = strategy::any_frame().prop_map(|frame| frame.get(14..).unwrap_or(&[]).to_vec());
    hold_against_the_oracle(Rig::without_ethernet_header(), 32, &vec(packet, 1..400));
}
