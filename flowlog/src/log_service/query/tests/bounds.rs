//! What a query may not do, and how much.
use std::time::Duration;

use proptest::prelude::*;

use super::fixture::{Fixture, batch, log};
use crate::log_service::query::{Engine, EngineConfig, QueryError, QueryRequest, check};

fn fixture(logs: u32) -> Fixture {
    let logs = (0..logs)
        .map(|index| {
            log(
                index,
                &[
                    ("eni-id", "eni-1"),
                    ("srcport", &(index % 60_000).to_string()),
                ],
            )
        })
        .collect();
    Fixture::new(&[batch(logs)], 10)
}

#[test]
fn nothing_but_reading_the_log_is_allowed() {
    let fixture = fixture(20);
    let secret = fixture.folder.path().join("secret.csv");
    std::fs::write(&secret, "a\nsecret\n").unwrap();
    let before = std::fs::read_dir(fixture.folder.path()).unwrap().count();
    for sql in [
        "CREATE TABLE t (a int)",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{file}'",
        "CREATE FUNCTION f AS 'x'",
        "DROP TABLE log",
        "INSERT INTO log VALUES (1)",
        "INSERT INTO log SELECT * FROM log",
        "UPDATE log SET srcport = 1",
        "DELETE FROM log",
        "TRUNCATE log",
        "ALTER TABLE log ADD COLUMN a int",
        "COPY log TO '{file}.out'",
        "COPY (SELECT 1) TO '{file}.out' STORED AS CSV",
        "SET datafusion.execution.target_partitions = 1",
        "RESET datafusion.execution.target_partitions",
        "SHOW TABLES",
        "SHOW ALL",
        "DESCRIBE log",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "BEGIN",
        "VALUES (1)",
        "TABLE log",
        "SELECT 1; DROP TABLE log",
        "SELECT 1; SELECT 2",
        "SELECT * INTO t FROM log",
        "SELECT srcport FROM log |> EXTEND srcport + srcport AS a",
        "SELECT * FROM '{file}'",
        "SELECT * FROM \"{file}\"",
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM TABLE(generate_series(1, 10))",
        "SELECT * FROM generate_series(1, 10)",
        "SELECT * FROM range(1000000000)",
        "SELECT * FROM unnest([1, 2])",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM datafusion.public.log",
        "SELECT * FROM public.log",
        "SELECT * FROM other",
        "SELECT (SELECT count(1) FROM other)",
        "SELECT srcport FROM log WHERE srcport IN (SELECT a FROM other)",
        "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT * FROM t",
        "WITH t AS (INSERT INTO log VALUES (1) RETURNING *) SELECT * FROM t",
    ] {
        let sql = sql.replace("{file}", secret.to_str().unwrap());
        let error = fixture.error(&format!("* | {sql}"));
        assert!(!error.contains("secret\n"), "{sql}: {error}");
    }
    assert_eq!(
        std::fs::read_dir(fixture.folder.path()).unwrap().count(),
        before,
        "nothing was written"
    );
    assert_eq!(fixture.table("* | SELECT count(1)"), ["20"]);
}

#[test]
fn a_result_that_is_cut_off_says_so() {
    let logs = (0..50)
        .map(|index| log(index, &[("eni-id", "eni-1")]))
        .collect();
    let fixture = Fixture::with(&[batch(logs)], 20, |config| config.rows = 30);
    let whole = fixture.query("* | SELECT __time__ LIMIT 30").unwrap();
    assert_eq!((whole.count(), whole.complete), (30, true));
    let cut = fixture.query("* | SELECT __time__").unwrap();
    assert_eq!((cut.count(), cut.complete), (30, false));
    let page = fixture.query("*").unwrap();
    assert_eq!(
        (page.count(), page.complete),
        (30, true),
        "a page says nothing of what is on the next"
    );
    let large = (0..20_000)
        .map(|index| log(index, &[("vm-id", &"x".repeat(100))]))
        .collect();
    let fixture = Fixture::with(&[batch(large)], 0, |config| config.octets = 1 << 20);
    let cut = fixture.query("* | SELECT vm_id").unwrap();
    assert!(cut.count() < 11_000 && !cut.complete, "{}", cut.count());
}

#[test]
fn a_query_that_takes_too_long_is_ended() {
    let logs = (0..3000)
        .map(|index| log(index, &[("eni-id", "eni-1")]))
        .collect();
    let fixture = Fixture::with(&[batch(logs)], 0, |config| {
        config.time_limit = Duration::from_millis(500);
        config.running = 1;
    });
    let endless = "* | SELECT count(1) FROM log a, log b, log c WHERE a.__time__ + b.__time__ + c.__time__ < 0";
    assert!(matches!(
        fixture.query(endless),
        Err(QueryError::TimeLimit { .. })
    ));
    // It has given its turn back: the next one waits for nothing but the end of the first one's step.
    let mut next = fixture.query("* | SELECT 1 LIMIT 1");
    for _ in 0..300 {
        if !matches!(next, Err(QueryError::TimeLimit { .. })) {
            break;
        }
        next = fixture.query("* | SELECT 1 LIMIT 1");
    }
    assert_eq!(next.unwrap().count(), 1);
}

