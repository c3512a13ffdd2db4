//! `flowlog project` and `flowlog logstore`.
use serde_json::{Value, json};

use crate::command::Place;

fn json(printed: &str) -> Value {
    serde_json::from_str(printed).unwrap()
}

#[test]
fn a_logstore_has_a_retention_and_an_index() {
    let place = Place::new();
    let create = [
        "logstore",
        "create",
        "--project",
        "net",
        "archive",
        "--ttl",
        "3650",
        "--no-index",
    ];
    let shown = place.done(&create);
    for (fact, value) in [
        ("logstore", "archive"),
        ("kept for", "for ever"),
        ("index", "off"),
    ] {
        let mut lines = shown.lines();
        assert!(
            lines.any(|line| line.contains(fact) && line.ends_with(value)),
            "{shown}"
        );
    }
    // Without an index it is not searched, and that is said.
    let said = place.refused(&["query", "--logstore", "archive"]);
    assert!(said.contains("index"), "{said}");
    let modified = place.done(&[
        "logstore",
        "modify",
        "--project",
        "net",
        "archive",
        "--ttl",
        "7",
        "--index",
        "on",
        "--output",
        "json",
    ]);
    let modified = json(&modified);
    assert_eq!(
        (&modified["ttl_days"], &modified["index"]),
        (&json!(7), &json!(true))
    );
    assert_eq!(
        place.done(&["query", "--logstore", "archive"]),
        "Nothing was found.\n"
    );
    assert_eq!(
        place.done(&["logstore", "list", "--project", "net"]),
        "archive\nflows\n"
    );
    place.done(&["logstore", "delete", "--project", "net", "archive"]);
    assert_eq!(
        json(&place.done(&["logstore", "list", "--project", "net", "--output", "json"])),
        json!(["flows"])
    );
}

#[test]
fn what_cannot_be_done_with_projects_and_logstores_is_said_in_one_line() {
    let place = Place::new();
    for (line, expected) in [
        ("project create net", "net"),
        ("project create N", "3 to 63"),
        ("project show other", "other"),
        ("project delete other", "other"),
        ("project delete net", "--with-logstores"),
        ("logstore create --project net flows", "flows"),
        ("logstore create --project net other --ttl 0", "3650"),
        ("logstore create --project net x", "3 to 63"),
        ("logstore create --project other flows", "other"),
        ("logstore list --project other", "other"),
        ("logstore show --project net other", "other"),
        ("logstore modify --project net other --ttl 3", "other"),
        ("logstore delete --project net other", "other"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let said = place.refused(&words);
        assert!(said.contains(expected), "{line}: {said}");
    }
    let project = place.done(&["project", "list"]);
    assert!(
        project
            .lines()
            .nth(1)
            .unwrap()
            .trim_start()
            .starts_with("net "),
        "{project}"
    );
    place.done(&["project", "delete", "net", "--with-logstores"]);
    assert_eq!(
        json(&place.done(&["project", "list", "--output", "json"])),
        json!([])
    );
}
