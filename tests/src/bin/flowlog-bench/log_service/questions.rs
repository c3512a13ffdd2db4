//! What is asked about the records of a day, of Flowlog and of DuckDB.

/// A question: as it is put to Flowlog, and as it is put to DuckDB.
pub(crate) struct Question {
    /// What it is called in the report.
    pub(crate) name: &'static str,
    /// `search | SQL`.
    pub(crate) ours: &'static str,
    /// The same in DuckDB's SQL.
    pub(crate) theirs: &'static str,
}

const fn ask(name: &'static str, ours: &'static str, theirs: &'static str) -> Question {
    Question { name, ours, theirs }
}

/// What a report of a day has.
pub(crate) const QUESTIONS: &[Question] = &[
    ask(
        "aggregate over all",
        "* | SELECT count(1), sum(packets), sum(bytes), max(bytes), min(dstport)",
        "SELECT count(*), sum(packets), sum(bytes), max(bytes), min(dstport) FROM log",
    ),
    ask(
        "top talkers",
        "* | SELECT srcaddr, sum(bytes) AS b GROUP BY srcaddr ORDER BY b DESC, srcaddr LIMIT 10",
        "SELECT srcaddr, sum(bytes) AS b FROM log GROUP BY 1 ORDER BY b DESC, 1 LIMIT 10",
    ),
    ask(
        "top conversations",
        "action:ACCEPT | SELECT srcaddr, dstaddr, sum(bytes) AS b GROUP BY srcaddr, dstaddr ORDER BY b DESC, 1, 2 LIMIT 10",
        "SELECT srcaddr, dstaddr, sum(bytes) AS b FROM log WHERE action = 'ACCEPT' GROUP BY 1, 2 ORDER BY b DESC, 1, 2 LIMIT 10",
    ),
    ask(
        "by port",
        "* | SELECT dstport, count(1) AS n, sum(bytes) GROUP BY dstport ORDER BY n DESC, dstport LIMIT 20",
        "SELECT dstport, count(*) AS n, sum(bytes) FROM log GROUP BY 1 ORDER BY n DESC, 1 LIMIT 20",
    ),
    ask(
        "by protocol",
        "* | SELECT protocol, count(1), sum(packets), sum(bytes) GROUP BY protocol ORDER BY protocol",
        "SELECT protocol, count(*), sum(packets), sum(bytes) FROM log GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "by action over time",
        "* | SELECT __time__ - __time__ % 600 AS t, action, count(1), sum(packets) GROUP BY t, action ORDER BY t, action",
        "SELECT __time__ - __time__ % 600 AS t, action, count(*), sum(packets) FROM log GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    ask(
        "bytes by VPC",
        "* | SELECT \"vpc-id\", sum(bytes) GROUP BY \"vpc-id\" ORDER BY 1",
        "SELECT vpc_id, sum(bytes) FROM log GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "by ENI and direction",
        "* | SELECT \"eni-id\", direction, count(1), sum(bytes) GROUP BY \"eni-id\", direction ORDER BY 1, 2",
        "SELECT eni_id, direction, count(*), sum(bytes) FROM log GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    ask(
        "most rejected",
        "action:REJECT | SELECT srcaddr, count(1) AS n GROUP BY srcaddr ORDER BY n DESC, srcaddr LIMIT 10",
        "SELECT srcaddr, count(*) AS n FROM log WHERE action = 'REJECT' GROUP BY 1 ORDER BY n DESC, 1 LIMIT 10",
    ),
];
