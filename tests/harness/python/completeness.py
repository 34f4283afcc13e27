"""Asks DuckDB what became of records, of which fastavro has read the messages.

    completeness.py RECORDS_SCHEMA SUMMARIES_SCHEMA SQL[,SQL...] QUERY...

From stdin, one line of JSON: {"records": [...], "summaries": [...]}, messages in hex, in single-object
encoding or with a registry's framing, whose ids then are all of these schemas.
Each query is asked after the statements of the files SQL; its rows come out as one line of JSON.
"""

import io
import json
import sys
import tempfile

import duckdb
import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

HEADER_SIZE = 10
# A zero byte and the schema's id.
FRAMING_SIZE = 5

# As a loader would make them from the schemas: what the queries need, and what the tests look at.
TABLES = {
    "dns_transactions": "record_id VARCHAR, node VARCHAR, run_id VARCHAR, worker INTEGER, "
    "record_number BIGINT, qname VARCHAR, outcome VARCHAR, capture_gap BOOLEAN, "
    "direction VARCHAR, transport VARCHAR, client_address VARCHAR, client_port INTEGER, "
    "server_address VARCHAR, server_port INTEGER, dns_id INTEGER, query_time TIMESTAMPTZ, "
    "response_time TIMESTAMPTZ, latency_ns BIGINT, query_count INTEGER, query_size INTEGER, "
    "response_size INTEGER, qname_registrable_domain VARCHAR, qtype VARCHAR, rcode VARCHAR, "
    "client_pod_namespace VARCHAR, client_workload_kind VARCHAR, client_workload_name VARCHAR",
    "ledger_summaries": "tap53_version VARCHAR, node VARCHAR, run_id VARCHAR, sink VARCHAR, "
    "topic VARCHAR, run_started_at TIMESTAMPTZ, window_number BIGINT, kind VARCHAR, "
    "window_began_at TIMESTAMPTZ, window_ended_at TIMESTAMPTZ, window_ns BIGINT, balanced BOOLEAN, "
    "workers STRUCT(worker INTEGER, last_record_number BIGINT, records BIGINT)[], "
    "records_expected BIGINT, records_expected_total BIGINT, records_delivered_total BIGINT, "
    "records_lost_total BIGINT, records_in_flight BIGINT, records_spooled BIGINT, "
    "records_carried BIGINT, records_carried_lost_total BIGINT, settled_window BIGINT, "
    "counts STRUCT(stage VARCHAR, fate VARCHAR, reason VARCHAR, unit VARCHAR, total BIGINT, "
    "change BIGINT)[]",
}


def decode(schema_path, messages):
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    header = b"\xc3\x01" + bytes.fromhex(
        fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
    )
    parsed = fastavro.parse_schema(schema, named_schemas={})
    for message in map(bytes.fromhex, messages):
        framed = message[:1] == b"\0"
        if not framed and message[:HEADER_SIZE] != header:
            sys.exit(f"header {message[:HEADER_SIZE].hex()}, the schema's is {header.hex()}")
        body = io.BytesIO(message[FRAMING_SIZE if framed else HEADER_SIZE:])
        yield fastavro.schemaless_reader(body, parsed)
        if body.read(1):
            sys.exit("bytes after the record")


def text(value):
    return value.hex() if isinstance(value, bytes) else str(value)


def load(connection, table, rows):
    columns = dict(column.split(" ", 1) for column in split(TABLES[table]))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        for row in rows:
            file.write(json.dumps({name: row[name] for name in columns}, default=text) + "\n")
        file.flush()
        connection.execute(f"CREATE TABLE {table} ({TABLES[table]})")
        connection.execute(
            f"INSERT INTO {table} SELECT * FROM read_json(?, format='newline_delimited', "
            f"columns={columns})",
            [file.name],
        )


def split(columns):
    """At commas that are in no brackets."""
    depth, part = 0, ""
    for character in columns:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += character
    yield part.strip()


def main(arguments):
    if len(arguments) < 3:
        sys.exit(__doc__)
    records_schema, summaries_schema, sql_path, *queries = arguments
    messages = json.load(sys.stdin)
    connection = duckdb.connect()
    # Nothing here needs the network.
    connection.execute("SET autoinstall_known_extensions = false; SET TimeZone = 'UTC'")
    load(connection, "dns_transactions", decode(records_schema, messages["records"]))
    load(connection, "ledger_summaries", decode(summaries_schema, messages["summaries"]))
    for path in sql_path.split(","):
        with open(path, encoding="utf-8") as file:
            connection.execute(file.read())
    for query in queries:
        result = connection.execute(query)
        names = [column[0] for column in result.description]
        rows = [dict(zip(names, row)) for row in result.fetchall()]
        print(json.dumps(rows, default=text))


if __name__ == "__main__":
    main(sys.argv[1:])
