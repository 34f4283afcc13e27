"""The warehouse: PostgreSQL's tables, and the transaction that moves a partition's offset with its rows.

Runs on Spark's driver (tables, offsets) and in the executors' Python workers (transactions)."""

import json
import sys

import psycopg
import pyarrow as pa
from psycopg import sql

from records import SEPARATOR

# tap53_offsets: the next offset of each partition. tap53_loads: the account of each transaction.
# tap53_rejects: each message that could not be loaded, with everything that is needed to load it later.
TABLES = """
CREATE TABLE IF NOT EXISTS tap53_offsets (
    topic text, partition integer, next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition));
CREATE TABLE IF NOT EXISTS tap53_loads (
    topic text NOT NULL, partition integer NOT NULL,
    first_offset bigint NOT NULL, next_offset bigint NOT NULL,
    messages bigint NOT NULL, loaded bigint NOT NULL, repeated bigint NOT NULL, rejected bigint NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now(), loader text NOT NULL,
    PRIMARY KEY (topic, partition, next_offset, loaded_at));
CREATE TABLE IF NOT EXISTS tap53_rejects (
    topic text, partition integer, kafka_offset bigint, kafka_time timestamptz,
    reason text NOT NULL, message bytea,
    PRIMARY KEY (topic, partition, kafka_offset));
"""

# Makes the server end the session of a lost host, whose locks the next loader waits for.
SESSION = (
    "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c idle_in_transaction_session_timeout=10min -c timezone=UTC"
)
# For each type of Spark, the types of PostgreSQL that accept all of its values.
COLUMN_TYPES = {
    "int": ("integer", "bigint", "numeric"),
    "bigint": ("bigint", "numeric"),
    "boolean": ("boolean",),
    "binary": ("bytea",),
    "timestamp": ("timestamp with time zone",),
    "string": ("text", "character varying"),
    "array<string>": ("text[]", "character varying[]", "jsonb"),
}
# Other arrays, maps and records.
NESTED_TYPES = ("jsonb",)
# An arbitrary lock number: one loader at a time creates the tables.
CREATION_LOCK = 53

LOADED = "partition int, first_offset long, next_offset long, messages long, loaded long, rejected long, unknown array<long>"


def log(event, **fields):
    """A line of JSON, for programs that watch the jobs."""
    print(json.dumps({"event": event, **fields}), flush=True)


def column_types(fields):
    """What `prepare` takes, of the fields of a Spark type."""
    return {field.name: field.dataType.simpleString() for field in fields}


class OffsetsMovedBack(Exception):
    """The warehouse's offsets are before those that this loader has seen: it was restored meanwhile."""


def connect(conninfo):
    return psycopg.connect(conninfo, options=SESSION, application_name="tap53 loader")


def prepare(conninfo, tables):
    """Creates the loader's own tables, and requires those that it fills. `tables`: (name, columns), with
    Spark's type by the name of each column."""
    with connect(conninfo) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (CREATION_LOCK,))
        connection.execute(TABLES)
        for name, columns in tables:
            require_table(connection, name, columns)


def require_table(connection, table, columns):
    """Ends the job where these columns cannot be loaded into the table as it is."""
    name = identifier(table).as_string(connection)
    (oid,) = connection.execute("SELECT to_regclass(%s)::oid", (name,)).fetchone()
    if oid is None:
        sys.exit(f"the warehouse has no table {table}: create it with what"
                 f" `tap53 schema --ddl postgres --table {table}` prints (--summary for summaries)")
    query = (
        "SELECT attname, attnotnull, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
    )
    attributes = connection.execute(query, (oid,)).fetchall()
    found = {column: required for column, required, _ in attributes}
    if missing := [column for column in columns if column not in found]:
        sys.exit(f"table {table} lacks {', '.join(missing)}: add the columns, as `tap53 schema --ddl postgres`"
                 " has them, or load with the schema that the table was created for")
    if foreign := [column for column, required in found.items() if required and column not in columns]:
        sys.exit(f"table {table} requires {', '.join(foreign)}, which the schema lacks:"
                 " is it the table of these records?")
    types = {column: kind for column, _, kind in attributes}
    wrong = [
        f"{column} is {types[column]}, expected {accepted[0]}"
        for column, kind in columns.items()
        if types[column] not in (accepted := COLUMN_TYPES.get(kind, NESTED_TYPES))
    ]
    if wrong:
        sys.exit(f"table {table}: {'; '.join(wrong)}: change the types to those of `tap53 schema --ddl postgres`")
    query = "SELECT count(*) FROM pg_index WHERE indrelid = %s AND indisunique AND indpred IS NULL"
    if connection.execute(query, (oid,)).fetchone() == (0,):
        sys.exit(f"table {table} has no primary key: without one, a record that comes twice is stored twice")


