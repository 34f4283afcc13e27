"""Writes framed messages to a Parquet file by fastavro and DuckDB, which share nothing with the loader.

    write_parquet.py SCHEMA PARQUET    stdin: {"messages": [hex], "schemas": {id: schema}}

A column for each field of SCHEMA, in the types of the schema. Prints the number of rows.
"""

import io
import json
import sys

import duckdb
import fastavro

FRAMING_SIZE = 5
AT_ONCE = 500
PRIMITIVES = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "string": "VARCHAR",
    "bytes": "BLOB",
    "enum": "VARCHAR",
    "fixed": "BLOB",
}


def parse(schema):
    return fastavro.parse_schema(json.loads(schema), named_schemas={})


class Types:
    """DuckDB's types of a schema's; named types may come again by their names."""

    def __init__(self, schema):
        self.names = {}
        self.columns = {field["name"]: self.of(field["type"]) for field in schema["fields"]}

    def of(self, kind):
        if isinstance(kind, list):
            return self.of(next(part for part in kind if part != "null"))
        if not isinstance(kind, dict):
            return PRIMITIVES.get(kind) or self.names[kind]
        if kind.get("logicalType") == "timestamp-micros":
            return "TIMESTAMPTZ"
        return self.named(kind)

    def named(self, kind):
        if kind["type"] == "array":
            return self.of(kind["items"]) + "[]"
        if kind["type"] == "map":
            # A dictionary of Python's would become a struct.
            return f"STRUCT(key VARCHAR, value {self.of(kind['values'])})[]"
        if kind["type"] == "record":
            fields = (f"\"{field['name']}\" {self.of(field['type'])}" for field in kind["fields"])
            result = f"STRUCT({', '.join(fields)})"
        else:
            result = PRIMITIVES[kind["type"]]
        if "name" in kind:
            self.names[kind["name"]] = result
        return result


def entries(value):
    if isinstance(value, dict):
        return [{"key": key, "value": part} for key, part in value.items()]
    return value


def is_map(kind):
    return kind.startswith("STRUCT(key VARCHAR, value")


def main(schema_path, parquet):
    with open(schema_path, encoding="utf-8") as file:
        text = file.read()
    given, reader = json.load(sys.stdin), parse(text)
    schemas = {int(number): parse(schema) for number, schema in given["schemas"].items()}
    columns = Types(json.loads(text)).columns
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    row = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    connection.execute(f"CREATE TABLE messages ({row})")
    rows = []
    for message in map(bytes.fromhex, given["messages"]):
        writer = schemas[int.from_bytes(message[1:FRAMING_SIZE], "big")]
        record = fastavro.schemaless_reader(io.BytesIO(message[FRAMING_SIZE:]), writer, reader)
        rows.append({name: entries(record[name]) for name in columns})
    # Many rows at once: each statement is planned, with its hundred types.
    insert = f"INSERT INTO messages SELECT unnest(CAST(? AS STRUCT({row})[]), max_depth := 2)"
    for start in range(0, len(rows), AT_ONCE):
        connection.execute(insert, [rows[start:start + AT_ONCE]])
    maps = [f'map_from_entries("{name}") AS "{name}"' for name, kind in columns.items() if is_map(kind)]
    query = f"SELECT * REPLACE ({', '.join(maps)}) FROM messages" if maps else "FROM messages"
    connection.execute(f"COPY ({query}) TO '{parquet}' (FORMAT parquet)")
    print(len(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
