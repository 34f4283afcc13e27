-- Converts the tables of the connectors in deploy/downstream to the form that verify_export.sql needs. For
-- DuckDB, with the catalog attached as `lake`. Run this file first:
--
--   .read deploy/sql/verify_connect.sql
--   .read deploy/sql/verify_export.sql
--   COPY (FROM verify_summaries) TO 'summaries.json' (FORMAT json);
--   COPY (FROM verify_records) TO 'records.json' (FORMAT json);
--
-- The flat profile needs no views: COPY (FROM lake.dns.transactions_flat) TO 'records.json' (FORMAT json).
--
-- event_time, kafka_partition and kafka_offset come from Connect, so they cannot be verified.

-- The exact time in microseconds. The timestamp in milliseconds must agree with it: if one of the two was
-- altered, `tap53 verify` reports the record with this text.
CREATE OR REPLACE MACRO exact_time(millis, micros) AS
CASE WHEN epoch_us(millis) IS NOT DISTINCT FROM micros // 1000 * 1000 THEN to_json(micros)
     ELSE to_json('differs from its exact time')
END;

CREATE OR REPLACE VIEW dns_transactions AS
SELECT * REPLACE (
    exact_time(query_time, query_time_us) AS query_time,
    exact_time(response_time, response_time_us) AS response_time
), latest_query_time_us AS latest_query_time
FROM lake.dns.transactions;

CREATE OR REPLACE VIEW ledger_summaries AS
SELECT * REPLACE (
    exact_time(run_started_at, run_started_at_us) AS run_started_at,
    exact_time(window_began_at, window_began_at_us) AS window_began_at,
    exact_time(window_ended_at, window_ended_at_us) AS window_ended_at
)
FROM lake.dns.ledger;
