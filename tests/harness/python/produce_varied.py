"""Produces records of every version of a schema, varied and extreme, in any order.

    produce_varied.py BROKER TOPIC SEED COUNT ID=SCHEMA=WRITTEN...

For each SCHEMA: COUNT records with random and extreme values in every field, and those in the file
WRITTEN, a line of hex each, which an agent of that version wrote; with Confluent's framing by ID. Between
them are messages that are no records. A line of JSON for each message: {"partition", "offset", "timestamp_ms",
"schema", "record"}, where the last two are null for what is no record; bytes as hex, times as numbers of
their schema's unit.
"""

import io
import json
import pathlib
import random
import sys
import time

import fastavro
import fastavro.read
from confluent_kafka import Producer

MAX_I32, MAX_I64 = 2**31 - 1, 2**63 - 1
INTS = [0, 1, -1, 53, MAX_I32, -MAX_I32 - 1]
LONGS = [*INTS, MAX_I64, -MAX_I64 - 1]
# To the last microsecond that a capture file of the first format can hold, and before 1970.
TIMES_US = [0, 1, 999, 1_000, 1_001, 1_700_000_000_123_456, (2**32 - 1) * 1_000_000 + 999_999, -1]
TIME_UNITS_US = {"timestamp-micros": 1, "timestamp-millis": 1_000}
STRINGS = ["", "a", "\x00", "\\000.\"'\n\t", "ÄÖÜ ǅ 中文 🦀 \u200f", "x" * 20_000]
BYTES = [b"", b"\x00", bytes(range(256)), b"\xff" * 20_000]
LENGTHS = [0, 0, 1, 2, 40]
SINGLE_OBJECT_HEADER_SIZE = 10
FOREIGN = [b"", b"\x00", b"not a record", b"\x00\x7f\xff\xff\xff" + b"an id that nobody gave"]


class Generator:
    def __init__(self, rng, schema):
        self.rng = rng
        self.named = {}
        self.collect(schema)
        self.schema = schema

    def collect(self, schema):
        if isinstance(schema, list):
            for part in schema:
                self.collect(part)
        elif isinstance(schema, dict):
            if "name" in schema and schema["type"] in ("enum", "fixed", "record"):
                self.named[schema["name"]] = schema
            for part in schema.get("fields", []):
                self.collect(part["type"])
            for key in ("type", "items", "values"):
                if isinstance(schema.get(key), (dict, list)):
                    self.collect(schema[key])

    def value(self, schema):
        choice = self.rng.choice
        if isinstance(schema, list):
            return self.value(choice(schema))
        if isinstance(schema, str):
            return self.primitive(schema)
        kind = schema["type"]
        if kind == "record":
            return {field["name"]: self.value(field["type"]) for field in schema["fields"]}
        if kind == "enum":
            return choice(schema["symbols"])
        if kind == "fixed":
            size = schema["size"]
            return choice([b"\x00" * size, b"\xff" * size, self.rng.randbytes(size)])
        if kind == "array":
            return [self.value(schema["items"]) for _ in range(choice(LENGTHS))]
        if kind == "map":
            return {
                choice(["", "app", "a/b.c", "ü"]) + str(n): self.value(schema["values"])
                for n in range(choice(LENGTHS))
            }
        logical = schema.get("logicalType")
        if logical in TIME_UNITS_US:
            time_us = choice(TIMES_US + [self.rng.randrange(2**32 * 10**6)])
            return time_us // TIME_UNITS_US[logical]
        return self.value(kind)

    def primitive(self, name):
        rng = self.rng
        if name in self.named:
            return self.value(self.named[name])
        return {
            "null": lambda: None,
            "boolean": lambda: rng.random() < 0.5,
            "int": lambda: rng.choice([*INTS, rng.randint(-MAX_I32, MAX_I32)]),
            "long": lambda: rng.choice([*LONGS, rng.randint(-MAX_I64, MAX_I64)]),
            # Long ones are rare: a record has dozens.
            "string": lambda: rng.choice(STRINGS if rng.random() < 0.1 else STRINGS[:-1]),
            "bytes": lambda: rng.choice(BYTES if rng.random() < 0.1 else BYTES[:-1]),
        }[name]()


def bodies(rng, path, written, count):
    schema = json.loads(path.read_text(encoding="utf-8"))
    generator = Generator(rng, schema)
    parsed = fastavro.parse_schema(schema, named_schemas={})
    for _ in range(count):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, generator.value(schema))
        yield parsed, out.getvalue()
    for line in written.read_text(encoding="utf-8").split():
        yield parsed, bytes.fromhex(line)[SINGLE_OBJECT_HEADER_SIZE:]


def main(broker, topic, seed, count, *schemas):
    rng = random.Random(int(seed))
    # Values as they are encoded: no datetime objects.
    fastavro.read.LOGICAL_READERS.clear()
    messages = [(value, None, None) for value in FOREIGN]
    for schema in schemas:
        number, path, written = schema.split("=")
        path, written = pathlib.Path(path), pathlib.Path(written)
        for parsed, body in bodies(rng, path, written, int(count)):
            framed = b"\x00" + int(number).to_bytes(4, "big") + body
            record = fastavro.schemaless_reader(io.BytesIO(body), parsed)
            messages.append((framed, path.stem, record))
    rng.shuffle(messages)

    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5})
    begin_ms = int(time.time() * 1_000) - 3 * 3_600_000
    lines = []
    for number, (value, schema, record) in enumerate(messages):
        timestamp_ms = begin_ms + number * 20_000
        line = {"timestamp_ms": timestamp_ms, "schema": schema, "record": record}

        def delivered(error, message, line=line):
            if error is not None:
                sys.exit(str(error))
            lines.append(line | {"partition": message.partition(), "offset": message.offset()})

        producer.produce(topic, value, timestamp=timestamp_ms, on_delivery=delivered)
        producer.poll(0)
    producer.flush()
    for line in lines:
        print(json.dumps(line, default=lambda value: value.hex()))


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
