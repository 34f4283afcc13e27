"""Reads a topic as any consumer does that has a schema registry, with Confluent's own client, and
prints JSON lines: {"id": the schema's, "record": the record}.

    read_registry.py BROKER TOPIC REGISTRY [READER]
                                          everything in partition 0, from the beginning to its end;
                                          resolved to the schema READER

Bytes come out as hex, times as microseconds since 1970 UTC, as they are in the encoding.
"""

import json
import sys

import fastavro.read
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

# Longer than a broker on a loaded machine takes to answer.
DEADLINE_S = 60


def values(broker, topic):
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "tap53-test",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    while True:
        message = consumer.poll(DEADLINE_S)
        if message is None:
            sys.exit(f"nothing from {broker} in {DEADLINE_S} s")
        if message.error() is None:
            yield message.value()
        elif message.error().code() == KafkaError._PARTITION_EOF:
            consumer.close()
            return
        else:
            sys.exit(str(message.error()))


def main(broker, topic, registry, reader=None):
    # Values as they were encoded: no datetime objects.
    fastavro.read.LOGICAL_READERS.clear()
    if reader is not None:
        with open(reader, encoding="utf-8") as file:
            reader = file.read()
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}), reader)
    context = SerializationContext(topic, MessageField.VALUE)
    for value in values(broker, topic):
        if value[0] != 0:
            sys.exit(f"not framed with an id: {value[:5].hex()}")
        record = deserialize(value, context)
        line = {"id": int.from_bytes(value[1:5], "big"), "record": record}
        print(json.dumps(line, default=lambda value: value.hex()))


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
