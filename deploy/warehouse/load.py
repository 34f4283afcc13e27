"""Loads topics of tap53 into the warehouse in microbatches, each message once: a job of Spark Structured Streaming.

    spark-submit --properties-file spark.conf --py-files records.py,warehouse.py load.py \\
        --brokers kafka:9092 --registry http://registry:8081 --warehouse "host=warehouse dbname=dns" \\
        --load dns-transactions dns_transactions dns_transaction.avsc \\
        --load dns-ledger ledger_summaries ledger_summary.avsc

The same file runs with --master local[2] and on a cluster. How it works, what it rejects and how to
restore: docs/warehouse.md."""

import argparse
import json
import os
import socket
import sys
import tempfile

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import warehouse
from records import Decoder, Registry

EARLIEST = -2


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--brokers", required=True, help="host:port,... of Kafka")
    parser.add_argument(
        "--kafka", action="append", default=[], metavar="KEY=VALUE",
        help="option of Spark's Kafka source, as kafka.security.protocol=SASL_SSL; repeat it",
    )
    parser.add_argument("--registry", required=True, help="URL of Confluent's API of the schema registry")
    parser.add_argument(
        "--warehouse", required=True,
        help="connection string of PostgreSQL; the password comes from PGPASSFILE or PGPASSWORD",
    )
    parser.add_argument(
        "--load", action="append", nargs=3, required=True, metavar=("TOPIC", "TABLE", "SCHEMA"),
        help="a topic, its table, and the file of the table's schema",
    )
    parser.add_argument("--every", type=float, default=10, metavar="SECONDS", help="between microbatches")
    parser.add_argument(
        "--at-most", type=int, default=200_000, metavar="MESSAGES", help="in a microbatch, over all partitions"
    )
    parser.add_argument("--once", action="store_true", help="load what is there now, and end")
    return parser.parse_args()


def main():
    args = arguments()
    spark = SparkSession.builder.appName("tap53 loader").getOrCreate()
    require_limits(spark)
    loads = [Load(spark, args, *load) for load in args.load]
    warehouse.prepare(args.warehouse, [load.columns() for load in loads])
    queries = [load.start() for load in loads]
    warehouse.log("loader_started", topics=[load.topic for load in loads])
    if args.once:
        for query in queries:
            query.awaitTermination()
    else:
        # The first failure ends the job; a supervisor starts it again.
        spark.streams.awaitAnyTermination()


def require_limits(spark):
    if "avro.limits" not in spark.conf.get("spark.executor.extraJavaOptions", ""):
        sys.exit("start with spark-submit --properties-file spark.conf: limits of Avro are missing, without"
                 " which one foreign message can take all memory")


class Load:
    """One topic into one table."""

    def __init__(self, spark, args, topic, table, schema_file):
        self.spark, self.args = spark, args
        self.topic, self.table = topic, table
        with open(schema_file, encoding="utf-8") as file:
            self.decoder = Decoder(spark, Registry(args.registry), file.read())
        # By partition: the warehouse's offset when this loader last read it.
        self.seen = {}
        self.name = f"{socket.gethostname()}-{os.getpid()}"

    def columns(self):
        return self.table, warehouse.column_types(self.decoder.fields)

    def start(self):
        """Starts at the warehouse's offsets. Nothing in Spark's own checkpoint is needed later, so each
        start creates a new one, and no one has to keep or repair it."""
        self.seen = warehouse.offsets(self.args.warehouse, self.topic)
        starts = {str(p): self.seen.get(p, EARLIEST) for p in self.partitions()}
        options = dict(option.split("=", 1) for option in self.args.kafka)
        stream = (
            self.spark.readStream.format("kafka")
            .options(**options)
            .option("kafka.bootstrap.servers", self.args.brokers)
            .option("subscribe", self.topic)
            .option("startingOffsets", json.dumps({self.topic: starts}))
            .option("maxOffsetsPerTrigger", self.args.at_most)
            # Messages that the topic no longer has are a loss, so they must not be skipped silently.
            .option("failOnDataLoss", "true")
            .load()
        )
        trigger = {"availableNow": True} if self.args.once else {"processingTime": f"{self.args.every} seconds"}
        return (
            stream.writeStream.queryName(self.topic)
            .option("checkpointLocation", tempfile.mkdtemp(prefix="tap53-loader-"))
            .trigger(**trigger)
            .foreachBatch(self.load_batch)
            .start()
        )

    def partitions(self):
        """Numbers of the topic's partitions."""
        jvm = self.spark._jvm
        properties = jvm.java.util.Properties()
        properties.put("bootstrap.servers", self.args.brokers)
        for option in self.args.kafka:
            name, value = option.split("=", 1)
            properties.put(name.removeprefix("kafka."), value)
        admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(properties)
        try:
            topics = jvm.java.util.ArrayList()
            topics.add(self.topic)
            described = admin.describeTopics(topics).allTopicNames().get().get(self.topic)
            return [partition.partition() for partition in described.partitions()]
        finally:
            admin.close()

    def load_batch(self, batch, _):
        self.look()
        batch = self.not_loaded(batch)
        self.decoder.forget_unusable()
        while True:
            rows = self.decoder.rows(batch)
            task = warehouse.PartitionLoader(self.args.warehouse, self.table, self.seen, self.name)
            outcomes = rows.mapInArrow(task, warehouse.LOADED).collect()
            for outcome in outcomes:
                self.seen[outcome.partition] = max(self.seen.get(outcome.partition, 0), outcome.next_offset)
            self.report([outcome for outcome in outcomes if not outcome.unknown])
            unknown = {schema_id for outcome in outcomes for schema_id in outcome.unknown}
            if not unknown:
                return
            self.decoder.learn(unknown)

    def look(self):
        """Reads the warehouse's offsets. They never go back while a loader runs, unless it is restored."""
        now = warehouse.offsets(self.args.warehouse, self.topic)
        for partition, seen in self.seen.items():
            warehouse.require_not_before(self.topic, partition, now.get(partition, 0), seen)
        self.seen = now

    def not_loaded(self, batch):
        """Leaves out messages that another loader has already loaded, so that a second loader costs little.
        The transaction guarantees exactly once; this only saves work."""
        if not self.seen:
            return batch
        offsets = F.create_map([F.lit(number) for pair in self.seen.items() for number in pair])
        return batch.where(F.col("offset") >= F.coalesce(offsets[F.col("partition")], F.lit(0)))

    def report(self, outcomes):
        counts = {name: sum(getattr(o, name) for o in outcomes) for name in ("messages", "loaded", "rejected")}
        if counts["messages"]:
            repeated = counts["messages"] - counts["loaded"] - counts["rejected"]
            warehouse.log("batch_loaded", topic=self.topic, repeated=repeated, **counts)


if __name__ == "__main__":
    main()
