//! What a query may not do, and how much.
use std::time::Duration;

use super::fixture::{Fixture, batch, log};
use crate::log_service::query::{QueryError, QueryRequest};

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

/// How many files are in the folder.
fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| if path.is_dir() { walk(&path) } else { 1 })
        .sum()
}
