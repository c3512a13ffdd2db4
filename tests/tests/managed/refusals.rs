//! What the command line says when something is wrong, and what an agent does that is not taken.
use flowlog_tests::lab::skip_unless_root;

use crate::place::{LEFT, Place, RIGHT};

#[test]
fn what_is_wrong_is_told_in_a_sentence() {
    if skip_unless_root("what_is_wrong_is_told_in_a_sentence") {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    for (arguments, expected) in [
        (
            &["show", "nothing"][..],
            "no flow log is called \"nothing\"",
        ),
        (
            &["show", "fl-000000000000000000000"],
            "InvalidFlowLogId.NotFound",
        ),
        (&["create", "--vpc", "vpc-unknown"], "flowlog: "),
        (
            &["create", "--vpc", "vpc-test", "--format", "${none}"],
            "flowlog: ",
        ),
        (
            &["list", "--access-key-file", "/nowhere"],
            "/nowhere cannot be read",
        ),
    ] {
        let error = place.try_cli(arguments).expect_err("an error");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(!error.contains('\n'), "{arguments:?}: {error}");
    }
    place.kill_service();
    let error = place.try_cli(&["list"]).expect_err("an error");
    assert!(
        error.starts_with("flowlog: http://127.0.0.1:8480 cannot be reached: "),
        "{error}"
    );
}

#[test]
fn an_agent_whose_key_is_disabled_goes_on_and_says_why() {
    if skip_unless_root("an_agent_whose_key_is_disabled_goes_on_and_says_why") {
        return;
    }
    let place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    place.create("everything", &[]);
    let keys = place.cli(&["access-key", "list"]);
    let key = keys["access_keys"]
        .as_array()
        .expect("access keys")
        .iter()
        .find(|key| key["role"] == "agent")
        .expect("the agent's")
        .clone();
    assert_eq!(key["host_id"], "host-1");
    let id = key["id"].as_str().expect("an id");
    place.cli(&["access-key", "disable", id]);
    // A question under way is answered when something changes.
    place.cli(&["modify", "everything", "--interval", "5", "--no-wait"]);
    place.wait_for("news of the access key", || {
        place.service_status()["connected"] == false
    });
    assert_eq!(place.service_status()["flow-logs"], 1);
    place.cli(&["access-key", "enable", id]);
    place.wait_for("the service", || {
        place.service_status()["connected"] == true
    });
}
