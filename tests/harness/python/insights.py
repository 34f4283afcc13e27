"""Runs SQL in DuckDB on records, and prints the rows of each query.

    insights.py SCHEMA SQL[,SQL...] QUERY...

From stdin, JSON: {"rows": [...]}, whose rows have fields of SCHEMA by their names, bytes in hex, or
{"parquet": path}. Each query's rows come out as a line of JSON: {"rows": [...]}. The first "draw" queries have
{"table": text} too, as DuckDB draws it.
"""

import json
import sys
import tempfile

import duckdb
from questions import show
from write_parquet import Types, is_map


def load(connection, schema_path, rows):
    with open(schema_path, encoding="utf-8") as file:
        types = Types(json.load(file)).columns
    columns = {name: kind for name, kind in types.items() if not is_map(kind)}
    # JSON has no bytes: they pass as hex.
    read = {name: "VARCHAR" if kind == "BLOB" else kind for name, kind in columns.items()}
    values = ", ".join(f"unhex({name}) AS {name}" if kind == "BLOB" else name for name, kind in columns.items())
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        for row in rows:
            unknown = row.keys() - types.keys()
            if unknown:
                sys.exit(f"the schema has no fields {sorted(unknown)}")
            file.write(json.dumps(row) + "\n")
        file.flush()
        connection.execute(
            f"CREATE TABLE dns_transactions AS SELECT {values} FROM read_json(?, "
            f"format='newline_delimited', columns={read})",
            [file.name],
        ).fetchall()


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    schema_path, sql_paths, *queries = arguments
    given = json.load(sys.stdin)
    connection = duckdb.connect()
    # Nothing here needs the network.
    connection.execute("SET autoinstall_known_extensions = false")
    if "parquet" in given:
        connection.execute(f"CREATE VIEW dns_transactions AS FROM '{given['parquet']}'")
    else:
        load(connection, schema_path, given["rows"])
    for path in sql_paths.split(","):
        with open(path, encoding="utf-8") as file:
            connection.execute(file.read())
    for number, query in enumerate(queries):
        result = connection.sql(query)
        # A statement without a result, such as one that creates a view.
        names, rows = (result.columns, result.fetchall()) if result else ([], [])
        answer = {"rows": [dict(zip(names, row)) for row in rows]}
        if number < given.get("draw", 0):
            answer["table"] = str(connection.sql(query))
        print(json.dumps(answer, default=show))


if __name__ == "__main__":
    main(sys.argv[1:])
