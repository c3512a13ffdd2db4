//! The life of a flow log: created, disabled, enabled, modified, deleted.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use flowlog_tests::{
    agent::{Direction, LogStatus, Record},
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

/// Packets of the right end, in a line of `${eni-id} ${packets}`.
fn with_packets(line: &str) -> Option<u64> {
    let packets = line.strip_prefix(RIGHT)?.strip_prefix(' ')?;
    packets.parse().ok()
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

/// The labels of a flow log's windows, in order.
fn labels(records: &[Record]) -> BTreeSet<(u64, u64)> {
    records
        .iter()
        .map(|record| (record.start, record.end))
        .collect()
}

#[test]
fn a_change_of_one_flow_log_leaves_the_windows_of_the_others_open() {
    if skip_unless_root("a_change_of_one_flow_log_leaves_the_windows_of_the_others_open") {
        return;
    }
    let mut place = Place::with_long_windows();
    place.wait_for_enis(&[LEFT, RIGHT]);
    let whole = place.create("whole", &["--interval", "10"]);
    let mut sent = place.flood(100);
    let other = place.create("other", &["--interval", "10"]);
    let mut of_other = place.flood(20);
    sent = sum(sent, of_other);
    for change in [
        &["modify", "other", "--format", "${eni-id} ${packets}"][..],
        &["modify", "other", "--interval", "5"],
        &["disable", "other"],
    ] {
        place.cli(change);
        let more = place.flood(30);
        sent = sum(sent, more);
        if change[0] == "modify" {
            of_other = sum(of_other, more);
        }
    }
    place.cli(&["delete", "other"]);
    sent = sum(sent, place.flood(40));
    // Also an agent that is killed goes on with them.
    place.agent.kill().expect("killed");
    sent = sum(sent, place.flood(50));
    place.agent.restart().expect("restarted");
    place
        .agent
        .wait_until_captured(&[LEFT, RIGHT])
        .expect("captured");
    place.stop_agent();
    place.wait_for_volume(&whole, RIGHT, Direction::In, sent);
    place.wait_for_volume(&whole, LEFT, Direction::Out, sent);
    let records = place.records(&whole);
    let is_skipped = |record: &Record| record.log_status == LogStatus::SkipData;
    assert!(!records.iter().any(is_skipped), "{records:#?}");
    // Nothing but the clock has cut them, and the agent's end.
    let labels = labels(&records);
    let ends: Vec<u64> = labels.iter().map(|(_, end)| *end).collect();
    let last = ends.len() - 1;
    assert!(ends[..last].iter().all(|end| end % 600 == 0), "{labels:?}");
    let text = std::fs::read_to_string(place.file(&other)).expect("a file");
    // JSON at first, and two fields later.
    let packets = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(record) => record["packets"]
            .as_u64()
            .filter(|_| record["eni-id"] == RIGHT),
        Err(_) => with_packets(line),
    };
    let packets: u64 = text.lines().filter_map(packets).sum();
    assert_eq!(packets, of_other.packets, "{text}");
}

/// Below the 30 s after which a question that nothing has happened to is answered and asked again; far above what it takes: that is in
/// `cargo xtask bench`.
const AT_ONCE: Duration = Duration::from_secs(15);

#[test]
fn a_change_comes_to_the_agent_by_the_question_that_waits_for_it() {
    if skip_unless_root("a_change_comes_to_the_agent_by_the_question_that_waits_for_it") {
        return;
    }
    let place = Place::new();
    place.wait_for_enis(&[LEFT, RIGHT]);
    place.create("everything", &[]);
    let version = || place.service_status()["version"].as_u64();
    // Each is asked for as soon as the one before is answered, so it waits for all its time if nobody wakes it.
    let took = ["5", "1", "10"].map(|minutes| {
        let (before, began) = (version(), Instant::now());
        place.cli(&["modify", "everything", "--interval", minutes, "--no-wait"]);
        place.wait_for("another version", || version() != before);
        began.elapsed()
    });
    let fastest = took.into_iter().min();
    assert!(fastest < Some(AT_ONCE), "{took:?}");
}
