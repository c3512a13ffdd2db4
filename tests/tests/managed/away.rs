//! One side is away: the service, the agent, or both.
use flowlog_tests::{agent::Direction, lab::skip_unless_root};

use crate::place::{LEFT, Place, RIGHT, sum};

#[test]
fn a_service_that_is_killed_is_missed_by_nobody_and_is_followed_again() {
    if skip_unless_root("a_service_that_is_killed_is_missed_by_nobody_and_is_followed_again") {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    let id = place.create("everything", &[]);
    let mut sent = place.flood(100);
    place.kill_service();
    sent = sum(sent, place.flood(200));
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
    place.wait_for("news of the service", || {
        place.service_status()["connected"] == false
    });
    let status = place.service_status();
    let error = status["error"].as_str().expect("an error");
    assert!(error.contains("127.0.0.1:8480"), "{error}");
    assert_eq!(status["flow-logs"], 1);
    place.restart_service();
    let disabled = place.cli(&["disable", "everything"]);
    assert_eq!(disabled["status"], "Inactive");
    place.flood(400);
    assert_eq!(place.cli(&["enable", "everything"])["status"], "Active");
    sent = sum(sent, place.flood(800));
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
    assert_eq!(place.service_status()["connected"], true);
    place.stop_agent();
}

#[test]
fn an_agent_that_starts_while_the_service_is_away_goes_on_with_what_it_said_last() {
    if skip_unless_root(
        "an_agent_that_starts_while_the_service_is_away_goes_on_with_what_it_said_last",
    ) {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    let id = place.create("everything", &[]);
    let mut sent = place.flood(100);
    place.kill_service();
    place.stop_agent();
    place.agent.restart().expect("restarted");
    place
        .agent
        .wait_until_captured(&[LEFT, RIGHT])
        .expect("captured");
    sent = sum(sent, place.flood(200));
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
    // Also after a crash, over which the programs go on counting.
    place.agent.kill().expect("killed");
    sent = sum(sent, place.flood(400));
    place.agent.restart().expect("restarted");
    place
        .agent
        .wait_until_captured(&[LEFT, RIGHT])
        .expect("captured");
    sent = sum(sent, place.flood(800));
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
    assert_eq!(place.service_status()["flow-logs"], 1);
    // Both are there again.
    place.restart_service();
    let deleted = place.cli(&["delete", "everything"]);
    assert_eq!(deleted["status"], "Deleted");
    place.flood(1600);
    place.stop_agent();
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
}

#[test]
fn what_was_captured_for_a_flow_log_that_is_deleted_is_delivered_also_after_a_restart() {
    if skip_unless_root(
        "what_was_captured_for_a_flow_log_that_is_deleted_is_delivered_also_after_a_restart",
    ) {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    // Its folder is a file, so that nothing can be written.
    let blocked = place.folder.path().join("records");
    std::fs::write(&blocked, "").expect("a file");
    let id = place.create("everything", &[]);
    let sent = place.flood(100);
    place.wait_for("news of the delivery", || {
        let shown = place.cli(&["show", "everything"]);
        shown["deliver_status"] == "FAILED"
            && shown["deliver_error_message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
    });
    let deleted = place.cli(&["delete", "everything"]);
    assert_eq!(deleted["status"], "Deleted");
    place.stop_agent();
    place.agent.restart().expect("restarted");
    std::fs::remove_file(&blocked).expect("removed");
    place.wait_for("its file", || place.file(&id).exists());
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
    place.wait_for("the end of its deliveries", || {
        place.agent.status().expect("a status")["sinks"] == serde_json::json!([])
    });
    place.stop_agent();
}

#[test]
fn what_is_not_delivered_outlives_what_the_agent_knew_of_its_flow_logs() {
    if skip_unless_root("what_is_not_delivered_outlives_what_the_agent_knew_of_its_flow_logs") {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    // Its folder is a file, so that nothing can be written.
    let blocked = place.folder.path().join("records");
    std::fs::write(&blocked, "").expect("a file");
    let id = place.create("everything", &[]);
    let mut sent = place.flood(100);
    place.wait_for("a window that waits", || {
        let status = place.agent.status().expect("a status");
        status["spool"]["pending-windows"].as_u64() > Some(0)
    });
    place.kill_service();
    place.agent.kill().expect("killed");
    sent = sum(sent, place.flood(200));
    let kept = place.agent.spool_path().join("managed.json");
    std::fs::write(kept, "{").expect("damaged");
    place.agent.restart().expect("restarted");
    place
        .agent
        .wait_until_captured(&[LEFT, RIGHT])
        .expect("captured");
    sent = sum(sent, place.flood(400));
    assert_eq!(place.service_status()["flow-logs"], 0);
    std::fs::remove_file(&blocked).expect("removed");
    place.restart_service();
    place.wait_for("the flow log", || place.service_status()["flow-logs"] == 1);
    sent = sum(sent, place.flood(800));
    place.stop_agent();
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
}
