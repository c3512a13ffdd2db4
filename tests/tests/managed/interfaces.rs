//! ENIs that come and go while a service manages the flow logs.
use std::collections::BTreeSet;

use flowlog_tests::{
    agent::{Direction, EniPlan, Volume},
    lab::{EndPlan, FloodPlan, VethPair, VethPlan, skip_unless_root, udp_flood},
};

use crate::place::{LEFT, Place, RIGHT, Transport};

/// A quiet pair beside the wire, without addresses.
fn second_pair(place: &Place) -> VethPair {
    let end = |end: &EndPlan, name: &str, host: u8| EndPlan {
        namespace: end.namespace.clone(),
        name: name.to_owned(),
        mac: [0x02, 0xf1, 0, 2, 0, host],
        addresses: Vec::new(),
    };
    let plan = VethPlan::new(
        end(place.pair.left(), "left1", 1),
        end(place.pair.right(), "right1", 2),
    );
    VethPair::create(plan).expect("another pair")
}

#[test]
fn an_eni_that_is_plugged_in_is_reported_and_captured_and_one_that_goes_is_no_more() {
    if skip_unless_root(
        "an_eni_that_is_plugged_in_is_reported_and_captured_and_one_that_goes_is_no_more",
    ) {
        return;
    }
    let mut place = Place::with(Transport::Http, |pair, mut enis| {
        let second = EniPlan::device("eni-second", &pair.right().namespace, "right1");
        enis.push(second);
        enis
    });
    place.wait_for_enis(&[LEFT, RIGHT]);
    let id = place.create("everything", &[]);
    let second = second_pair(&place);
    place
        .agent
        .wait_until_captured(&["eni-second"])
        .expect("captured");
    place.wait_for_enis(&["eni-second"]);
    let plan = FloodPlan {
        packets: 100,
        flows: 10,
        threads: 1,
        ..FloodPlan::default()
    };
    let sent = udp_flood(&second.left().namespace, "left1", &plan).expect("a flood");
    let sent = Volume {
        packets: sent.packets,
        bytes: sent.bytes,
    };
    place.wait_for_volume(&id, "eni-second", Direction::In, sent);
    drop(second);
    place.wait_for("the ENI's end", || {
        let resources = place.cli(&["resources"]);
        let known: BTreeSet<&str> = resources["enis"]
            .as_array()
            .expect("ENIs")
            .iter()
            .filter_map(|eni| eni["id"].as_str())
            .collect();
        known == BTreeSet::from([LEFT, RIGHT])
    });
    place.stop_agent();
}

#[test]
fn a_flow_log_of_what_is_to_come_waits_for_its_first_eni() {
    if skip_unless_root("a_flow_log_of_what_is_to_come_waits_for_its_first_eni") {
        return;
    }
    let place = Place::with(Transport::Http, |pair, mut enis| {
        let mut second = EniPlan::device("eni-second", &pair.right().namespace, "right1");
        second.vswitch_id = "vsw-second".to_owned();
        enis.push(second);
        enis
    });
    place.wait_for_enis(&[LEFT, RIGHT]);
    let unknown = ["create", "--vswitch", "vsw-second", "--name", "second"];
    let refused = place.try_cli(&unknown).expect_err("not known");
    assert!(refused.starts_with("flowlog: "), "{refused}");
    let store = [
        "--project",
        "p-one",
        "--logstore",
        "s-one",
        "--allow-unknown",
    ];
    let created = place.cli(&[&unknown[..], &store].concat());
    // Nobody is concerned, so nobody is waited for.
    assert_eq!(created["status"], "Active");
    let id = created["id"].as_str().expect("an id");
    let second = second_pair(&place);
    place.wait_for_enis(&["eni-second"]);
    place.wait_for("the flow log at the agent", || {
        place.service_status()["flow-logs"] == 1
    });
    let plan = FloodPlan {
        packets: 100,
        flows: 10,
        threads: 1,
        ..FloodPlan::default()
    };
    let sent = udp_flood(&second.left().namespace, "left1", &plan).expect("a flood");
    let sent = Volume {
        packets: sent.packets,
        bytes: sent.bytes,
    };
    place.wait_for_volume(id, "eni-second", Direction::In, sent);
}