#[test]
fn a_query_that_nobody_waits_for_gives_its_turn_back() {
    let logs = (0..3000)
        .map(|index| log(index, &[("eni-id", "eni-1")]))
        .collect();
    let fixture = Fixture::with(&[batch(logs)], 0, |config| config.running = 1);
    let endless = "* | SELECT count(1) FROM log a, log b, log c WHERE a.__time__ + b.__time__ + c.__time__ < 0";
    let request = QueryRequest {
        to: u32::MAX,
        query: endless.to_owned(),
        ..QueryRequest::default()
    };
    fixture.wait(async {
        let endless = fixture
            .engine
            .query("account", fixture.snapshot.clone(), request);
        // Started, and dropped while it runs.
        assert!(
            tokio::time::timeout(Duration::from_millis(100), endless)
                .await
                .is_err()
        );
    });
    assert_eq!(fixture.query("* | SELECT 1 LIMIT 1").unwrap().count(), 1);
}

#[test]
fn a_query_that_panics_fails_alone_and_gives_its_turn_back() {
    let fixture = Fixture::with(&[], 0, |config| config.running = 1);
    let work = async { panic!("as if DataFusion had a mistake") };
    let run = fixture
        .engine
        .run::<()>("account", fixture.snapshot.clone(), work);
    assert!(matches!(fixture.wait(run), Err(QueryError::Internal(_))));
    assert_eq!(fixture.table("* | SELECT count(1)"), ["0"]);
}

#[test]
fn what_queries_have_left_when_the_process_was_killed_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("datafusion-abc");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("spilled"), "x").unwrap();
    let _engine = Engine::new(EngineConfig::new(folder.path())).unwrap();
    assert!(!left.exists());
}

#[test]
fn what_does_not_fit_into_memory_goes_to_the_disk_and_no_further() {
    let query = "* | SELECT __time__, max(message) AS m, count(1) AS n GROUP BY __time__ ORDER BY m, __time__";
    let logs = || {
        (0..20_000)
            .map(|index| log(index, &[("vm-id", &format!("{index:0200}"))]))
            .collect()
    };
    let query = query.replace("message", "vm_id");
    let limited = |memory, spill| {
        Fixture::with(&[batch(logs())], 0, |config| {
            config.memory = memory;
            config.spill = spill;
            config.octets = 1 << 30;
        })
    };
    let spilled = limited(48 << 20, 1 << 30);
    assert_eq!(spilled.query(&query).unwrap().count(), 20_000);
    let files = |fixture: &Fixture| walk(&fixture.folder.path().join("spill"));
    assert_eq!(files(&spilled), 0, "what was spilled is gone");
    let no_room = limited(48 << 20, 1 << 16);
    assert!(
        matches!(no_room.query(&query), Err(QueryError::Memory)),
        "{:?}",
        no_room.query(&query).map(|found| found.count())
    );
}

