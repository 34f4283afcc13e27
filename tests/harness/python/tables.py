"""Makes the table that `tap53 schema --ddl duckdb` prints, and puts records into it.

    tables.py SCHEMA TABLE QUERY...

From stdin, JSON: {"ddl": "CREATE TABLE ...", "messages": [...]}, single-object messages of SCHEMA in
hex, which fastavro reads. DuckDB runs the statements and takes the records by the names of their
fields; each query's rows come out as one line of JSON.
"""

import datetime
import io
import json
import sys

import duckdb
import fastavro

HEADER_SIZE = 10


def show(value):
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


def main(arguments):
    if len(arguments) < 3:
        sys.exit(__doc__)
    schema_path, table, *queries = arguments
    given = json.load(sys.stdin)
    with open(schema_path, encoding="utf-8") as file:
        schema = fastavro.parse_schema(json.load(file), named_schemas={})
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    connection.execute(given["ddl"])
    for message in map(bytes.fromhex, given["messages"]):
        row = fastavro.schemaless_reader(io.BytesIO(message[HEADER_SIZE:]), schema)
        names = ", ".join(f'"{name}"' for name in row)
        places = ", ".join("?" for _ in row)
        connection.execute(
            f'INSERT INTO "{table}" ({names}) VALUES ({places})', list(row.values())
        )
    for query in queries:
        result = connection.execute(query)
        names = [column[0] for column in result.description]
        rows = [dict(zip(names, row)) for row in result.fetchall()]
        print(json.dumps(rows, default=show))


if __name__ == "__main__":
    main(sys.argv[1:])
