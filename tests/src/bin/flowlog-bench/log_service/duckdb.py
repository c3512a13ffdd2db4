"""Answers SQL by DuckDB over Parquet files.

The first line of standard input is {"files": GLOB, "threads": N}; each line after it is a question. For each there is a line on standard
output: {"seconds": S, "rows": [[text, …], …]}.
"""
import json
import sys
import time

import duckdb

setting = json.loads(sys.stdin.readline())
connection = duckdb.connect()
connection.execute(f"SET threads = {int(setting['threads'])}")
# It would be drawn on standard output as soon as an answer takes two seconds.
connection.execute("SET enable_progress_bar = false")
# Footers are kept, as Flowlog keeps them.
connection.execute("SET parquet_metadata_cache = true")
connection.execute(f"CREATE VIEW log AS SELECT * FROM read_parquet('{setting['files']}', hive_partitioning = true)")
for question in sys.stdin:
    begun = time.perf_counter()
    rows = connection.execute(question).fetchall()
    seconds = time.perf_counter() - begun
    rows = [[None if value is None else str(value) for value in row] for row in rows]
    print(json.dumps({"seconds": seconds, "rows": rows}), flush=True)
