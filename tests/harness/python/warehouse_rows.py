"""Holds rows of the warehouse against the messages they came from, as fastavro reads these; and makes
messages that are hard to load.

    warehouse_rows.py compare SCHEMA   stdin: {"messages": [hex], "schemas": {id: schema}, "rows": [row]}
    warehouse_rows.py vary SCHEMA ID   stdin: a message of SCHEMA, framed, as a line of hex

`compare` prints a line for each difference, and one with the number of equal rows. `vary` prints
variants of the message, a line of hex each; the last one holds a time that PostgreSQL does not know.
"""

import base64
import datetime
import io
import json
import sys

import fastavro

HEADER_SIZE = 5
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def microseconds(time):
    return (time - EPOCH) // datetime.timedelta(microseconds=1)


def nested(value):
    """As in jsonb: bytes in Base64, and no entry for what is null."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {text(name): nested(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [nested(part) for part in value]
    return text(value)


def text(value):
    """PostgreSQL's text has no NUL."""
    return value.replace("\0", "\\000") if isinstance(value, str) else value


def expected(value):
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime.datetime):
        return microseconds(value)
    return nested(value)


def found(value, wanted):
    if isinstance(value, str) and isinstance(wanted, datetime.datetime):
        return microseconds(datetime.datetime.fromisoformat(value))
    return value


def parse(schema):
    return fastavro.parse_schema(json.loads(schema), named_schemas={})


def compare(reader_path):
    given = json.load(sys.stdin)
    with open(reader_path, encoding="utf-8") as file:
        reader = parse(file.read())
    schemas = {int(number): parse(schema) for number, schema in given["schemas"].items()}
    rows = {row["record_id"]: row for row in given["rows"]}
    equal = 0
    for message in map(bytes.fromhex, given["messages"]):
        writer = schemas[int.from_bytes(message[1:HEADER_SIZE], "big")]
        record = fastavro.schemaless_reader(io.BytesIO(message[HEADER_SIZE:]), writer, reader)
        row = rows.pop("\\x" + record["record_id"].hex(), None)
        if row is None:
            print(json.dumps({"missing": record["record_id"].hex()}))
            continue
        differences = [
            {"field": name, "expected": expected(value), "found": found(row.get(name), value)}
            for name, value in record.items()
            if expected(value) != found(row.get(name), value)
        ]
        differences += [{"field": name, "found": row[name]} for name in row.keys() - record.keys()]
        for difference in differences:
            print(json.dumps(difference))
        equal += not differences
    for row in rows:
        print(json.dumps({"unexpected": row}))
    print(json.dumps({"equal": equal}))


HOSTILE = "a\0b \\u0000 \\\0 \0\0 \\\\ \" \t\n\r \x01\x02 \u2028 \U0001f9ea \\. '"


def vary(schema_path, schema_id):
    with open(schema_path, encoding="utf-8") as file:
        schema = parse(file.read())
    base = bytes.fromhex(sys.stdin.read())
    record = fastavro.schemaless_reader(io.BytesIO(base[HEADER_SIZE:]), schema)
    answer = {"name": HOSTILE, "type": "A", "class": "IN", "ttl": 2**31 - 1, "rdata": HOSTILE}
    option = {"code": 65535, "data": bytes(range(256))}
    changes = [
        {"node": HOSTILE, "qname": HOSTILE, "query_extended_error_text": HOSTILE},
        {"client_labels": {HOSTILE: HOSTILE, "": ""}, "server_labels": {}},
        {"record_number": 2**63 - 1, "latency_ns": -(2**63), "query_size": -(2**31), "worker": 2**31 - 1},
        {"query_nsid": b"", "query_cookie": bytes(range(256)), "query_edns_options": [option]},
        {"query_time": EPOCH, "response_time": datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, datetime.timezone.utc)},
        {"query_time": EPOCH - datetime.timedelta(microseconds=1), "response_time": None},
        {"anomalies": [HOSTILE, ""], "answers": [answer_of(schema, answer)] * 2},
        {"query_time": 2**63 - 1},
    ]
    for number, change in enumerate(changes):
        body = io.BytesIO()
        unique = {"record_id": number.to_bytes(16, "big"), "record_number": 0}
        fastavro.schemaless_writer(body, schema, {**record, **unique, **change})
        print(json.dumps((b"\0" + int(schema_id).to_bytes(4, "big") + body.getvalue()).hex()))


def answer_of(schema, values):
    """An answer with these values, and for other fields what their types begin with."""
    field = next(field for field in schema["fields"] if field["name"] == "answers")
    zeros = {"string": "", "int": 0, "long": 0, "boolean": False, "bytes": b"\xff\0"}
    parts = field["type"]["items"]["fields"]
    zero = lambda kind: None if isinstance(kind, list) else zeros[kind]
    return {part["name"]: values.get(part["name"], zero(part["type"])) for part in parts}


if __name__ == "__main__":
    {"compare": compare, "vary": vary}[sys.argv[1]](*sys.argv[2:])