/// Text that is small, and what becomes of it is not: neither stack, memory nor time may run out.
#[test]
fn what_grows_beyond_all_bounds_when_it_is_planned_is_refused() {
    let fixture = fixture(20);
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    let chained = |first: &str, next: &str, times: usize| format!("{first}{}", next.repeat(times));
    let with = |table: &str, times: usize| {
        let tables: Vec<String> = (1..=times)
            .map(|number| {
                format!(
                    "t{number} AS ({})",
                    table.replace("{}", &format!("t{}", number - 1))
                )
            })
            .collect();
        format!(
            "WITH t0 AS (SELECT srcport AS a FROM log), {} SELECT * FROM t{times} WHERE a > 0",
            tables.join(", ")
        )
    };
    for sql in [
        format!("SELECT {}", chained("1", "+1", 14_000)),
        format!("SELECT {}", nested("(", "1", ")", 10_000)),
        format!("SELECT {}", nested("- ", "1", "", 10_000)),
        format!("SELECT {}", nested("not ", "true", "", 8000)),
        format!("SELECT {}", nested("count_if(", "true", ")", 45)),
        format!("SELECT {}", nested("if(true, ", "1", ", 2)", 45)),
        format!("SELECT {}", nested("coalesce(", "srcport", ", 1)", 45)),
        format!(
            "SELECT {}",
            nested("CASE WHEN ", "true", " THEN true ELSE false END", 45)
        ),
        format!(
            "SELECT 1 WHERE {}",
            chained("true", " or srcport = 1", 1800)
        ),
        format!("SELECT {}", chained("true", " BETWEEN false AND true", 150)),
        format!("SELECT {}", chained("true", " IN (true, false, NULL)", 150)),
        format!("SELECT {}", chained("'a'", " || 'a'", 4000)),
        chained("SELECT 1", " UNION ALL SELECT 1", 1500),
        format!(
            "SELECT * FROM {}",
            nested("(SELECT * FROM ", "log", ")", 2000)
        ),
        format!(
            "SELECT 1 FROM log WHERE srcport IN {}",
            nested("(SELECT srcport FROM log WHERE srcport IN ", "(1)", ")", 40)
        ),
        format!(
            "SELECT count(1) GROUP BY CUBE ({})",
            (0..40)
                .map(|n| format!("srcport + {n}"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        with("SELECT x.a FROM {} x, {} y", 30),
        with("SELECT a FROM {} UNION ALL SELECT a FROM {}", 30),
        with("SELECT a + a AS a FROM {}", 60),
        with("SELECT coalesce(a, 1) AS a FROM {}", 60),
        format!(
            "SELECT * FROM {} WHERE a > 0",
            nested(
                "(SELECT a + a AS a FROM ",
                "(SELECT srcport AS a FROM log)",
                ")",
                22
            )
        ),
    ] {
        let error = fixture.error(&format!("* | {sql}"));
        assert!(error.len() < 300, "{error}");
    }
    for search in [
        nested("(", "a", ")", 10_000),
        nested("not ", "a", "", 8000),
        chained("a", " or a", 6000),
    ] {
        fixture.error(&search);
    }
    assert_eq!(fixture.table("* | SELECT count(1)"), ["20"]);
}

#[test]
fn what_analysts_write_is_not_too_much() {
    let fixture = fixture(20);
    for (sql, expected) in [
        (format!("SELECT count_if(srcport IN ({}))", (0..5000).map(|port| port.to_string()).collect::<Vec<_>>().join(", ")), "20"),
        (format!("SELECT count(1) WHERE {}", ["srcport = 1"; 150].join(" OR ")), "1"),
        (
            "WITH a AS (SELECT date_trunc('hour', __time__) AS h, \"eni-id\" AS e, sum(coalesce(srcport, 0)) AS s, count(1) AS n
            GROUP BY h, e), b AS (SELECT h, e, round(100.0 * s / CASE WHEN n = 0 THEN 1 ELSE n END, 2) AS r FROM a),
            c AS (SELECT e, max(r) AS m, min(r) AS l FROM b GROUP BY e)
            SELECT count(1) FROM c JOIN b ON b.e = c.e WHERE r BETWEEN l AND m AND coalesce(m, 0) > 0".to_owned(),
            "1",
        ),
        ("SELECT lpad('7', 5, '0') LIMIT 1".to_owned(), "00007"),
        ("SELECT replace('a-b', '-', '+') LIMIT 1".to_owned(), "a+b"),
        ("SELECT regexp_replace('a1b2', '[0-9]', '#', 'g') LIMIT 1".to_owned(), "a#b#"),
    ] {
        assert_eq!(fixture.table(&format!("* | {sql}")), [expected], "{sql}");
    }
}

#[test]
fn functions_do_not_make_texts_of_any_length() {
    let fixture = fixture(20);
    for sql in [
        "SELECT length(repeat('a', 2000000000))".to_owned(),
        "SELECT length(lpad('a', 2000000000))".to_owned(),
        "SELECT length(rpad('a', 1025, 'b'))".to_owned(),
        format!(
            "SELECT length(replace('{}', 'a', '{}'))",
            "a".repeat(12_000),
            "b".repeat(12_000)
        ),
        format!(
            "SELECT length(regexp_replace('{}', '', '{}', 'g'))",
            "a".repeat(12_000),
            "b".repeat(12_000)
        ),
    ] {
        let error = fixture.error(&format!("* | {sql}"));
        assert!(error.len() < 300, "{error}");
    }
}

proptest! {
    /// The properties of the fuzz target `search`, with fewer tries.
    #[test]
    fn no_text_makes_the_parsers_panic(
        query in "(?s)((SELECT|FROM|log|WITH|AS|WHERE|GROUP BY|CASE|WHEN|END|IN|BETWEEN|AND|NOT|OVER|JOIN|UNION|count|if|count_if) |[ ()\"'*,|:;.=<>a1-]|.){0,60}"
    ) {
        let _ = check(&query);
        let _ = check(&format!("* | {query}"));
    }
}

/// How many files are in the folder.
fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| if path.is_dir() { walk(&path) } else { 1 })
        .sum()
}

#[test]
fn so_many_texts_that_they_are_not_numbered_are_grouped_all_the_same() {
    const TEXTS: u32 = 140_000;
    let logs = |first: u32| {
        let log = |number: u32| log(1, &[("vm-id", &format!("i-{number}")), ("bytes", "7")]);
        batch((first..first + 20_000).map(log).collect())
    };
    let batches: Vec<_> = (0..TEXTS).step_by(20_000).map(logs).collect();
    let fixture = Fixture::new(&batches, 0);
    assert_eq!(
        fixture.table(
            "* | SELECT count(1), sum(b), max(n) FROM (SELECT vm_id, sum(bytes) AS b, count(1) AS n FROM log GROUP BY vm_id)"
        ),
        [format!("{TEXTS} {} 1", 7 * TEXTS)]
    );
}
