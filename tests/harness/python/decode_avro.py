"""Decodes Avro with fastavro, an implementation that is not tap53's, and prints JSON lines.

    decode_avro.py container FILE...      the records of object container files
    decode_avro.py single-object SCHEMA [READER]
                                          single-object messages of SCHEMA, one line of hex each,
                                          from stdin; resolved to the schema READER
    decode_avro.py fields SCHEMA NAMES    the same, and of each record only these fields, with
                                          commas between their names

Bytes come out as hex, times as microseconds since 1970 UTC, as they are in the encoding.
"""

import io
import json
import sys

import fastavro
import fastavro.read
from fastavro.schema import fingerprint, to_parsing_canonical_form

# Bytes that open a message in single-object encoding (Avro 1.12, "Single-object encoding").
MARKER = b"\xc3\x01"
HEADER_SIZE = 10


def show(record, names=None):
    if names:
        record = {name: record[name] for name in names}
    print(json.dumps(record, default=lambda value: value.hex()))


def containers(paths):
    for path in paths:
        with open(path, "rb") as file:
            for record in fastavro.reader(file):
                show(record)


def load(schema_path):
    with open(schema_path, encoding="utf-8") as file:
        return json.load(file)


def single_objects(schema_path, reader_path, lines, names=None):
    schema = load(schema_path)
    # Hex of the little-endian bytes that the encoding carries.
    expected = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    # Schemas of one name: neither may find the other's types.
    parsed = fastavro.parse_schema(schema, named_schemas={})
    reader = fastavro.parse_schema(load(reader_path), named_schemas={}) if reader_path else None
    for line in lines:
        message = bytes.fromhex(line)
        if message[:2] != MARKER:
            sys.exit(f"not a single-object message: {message[:HEADER_SIZE].hex()}")
        if message[2:HEADER_SIZE] != expected:
            sys.exit(f"fingerprint {message[2:HEADER_SIZE].hex()}, the schema's is {expected.hex()}")
        body = io.BytesIO(message[HEADER_SIZE:])
        show(fastavro.schemaless_reader(body, parsed, reader), names)
        if body.read(1):
            sys.exit("bytes after the record")


def main(arguments):
    # Values as they were encoded: no datetime objects.
    fastavro.read.LOGICAL_READERS.clear()
    match arguments:
        case ["container", *paths] if paths:
            containers(paths)
        case ["single-object", schema_path]:
            single_objects(schema_path, None, sys.stdin)
        case ["single-object", schema_path, reader_path]:
            single_objects(schema_path, reader_path, sys.stdin)
        case ["fields", schema_path, names]:
            single_objects(schema_path, None, sys.stdin, names.split(","))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
