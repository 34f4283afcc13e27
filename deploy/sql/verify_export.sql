-- Exports tables or Parquet files for `tap53 verify`: every field with its value, bytes in hexadecimal.
--
-- Written for DuckDB 1.3 and newer. It needs two tables or views, with the fields of the two schemas (tap53
-- schema, tap53 schema --summary), as Kafka Connect or a loader wrote them:
--
--   CREATE VIEW dns_transactions AS SELECT * FROM read_parquet('s3://lake/dns_transactions/**/*.parquet');
--   CREATE VIEW ledger_summaries AS SELECT * FROM read_parquet('s3://lake/ledger_summaries/**/*.parquet');
--
-- Times are integer microseconds or timestamps with that precision. Records with times truncated to
-- milliseconds cannot be verified. If additional columns have the exact times, use those:
--   SELECT * REPLACE (query_time_us AS query_time, …).
-- A missing column counts as null, and a record that had a value there as altered. Remove the lines of
-- columns that your table lacks: those of records of earlier versions.
--
--   COPY (FROM verify_summaries) TO 'summaries.json' (FORMAT json);
--   COPY (FROM verify_records) TO '/dev/stdout' (FORMAT json);     | tap53 verify summaries.json -

CREATE OR REPLACE VIEW verify_records AS
SELECT * REPLACE (
    hex(record_id) AS record_id,
    hex(related_record_id) AS related_record_id,
    hex(served_record_id) AS served_record_id,
    hex(search_group) AS search_group,
    hex(exchange_id) AS exchange_id,
    hex(query_nsid) AS query_nsid,
    hex(query_cookie) AS query_cookie,
    list_transform(query_edns_options, lambda o: {'code': o.code, 'data': hex(o.data)})
        AS query_edns_options,
    hex(response_nsid) AS response_nsid,
    hex(response_cookie) AS response_cookie,
    list_transform(response_edns_options, lambda o: {'code': o.code, 'data': hex(o.data)})
        AS response_edns_options,
    hex(query_wire) AS query_wire,
    hex(response_wire) AS response_wire
)
FROM dns_transactions;

CREATE OR REPLACE VIEW verify_summaries AS
SELECT * REPLACE (
    list_transform(chains, lambda c: {
        'worker': c.worker,
        'before': hex(c.before),
        'links': list_transform(c.links, lambda l: {
            'last_record_number': l.last_record_number,
            'records': l.records,
            'digest': hex(l.digest)
        })
    }) AS chains,
    hex(previous_digest) AS previous_digest,
    hex(signature) AS signature
)
FROM ledger_summaries;
