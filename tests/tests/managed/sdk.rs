//! The official SDK in the place of the command line.
use std::{path::Path, process::Command};

use flowlog_tests::{
    agent::{Action, Direction, LogStatus, Volume},
    lab::{skip, skip_unless_root},
};

use crate::place::{LEFT, Place, RIGHT, Transport, VPC, sum};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/managed/sdk.py");
/// What `cargo xtask setup` makes, with the official SDKs.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/python");

/// Says so where this test cannot run.
fn skip_without_sdk(test: &str) -> bool {
    if skip_unless_root(test) {
        return true;
    }
    let is_there = Path::new(PYTHON).exists();
    if !is_there {
        skip(
            test,
            "there is no target/python with the official SDKs: run `cargo xtask setup`",
        );
    }
    !is_there
}

/// Makes a change by the SDK, and waits as Terraform does; gives the flow log's id.
fn sdk(place: &Place, arguments: &[&str]) -> String {
    let mut command = Command::new(PYTHON);
    command
        .args(["-B", SCRIPT, "127.0.0.1:8480"])
        .arg(place.key_file())
        .args(arguments)
        // Loopback needs no proxy.
        .env("NO_PROXY", "*");
    place.succeed(command).trim().to_owned()
}

#[test]
fn a_flow_log_of_the_official_sdk_is_followed() {
    if skip_without_sdk("a_flow_log_of_the_official_sdk_is_followed") {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
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

/// What is to the right end is allowed by these groups if its source port is one of the first ten flows of a flood.
const TEN_PORTS: &str = r#"
security-mode = "enforce"
security-group-ids = ["sg"]

[[security-group]]
security-group-id = "sg"
vpc-id = "vpc-test"
rule = [
    { security-group-rule-id = "sgr-ten", direction = "ingress", ip-protocol = "UDP", port-range = "-1/-1", source-cidr-ip = "198.18.0.0/15", source-port-range = "1024/1033" },
]
"#;

#[test]
fn flow_logs_of_what_is_dropped_and_of_what_is_allowed_share_what_crosses() {
    if skip_without_sdk("flow_logs_of_what_is_dropped_and_of_what_is_allowed_share_what_crosses") {
        return;
    }
    let mut place = Place::with(Transport::Http, |_, mut enis| {
        for eni in enis.iter_mut().filter(|eni| eni.eni_id == RIGHT) {
            eni.extra = TEN_PORTS.to_owned();
        }
        enis
    });
    place.wait_for_enis(&[LEFT, RIGHT]);
    let [all, allowed, dropped] = ["All", "Allow", "Drop"]
        .map(|traffic| sdk(&place, &["create", VPC, &format!("of-{traffic}"), traffic]));
    let accepted = place.flood(300);
    let rejected = place.flood_of(100, 500);
    let both = sum(accepted, rejected);
    place.wait_for_volume(&all, RIGHT, Direction::In, both);
    sdk(&place, &["delete", &all]);
    let accepted = sum(accepted, place.flood(20));
    let rejected = sum(rejected, place.flood_of(100, 30));
    place.stop_agent();
    place.wait_for_volume(&all, RIGHT, Direction::In, both);
    place.wait_for_volume(&allowed, RIGHT, Direction::In, accepted);
    place.wait_for_volume(&dropped, RIGHT, Direction::In, rejected);
    // At the left end nobody judges.
    place.wait_for_volume(&allowed, LEFT, Direction::Out, sum(accepted, rejected));
    place.wait_for_volume(&dropped, LEFT, Direction::Out, Volume::default());
    for (id, action) in [(&allowed, Action::Accept), (&dropped, Action::Reject)] {
        for record in place.records(id) {
            assert_ne!(record.log_status, LogStatus::SkipData, "{record:?}");
            assert_eq!(record.action.unwrap_or(action), action, "{record:?}");
        }
    }
}
