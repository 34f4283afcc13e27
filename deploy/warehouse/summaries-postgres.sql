-- The part of completeness.sql that is specific to PostgreSQL: deduplicated summaries, and their lists as rows.

CREATE OR REPLACE VIEW summaries AS
SELECT *
FROM (SELECT *, row_number() OVER (PARTITION BY run_id, sink, window_number
                                   ORDER BY window_ended_at) AS copy
      FROM ledger_summaries) AS numbered
WHERE copy = 1;

CREATE OR REPLACE VIEW summary_workers AS
SELECT node, run_id, window_number, entry.worker, entry.last_record_number
FROM summaries,
     jsonb_to_recordset(workers) AS entry(worker integer, last_record_number bigint);

CREATE OR REPLACE VIEW summary_counts AS
SELECT node, run_id, window_number,
       entry.stage, entry.fate, entry.reason, entry.unit, entry.total, entry.change
FROM summaries,
     jsonb_to_recordset(counts) AS entry(stage text, fate text, reason text, unit text,
                                         total bigint, change bigint);
