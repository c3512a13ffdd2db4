//! The product's manners in SQL.
use super::fixture::{Fixture, batch, log};
use crate::log_service::query::{IndexedField, IndexedKind, QueryRequest};

/// Five records in a file and two in memory.
fn fixture() -> Fixture {
    let record = |time, eni, src, dst, port, packets, action| {
        log(
            time,
            &[
                ("eni-id", eni),
                ("srcaddr", src),
                ("dstaddr", dst),
                ("dstport", port),
                ("packets", packets),
                ("action", action),
            ],
        )
    };
    let mut logs = vec![
        record(
            1_700_000_000,
            "eni-1",
            "10.0.0.1",
            "10.0.0.2",
            "22",
            "5",
            "ACCEPT",
        ),
        record(
            1_700_000_060,
            "eni-1",
            "10.0.0.1",
            "8.8.8.8",
            "53",
            "1",
            "ACCEPT",
        ),
        record(
            1_700_000_120,
            "eni-2",
            "203.0.113.9",
            "10.0.0.2",
            "22",
            "3",
            "REJECT",
        ),
        record(
            1_700_003_600,
            "eni-2",
            "203.0.113.9",
            "10.0.0.2",
            "23",
            "2",
            "REJECT",
        ),
        record(
            1_700_003_660,
            "eni-2",
            "fd00::1",
            "2001:db8::1",
            "443",
            "40",
            "ACCEPT",
        ),
        record(
            1_700_003_720,
            "eni-1",
            "203.0.113.7",
            "10.0.0.1",
            "22",
            "4",
            "REJECT",
        ),
    ];
    logs.push(log(
        1_700_003_780,
        &[
            ("eni-id", "eni-3"),
            ("log-status", "NODATA"),
            ("latency", "1.5"),
            ("user-agent", "curl 8"),
        ],
    ));
    Fixture::new(&[batch(logs)], 5)
}