def identifier(table):
    return sql.Identifier(*table.split("."))


def offsets(conninfo, topic):
    """Where each partition of a topic goes on."""
    with connect(conninfo) as connection:
        query = "SELECT partition, next_offset FROM tap53_offsets WHERE topic = %s"
        return dict(connection.execute(query, (topic,)).fetchall())


def forget_offsets(conninfo, topic):
    """Makes loaders begin with the topic's earliest message; rows that are there already stay one."""
    with connect(conninfo) as connection:
        connection.execute("DELETE FROM tap53_offsets WHERE topic = %s", (topic,))


def require_not_before(topic, partition, next_offset, seen):
    """Raises OffsetsMovedBack where a loader that goes on would leave messages out."""
    if next_offset < seen:
        raise OffsetsMovedBack(
            f"{topic}, partition {partition}: the warehouse goes on at offset {next_offset}, and had {seen}:"
            " it was restored. Start the loader again: it begins where the warehouse is."
        )


class PartitionLoader:
    """For mapInArrow: writes the rows of one partition of a topic, and moves its offset, in a transaction.

    The offset's row is locked first. Messages before it are loaded already, by another loader or by this
    one before it was killed, and are passed over; so a message is loaded once, whoever loads it."""

    def __init__(self, conninfo, table, seen, loader):
        self.conninfo, self.table, self.seen, self.loader = conninfo, table, seen, loader

    def __call__(self, batches):
        load = None
        for batch in batches:
            for topic, partition, part in by_partition(batch):
                if load is None or (load.topic, load.partition) != (topic, partition):
                    if load is not None:
                        yield load.finish()
                    load = PartitionLoad(self, topic, partition)
                load.add(part)
        if load is not None:
            yield load.finish()


def by_partition(batch):
    """Splits an Arrow batch where the partition changes; nearly always it does not."""
    partitions = batch.column("partition").to_pylist()
    topics = batch.column("topic")
    start = 0
    for end in range(1, len(partitions) + 1):
        if end == len(partitions) or partitions[end] != partitions[start]:
            yield topics[start].as_py(), partitions[start], batch.slice(start, end - start)
            start = end


class PartitionLoad:
    """The transaction of one partition's part of a microbatch."""

    def __init__(self, task, topic, partition):
        self.task, self.topic, self.partition = task, topic, partition
        self.first = None
        self.end = None
        self.messages = 0
        self.lines, self.rejects, self.unknown = [], [], set()
        self.connection = connect(task.conninfo)
        self.next = self._lock()

    def _lock(self):
        place = (self.topic, self.partition)
        self.connection.execute(
            "INSERT INTO tap53_offsets VALUES (%s, %s, 0) ON CONFLICT DO NOTHING", place
        )
        query = "SELECT next_offset FROM tap53_offsets WHERE topic = %s AND partition = %s FOR UPDATE"
        (next_offset,) = self.connection.execute(query, place).fetchone()
        require_not_before(self.topic, self.partition, next_offset, self.task.seen.get(self.partition, 0))
        return next_offset

    def add(self, batch):
        columns = batch.to_pydict()
        for index, offset in enumerate(columns["offset"]):
            self.end = offset + 1
            if offset < self.next:
                continue
            if self.first is None:
                self.first = offset
            self.messages += 1
            line = columns["line"][index]
            if line is not None:
                self.lines.append(line)
            elif columns["unknown"][index] is not None:
                self.unknown.add(columns["unknown"][index])
            else:
                self.rejects.append(
                    (offset, columns["timestamp"][index], columns["reason"][index], columns["value"][index])
                )

    def finish(self):
        with self.connection:  # commits, or rolls back on an exception
            if self.unknown:
                self.connection.rollback()
                return self._outcome(self.next, loaded=0)
            if self.first is None:
                return self._outcome(self.next, loaded=0)
            loaded, refused = insert_each(self.connection, self.task.table, self.lines)
            self.rejects += [(number, None, reason, record) for number, reason, record in refused]
            insert_rejects(self.connection, self.topic, self.partition, self.rejects)
            self._move_offset(loaded)
            return self._outcome(self.end, loaded)

    def _move_offset(self, loaded):
        moved = self.connection.execute(
            "UPDATE tap53_offsets SET next_offset = %s"
            " WHERE topic = %s AND partition = %s AND next_offset = %s",
            (self.end, self.topic, self.partition, self.next),
        )
        if moved.rowcount != 1:
            raise OffsetsMovedBack(f"{self.topic}, partition {self.partition}: its offset moved while locked")
        rejected = len(self.rejects)
        self.connection.execute(
            "INSERT INTO tap53_loads (topic, partition, first_offset, next_offset, messages, loaded, repeated,"
            " rejected, loader) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (self.topic, self.partition, self.first, self.end, self.messages, loaded,
             self.messages - loaded - rejected, rejected, self.task.loader),
        )

    def _outcome(self, next_offset, loaded):
        row = {
            "partition": self.partition,
            "first_offset": self.first,
            "next_offset": next_offset,
            "messages": self.messages,
            "loaded": loaded,
            "rejected": len(self.rejects),
            "unknown": sorted(self.unknown),
        }
        schema = pa.schema(
            [("partition", pa.int32())]
            + [(name, pa.int64()) for name in ("first_offset", "next_offset", "messages", "loaded", "rejected")]
            + [("unknown", pa.list_(pa.int64()))]
        )
        return pa.RecordBatch.from_pylist([row], schema=schema)


