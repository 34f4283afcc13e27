"""Asks DuckDB about tables in an Iceberg catalog.

    read_lake.py SETTINGS SQL QUERY...

SETTINGS is JSON: where catalog and S3 server are, by the names of a Connect worker's environment.
The statements of the file SQL come first, unless that is empty. The rows of each query come out as one
line of JSON: times as microseconds since 1970 UTC, bytes as hex. Not SQL, and answered where there is no
table yet: "count TABLE", the number of its rows, and "rows SCHEMA.TABLE", all of them. "create NAMESPACE"
creates a namespace for tables, and answers nothing.
"""

import importlib.util
import json
import pathlib
import sys

import duckdb

# What completeness.sql reads, and the tables.
VIEWS = {"dns_transactions": "transactions", "ledger_summaries": "ledger"}


def load_extensions(connection):
    """Each is a package: nothing is fetched."""
    for name in ("avro", "httpfs", "iceberg"):
        package = importlib.util.find_spec(f"duckdb_extension_{name}").submodule_search_locations[0]
        (path,) = pathlib.Path(package).rglob(f"{name}.duckdb_extension")
        connection.execute(f"LOAD '{path}'")


def attach(connection, settings):
    access, secret = (settings[f"LAKE_S3_{key}"] for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    endpoint = settings["LAKE_S3_ENDPOINT"].removeprefix("http://")
    client, client_secret = settings["LAKE_CATALOG_CREDENTIAL"].split(":", 1)
    connection.execute(
        f"CREATE SECRET s3 (TYPE s3, KEY_ID '{access}', SECRET '{secret}', "
        f"ENDPOINT '{endpoint}', REGION '{settings['LAKE_S3_REGION']}', URL_STYLE path, "
        "USE_SSL false)"
    )
    connection.execute(
        f"CREATE SECRET catalog (TYPE iceberg, CLIENT_ID '{client}', "
        f"CLIENT_SECRET '{client_secret}', "
        f"OAUTH2_SERVER_URI '{settings['LAKE_CATALOG_TOKEN_URI']}')"
    )
    connection.execute(
        f"ATTACH '{settings['LAKE_WAREHOUSE']}' AS lake (TYPE iceberg, SECRET catalog, "
        f"ENDPOINT '{settings['LAKE_CATALOG_URI']}')"
    )


def tables(connection):
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'"
    ).fetchall()
    return {name for (name,) in found}


def rows(connection, query):
    relation = connection.sql(query)
    times = [
        name for name, kind in zip(relation.columns, relation.types) if "TIMESTAMP" in str(kind)
    ]
    if times:
        # As numbers: exact, and in every year.
        columns = ", ".join(f'epoch_us("{name}") AS "{name}"' for name in times)
        relation = relation.select(f"* REPLACE ({columns})")
    return [dict(zip(relation.columns, row)) for row in relation.fetchall()]


def main(settings, sql, *queries):
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    load_extensions(connection)
    attach(connection, json.loads(settings))
    present = tables(connection)
    for view, table in VIEWS.items():
        if table in present:
            connection.execute(f"CREATE VIEW {view} AS FROM lake.dns.{table}")
    if sql:
        connection.execute(pathlib.Path(sql).read_text(encoding="utf-8"))
    for query in queries:
        verb, _, table = query.partition(" ")
        if verb == "create":
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{table}")
            query = "SELECT 0 WHERE false"
        elif verb == "count":
            there = VIEWS[table] in present
            query = f"SELECT count(*) AS count FROM {table}" if there else "SELECT 0 AS count"
        elif verb == "rows":
            there = table.split(".")[-1] in present
            query = f"FROM lake.{table}" if there else "SELECT 0 WHERE false"
        answer = rows(connection, query)
        print(json.dumps(answer, default=lambda v: v.hex() if isinstance(v, bytes) else str(v)))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
