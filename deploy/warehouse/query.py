"""Answers questions about all nodes from the lake, by Spark: the views of completeness.sql and rollups.sql, and
with --sql those of further files.

    spark-submit --properties-file spark.conf query.py --records iceberg lake.dns.transactions \\
        --summaries iceberg lake.dns.ledger "SELECT * FROM runs" "SELECT * FROM transactions_by_minute"

    spark-submit --properties-file spark.conf query.py --records iceberg lake.dns.transactions \\
        --sql ../sql/questions.sql --sql ../sql/chains.sql "SELECT * FROM chains"

Without --summaries there are no views of completeness.sql.

Each query's rows come out as a line of JSON. With --into they are written as Parquet instead, a directory
for each query, numbered from 1."""

import argparse
import json
import os
import re

from pyspark.sql import SparkSession

COMPLETENESS = ["summaries-spark.sql", "completeness.sql"]
ROLLUPS = ["rollups.sql"]


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("records", "summaries"):
        parser.add_argument(
            f"--{name}", nargs=2, required=name == "records", metavar=("FORMAT", "WHERE"),
            help="as Spark reads it: iceberg and the table's name, or parquet and a path",
        )
    parser.add_argument("--views", default=os.path.dirname(os.path.abspath(__file__)), help="where the files are")
    parser.add_argument("--sql", action="append", default=[], metavar="FILE", help="a file with further views; repeatable")
    parser.add_argument("--into", metavar="DIRECTORY")
    parser.add_argument("query", nargs="+")
    return parser.parse_args()


def main():
    args = arguments()
    spark = SparkSession.builder.appName("tap53 query").getOrCreate()
    sources = {"dns_transactions": args.records, "ledger_summaries": args.summaries}
    for table, source in sources.items():
        if source:
            kind, where = source
            spark.read.format(kind).load(where).createOrReplaceTempView(table)
    for name in (COMPLETENESS if args.summaries else []) + ROLLUPS:
        create_views(spark, os.path.join(args.views, name))
    for path in args.sql:
        create_views(spark, path, keep=True)
    for number, query in enumerate(args.query, 1):
        rows = spark.sql(query)
        if args.into:
            rows.write.mode("overwrite").parquet(os.path.join(args.into, str(number)))
        else:
            answer = [row.asDict(recursive=True) for row in rows.collect()]
            print(json.dumps({"event": "answer", "query": number, "rows": answer}, default=str), flush=True)


def create_views(spark, path, keep=False):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for statement in statements(text):
        # For this session: Spark keeps no lasting view of a temporary one.
        spark.sql(statement.replace("OR REPLACE VIEW", "OR REPLACE TEMPORARY VIEW", 1))
        if keep:
            # These views build on each other, several times. Spark would plan and compute each use again.
            name = re.search(r"VIEW (\w+)", statement)[1]
            spark.table(name).localCheckpoint(eager=False).createOrReplaceTempView(name)


def statements(text):
    text = re.sub(r"--.*", "", text)
    return [statement for statement in text.split(";") if statement.strip()]


if __name__ == "__main__":
    main()
