"""Reads a store's files with pyarrow, with DuckDB and with Polars, and says as JSON what they see."""
import json
import sys

import duckdb
import polars
import pyarrow.dataset
import pyarrow.parquet

folder = sys.argv[1]
pattern = f"{folder}/*/*/*/*/*.parquet"

dataset = pyarrow.dataset.dataset(folder, format="parquet", partitioning="hive")
table = dataset.to_table().sort_by("__seq__")
files = sorted(dataset.files)
schema = pyarrow.parquet.read_schema(files[0])
metadata = pyarrow.parquet.read_metadata(files[0])
group = metadata.row_group(0)
chunks = [group.column(index) for index in range(group.num_columns)]

connection = duckdb.connect()
relation = connection.execute(
    f"SELECT * EXCLUDE (__other__), __other__['name'] AS name FROM read_parquet('{pattern}', hive_partitioning = true) ORDER BY __seq__"
)
names = [column[0] for column in relation.description]
rows = [dict(zip(names, row)) for row in relation.fetchall()]
described = connection.execute(
    f"DESCRIBE SELECT * FROM read_parquet('{pattern}', hive_partitioning = true)"
).fetchall()
total = connection.execute(
    f"SELECT sum(bytes)::BIGINT, count(*), count(srcport) FROM read_parquet('{pattern}') WHERE eni_id = 'eni-1'"
).fetchone()

frame = polars.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True)

json.dump(
    {
        "arrow": {field.name: str(field.type) for field in schema},
        "arrow_rows": table.to_pylist(),
        "statistics": [chunk.path_in_schema for chunk in chunks if chunk.statistics is not None],
        "compression": sorted({chunk.compression for chunk in chunks}),
        "duckdb": {row[0]: row[1] for row in described},
        "duckdb_rows": rows,
        "total": total,
        "polars": {name: str(kind) for name, kind in frame.collect_schema().items()},
        "polars_rows": frame.sort("__seq__").collect().to_dicts(),
    },
    sys.stdout,
    default=str,
)
