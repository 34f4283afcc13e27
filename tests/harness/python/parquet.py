"""Takes messages through Parquet, as a lake does, to what `tap53 verify` reads.

    parquet.py RECORDS_SCHEMA SUMMARIES_SCHEMA EXPORT_SQL DIRECTORY [STATEMENT]...

From stdin, one line of JSON: {"records": [...], "summaries": [...]}, single-object messages in hex. Each
STATEMENT is executed on the tables `dns_transactions` and `ledger_summaries` before they become Parquet.
Writes records.json and summaries.json into DIRECTORY, and prints how many rows each has.
"""

import io
import json
import sys
from pathlib import Path

import duckdb
import fastavro

HEADER_SIZE = 10

TYPES = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "string": "VARCHAR",
    "bytes": "BLOB",
    "fixed": "BLOB",
    "enum": "VARCHAR",
}


def sql_type(schema, named):
    """The type that Kafka Connect gives a field: times are numbers of microseconds."""
    if isinstance(schema, list):
        return sql_type(next(branch for branch in schema if branch != "null"), named)
    if isinstance(schema, str):
        return named.get(schema) or TYPES[schema]
    kind = schema["type"]
    if kind == "array":
        return sql_type(schema["items"], named) + "[]"
    if kind == "map":
        return f"MAP(VARCHAR, {sql_type(schema['values'], named)})"
    if kind == "record":
        fields = (f'"{field["name"]}" {sql_type(field["type"], named)}' for field in schema["fields"])
        found = f"STRUCT({', '.join(fields)})"
    else:
        found = TYPES[kind]
    if "name" in schema:
        named[schema["name"]] = found
    return found


def without_logical_types(schema):
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if isinstance(schema, dict):
        return {
            name: without_logical_types(part) if name in ("type", "items", "fields", "values") else part
            for name, part in schema.items()
            if name != "logicalType"
        }
    return schema


def load(connection, table, schema_path, messages):
    schema = without_logical_types(json.loads(Path(schema_path).read_text(encoding="utf-8")))
    parsed = fastavro.parse_schema(schema, named_schemas={})
    named = {}
    columns = [f'"{field["name"]}" {sql_type(field["type"], named)}' for field in schema["fields"]]
    connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    rows = []
    for message in map(bytes.fromhex, messages):
        row = fastavro.schemaless_reader(io.BytesIO(message[HEADER_SIZE:]), parsed)
        rows.append([row[field["name"]] for field in schema["fields"]])
    if rows:
        places = ", ".join("?" for _ in columns)
        connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)


def main(arguments):
    if len(arguments) < 4:
        sys.exit(__doc__)
    records_schema, summaries_schema, sql_path, directory, *statements = arguments
    directory = Path(directory)
    messages = json.load(sys.stdin)
    connection = duckdb.connect()
    # Nothing here needs the network.
    connection.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    tables = {"dns_transactions": records_schema, "ledger_summaries": summaries_schema}
    for (table, schema), kind in zip(tables.items(), ("records", "summaries")):
        load(connection, table, schema, messages[kind])
    for statement in statements:
        connection.execute(statement)
    lake = duckdb.connect()
    lake.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    for table in tables:
        path = directory / f"{table}.parquet"
        connection.execute(f"COPY {table} TO '{path}' (FORMAT parquet)")
        lake.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{path}')")
    lake.execute(Path(sql_path).read_text(encoding="utf-8"))
    for kind in ("records", "summaries"):
        path = directory / f"{kind}.json"
        lake.execute(f"COPY (FROM verify_{kind}) TO '{path}' (FORMAT json)")
        print(json.dumps({kind: sum(1 for _ in path.open(encoding="utf-8"))}))


if __name__ == "__main__":
    main(sys.argv[1:])
