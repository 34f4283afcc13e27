"""Prints the rows of a Parquet file as DuckDB reads them, one JSON object each.

    read_parquet.py FILE

Times are as in RFC 3339 with microseconds, bytes are hexadecimal.
"""

import datetime
import json
import sys

import duckdb


def show(value):
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.hex()


def main(arguments):
    if len(arguments) != 1:
        sys.exit(__doc__)
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    result = connection.execute("FROM read_parquet(?)", arguments)
    names = [column[0] for column in result.description]
    for row in result.fetchall():
        print(json.dumps(dict(zip(names, row)), default=show))


main(sys.argv[1:])