#[test]
fn select_as_in_the_product() {
    let fixture = fixture();
    let mut wrong = Vec::new();
    for (query, rows) in [
        ("* | SELECT count(1)", &["7"][..]),
        ("* | SELECT count(1) FROM log", &["7"]),
        ("| select COUNT(*) from LOG", &["7"]),
        (
            "action:REJECT and dstport:22 | SELECT srcaddr, sum(packets) AS p GROUP BY srcaddr ORDER BY p DESC LIMIT 10",
            &["203.0.113.7 4", "203.0.113.9 3"],
        ),
        (
            "* | SELECT \"eni-id\", count(1) AS n GROUP BY \"eni-id\" ORDER BY \"eni-id\"",
            &["eni-1 3", "eni-2 3", "eni-3 1"],
        ),
        (
            "* | SELECT eni_id, count(1) GROUP BY eni_id ORDER BY count(1) DESC, eni_id LIMIT 1",
            &["eni-1 3"],
        ),
        (
            "* | SELECT l.\"eni-id\" FROM log l WHERE l.\"log-status\" = 'NODATA'",
            &["eni-3"],
        ),
        (
            "* | SELECT \"eni-id\" FROM (SELECT \"eni-id\", max(packets) AS p GROUP BY \"eni-id\") WHERE p > 10",
            &["eni-2"],
        ),
        (
            "* | WITH big AS (SELECT srcaddr AS \"eni-id\" FROM log WHERE packets > 4) SELECT \"eni-id\" FROM big ORDER BY 1",
            &["10.0.0.1", "fd00::1"],
        ),
        ("* | SELECT approx_distinct(srcaddr)", &["4"]),
        ("* | SELECT count(distinct srcaddr)", &["4"]),
        ("* | SELECT sum(packets) - 100", &["-45"]),
        (
            "dstport:22 | SELECT min(packets), max(packets), avg(packets)",
            &["3 5 4.0"],
        ),
        (
            "* | SELECT date_format(__time__, '%Y-%m-%d %H:%i:%s') AS t ORDER BY t LIMIT 1",
            &["2023-11-14 22:13:20"],
        ),
        (
            "* | SELECT date_format(from_unixtime(__time__), '%H:00') AS h, count(1) GROUP BY h ORDER BY h",
            &["22:00 3", "23:00 4"],
        ),
        (
            "* | SELECT date_trunc('hour', __time__) AS h, count(1) AS n GROUP BY h ORDER BY h",
            &["2023-11-14 22:00:00.000 3", "2023-11-14 23:00:00.000 4"],
        ),
        (
            "* | SELECT to_unixtime(date_trunc('day', from_unixtime(max(__time__))))",
            &["1699920000"],
        ),
        (
            "* | SELECT from_unixtime(0)",
            &["1970-01-01 00:00:00.000"; 7],
        ),
        (
            "* | SELECT __time__ - __time__ % 3600 AS t, count(1) AS n GROUP BY t ORDER BY t",
            &["1699999200 3", "1700002800 4"],
        ),
        (
            "* | SELECT count_if(action = 'REJECT'), count_if(action IS NULL)",
            &["3 1"],
        ),
        (
            "* | SELECT if(packets > 4, 'big', 'small') AS s, count(1) GROUP BY s ORDER BY s",
            &["big 2", "small 5"],
        ),
        (
            "* | SELECT count(1) WHERE is_subnet_of('203.0.113.0/24', srcaddr)",
            &["3"],
        ),
        (
            "* | SELECT count(1) WHERE is_private(srcaddr) AND NOT is_private(dstaddr)",
            &["2"],
        ),
        (
            "* | SELECT is_private('172.32.0.1'), is_subnet_of('fd00::/8', 'fd12::1'), is_subnet_of('10.0.0.0/8', 'host') LIMIT 1",
            &["false true NULL"],
        ),
        ("* | SELECT approx_percentile(packets, 0.5) > 2", &["true"]),
        ("* | SELECT dstport WHERE dstport IS NULL", &["NULL"]),
        (
            "* | SELECT 1 UNION ALL SELECT 2 ORDER BY 1 LIMIT 8, 2",
            &["2", "2"],
        ),
        (
            "* | SELECT __seq__, \"eni-id\" WHERE __seq__ > 4 ORDER BY __seq__",
            &["5 eni-1", "6 eni-3"],
        ),
        ("action:NONE | SELECT count(1), sum(packets)", &["0 NULL"]),
        ("action:NONE | SELECT srcaddr", &[]),
    ] {
        let found = match fixture.query(query) {
            Ok(_) => fixture.table(query),
            Err(error) => vec![error.to_string()],
        };
        if found != rows {
            wrong.push(format!("{query}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn columns_have_the_names_that_the_query_gave() {
    let fixture = fixture();
    let columns = |query: &str| fixture.query(query).unwrap().columns();
    assert_eq!(
        columns(
            "* | SELECT \"eni-id\", eni_id AS e, count(1), sum(packets) AS p, log.srcaddr GROUP BY eni_id, srcaddr"
        ),
        ["eni-id", "e", "_col2", "p", "srcaddr"]
    );
    let all = columns("* | SELECT *");
    assert_eq!(
        all[..5],
        [
            "__time__",
            "__time_ns_part__",
            "__topic__",
            "__source__",
            "version"
        ]
    );
    assert!(
        all.contains(&"eni-id".to_owned())
            && !all
                .iter()
                .any(|name| name.contains("other") || name.contains("seq")),
        "{all:?}"
    );
}

#[test]
fn a_client_s_own_field_is_a_column_if_it_is_indexed() {
    let fixture = fixture();
    let field = |name: &str, kind| IndexedField {
        name: name.to_owned(),
        kind,
    };
    let request = |query: &str| QueryRequest {
        to: u32::MAX,
        query: query.to_owned(),
        fields: vec![
            field("user-agent", IndexedKind::Text),
            field("latency", IndexedKind::Double),
            field("eni-id", IndexedKind::Text),
            field("user-agent", IndexedKind::Text),
            field("__time__", IndexedKind::Long),
        ],
        ..QueryRequest::default()
    };
    let rows = fixture.request(request("* | SELECT \"user-agent\", sum(latency) AS s WHERE latency > 1 GROUP BY \"user-agent\"")).unwrap().rows().unwrap();
    assert_eq!(
        serde_json::to_string(&rows).unwrap(),
        r#"[{"s":"1.5","user-agent":"curl 8"}]"#
    );
    assert!(
        fixture
            .error("* | SELECT latency")
            .starts_with("character 12: there is no field \"latency\"; expected one of __time__,")
    );
}

#[test]
fn errors_have_the_position_and_what_was_expected() {
    let fixture = fixture();
    let mut wrong = Vec::new();
    for (query, error) in [
        (
            "* | SELEC 1",
            "character 5: expected: an SQL statement; found SELEC",
        ),
        (
            "* | SELECT srcaddr FORM log GROUP",
            "character 25: expected: ",
        ),
        (
            "*\n| SELECT srcaddr,\n  FROM log GROUP srcaddr",
            "character 32: expected: end of statement; found GROUP",
        ),
        (
            "* | SELECT 'open",
            "character 12: unterminated string literal",
        ),
        (
            "* | SELECT srcadr",
            "character 12: there is no field \"srcadr\"; expected one of __time__, ",
        ),
        (
            "* | SELECT eni-id",
            "character 12: there is no field \"eni\"; a field with a hyphen is to be in double quotes, as \"eni-id\"; expected",
        ),
        (
            "* | SELECT nonsense(srcaddr)",
            "character 12: invalid function 'nonsense'",
        ),
        ("* | SELECT sum(srcaddr)", "character 12: "),
        ("* | SELECT srcaddr, count(1)", "character 12: "),
        (
            "* | SELECT is_subnet_of('x', srcaddr)",
            "is_subnet_of: \"x\" is no CIDR block, as 10.0.0.0/8",
        ),
        (
            "* | SELECT date_format(__time__, '%Q')",
            "date_format: %Q is not known",
        ),
        (
            "* | SELECT packets / (packets - packets)",
            "a division by zero",
        ),
        ("* | SELECT cast(srcaddr AS bigint)", "cannot cast string"),
        (
            "* |",
            "character 4: expected one SELECT; found the end of the query",
        ),
    ] {
        let found = fixture.error(query);
        let placed = !error.starts_with("character") || found.starts_with(error);
        if !placed || !found.contains(error) {
            wrong.push(format!("{query}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
