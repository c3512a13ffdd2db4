//! From the wire to the search: packets, agent, Log Service, and what is found there.
use std::{
    cell::Cell,
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use flowlog_tests::{
    agent::{Direction, Volume},
    lab::skip_unless_root,
};
use serde_json::{Value, json};

use crate::place::{LEFT, Place, RIGHT, sum};

/// Logs that a search gives at a time.
const PAGE: usize = 100;

/// A place whose agent delivers to the logstore `s-one`, which is there.
fn place() -> Place {
    let place = Place::with_logs();
    place.cli(&["project", "create", "p-one"]);
    let made = place.cli(&[
        "logstore",
        "create",
        "--project",
        "p-one",
        "s-one",
        "--ttl",
        "3",
    ]);
    assert_eq!(
        (&made["ttl_days"], &made["index"]),
        (&json!(3), &json!(true))
    );
    place.wait_for_enis(&[LEFT, RIGHT]);
    place
}

/// All records in the logstore; none if the service does not answer.
fn records(place: &Place) -> Option<Vec<Value>> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970");
    let mut records = Vec::new();
    loop {
        let query = json!({
            "from": now.as_secs() - 3600, "to": now.as_secs() + 60, "query": "*", "line": PAGE, "offset": records.len(),
        });
        let answer = place.search("s-one", &query).ok()?;
        assert_eq!(answer["meta"]["progress"], "Complete");
        let page = answer["data"].as_array().expect("records").clone();
        let is_last = page.len() < PAGE;
        records.extend(page);
        if is_last {
            return Some(records);
        }
    }
}

/// What is in the OK records of an ENI and direction.
fn volume(records: &[Value], eni: &str, direction: Direction) -> Volume {
    let direction = match direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    let number = |record: &Value, field: &str| -> u64 {
        record[field].as_str().expect(field).parse().expect(field)
    };
    records
        .iter()
        .filter(|record| {
            record["eni-id"] == eni
                && record["direction"] == direction
                && record["log-status"] == "OK"
        })
        .map(|record| Volume {
            packets: number(record, "packets"),
            bytes: number(record, "bytes"),
        })
        .fold(Volume::default(), sum)
}

/// Waits until as many packets of an ENI and direction are found; there are to be no more, and as many octets.
fn wait_for_volume(place: &Place, eni: &str, direction: Direction, expected: Volume) {
    let found = Cell::new(Volume::default());
    place.wait_for("packets in the logstore", || {
        if let Some(records) = records(place) {
            found.set(volume(&records, eni, direction));
        }
        found.get().packets >= expected.packets
    });
    assert_eq!(found.get(), expected, "of {eni} {direction:?}");
}

#[test]
fn what_was_sent_is_found_by_a_search() {
    if skip_unless_root("what_was_sent_is_found_by_a_search") {
        return;
    }
    let mut place = place();
    place.create("everything", &["--interval", "1"]);
    let first = place.flood(1000);
    wait_for_volume(&place, RIGHT, Direction::In, first);
    let both = sum(first, place.flood(500));
    place.stop_agent();
    wait_for_volume(&place, LEFT, Direction::Out, both);
    wait_for_volume(&place, RIGHT, Direction::In, both);
    let found = records(&place).expect("records");
    for record in &found {
        assert_eq!(record["__topic__"], "flow_log");
        assert_eq!(record["__time__"], record["end"]);
        assert_ne!(record["log-status"], "SKIPDATA", "{record}");
    }
    let flows: HashSet<&str> = found
        .iter()
        .filter(|record| record["eni-id"] == RIGHT && record["direction"] == "in")
        .filter_map(|record| record["srcport"].as_str())
        .collect();
    assert_eq!(flows.len(), 10, "the flood has ten flows");
}

#[test]
fn what_was_captured_while_there_was_no_service_or_logstore_is_found_later() {
    if skip_unless_root("what_was_captured_while_there_was_no_service_or_logstore_is_found_later") {
        return;
    }
    let mut place = place();
    place.create("everything", &["--interval", "1"]);
    place.kill_service();
    let sent = place.flood(1000);
    place.restart_service();
    place.wait_for("the Log Service", || records(&place).is_some());
    wait_for_volume(&place, RIGHT, Direction::In, sent);
    place.cli(&["logstore", "delete", "--project", "p-one", "s-one"]);
    let more = place.flood(500);
    place.cli(&["logstore", "create", "--project", "p-one", "s-one"]);
    wait_for_volume(&place, RIGHT, Direction::In, more);
}

#[test]
fn each_record_is_stored_once_whoever_is_killed() {
    if skip_unless_root("each_record_is_stored_once_whoever_is_killed") {
        return;
    }
    let mut place = place();
    place.create("everything", &["--interval", "1"]);
    let mut sent = place.flood(100);
    wait_for_volume(&place, RIGHT, Direction::In, sent);
    place.cli(&["disable", "everything"]);
    place.flood(7);
    place.cli(&["enable", "everything"]);
    for round in 1..=2 {
        sent = sum(sent, place.flood(200 * round));
        place.kill_service();
        sent = sum(sent, place.flood(210 * round));
        place.restart_service();
        sent = sum(sent, place.flood(220 * round));
        place.agent.kill().expect("killed");
        sent = sum(sent, place.flood(230 * round));
        // It dies once more when it has put what it does not know to be put then.
        place.agent.set_failpoint(Some("delivery-committed=kill"));
        place.agent.restart().expect("restarted");
        sent = sum(sent, place.flood(240 * round));
        place.agent.wait().expect("its death");
        sent = sum(sent, place.flood(250 * round));
        place.agent.set_failpoint(None);
        place.agent.restart().expect("restarted");
        place
            .agent
            .wait_until_captured(&[LEFT, RIGHT])
            .expect("captured");
    }
    place.wait_for("the Log Service", || records(&place).is_some());
    wait_for_volume(&place, RIGHT, Direction::In, sent);
    place.stop_agent();
    wait_for_volume(&place, RIGHT, Direction::In, sent);
    wait_for_volume(&place, LEFT, Direction::Out, sent);
    for record in records(&place).expect("records") {
        assert_ne!(record["log-status"], "SKIPDATA", "{record}");
    }
}
