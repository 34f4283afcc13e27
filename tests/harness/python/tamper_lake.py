"""Exports the lake's tables for `tap53 verify`, and again with each column altered in one row.

    tamper_lake.py SETTINGS SCHEMAS

SETTINGS is what read_lake.py takes, SCHEMAS the directory of the agent's schemas. The tables are copied
to memory, where they can be altered. Each line of the output is JSON: {"table": ..., "rows": [text]},
where a text is a line of the export, or {"table": ..., "column": ..., "before": text, "after": text}.
"""

import json
import pathlib
import sys
import tempfile

import duckdb

import read_lake

SQL = pathlib.Path(__file__).parents[3] / "deploy/sql"
# What is exported of each table, which schema it has, and the row that is altered: one of the middle.
TABLES = {
    "transactions": ("verify_records", "dns_transaction.avsc", "record_number"),
    "transactions_flat": ("lake.dns.transactions_flat", "dns_transaction_flat.avsc", "record_number"),
    "ledger": ("verify_summaries", "ledger_summary.avsc", "window_number"),
}


def copy_tables(connection):
    """Takes the tables to memory, under the names that they have in the catalog."""
    for table in TABLES:
        connection.execute(f"CREATE TABLE {table}_copy AS FROM lake.dns.{table}")
    # Of the varied records in the flat table nobody wrote a summary.
    connection.execute(
        "DELETE FROM transactions_flat_copy WHERE run_id NOT IN (SELECT run_id FROM ledger_copy)"
    )
    connection.execute("DETACH lake")
    connection.execute("ATTACH ':memory:' AS lake; CREATE SCHEMA lake.dns")
    for table in TABLES:
        connection.execute(f"CREATE TABLE lake.dns.{table} AS FROM {table}_copy")


def export(connection, what, where="true"):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        connection.execute(
            f"COPY (FROM {what} WHERE {where}) TO '{file.name}' (FORMAT json)"
        )
        return pathlib.Path(file.name).read_text(encoding="utf-8").splitlines()


def symbols(schema):
    """Of each field that is an enum."""
    found = {}
    for field in schema["fields"]:
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        for kind in kinds:
            if isinstance(kind, dict) and kind["type"] == "enum":
                found[field["name"]] = kind["symbols"]
    return found


def some(kind):
    """SQL of a value of a type."""
    if kind.id == "list":
        return f"[]::{kind}"
    if kind.id == "struct":
        return "{" + ", ".join(f"'{name}': {some(child)}" for name, child in kind.children) + "}"
    return {"varchar": "'x'", "blob": "'\\x01'::BLOB", "boolean": "true"}.get(kind.id, f"1::{kind}")


def altered(column, kind, choices):
    """SQL of another value than a column has."""
    name = f'"{column}"'
    if choices:
        return f"CASE {name} WHEN '{choices[1]}' THEN '{choices[0]}' ELSE '{choices[1]}' END"
    if kind.id == "varchar":
        return f"coalesce({name}, '') || 'x'"
    if kind.id == "boolean":
        return f"NOT coalesce({name}, false)"
    if kind.id == "blob":
        digits, others = "0123456789ABCDEF", "1032547698BADCFE"
        return f"coalesce(unhex(translate(hex({name}), '{digits}', '{others}')), '\\x01'::BLOB)"
    if kind.id == "list":
        more = f"[{some(kind.child)}]::{kind}"
        return f"CASE WHEN len({name}) > 0 THEN {name}[:-2] ELSE {more} END"
    if kind.id == "map":
        return f"map_concat(coalesce({name}, MAP {{}}::{kind}), MAP {{'x': 'x'}})"
    if kind.id.startswith("timestamp"):
        return f"coalesce({name}, to_timestamp(0)) + INTERVAL 1 MILLISECOND"
    return f"coalesce({name}, 0) + 1"


def alter_each(connection, table, schema):
    what, _, number = TABLES[table]
    (row,) = connection.execute(
        f"SELECT rowid FROM lake.dns.{table} ORDER BY {number} LIMIT 1 OFFSET "
        f"(SELECT count(*) // 2 FROM lake.dns.{table})"
    ).fetchone()
    choices = symbols(schema)
    relation = connection.table(f"lake.dns.{table}")
    before = set(export(connection, what))
    for column, kind in zip(relation.columns, relation.types):
        connection.execute("BEGIN")
        value = altered(column, kind, choices.get(column))
        connection.execute(f'UPDATE lake.dns.{table} SET "{column}" = {value} WHERE rowid = {row}')
        after = set(export(connection, what))
        connection.execute("ROLLBACK")
        old, new = before - after, after - before
        yield {"table": table, "column": column, "before": [*old], "after": [*new]}


def main(settings, schemas):
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    read_lake.load_extensions(connection)
    read_lake.attach(connection, json.loads(settings))
    copy_tables(connection)
    for script in ("verify_connect.sql", "verify_export.sql"):
        connection.execute((SQL / script).read_text(encoding="utf-8"))
    for table, (what, schema, _) in TABLES.items():
        print(json.dumps({"table": table, "rows": export(connection, what)}))
        schema = json.loads((pathlib.Path(schemas) / schema).read_text(encoding="utf-8"))
        for change in alter_each(connection, table, schema):
            print(json.dumps(change))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
