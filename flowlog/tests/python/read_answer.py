"""Reads an answer of `flowlog query` in the form that is named, and says as JSON which columns and rows it has."""
import csv
import io
import json
import sys

octets = sys.stdin.buffer.read()
if sys.argv[1] == "arrow":
    import pyarrow.ipc

    table = pyarrow.ipc.open_stream(octets).read_all()
    columns = {field.name: str(field.type) for field in table.schema}
    rows = table.to_pylist()
else:
    reader = csv.DictReader(io.StringIO(octets.decode("utf-8"), newline=""), strict=True)
    rows = list(reader)
    columns = {name: "string" for name in reader.fieldnames}
json.dump({"columns": columns, "rows": rows}, sys.stdout)
