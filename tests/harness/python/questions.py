"""Runs the SQL about questions in DuckDB, on records of several agents that fastavro has read.

    questions.py SCHEMA SQL[,SQL...] QUERY...

From stdin, one line of JSON: {"containers": [paths], "messages": [hex], "parquet": path or null}: object
container files, messages in single-object encoding of SCHEMA, and where to write the table. The table has
the fields of SCHEMA that are neither lists nor records. Each query's rows come out as one line of JSON,
bytes in hex.
"""

import datetime
import io
import json
import sys
import tempfile

import duckdb
import fastavro
from write_parquet import Types

HEADER_SIZE = 10


def records(schema, given):
    for path in given["containers"]:
        with open(path, "rb") as file:
            yield from fastavro.reader(file)
    parsed = fastavro.parse_schema(schema, named_schemas={})
    for message in map(bytes.fromhex, given["messages"]):
        yield fastavro.schemaless_reader(io.BytesIO(message[HEADER_SIZE:]), parsed)


def plain(value):
    return value.hex() if isinstance(value, bytes) else str(value)


def fill(connection, schema, rows):
    types = Types(schema).columns
    columns = {name: kind for name, kind in types.items() if not kind.endswith(("]", ")"))}
    # JSON has no bytes: they pass as hex.
    read = {name: "VARCHAR" if kind == "BLOB" else kind for name, kind in columns.items()}
    values = ", ".join(f"unhex({name})" if kind == "BLOB" else name for name, kind in columns.items())
    connection.execute(f"CREATE TABLE dns_transactions ({', '.join(map(' '.join, columns.items()))})")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        for row in rows:
            file.write(json.dumps({name: row.get(name) for name in columns}, default=plain) + "\n")
        file.flush()
        connection.execute(
            f"INSERT INTO dns_transactions SELECT {values} FROM read_json(?, "
            f"format='newline_delimited', columns={json.dumps(read)})",
            [file.name],
        )


def show(value):
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat()
    return plain(value)


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    schema_path, sql_paths, *queries = arguments
    given = json.load(sys.stdin)
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    connection = duckdb.connect()
    # Nothing here needs the network.
    connection.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    fill(connection, schema, records(schema, given))
    if given["parquet"]:
        connection.execute(f"COPY dns_transactions TO '{given['parquet']}' (FORMAT parquet)")
    for path in sql_paths.split(","):
        with open(path, encoding="utf-8") as file:
            connection.execute(file.read())
    for query in queries:
        result = connection.execute(query)
        names = [column[0] for column in result.description]
        rows = [dict(zip(names, row)) for row in result.fetchall()]
        print(json.dumps(rows, default=show))


if __name__ == "__main__":
    main(sys.argv[1:])
