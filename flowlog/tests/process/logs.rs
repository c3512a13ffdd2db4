//! `flowlog query`, `tail` and `top`: what they print of real records, and what they say when something is wrong.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::command::{Place, since_1970};
use crate::skip::skip;

fn record(action: &str, (source, port): (&str, u16), packets: u64) -> Value {
    let bytes = packets * 60;
    json!({
        "version": "1", "vswitch-id": "vsw-1", "vm-id": "-", "vpc-id": "vpc-1", "account-id": "1", "eni-id": "eni-1", "srcaddr": source,
        "srcport": "50000", "dstaddr": "10.0.2.20", "dstport": port.to_string(), "protocol": "6", "direction": "in",
        "packets": packets.to_string(), "bytes": bytes.to_string(), "start": "1795356600", "end": "1795356660", "log-status": "OK",
        "action": action,
    })
}

/// Now, in Unix seconds.
fn now() -> u32 {
    u32::try_from(since_1970().as_secs()).unwrap()
}

/// A place with four records and one that there was none.
fn place() -> Place {
    let place = Place::new();
    let nodata = json!({"version": "1", "eni-id": "eni-2", "log-status": "NODATA", "start": "1795356600", "end": "1795356660"});
    place.put(&[
        (now() - 4, record("ACCEPT", ("10.0.1.10", 443), 7)),
        (now() - 3, record("REJECT", ("10.0.1.10", 22), 3)),
        (now() - 2, record("REJECT", ("10.0.1.11", 22), 5)),
        (now() - 1, record("REJECT", ("fd00::1", 23), 9)),
        (now(), nodata),
    ]);
    place
}

const SSH: &str = "action:REJECT and dstport:22 | SELECT srcaddr, sum(packets) AS p, avg(bytes) AS mean, max(vm_id) AS vm \
                   GROUP BY srcaddr ORDER BY p DESC LIMIT 10";

/// What Python makes of octets in a form: columns and rows.
fn read_by_python(form: &str, octets: &[u8]) -> Option<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = folder.join("../target/python/bin/python");
    let has_arrow = Command::new(&python)
        .args(["-c", "import pyarrow"])
        .output();
    if !has_arrow.is_ok_and(|output| output.status.success()) {
        skip(
            "process::logs",
            "there is no target/python with pyarrow: run `cargo xtask setup`",
        );
        return None;
    }
    let mut child = Command::new(&python)
        .arg("-B")
        .arg(folder.join("tests/python/read_answer.py"))
        .arg(form)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(octets).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{form}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn an_answer_is_a_table_to_people() {
    let place = place();
    let table = place.done(&["query", "--last", "1h", SSH]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines,
        [
            " srcaddr    p   mean  vm",
            " 10.0.1.11  5  300.0  -",
            " 10.0.1.10  3  180.0  -",
        ]
    );
    // A search shows records in short, the newest last.
    let found = place.done(&["query", "action:REJECT and not dstport:22 or eni-id:eni-2"]);
    let lines: Vec<Vec<&str>> = found
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "TIME",
            "ENI",
            "DIR",
            "ACTION",
            "PROTO",
            "SOURCE",
            "DESTINATION",
            "PACKETS",
            "BYTES"
        ]
    );
    assert_eq!(
        lines[1][1..],
        [
            "eni-1",
            "in",
            "REJECT",
            "tcp",
            "[fd00::1]:50000",
            "10.0.2.20:23",
            "9",
            "540"
        ]
    );
    assert_eq!(
        lines[2][1..],
        ["eni-2", "-", "NODATA", "-", "-", "-", "-", "-"]
    );
    assert_eq!(lines.len(), 3);
    let nothing = place.done(&["query", "action:REJECT and dstport:99"]);
    assert_eq!(nothing, "Nothing was found.\n");
}

#[test]
fn an_answer_is_read_by_programs() {
    let place = place();
    let rows = json!([
        {"srcaddr": "10.0.1.11", "p": 5, "mean": 300.0, "vm": null},
        {"srcaddr": "10.0.1.10", "p": 3, "mean": 180.0, "vm": null},
    ]);
    let printed = place.done(&["query", "--output", "json", SSH]);
    let read: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(Value::from(read), rows);
    let octets = |form| {
        place
            .command(&["query", "--output", form, SSH])
            .output()
            .unwrap()
            .stdout
    };
    let Some(arrow) = read_by_python("arrow", &octets("arrow")) else {
        return;
    };
    let types = json!({"srcaddr": "string", "p": "int64", "mean": "double", "vm": "string"});
    assert_eq!(arrow, json!({ "columns": types, "rows": rows }));
    let csv = read_by_python("csv", &octets("csv")).unwrap();
    let texts = json!([
        {"srcaddr": "10.0.1.11", "p": "5", "mean": "300.0", "vm": ""},
        {"srcaddr": "10.0.1.10", "p": "3", "mean": "180.0", "vm": ""},
    ]);
    assert_eq!(csv["rows"], texts);
    // All fields of records, with their types, also of those that no record has.
    let output = place
        .command(&["query", "--output", "arrow", "dstport:22"])
        .output()
        .unwrap();
    let all = read_by_python("arrow", &output.stdout).unwrap();
    for (column, kind) in [
        ("eni-id", "string"),
        ("packets", "int64"),
        ("dstport", "int64"),
        ("tcp-flags", "int64"),
        ("__time__", "int64"),
    ] {
        assert_eq!(all["columns"][column], kind, "{column}");
    }
    assert_eq!(all["rows"].as_array().unwrap().len(), 2);
    let nothing = place.done(&["query", "--output", "csv", "dstport:99 | SELECT srcaddr"]);
    assert_eq!(nothing, "srcaddr\n");
    assert_eq!(place.done(&["query", "--output", "json", "dstport:99"]), "");
}

