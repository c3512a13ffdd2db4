//! Pages of a search, and its histogram.
use super::fixture::{Fixture, batch, log};
use crate::log_service::query::{Bucket, HistogramRequest, QueryRequest};
use crate::log_service::types::LogBatch;

fn numbered() -> Fixture {
    // Two logs for each second, out of order; half in a file.
    let logs = (0..100_u32)
        .map(|index| {
            log(
                1000 + (index * 37 % 100) / 2,
                &[("eni-id", "eni-1"), ("number", &index.to_string())],
            )
        })
        .collect();
    Fixture::new(&[batch(logs)], 50)
}

fn page(fixture: &Fixture, request: QueryRequest) -> Vec<(String, String)> {
    let rows = fixture.request(request).unwrap().rows().unwrap();
    rows.iter()
        .map(|row| {
            (
                row["__time__"].as_str().unwrap().to_owned(),
                row["number"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

#[test]
fn pages_are_in_the_order_of_time_and_arrival() {
    let fixture = numbered();
    let request = |offset, line, reverse| QueryRequest {
        from: 1000,
        to: 1050,
        query: "eni-id:eni-1".to_owned(),
        line,
        offset,
        reverse,
        ..QueryRequest::default()
    };
    let all = page(&fixture, request(0, 1000, false));
    assert_eq!(all.len(), 100);
    let mut sorted = all.clone();
    sorted.sort_by_key(|(time, number)| {
        (time.parse::<u32>().unwrap(), number.parse::<u32>().unwrap())
    });
    assert_eq!(all, sorted);
    let paged: Vec<_> = (0..100)
        .step_by(7)
        .flat_map(|offset| page(&fixture, request(offset, 7, false)))
        .collect();
    assert_eq!(paged, all);
    let mut reversed = page(&fixture, request(0, 1000, true));
    reversed.reverse();
    assert_eq!(reversed, all);
    assert!(page(&fixture, request(100, 10, false)).is_empty());
}

#[test]
fn the_range_is_half_open_and_the_topic_is_one() {
    let fixture = numbered();
    let count = |from, to, topic: Option<&str>| {
        let request = QueryRequest {
            from,
            to,
            line: 1000,
            topic: topic.map(str::to_owned),
            ..QueryRequest::default()
        };
        fixture.request(request).unwrap().count()
    };
    assert_eq!(count(1000, 1050, None), 100);
    assert_eq!(count(1001, 1049, None), 96);
    assert_eq!(count(1000, 1001, Some("flow_log")), 2);
    assert_eq!(count(1000, 1050, Some("")), 100);
    assert_eq!(count(1000, 1050, Some("other")), 0);
    assert_eq!(count(1050, 1000, None), 0);
}

#[test]
fn a_row_has_what_the_log_had() {
    let mut with_tags = LogBatch {
        tags: vec![("host".to_owned(), "h".to_owned())],
        ..batch(vec![log(
            5,
            &[
                ("eni-id", "eni-1"),
                ("srcport", "22"),
                ("vm-id", "-"),
                ("message", "hello world"),
            ],
        )])
    };
    with_tags.logs.push(log(6, &[("protocol", "tcp")]));
    for in_file in [0, 2] {
        let fixture = Fixture::new(&[with_tags.clone()], in_file);
        let result = fixture.query("*").unwrap();
        assert!(result.complete && !result.has_sql);
        assert_eq!(
            serde_json::to_string(&result.rows().unwrap()).unwrap(),
            r#"[{"__source__":"host-1","__tag__:host":"h","__time__":"5","__topic__":"flow_log","eni-id":"eni-1","message":"hello world","srcport":"22"},{"__source__":"host-1","__tag__:host":"h","__time__":"6","__topic__":"flow_log","protocol":"tcp"}]"#
        );
        let columns = result.columns();
        assert!(
            columns.ends_with(&[
                "__tag__:host".to_owned(),
                "message".to_owned(),
                "protocol".to_owned()
            ]),
            "{columns:?}"
        );
        for (query, count) in [
            ("hello", 1),
            ("\"__tag__:host\": h", 2),
            ("protocol: tcp", 1),
            ("tcp", 1),
            ("22", 1),
            ("flow_log", 2),
            ("__source__: host-1 not vm-id: *", 2),
            ("not srcport: 22", 1),
        ] {
            assert_eq!(fixture.rows(query).len(), count, "{query}");
        }
    }
}

#[test]
fn a_histogram_counts_each_log_once() {
    let fixture = numbered();
    let histogram = |from, to, query: &str| {
        let request = HistogramRequest {
            from,
            to,
            topic: None,
            query: query.to_owned(),
        };
        fixture
            .wait(
                fixture
                    .engine
                    .histogram("account", fixture.snapshot.clone(), request),
            )
            .unwrap()
    };
    let buckets = histogram(1000, 1050, "*");
    assert_eq!(buckets.len(), 50);
    assert!(
        buckets
            .iter()
            .all(|bucket| bucket.count == 2 && bucket.to == bucket.from + 1)
    );
    let wide = histogram(0, 1025, "eni-id:eni-1 | SELECT 1");
    assert!(
        wide.len() <= 60 && wide.windows(2).all(|pair| pair[0].to == pair[1].from),
        "{wide:?}"
    );
    assert_eq!((wide[0].from, wide.last().unwrap().to), (0, 1025));
    assert_eq!(wide.iter().map(|bucket| bucket.count).sum::<u64>(), 50);
    assert_eq!(histogram(1000, 1000, "*"), []);
    assert_eq!(
        histogram(1000, 1001, "number:none"),
        [Bucket {
            from: 1000,
            to: 1001,
            count: 0
        }]
    );
    assert_eq!(
        histogram(0, u32::MAX, "*")
            .iter()
            .map(|bucket| bucket.count)
            .sum::<u64>(),
        100
    );
}
