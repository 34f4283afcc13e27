"""Fills the warehouse's table again from the lake: a Spark job.

    spark-submit --properties-file spark.conf --py-files records.py,warehouse.py restore.py \\
        --warehouse "host=warehouse dbname=dns" --from iceberg lake.dns.transactions \\
        --table dns_transactions --schema dns_transaction.avsc --topic dns-transactions

Rows that are there already stay as they are, so it may be killed and started again, and the loader may run
meanwhile. It makes the loader begin with the topic's earliest message, so that what had not reached the
lake comes from there."""

import argparse
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

import warehouse
from records import line, required_fields, row_type


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--warehouse", required=True, help="connection string of PostgreSQL")
    parser.add_argument(
        "--from", dest="source", nargs=2, required=True, metavar=("FORMAT", "WHERE"),
        help="as Spark reads it: iceberg and the table's name, or parquet and a path",
    )
    parser.add_argument("--where", help="only these rows, as \"query_time >= '2026-01-01'\"")
    parser.add_argument("--table", required=True)
    parser.add_argument("--schema", required=True, help="the file of the table's schema")
    parser.add_argument("--topic", required=True, help="whose offsets the loader has to forget")
    return parser.parse_args()


def main():
    args = arguments()
    spark = SparkSession.builder.appName("tap53 restore").getOrCreate()
    with open(args.schema, encoding="utf-8") as file:
        schema = file.read()
    fields = row_type(spark, schema).fields
    required = required_fields(schema)
    rows = spark.read.format(args.source[0]).load(args.source[1])
    if args.where:
        rows = rows.where(args.where)
    rows = conform(rows, fields, required)

    warehouse.prepare(args.warehouse, [(args.table, warehouse.column_types(fields))])
    warehouse.forget_offsets(args.warehouse, args.topic)
    number = F.monotonically_increasing_id().cast("string")
    lines = rows.select(line(fields, F.col, number).alias("line"))
    writer = warehouse.RowWriter(args.warehouse, args.table, f"restore from {args.source[1]}")
    counts = lines.mapInArrow(writer, warehouse.RowWriter.COUNTS)
    total = counts.agg(*(F.sum(name).alias(name) for name in counts.columns)).first()
    warehouse.log("restored", **{name: total[name] or 0 for name in counts.columns})
    if total["refused"]:
        sys.exit(f"{total['refused']} rows were refused: tap53_rejects has them, with reasons")


def conform(rows, fields, required):
    """The columns of the table, in its types."""
    missing = [name for name in required if name not in rows.columns]
    if missing:
        sys.exit(f"the lake's table lacks {', '.join(missing)}: is it the table of these records?")
    names = {field.name for field in fields}
    return rows.select(*(column(rows, field, names).alias(field.name) for field in fields))


def column(rows, field, names):
    exact = f"{field.name}_us"
    if exact in rows.columns and exact not in names:
        # Connect's timestamps have milliseconds only, so the connectors keep the number of microseconds.
        return F.timestamp_micros(F.col(exact))
    if field.name not in rows.columns:
        # A column of an older version, which is null.
        return F.lit(None).cast(field.dataType)
    kind = rows.schema[field.name].dataType
    if isinstance(field.dataType, T.TimestampType) and isinstance(kind, T.LongType):
        # Connect does not support microseconds, and writes them as numbers.
        return F.timestamp_micros(F.col(field.name))
    return F.col(field.name).cast(nullable(field.dataType))


def nullable(kind):
    """The type with nulls allowed in all its parts, which is what files say of theirs."""
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(nullable(kind.elementType), True)
    if isinstance(kind, T.MapType):
        return T.MapType(kind.keyType, nullable(kind.valueType), True)
    if isinstance(kind, T.StructType):
        return T.StructType([T.StructField(part.name, nullable(part.dataType), True) for part in kind])
    return kind


if __name__ == "__main__":
    main()
