-- The part of completeness.sql that is specific to Spark: deduplicated summaries, and their lists as rows.

CREATE OR REPLACE VIEW summaries AS
SELECT *
FROM (SELECT *, row_number() OVER (PARTITION BY run_id, sink, window_number
                                   ORDER BY window_ended_at) AS copy
      FROM ledger_summaries) AS numbered
WHERE copy = 1;

CREATE OR REPLACE VIEW summary_workers AS
SELECT node, run_id, window_number, entry.worker, entry.last_record_number
FROM summaries LATERAL VIEW explode(workers) lists AS entry;

CREATE OR REPLACE VIEW summary_counts AS
SELECT node, run_id, window_number,
       entry.stage, entry.fate, entry.reason, entry.unit, entry.total, entry.change
FROM summaries LATERAL VIEW explode(counts) lists AS entry;
