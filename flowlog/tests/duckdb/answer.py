"""Answers SQL by DuckDB over Parquet files: {"files": GLOB, "questions": [SQL, …]} on standard input, [[row, …], …] on standard output."""
import datetime
import json
import sys

import duckdb


def text(value):
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.") + f"{value.microsecond // 1000:03}"
    return str(value)


asked = json.load(sys.stdin)
connection = duckdb.connect()
connection.execute(f"CREATE VIEW log AS SELECT * FROM read_parquet('{asked['files']}', hive_partitioning = true)")
answers = []
for question in asked["questions"]:
    try:
        rows = connection.execute(question).fetchall()
    except duckdb.Error as error:
        sys.exit(f"{question}: {error}")
    answers.append([[text(value) for value in row] for row in rows])
json.dump(answers, sys.stdout)
