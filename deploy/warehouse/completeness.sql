-- Views of which records arrived, which are missing, and why, in SQL that PostgreSQL and Spark both accept.
-- The comments of deploy/sql/completeness.sql explain them.
--
-- Run summaries-postgres.sql or summaries-spark.sql first: the two systems convert lists to rows differently.
-- DuckDB's file lists each missing record; this one lists ranges: a lost hour of a node is one row.

CREATE OR REPLACE VIEW arrivals AS
SELECT run_id, worker, record_number, count(*) AS copies
FROM dns_transactions
WHERE record_number > 0
GROUP BY run_id, worker, record_number;

CREATE OR REPLACE VIEW ranges AS
SELECT node, run_id, window_number, worker,
       coalesce(lag(last_record_number)
                OVER (PARTITION BY run_id, worker ORDER BY window_number), 0) + 1 AS first_number,
       last_record_number AS last_number
FROM summary_workers;

CREATE OR REPLACE VIEW last_words AS
WITH each_run AS (
    SELECT node, run_id,
           min(run_started_at) AS started_at,
           max(window_ended_at) AS last_summary_at,
           max(window_ended_at - window_began_at) AS longest_window,
           max(window_number) AS last_window,
           max(window_number) + 1 - count(*) AS summaries_missing,
           bool_or(kind = 'FINAL') AS has_final
    FROM summaries
    GROUP BY node, run_id
),
latest AS (
    SELECT run_id, coalesce(settled_window, -1) AS settled_window,
           records_lost_total - records_carried_lost_total AS lost,
           records_carried_lost_total AS carried_lost,
           records_in_flight AS in_flight, records_spooled AS spooled, records_carried AS carried,
           row_number() OVER (PARTITION BY run_id ORDER BY window_number DESC) AS place
    FROM summaries
),
known AS (
    SELECT each_run.*, settled_window, lost, carried_lost, in_flight, spooled, carried
    FROM each_run JOIN latest ON latest.run_id = each_run.run_id AND latest.place = 1
),
later_runs AS (
    SELECT this.run_id,
           bool_or(later.started_at >= this.last_summary_at
                   OR later.last_summary_at > this.last_summary_at + 5 * this.longest_window)
               AS was_followed,
           bool_or(later.started_at > this.started_at
                   AND later.last_summary_at > this.last_summary_at
                   AND later.settled_window >= 0) AS left_is_settled
    FROM known AS this JOIN known AS later
      ON later.node = this.node AND later.run_id <> this.run_id
    GROUP BY this.run_id
)
SELECT known.*,
       CASE WHEN has_final THEN 'ended'
            WHEN coalesce(was_followed, false) THEN 'killed'
            ELSE 'running' END AS state,
       coalesce(left_is_settled, false) AS left_is_settled
FROM known LEFT JOIN later_runs ON later_runs.run_id = known.run_id;

CREATE OR REPLACE VIEW windows AS
WITH expected AS (
    SELECT summaries.node, summaries.run_id, summaries.window_number,
           CAST(coalesce(sum(last_number - first_number + 1), 0) AS bigint) AS expected
    FROM summaries LEFT JOIN ranges
      ON ranges.run_id = summaries.run_id AND ranges.window_number = summaries.window_number
    GROUP BY summaries.node, summaries.run_id, summaries.window_number
),
arrived AS (
    SELECT ranges.run_id, window_number,
           count(*) AS arrived, CAST(sum(copies - 1) AS bigint) AS duplicates
    FROM ranges JOIN arrivals
      ON arrivals.run_id = ranges.run_id AND arrivals.worker = ranges.worker
     AND record_number BETWEEN first_number AND last_number
    GROUP BY ranges.run_id, window_number
),
ends AS (
    SELECT run_id, worker, max(last_number) AS last_number FROM ranges GROUP BY run_id, worker
),
after_last AS (
    SELECT arrivals.run_id, count(*) AS arrived, CAST(sum(copies - 1) AS bigint) AS duplicates
    FROM arrivals LEFT JOIN ends
      ON ends.run_id = arrivals.run_id AND ends.worker = arrivals.worker
    WHERE record_number > coalesce(last_number, 0)
    GROUP BY arrivals.run_id
)
SELECT expected.node, expected.run_id, expected.window_number, expected.expected,
       coalesce(arrived.arrived, 0) AS arrived,
       expected.expected - coalesce(arrived.arrived, 0) AS missing,
       coalesce(arrived.duplicates, 0) AS duplicates,
       CASE WHEN expected.expected = coalesce(arrived.arrived, 0) THEN 'yes'
            WHEN expected.window_number <= settled_window THEN 'no'
            WHEN state <> 'running' AND left_is_settled THEN 'no'
            ELSE 'not yet' END AS complete
FROM expected
JOIN last_words ON last_words.run_id = expected.run_id
LEFT JOIN arrived
  ON arrived.run_id = expected.run_id AND arrived.window_number = expected.window_number
UNION ALL
SELECT node, last_words.run_id, last_window + 1, CAST(NULL AS bigint),
       coalesce(after_last.arrived, 0), CAST(NULL AS bigint), coalesce(after_last.duplicates, 0),
       CASE state WHEN 'killed' THEN 'unknown' ELSE 'open' END
