//! The life of a flow log: created, disabled, enabled, modified, deleted.
use flowlog_tests::{
    agent::{Direction, LogStatus},
    lab::skip_unless_root,
};

use crate::place::{LEFT, Place, RIGHT, Transport, sum, volume};

#[test]
fn a_flow_log_has_what_crosses_while_it_is_active_and_nothing_else() {
    if skip_unless_root("a_flow_log_has_what_crosses_while_it_is_active_and_nothing_else") {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    place.flood(50);
    let id = place.create("everything", &["--interval", "1"]);
    let first = place.flood(100);
    place.wait_for_volume(&id, RIGHT, Direction::In, first);

    let disabled = place.cli(&["disable", "everything"]);
    assert_eq!(disabled["status"], "Inactive");
    place.flood(200);
    let enabled = place.cli(&["enable", "everything"]);
    assert_eq!(enabled["status"], "Active");
    let third = place.flood(400);
    let both = sum(first, third);
    place.wait_for_volume(&id, LEFT, Direction::Out, both);
    place.wait_for_volume(&id, RIGHT, Direction::In, both);

    let deleted = place.cli(&["delete", &id]);
    assert_eq!(deleted["status"], "Deleted");
    assert_eq!(place.cli(&["list"]), serde_json::json!([]));
    place.flood(800);
    place.stop_agent();
    // What was captured before stays, and nothing follows.
    let records = place.records(&id);
    assert_eq!(volume(&records, RIGHT, Direction::In), both);
    assert_eq!(volume(&records, LEFT, Direction::Out), both);
    assert!(
        records
            .iter()
            .all(|record| record.log_status != LogStatus::SkipData)
    );
}

#[test]
fn a_flow_log_of_what_is_dropped_has_nothing_of_what_is_allowed() {
    if skip_unless_root("a_flow_log_of_what_is_dropped_has_nothing_of_what_is_allowed") {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    let all = place.create("all", &[]);
    let dropped = place.create("dropped", &["--traffic", "drop"]);
    let v6 = place.create("v6", &["--ip-version", "IPv6"]);
    let sent = place.flood(100);
    place.wait_for_volume(&all, RIGHT, Direction::In, sent);
    place.stop_agent();
    for id in [&dropped, &v6] {
        let records = place.records(id);
        assert!(
            records
                .iter()
                .all(|record| record.log_status == LogStatus::NoData),
            "{records:#?}"
        );
    }
}

#[test]
fn a_name_is_changed_without_a_new_window_and_a_template_with_one() {
    if skip_unless_root("a_name_is_changed_without_a_new_window_and_a_template_with_one") {
        return;
    }
    let mut place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    let id = place.create("before", &[]);
    let modified = place.cli(&[
        "modify",
        "before",
        "--name",
        "after",
        "--description",
        "other",
    ]);
    assert_eq!(
        (&modified["name"], &modified["status"]),
        (&"after".into(), &"Active".into())
    );
    let sent = place.flood(100);
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
    let modified = place.cli(&["modify", "after", "--format", "${eni-id} ${packets}"]);
    assert_eq!(modified["status"], "Active");
    place.flood(7);
    place.stop_agent();
    let text = std::fs::read_to_string(place.file(&id)).expect("a file");
    let with_packets = |line: &str| {
        line.strip_prefix(&format!("{RIGHT} "))
            .and_then(|packets| packets.parse::<u64>().ok())
    };
    let packets: u64 = text.lines().filter_map(with_packets).sum();
    assert_eq!(packets, 7, "{text}");
    let version = place.cli(&["agents"])["agents"][0]["applied_version"].clone();
    assert_ne!(version, 0);
}

#[test]
fn agent_and_command_line_speak_tls_to_whom_they_trust() {
    if skip_unless_root("agent_and_command_line_speak_tls_to_whom_they_trust") {
        return;
    }
    let mut place = Place::with(Transport::Https, |_, enis| enis);
    place.wait_for_enis(&[LEFT, RIGHT]);
    let id = place.create("everything", &[]);
    let sent = place.flood(100);
    place.wait_for_volume(&id, RIGHT, Direction::In, sent);
    let nobody = place.folder.path().join("nobody.pem");
    std::fs::write(&nobody, "").expect("a file");
    let nobody = nobody.to_str().expect("a path that is text");
    let error = place
        .try_cli(&["list", "--ca-file", nobody])
        .expect_err("nobody is trusted");
    assert!(
        error.contains("has no certificate of an authority to trust"),
        "{error}"
    );
    let error = place
        .try_cli(&["list", "--url", "https://127.0.0.1:8480"])
        .expect_err("the certificate is another name's");
    assert!(
        error.contains("https://127.0.0.1:8480 cannot be reached: "),
        "{error}"
    );
    place.stop_agent();
}
