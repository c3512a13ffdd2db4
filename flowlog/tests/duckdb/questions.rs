//! What analysts ask of flow logs.

/// A question: as it is put to Flowlog, and as it is put to DuckDB, whose table is called `log` too.
pub(crate) struct Question {
    /// `search | SQL`.
    pub(crate) ours: &'static str,
    /// The same in DuckDB's SQL.
    pub(crate) theirs: &'static str,
}

const fn ask(ours: &'static str, theirs: &'static str) -> Question {
    Question { ours, theirs }
}

pub(crate) const QUESTIONS: &[Question] = &[
    // How much is there?
    ask("* | SELECT count(1)", "SELECT count(*) FROM log"),
    ask(
        "* | SELECT min(start), max(\"end\")",
        "SELECT min(start), max(\"end\") FROM log",
    ),
    ask(
        "* | SELECT \"log-status\", count(1) AS n GROUP BY \"log-status\" ORDER BY n DESC, 1",
        "SELECT log_status, count(*) AS n FROM log GROUP BY 1 ORDER BY n DESC, 1",
    ),
    ask(
        "log-status:OK | SELECT action, count(1) AS n, sum(packets), sum(bytes) GROUP BY action ORDER BY action",
        "SELECT action, count(*), sum(packets), sum(bytes) FROM log WHERE log_status = 'OK' GROUP BY 1 ORDER BY 1",
    ),
    // Who talks?
    ask(
        "action:ACCEPT | SELECT srcaddr, sum(bytes) AS b GROUP BY srcaddr ORDER BY b DESC, srcaddr LIMIT 10",
        "SELECT srcaddr, sum(bytes) AS b FROM log WHERE action = 'ACCEPT' GROUP BY 1 ORDER BY b DESC, 1 LIMIT 10",
    ),
    ask(
        "* | SELECT srcaddr, dstaddr, sum(bytes) AS b WHERE srcaddr IS NOT NULL GROUP BY srcaddr, dstaddr ORDER BY b DESC, 1, 2 LIMIT 20",
        "SELECT srcaddr, dstaddr, sum(bytes) AS b FROM log WHERE srcaddr IS NOT NULL GROUP BY 1, 2 ORDER BY b DESC, 1, 2 LIMIT 20",
    ),
    ask(
        "srcaddr: * | SELECT srcaddr, count(DISTINCT dstaddr) AS d GROUP BY srcaddr ORDER BY d DESC, srcaddr LIMIT 5",
        "SELECT srcaddr, count(DISTINCT dstaddr) AS d FROM log WHERE srcaddr IS NOT NULL GROUP BY 1 ORDER BY d DESC, 1 LIMIT 5",
    ),
    ask(
        "* | SELECT DISTINCT \"vpc-id\", \"vswitch-id\" ORDER BY 1, 2",
        "SELECT DISTINCT vpc_id, vswitch_id FROM log ORDER BY 1, 2",
    ),
    // What is refused?
    ask(
        "action:REJECT and dstport:22 | SELECT srcaddr, sum(packets) AS p GROUP BY srcaddr ORDER BY p DESC, srcaddr LIMIT 10",
        "SELECT srcaddr, sum(packets) AS p FROM log WHERE action = 'REJECT' AND dstport = 22 GROUP BY 1 ORDER BY p DESC, 1 LIMIT 10",
    ),
    ask(
        "action:REJECT | SELECT dstport, count(1) AS n GROUP BY dstport HAVING count(1) > 50 ORDER BY n DESC, dstport",
        "SELECT dstport, count(*) AS n FROM log WHERE action = 'REJECT' GROUP BY 1 HAVING count(*) > 50 ORDER BY n DESC, 1",
    ),
    ask(
        "* | SELECT round(sum(CASE WHEN action = 'REJECT' THEN 1.0 ELSE 0.0 END) * 100 / count(action), 6) AS percent",
        "SELECT round(sum(CASE WHEN action = 'REJECT' THEN 1.0 ELSE 0.0 END)::DOUBLE * 100 / count(action), 6) FROM log",
    ),
    ask(
        "* | SELECT \"eni-id\", count_if(action = 'REJECT') AS r, count_if(action = 'ACCEPT') AS a GROUP BY \"eni-id\" ORDER BY \"eni-id\"",
        "SELECT eni_id, count(*) FILTER (action = 'REJECT'), count(*) FILTER (action = 'ACCEPT') FROM log GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "* | SELECT srcaddr FROM log WHERE srcaddr NOT IN (SELECT srcaddr FROM log WHERE action = 'ACCEPT' AND srcaddr IS NOT NULL) GROUP BY srcaddr ORDER BY srcaddr",
        "SELECT srcaddr FROM log WHERE srcaddr NOT IN (SELECT srcaddr FROM log WHERE action = 'ACCEPT' AND srcaddr IS NOT NULL) GROUP BY 1 ORDER BY 1",
    ),
    // Is somebody scanning?
    ask(
        "action:REJECT | SELECT srcaddr, dstaddr, count(DISTINCT dstport) AS ports GROUP BY srcaddr, dstaddr HAVING count(DISTINCT dstport) >= 4 ORDER BY ports DESC, 1, 2",
        "SELECT srcaddr, dstaddr, count(DISTINCT dstport) AS ports FROM log WHERE action = 'REJECT' GROUP BY 1, 2 HAVING ports >= 4 ORDER BY ports DESC, 1, 2",
    ),
    ask(
        "protocol:6 and tcp-flags:2 | SELECT srcaddr, count(1) AS n GROUP BY srcaddr ORDER BY n DESC, srcaddr LIMIT 7",
        "SELECT srcaddr, count(*) AS n FROM log WHERE protocol = 6 AND tcp_flags = 2 GROUP BY 1 ORDER BY n DESC, 1 LIMIT 7",
    ),
    ask(
        "* | SELECT count(1) WHERE tcp_flags & 4 <> 0",
        "SELECT count(*) FROM log WHERE tcp_flags & 4 <> 0",
    ),
    // When?
    ask(
        "* | SELECT date_format(__time__, '%Y-%m-%d %H:00') AS hour, sum(bytes) AS b GROUP BY hour ORDER BY hour",
        "SELECT strftime(make_timestamp(__time__ * 1000000), '%Y-%m-%d %H:00') AS hour, sum(bytes) FROM log GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "* | SELECT date_trunc('hour', from_unixtime(__time__)) AS hour, count(1) AS n GROUP BY hour ORDER BY hour",
        "SELECT date_trunc('hour', make_timestamp(__time__ * 1000000)) AS hour, count(*) FROM log GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "* | SELECT date_trunc('day', __time__) AS day, action, sum(packets) AS p GROUP BY day, action ORDER BY day, action NULLS LAST",
        "SELECT date_trunc('day', make_timestamp(__time__ * 1000000)) AS day, action, sum(packets) FROM log GROUP BY 1, 2 ORDER BY 1, 2 NULLS LAST",
    ),
    ask(
        "action:REJECT | SELECT __time__ - __time__ % 600 AS t, count(1) AS n GROUP BY t ORDER BY t LIMIT 30",
        "SELECT __time__ - __time__ % 600 AS t, count(*) FROM log WHERE action = 'REJECT' GROUP BY 1 ORDER BY 1 LIMIT 30",
    ),
    ask(
        "* | SELECT h, b, sum(b) OVER (ORDER BY h) AS so_far FROM (SELECT __time__ / 3600 AS h, sum(bytes) AS b FROM log GROUP BY 1) ORDER BY h",
        "SELECT h, b, sum(b) OVER (ORDER BY h) FROM (SELECT __time__ // 3600 AS h, sum(bytes) AS b FROM log GROUP BY 1) ORDER BY h",
    ),
    ask(
        "* | SELECT h, n - lag(n) OVER (ORDER BY h) AS change FROM (SELECT __time__ / 3600 AS h, count(1) AS n FROM log GROUP BY 1) ORDER BY h",
        "SELECT h, n - lag(n) OVER (ORDER BY h) FROM (SELECT __time__ // 3600 AS h, count(*) AS n FROM log GROUP BY 1) ORDER BY h",
    ),
    ask(
        "action:ACCEPT | SELECT srcaddr, min(start) AS first, max(\"end\") AS last GROUP BY srcaddr ORDER BY first, last DESC, srcaddr LIMIT 9",
        "SELECT srcaddr, min(start) AS first, max(\"end\") AS last FROM log WHERE action = 'ACCEPT' GROUP BY 1 ORDER BY first, last DESC, 1 LIMIT 9",
    ),
    // What is on the wire?
    ask(
        "log-status:OK | SELECT protocol, sum(bytes) / sum(packets) AS size, count(1) GROUP BY protocol ORDER BY protocol",
        "SELECT protocol, sum(bytes) // sum(packets), count(*) FROM log WHERE log_status = 'OK' GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "log-status:OK | SELECT type, avg(bytes) AS mean, stddev(bytes) AS deviation GROUP BY type ORDER BY type",
        "SELECT type, avg(bytes), stddev(bytes) FROM log WHERE log_status = 'OK' GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "bytes > 50000 | SELECT \"eni-id\", srcaddr, dstaddr, bytes ORDER BY bytes DESC, 1, 2, 3 LIMIT 12",
        "SELECT eni_id, srcaddr, dstaddr, bytes FROM log WHERE bytes > 50000 ORDER BY bytes DESC, 1, 2, 3 LIMIT 12",
    ),
    ask(
        "log-status:OK | SELECT CASE WHEN bytes < 1000 THEN 'small' WHEN bytes < 20000 THEN 'middle' ELSE 'large' END AS size, count(1) AS n GROUP BY size ORDER BY n DESC, size",
        "SELECT CASE WHEN bytes < 1000 THEN 'small' WHEN bytes < 20000 THEN 'middle' ELSE 'large' END AS size, count(*) AS n FROM log WHERE log_status = 'OK' GROUP BY 1 ORDER BY n DESC, 1",
    ),
    ask(
        "dstport in [1 1024) | SELECT dstport, approx_distinct(action) AS a, sum(packets) AS p GROUP BY dstport ORDER BY dstport",
        "SELECT dstport, count(DISTINCT action), sum(packets) FROM log WHERE dstport >= 1 AND dstport < 1024 GROUP BY 1 ORDER BY 1",
    ),
    // How do ENIs stand?
    ask(
        "* | SELECT \"eni-id\", direction, sum(bytes) AS b GROUP BY \"eni-id\", direction HAVING direction IS NOT NULL ORDER BY 1, 2",
        "SELECT eni_id, direction, sum(bytes) FROM log WHERE direction IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    ask(
        "log-status:NODATA | SELECT \"eni-id\", count(1) AS n GROUP BY \"eni-id\" ORDER BY n DESC, 1",
        "SELECT eni_id, count(*) AS n FROM log WHERE log_status = 'NODATA' GROUP BY 1 ORDER BY n DESC, 1",
    ),
    ask(
        "log-status:SKIPDATA | SELECT \"eni-id\", sum(packets) AS skipped GROUP BY \"eni-id\" ORDER BY 1",
        "SELECT eni_id, sum(packets) FROM log WHERE log_status = 'SKIPDATA' GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "* | SELECT coalesce(\"vm-id\", 'none') AS vm, count(1) AS n GROUP BY vm ORDER BY vm",
        "SELECT coalesce(vm_id, 'none') AS vm, count(*) FROM log GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "* | SELECT \"eni-id\", srcaddr, b FROM (SELECT \"eni-id\", srcaddr, sum(bytes) AS b, row_number() OVER (PARTITION BY \"eni-id\" ORDER BY sum(bytes) DESC, srcaddr) AS place FROM log WHERE srcaddr IS NOT NULL GROUP BY \"eni-id\", srcaddr) WHERE place <= 3 ORDER BY 1, 3 DESC, 2",
        "SELECT eni_id, srcaddr, b FROM (SELECT eni_id, srcaddr, sum(bytes) AS b, row_number() OVER (PARTITION BY eni_id ORDER BY sum(bytes) DESC, srcaddr) AS place FROM log WHERE srcaddr IS NOT NULL GROUP BY 1, 2) WHERE place <= 3 ORDER BY 1, 3 DESC, 2",
    ),
    // Who answers whom?
    ask(
        "* | SELECT a.srcaddr, count(1) AS n FROM log a JOIN log b ON a.srcaddr = b.dstaddr AND a.dstaddr = b.srcaddr AND a.dstport = b.srcport AND a.start = b.start GROUP BY a.srcaddr ORDER BY n DESC, 1 LIMIT 10",
        "SELECT a.srcaddr, count(*) AS n FROM log a JOIN log b ON a.srcaddr = b.dstaddr AND a.dstaddr = b.srcaddr AND a.dstport = b.srcport AND a.start = b.start GROUP BY 1 ORDER BY n DESC, 1 LIMIT 10",
    ),
    ask(
        "* | WITH sent AS (SELECT srcaddr AS a, sum(bytes) AS b FROM log GROUP BY srcaddr), received AS (SELECT dstaddr AS a, sum(bytes) AS b FROM log GROUP BY dstaddr) SELECT sent.a, sent.b, received.b AS r FROM sent JOIN received ON sent.a = received.a ORDER BY sent.b DESC, 1 LIMIT 8",
        "WITH sent AS (SELECT srcaddr AS a, sum(bytes) AS b FROM log GROUP BY 1), received AS (SELECT dstaddr AS a, sum(bytes) AS b FROM log GROUP BY 1) SELECT sent.a, sent.b, received.b FROM sent JOIN received ON sent.a = received.a ORDER BY sent.b DESC, 1 LIMIT 8",
    ),
    ask(
        "* | SELECT a, sum(b) AS b FROM (SELECT srcaddr AS a, bytes AS b FROM log UNION ALL SELECT dstaddr, bytes FROM log) WHERE a IS NOT NULL GROUP BY a ORDER BY b DESC, a LIMIT 6",
        "SELECT a, sum(b) AS b FROM (SELECT srcaddr AS a, bytes AS b FROM log UNION ALL SELECT dstaddr, bytes FROM log) WHERE a IS NOT NULL GROUP BY 1 ORDER BY b DESC, 1 LIMIT 6",
    ),
    // From where to where?
    ask(
        "* | SELECT is_private(srcaddr) AS s, is_private(dstaddr) AS d, sum(bytes) AS b WHERE type = 'IPv4' GROUP BY s, d ORDER BY s, d",
        "SELECT srcaddr LIKE '10.%' AS s, dstaddr LIKE '10.%' AS d, sum(bytes) FROM log WHERE type = 'IPv4' GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    ask(
        "srcaddr: 10.0.2.0/24 and not action: REJECT | SELECT count(1), sum(packets)",
        "SELECT count(*), sum(packets) FROM log WHERE srcaddr LIKE '10.0.2.%' AND action IS DISTINCT FROM 'REJECT'",
    ),
    ask(
        "srcaddr: 10.0.* | SELECT split_part(srcaddr, '.', 3) AS net, count(1) AS n GROUP BY net ORDER BY net",
        "SELECT split_part(srcaddr, '.', 3) AS net, count(*) FROM log WHERE srcaddr LIKE '10.0.%' GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "(dstport: 443 or dstport: 80) and not (action: REJECT or direction: out) | SELECT dstport, count(1) GROUP BY dstport ORDER BY dstport",
        "SELECT dstport, count(*) FROM log WHERE dstport IN (80, 443) AND action IS DISTINCT FROM 'REJECT' AND direction IS DISTINCT FROM 'out' GROUP BY 1 ORDER BY 1",
    ),
    ask(
        "type: ipv6 | SELECT upper(substr(srcaddr, 1, 4)) AS net, concat(\"eni-id\", '/', direction) AS at, count(1) AS n GROUP BY net, at ORDER BY net, at",
        "SELECT upper(substr(srcaddr, 1, 4)) AS net, concat(eni_id, '/', direction) AS at, count(*) FROM log WHERE type = 'IPv6' GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    ask(
        "REJECT not 10.0.1.1 | SELECT dstaddr, count(1) AS n WHERE regexp_like(dstaddr, '^10\\.0\\.[12]\\.[0-9]$') GROUP BY dstaddr ORDER BY n DESC, 1 LIMIT 5 OFFSET 2",
        "SELECT dstaddr, count(*) AS n FROM log WHERE action = 'REJECT' AND srcaddr <> '10.0.1.1' AND dstaddr <> '10.0.1.1' AND regexp_matches(dstaddr, '^10\\.0\\.[12]\\.[0-9]$') GROUP BY 1 ORDER BY n DESC, 1 LIMIT 5 OFFSET 2",
    ),
];
