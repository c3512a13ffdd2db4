//! The official SDK in the place of the command line.
use std::{path::Path, process::Command};

use flowlog_tests::{
    agent::Direction,
    lab::{skip, skip_unless_root},
};

use crate::place::{LEFT, Place, RIGHT, VPC, sum};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/managed/sdk.py");
/// What `cargo xtask setup` makes, with the official SDKs.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/python");

#[test]
fn a_flow_log_of_the_official_sdk_is_followed() {
    const TEST: &str = "a_flow_log_of_the_official_sdk_is_followed";
    if skip_unless_root(TEST) {
        return;
    }
    if !Path::new(PYTHON).exists() {
        skip(
            TEST,
            "there is no target/python with the official SDKs: run `cargo xtask setup`",
        );
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    let sdk = |place: &Place, arguments: &[&str]| {
        let mut command = Command::new(PYTHON);
        command
            .args(["-B", SCRIPT, "127.0.0.1:8480"])
            .arg(place.key_file())
            .args(arguments)
            // Loopback needs no proxy.
            .env("NO_PROXY", "*");
        place.succeed(command).trim().to_owned()
    };
    let id = sdk(&place, &["create", VPC, "by-sdk"]);
    let first = place.flood(100);
    sdk(&place, &["deactivate", &id]);
    place.flood(200);
    sdk(&place, &["activate", &id]);
    let all = sum(first, place.flood(400));
    place.wait_for_volume(&id, RIGHT, Direction::In, all);
    sdk(&place, &["delete", &id]);
    place.flood(800);
    place.stop_agent();
    place.wait_for_volume(&id, RIGHT, Direction::In, all);
}
