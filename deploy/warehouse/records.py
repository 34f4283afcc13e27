"""Messages of a topic as rows of the warehouse: Confluent's framing, each message by its own writer's schema.

Runs on Spark's driver, which builds one expression for all schemas that it has seen; the executors evaluate it."""

import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request

from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.avro.functions import from_avro

# Confluent's framing: a zero byte, the schema's id in four bytes, the Avro datum.
HEADER_BYTES = 5
REGISTRY_TIMEOUT_S = 10
# Separates the offset and the record in a line for COPY. JSON escapes control characters, so it has none.
SEPARATOR = "\x02"
TIME_FORMAT = "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"


class Registry:
    """The schema registry, through Confluent's API."""

    def __init__(self, url):
        self.url = url.rstrip("/")

    def schema(self, schema_id):
        """The schema with this id as JSON text; None if the registry has none.

        Raises OSError while the registry is unreachable: no message is rejected for that."""
        request = urllib.request.Request(
            f"{self.url}/schemas/ids/{schema_id}",
            headers={"Accept": "application/vnd.schemaregistry.v1+json"},
        )
        # user:password, from the environment so that no command line shows it.
        credentials = os.environ.get("TAP53_REGISTRY_CREDENTIALS")
        if credentials:
            text = base64.b64encode(credentials.encode()).decode()
            request.add_header("Authorization", f"Basic {text}")
        try:
            with urllib.request.urlopen(request, timeout=REGISTRY_TIMEOUT_S) as response:
                return json.load(response)["schema"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise OSError(f"schema registry {self.url}: {error}, schema {schema_id}") from error


class Decoder:
    """Reads messages of any version of a schema as the version that the table was created for."""

    def __init__(self, spark, registry, reader):
        """`reader`: the table's schema as JSON text."""
        self._avro = spark._jvm.org.apache.avro
        self._registry = registry
        self._reader = reader
        parsed = json.loads(reader)
        self._name = f"{parsed['namespace']}.{parsed['name']}"
        self.fields = row_type(spark, reader).fields
        # By id: the writer's schema, or the reason why it cannot be used.
        self._writers = {}
        self._reasons = {}

    def learn(self, schema_ids):
        """Fetches schemas that `rows` did not know."""
        for schema_id in schema_ids:
            writer = self._registry.schema(schema_id)
            reason = self._reason_against(schema_id, writer)
            if reason is None:
                self._writers[schema_id] = writer
            else:
                self._reasons[schema_id] = reason

    def forget_unusable(self):
        """Lets the next batch request schemas again that the registry did not have."""
        self._reasons.clear()

    def _reason_against(self, schema_id, writer):
        if writer is None:
            return f"the registry has no schema {schema_id}"
        try:
            name = json.loads(writer)
            name = f"{name.get('namespace', '')}.{name['name']}"
        except (AttributeError, KeyError, TypeError, ValueError):
            return f"schema {schema_id} is no record"
        if name != self._name:
            return f"schema {schema_id} is {name}, expected {self._name}"
        reader, writer = (self._avro.Schema.Parser().parse(text) for text in (self._reader, writer))
        compatibility = self._avro.SchemaCompatibility.checkReaderWriterCompatibility(reader, writer)
        if compatibility.getType().toString() != "COMPATIBLE":
            return f"schema {schema_id} cannot be read as the table's: {compatibility.getDescription()}"
        return None

    def rows(self, messages):
        """One row for each message: `partition`, `offset`, and either `line` for COPY, or `reason` with
        the message, or `unknown`, the id of a schema that has to be fetched first."""
        value = F.col("value")
        framed = F.substring(value, 1, 1) == F.lit(b"\x00")
        framed = framed & (F.length(value) > HEADER_BYTES)
        schema_id = F.conv(F.hex(F.substring(value, 2, 4)), 16, 10).cast("bigint")
        messages = messages.withColumn("schema_id", F.when(framed, schema_id))
        datum = F.expr(f"substring(value, {HEADER_BYTES + 1})")
        options = {"mode": "PERMISSIVE", "avroSchema": self._reader}
        record = F.lit(None)
        for schema_id, writer in self._writers.items():
            record = F.when(
                F.col("schema_id") == schema_id, from_avro(datum, writer, options)
            ).otherwise(record)
        reason = self._reason()
        rows = messages.withColumn("record", record) if self._writers else messages
        line = F.lit(None).cast("string")
        if self._writers:
            # A datum that cannot be read becomes a record of nulls; a required field reveals it.
            required = F.col("record")[required_fields(self._reader)[0]]
            line = F.when(required.isNotNull(), self._line(F.col("record")))
        known = list(self._writers) + list(self._reasons)
        is_known = F.col("schema_id").isin(known) if known else F.lit(False)
        unknown = F.when(F.col("schema_id").isNotNull() & ~is_known, F.col("schema_id"))
        return rows.select(
            "topic",
            "partition",
            "offset",
            "timestamp",
            line.alias("line"),
            unknown.alias("unknown"),
            reason.alias("reason"),
            "value",
        ).select(
            "topic",
            "partition",
            "offset",
            "line",
            "unknown",
            # Only rejected messages carry these.
            *(
                F.when(F.col("line").isNull(), F.col(name)).alias(name)
                for name in ("reason", "timestamp", "value")
            ),
        )

    def _reason(self):
        value = F.col("value")
        reason = F.concat(F.lit("no record of schema "), F.col("schema_id").cast("string"))
        for schema_id, text in self._reasons.items():
            reason = F.when(F.col("schema_id") == schema_id, F.lit(text)).otherwise(reason)
        single_object = F.substring(value, 1, 2) == F.lit(b"\xc3\x01")
        return (
            F.when(value.isNull(), F.lit("no value"))
            .when(single_object, F.lit("single-object encoding: the agent's sink has no `registry`"))
            .when(F.col("schema_id").isNull(), F.lit("no framing of a schema registry"))
            .otherwise(reason)
        )

    def _line(self, record):
        return line(self.fields, record.getField, F.col("offset").cast("string"))


def required_fields(schema):
    """Names of a schema's fields that cannot be null, in its order."""
    fields = json.loads(schema)["fields"]
    return [f["name"] for f in fields if not (isinstance(f["type"], list) and "null" in f["type"])]


def row_type(spark, schema):
    """Spark's type of rows of an Avro schema."""
    java = spark._jvm.org.apache.avro.Schema.Parser().parse(schema)
    converters = spark._jvm.org.apache.spark.sql.avro.SchemaConverters
    return T.StructType.fromJson(json.loads(converters.toSqlType(java).dataType().json()))


def line(fields, column, number):
    """A line for COPY: `number`, and the row as JSON for jsonb_populate_record.

    Bytes become text that bytea takes; in lists they are in Base64. Text of PostgreSQL has no NUL: it
    is written as the four characters \\000."""
    columns = [_for_json(field, column(field.name)).alias(field.name) for field in fields]
    options = {"timestampFormat": TIME_FORMAT, "ignoreNullFields": "true"}
    text = F.to_json(F.struct(*columns), options)
    # \u0000 is NUL after an even number of backslashes; after an odd number it is literal text.
    escaped_nul = r"(?<!\\)((?:\\\\)*)\\u0000"
    text = F.when(
        text.contains("\\u0000"), F.regexp_replace(text, escaped_nul, r"$1\\\\000")
    ).otherwise(text)
    return F.concat(number, F.lit(SEPARATOR), text)


def _for_json(field, column):
    if isinstance(field.dataType, T.BinaryType):
        return F.concat(F.lit("\\x"), F.hex(column))
    return column