def insert_each(connection, table, lines):
    """Inserts the rows that are not there yet: how many those are, and (number, reason, record as JSON) of
    rows that the warehouse refuses, which do not keep out the others."""
    try:
        with connection.transaction():
            return insert(connection, table, lines), []
    except (psycopg.DataError, psycopg.IntegrityError):
        inserted, refused = 0, []
        for line in lines:
            try:
                with connection.transaction():
                    inserted += insert(connection, table, [line])
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                number, record = line.split(SEPARATOR, 1)
                reason = f"the warehouse refuses it: {str(error).splitlines()[0]}"
                refused.append((int(number), reason, record.encode()))
        return inserted, refused


def insert_rejects(connection, topic, partition, rejects):
    """`rejects`: (offset, time, reason, message)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO tap53_rejects VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(topic, partition, *reject) for reject in rejects],
        )


def insert(connection, table, lines):
    """Inserts the rows that are not there yet; how many those are."""
    if not lines:
        return 0
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS stage (number bigint, record jsonb) ON COMMIT DROP")
    connection.execute("TRUNCATE stage")
    with connection.cursor() as cursor:
        # A line cannot contain a character that ends or quotes a field.
        options = f"FORMAT csv, DELIMITER '{SEPARATOR}', QUOTE '\x01', ESCAPE '\x01'"
        with cursor.copy(f"COPY stage FROM STDIN ({options})") as copy:
            copy.write("\n".join(lines) + "\n")
    query = sql.SQL(
        "INSERT INTO {0} SELECT row.* FROM stage, jsonb_populate_record(NULL::{0}, record) AS row"
        " ON CONFLICT DO NOTHING"
    )
    return connection.execute(query.format(identifier(table))).rowcount


class RowWriter:
    """For mapInArrow: writes rows of another store, without offsets; rows that are there already stay.

    A task is a transaction; a job that is killed is started again, and changes nothing twice."""

    COUNTS = "rows long, inserted long, refused long"

    def __init__(self, conninfo, table, source):
        self.conninfo, self.table, self.source = conninfo, table, source

    def __call__(self, batches):
        rows = inserted = refused = 0
        with connect(self.conninfo) as connection:
            for batch in batches:
                lines = batch.column("line").to_pylist()
                new, bad = insert_each(connection, self.table, lines)
                rejects = [(number, None, reason, record) for number, reason, record in bad]
                # There is no partition; the row's number takes the place of the offset.
                insert_rejects(connection, self.source, -1, rejects)
                rows, inserted, refused = rows + len(lines), inserted + new, refused + len(bad)
        counts = {"rows": [rows], "inserted": [inserted], "refused": [refused]}
        yield pa.RecordBatch.from_pydict(counts)