FROM last_words LEFT JOIN after_last ON after_last.run_id = last_words.run_id
WHERE state <> 'ended' OR after_last.arrived > 0;

-- Missing records as ranges: from first_number to last_number of a run's worker.
CREATE OR REPLACE VIEW missing_ranges AS
WITH marks AS (
    -- The numbers that arrived, and the borders of the window as if they had arrived.
    SELECT ranges.node, ranges.run_id, ranges.window_number, ranges.worker, record_number AS mark
    FROM ranges JOIN arrivals
      ON arrivals.run_id = ranges.run_id AND arrivals.worker = ranges.worker
     AND record_number BETWEEN first_number AND last_number
    UNION ALL
    SELECT node, run_id, window_number, worker, first_number - 1 FROM ranges
    UNION ALL
    SELECT node, run_id, window_number, worker, last_number + 1 FROM ranges
),
gaps AS (
    SELECT node, run_id, window_number, worker, mark + 1 AS first_number,
           lead(mark) OVER (PARTITION BY run_id, window_number, worker ORDER BY mark) - 1 AS last_number
    FROM marks
)
SELECT gaps.node, gaps.run_id, gaps.window_number, worker, first_number, last_number, complete
FROM gaps JOIN windows
  ON windows.run_id = gaps.run_id AND windows.window_number = gaps.window_number
WHERE last_number >= first_number;

CREATE OR REPLACE VIEW runs AS
SELECT windows.node, windows.run_id, state,
       CAST(sum(expected) AS bigint) AS expected,
       CAST(sum(arrived) AS bigint) AS arrived,
       CAST(sum(missing) AS bigint) AS missing,
       CAST(sum(duplicates) AS bigint) AS duplicates,
       max(lost) AS reported_lost,
       max(CASE state WHEN 'killed' THEN spooled ELSE in_flight + spooled END) AS waiting,
       max(carried) AS carried,
       max(carried_lost) AS carried_lost,
       CASE WHEN bool_or(complete = 'no') THEN 'no'
            WHEN bool_or(complete = 'unknown') THEN 'unknown'
            WHEN bool_or(complete IN ('not yet', 'open')) THEN 'not yet'
            ELSE 'yes' END AS complete,
       max(summaries_missing) AS summaries_missing,
       max(started_at) AS started_at,
       max(last_summary_at) AS last_summary_at
FROM windows JOIN last_words ON last_words.run_id = windows.run_id
GROUP BY windows.node, windows.run_id, state
UNION ALL
SELECT NULL, run_id, 'no summary', NULL, count(*), NULL, CAST(sum(copies - 1) AS bigint), NULL, NULL,
       NULL, NULL, 'unknown', NULL, NULL, NULL
FROM arrivals
WHERE NOT EXISTS (SELECT 1 FROM summaries WHERE summaries.run_id = arrivals.run_id)
GROUP BY run_id;

CREATE OR REPLACE VIEW nodes AS
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY node ORDER BY started_at DESC) AS place
    FROM runs
    WHERE node IS NOT NULL
)
SELECT node,
       CAST(sum(expected) AS bigint) AS expected,
       CAST(sum(expected) - sum(missing) AS bigint) AS arrived,
       CAST(sum(missing) AS bigint) AS missing,
       CAST(sum(reported_lost + carried_lost) AS bigint) AS reported_lost,
       max(CASE place WHEN 1 THEN waiting END) AS waiting,
       CAST(sum(missing) - sum(reported_lost + carried_lost)
            - max(CASE place WHEN 1 THEN waiting END) AS bigint) AS unexplained,
       count(CASE state WHEN 'killed' THEN 1 END) AS killed_runs
FROM numbered
GROUP BY node;

CREATE OR REPLACE VIEW latest_counts AS
SELECT summary_counts.*
FROM summary_counts
JOIN (SELECT run_id, max(window_number) AS window_number FROM summaries GROUP BY run_id) AS latest
  ON latest.run_id = summary_counts.run_id
 AND latest.window_number = summary_counts.window_number;

CREATE OR REPLACE VIEW losses AS
SELECT node, run_id, stage, reason, unit, total
FROM latest_counts
WHERE fate = 'lost' AND total > 0;

CREATE OR REPLACE VIEW losses_by_window AS
SELECT node, run_id, window_number, stage, reason, unit, change AS lost
FROM summary_counts
WHERE fate = 'lost' AND change > 0;

CREATE OR REPLACE VIEW stages AS
SELECT node, run_id, stage, unit,
       CAST(sum(CASE fate WHEN 'taken' THEN total END) AS bigint) AS taken,
       CAST(sum(CASE fate WHEN 'passed' THEN total ELSE 0 END) AS bigint) AS passed,
       CAST(sum(CASE fate WHEN 'waiting' THEN total ELSE 0 END) AS bigint) AS waiting,
       CAST(sum(CASE fate WHEN 'ignored' THEN total ELSE 0 END) AS bigint) AS ignored,
       CAST(sum(CASE fate WHEN 'filtered' THEN total ELSE 0 END) AS bigint) AS filtered,
       CAST(sum(CASE fate WHEN 'lost' THEN total ELSE 0 END) AS bigint) AS lost,
       sum(CASE fate WHEN 'taken' THEN total ELSE -total END) = 0 AS adds_up
FROM latest_counts
GROUP BY node, run_id, stage, unit;
