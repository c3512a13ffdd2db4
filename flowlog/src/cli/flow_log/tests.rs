use std::collections::BTreeMap;

use super::*;

fn flow_log() -> FlowLog {
    FlowLog {
        id: "fl-000000000000000000001".to_owned(),
        region: "local".to_owned(),
        name: "all".to_owned(),
        description: String::new(),
        resource_type: "VPC".to_owned(),
        resource_id: "vpc-1".to_owned(),
        traffic_type: "All".to_owned(),
        project: "p-1".to_owned(),
        logstore: "s-1".to_owned(),
        aggregation_interval: 10,
        ip_version: "DualStack".to_owned(),
        log_format: String::new(),
        traffic_path: Vec::new(),
        resource_group: String::new(),
        status: "Active".to_owned(),
        deliver_status: String::new(),
        deliver_error_message: String::new(),
        created_at: "2026-11-22T04:52:11Z".to_owned(),
        tags: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
    }
}

#[test]
fn a_list_is_a_table() {
    let lines = list_lines(&[flow_log()]);
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    assert_eq!(
        lines,
        [
            " ID                        NAME  RESOURCE   TRAFFIC  LOGSTORE  STATUS  DELIVERY  CREATED",
            " fl-000000000000000000001  all   VPC vpc-1  All      p-1/s-1   Active  -         2026-11-22T04:52:11Z",
        ]
    );
}

#[test]
fn all_is_shown_of_one() {
    let lines = show_lines(&flow_log());
    assert_eq!(lines.len(), 16);
    for expected in [
        " resource        VPC vpc-1",
        " tags            k=v",
        " description     -",
    ] {
        assert!(
            lines.iter().any(|line| line.trim_end() == expected),
            "{lines:#?}"
        );
    }
}

#[test]
fn ids_are_told_from_names() {
    assert!(is_id("fl-000000000000000000abc"));
    for name in [
        "fl-1",
        "all",
        "fl-00000000000000000ABC",
        "fl-0000000000000000000000",
    ] {
        assert!(!is_id(name), "{name}");
    }
}

#[test]
fn tags_have_a_key_and_a_value() {
    assert_eq!(parse_tag("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    assert_eq!(parse_tag("a="), Ok(("a".to_owned(), String::new())));
    assert!(parse_tag("a").is_err() && parse_tag("=b").is_err());
}