#[test]
fn more_than_a_page_is_got() {
    let place = Place::new();
    let time = now();
    let records = (0..250_u16).map(|port| (time, record("ACCEPT", ("10.0.1.10", port), 1)));
    place.put(&records.collect::<Vec<_>>());
    let ports = |arguments: &[&str]| -> Vec<u64> {
        let printed = place.done(&[&["query", "--output", "json"], arguments].concat());
        let port = |line| {
            serde_json::from_str::<Value>(line).unwrap()["dstport"]
                .as_u64()
                .unwrap()
        };
        printed.lines().map(port).collect()
    };
    assert_eq!(ports(&["--limit", "1000"]), (0..250).collect::<Vec<_>>());
    assert_eq!(ports(&["--limit", "130"]), (120..250).collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let mut place = place();
    for (query, expected) in [
        ("action:REJECT and", "Character 18: expected "),
        ("dstport > x", "Character 11: expected a number"),
        ("* | SELECT nothing", "Character 12: there is no field"),
        ("* | SELECT srcaddr FORM log", "Character 25: expected"),
    ] {
        let said = place.refused(&["query", query]);
        assert!(said.contains(expected), "{query}: {said}");
    }
    let said = place.refused(&["query", "--logstore", "other"]);
    assert!(said.contains("other"), "{said}");
    let said = place.refused(&["tail", "--project", "other-net"]);
    assert!(said.contains("other-net"), "{said}");
    let said = place.refused(&["top", "action:"]);
    assert!(said.contains("expected"), "{said}");
    let key = place.path().join("none.json");
    let said = place.refused(&["query", "--access-key-file", key.to_str().unwrap()]);
    assert!(
        said.contains("none.json") && said.contains("--access-key-file"),
        "{said}"
    );
    place.stop_service();
    for command in ["query", "tail", "top"] {
        let said = place.refused(&[command]);
        assert!(said.contains(&place.url), "{said}");
    }
}

/// The next line, without the time at its beginning.
fn next(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> String {
    let line = lines.next().unwrap().unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    words.join(" ")
}

fn kill(mut child: Child) -> String {
    child.kill().unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    child.wait().unwrap();
    said
}

#[test]
fn tail_shows_new_records_also_after_a_restart_of_the_service() {
    let mut place = place();
    let mut tail = place.start(&["tail", "-n", "1", "action:REJECT"]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(
        next(&mut lines),
        "eni-1 in REJECT tcp [fd00::1]:50000 10.0.2.20:23 9 540"
    );
    place.put(&[
        (now(), record("ACCEPT", ("10.0.1.12", 25), 1)),
        // What comes late is new too.
        (now() - 600, record("REJECT", ("10.0.1.12", 25), 2)),
    ]);
    assert_eq!(
        next(&mut lines),
        "eni-1 in REJECT tcp 10.0.1.12:50000 10.0.2.20:25 2 120"
    );
    // It has to see that the service is away: its standard error tells.
    let mut said = BufReader::new(tail.stderr.take().unwrap());
    place.stop_service();
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("it is tried again"), "{line}");
    place.restart_service();
    place.put(&[(now(), record("REJECT", ("10.0.1.13", 25), 4))]);
    assert_eq!(
        next(&mut lines),
        "eni-1 in REJECT tcp 10.0.1.13:50000 10.0.2.20:25 4 240"
    );
    tail.stderr = Some(said.into_inner());
    assert_eq!(kill(tail), "");
    let mut json = place.start(&["tail", "-n", "1", "--output", "json"]);
    let mut lines = BufReader::new(json.stdout.take().unwrap()).lines();
    let row: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(
        (&row["srcaddr"], &row["packets"], &row["vpc-id"]),
        (&json!("10.0.1.13"), &json!(4), &json!("vpc-1"))
    );
    assert!(
        row.get("vm-id").is_none() && row.get("__seq__").is_none(),
        "{row}"
    );
    kill(json);
}

#[test]
fn top_shows_the_heaviest_first() {
    let place = place();
    let top = place.done(&["top", "--by", "source", "--limit", "2"]);
    let lines: Vec<Vec<&str>> = top
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines,
        [
            &["srcaddr", "bytes", "packets", "rejected"][..],
            &["10.0.1.10", "600", "10", "1"],
            &["fd00::1", "540", "9", "1"],
        ]
    );
    let json = place.done(&["top", "--by", "eni", "--output", "json", "action:REJECT"]);
    let row: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        row,
        json!({"eni-id": "eni-1", "direction": "in", "bytes": 1020, "packets": 17, "rejected": 3})
    );
    assert_eq!(place.done(&["top", "dstport:99"]), "Nothing was found.\n");
}
