-- Views of which records arrived, which are missing, and why.
--
-- Written for DuckDB. Other systems have different forms of QUALIFY, unnest, arg_max and bool_or.
-- The views need two tables, with the fields of the two schemas (tap53 schema, tap53 schema --summary):
--
--   dns_transactions   the records: run_id, worker and record_number are needed
--   ledger_summaries   the summaries of the sink that wrote these records
--
-- Load the summaries before the records: a summary describes records that are already in their topic,
-- and records that are not loaded yet look missing. If several sinks share a topic of summaries, select
-- one sink in the first view.

-- Deduplicated summaries: delivery is at least once.
CREATE OR REPLACE VIEW summaries AS
SELECT *
FROM ledger_summaries
-- WHERE topic = 'dns-transactions'
QUALIFY row_number() OVER (PARTITION BY run_id, sink, window_number ORDER BY window_ended_at) = 1;

-- Deduplicated records, with the number of times that each arrived.
CREATE OR REPLACE VIEW arrivals AS
SELECT run_id, worker, record_number, count(*) AS copies
FROM dns_transactions
WHERE record_number > 0
GROUP BY run_id, worker, record_number;

-- The range of record numbers of each window. A lost summary merges two windows into one.
CREATE OR REPLACE VIEW ranges AS
SELECT node, run_id, window_number, worker,
       coalesce(lag(last_number) OVER (PARTITION BY run_id, worker ORDER BY window_number), 0) + 1
           AS first_number,
       last_number
FROM (SELECT node, run_id, window_number, entry.worker AS worker,
             entry.last_record_number AS last_number
      FROM (SELECT node, run_id, window_number, unnest(workers) AS entry FROM summaries));

-- The state of each run by its last summary:
--   ended    it has its final summary
--   killed   it has none, and another run of the node began after its last summary, or has continued
--            for five of its windows since then: agents may overlap
--   running  it is running, or it was killed and the node has no later run: see last_summary_at
-- The node's clock orders its runs. A replay is a run as well: give it another node name.
CREATE OR REPLACE VIEW last_words AS
WITH each_run AS (
    SELECT node, run_id,
           min(run_started_at) AS started_at,
           max(window_ended_at) AS last_summary_at,
           max(window_ended_at - window_began_at) AS longest_window,
           max(window_number) AS last_window,
           max(window_number) + 1 - count(*) AS summaries_missing,
           bool_or(kind = 'FINAL') AS has_final,
           arg_max(coalesce(settled_window, -1), window_number) AS settled_window,
           arg_max(records_lost_total - records_carried_lost_total, window_number) AS lost,
           arg_max(records_carried_lost_total, window_number) AS carried_lost,
           arg_max(records_in_flight, window_number) AS in_flight,
           arg_max(records_spooled, window_number) AS spooled,
           arg_max(records_carried, window_number) AS carried
    FROM summaries
    GROUP BY node, run_id
)
SELECT this.*,
       CASE WHEN has_final THEN 'ended'
            WHEN EXISTS (SELECT 1 FROM each_run AS later
                         WHERE later.node = this.node
                           AND later.run_id <> this.run_id
                           AND (later.started_at >= this.last_summary_at
                                OR later.last_summary_at
                                   > this.last_summary_at + 5 * this.longest_window)) THEN 'killed'
            ELSE 'running' END AS state,
       -- A later run has delivered or lost all records that it found in the spool.
       EXISTS (SELECT 1 FROM each_run AS later
               WHERE later.node = this.node
                 AND later.started_at > this.started_at
                 AND later.last_summary_at > this.last_summary_at
                 AND later.settled_window >= 0) AS left_is_settled
FROM each_run AS this;

-- For each node, run and window, whether all records arrived:
--   yes      every record that was created has arrived
--   no       some are missing, and no record of the window is in flight any more
--   not yet  some are missing, and may be in flight
--   open     the window has not ended: the expected number is not known yet
--   unknown  the agent was killed in this window: the expected number is unknown
CREATE OR REPLACE VIEW windows AS
WITH expected AS (
    SELECT summaries.node, summaries.run_id, summaries.window_number,
           coalesce(sum(last_number - first_number + 1), 0)::BIGINT AS expected
    FROM summaries LEFT JOIN ranges
      ON ranges.run_id = summaries.run_id AND ranges.window_number = summaries.window_number
    GROUP BY summaries.node, summaries.run_id, summaries.window_number
),
arrived AS (
    SELECT ranges.run_id, window_number,
           count(*) AS arrived, sum(copies - 1)::BIGINT AS duplicates
    FROM ranges JOIN arrivals
      ON arrivals.run_id = ranges.run_id AND arrivals.worker = ranges.worker
     AND record_number BETWEEN first_number AND last_number
    GROUP BY ranges.run_id, window_number
),
behind AS (
    -- Records after the last summary.
    SELECT arrivals.run_id, count(*) AS arrived, sum(copies - 1)::BIGINT AS duplicates
    FROM arrivals LEFT JOIN (
        SELECT run_id, worker, max(last_number) AS last_number FROM ranges GROUP BY run_id, worker
    ) AS ends ON ends.run_id = arrivals.run_id AND ends.worker = arrivals.worker
    WHERE record_number > coalesce(last_number, 0)
    GROUP BY arrivals.run_id
)
SELECT expected.node, expected.run_id, expected.window_number, expected,
       coalesce(arrived, 0) AS arrived,
       expected - coalesce(arrived, 0) AS missing,
       coalesce(duplicates, 0) AS duplicates,
       CASE WHEN expected = coalesce(arrived, 0) THEN 'yes'
            WHEN expected.window_number <= settled_window THEN 'no'
            WHEN state <> 'running' AND left_is_settled THEN 'no'
            ELSE 'not yet' END AS complete
FROM expected
JOIN last_words ON last_words.run_id = expected.run_id
LEFT JOIN arrived
  ON arrived.run_id = expected.run_id AND arrived.window_number = expected.window_number
UNION ALL
SELECT node, last_words.run_id, last_window + 1, NULL,
       coalesce(arrived, 0), NULL, coalesce(duplicates, 0),
       CASE state WHEN 'killed' THEN 'unknown' ELSE 'open' END
FROM last_words LEFT JOIN behind ON behind.run_id = last_words.run_id
WHERE state <> 'ended' OR arrived > 0;

-- Every missing record. Run, worker and number identify it.
CREATE OR REPLACE VIEW missing_records AS
SELECT node, run_id, window_number, worker, record_number, complete
FROM (
    SELECT ranges.*, complete, unnest(range(first_number, last_number + 1)) AS record_number
    FROM ranges JOIN windows USING (node, run_id, window_number)
    WHERE missing > 0
) AS wanted
ANTI JOIN arrivals USING (run_id, worker, record_number);

-- Each run. complete: as for windows, over all of them. reported_lost: its own records that it lost.
-- carried_lost: records that earlier runs had left in the spool, and that it lost. Once no record of a run
-- waits, missing records beyond reported_lost are in carried_lost of later runs, or were in the memory of
-- a killed agent, or were lost after the topic. A run without any summary has no node here.
CREATE OR REPLACE VIEW runs AS
SELECT windows.node, windows.run_id, state,
       sum(expected)::BIGINT AS expected,
       sum(arrived)::BIGINT AS arrived,
       sum(missing)::BIGINT AS missing,
       sum(duplicates)::BIGINT AS duplicates,
       any_value(lost) AS reported_lost,
       -- Records in the memory of a killed agent are lost.
       any_value(CASE state WHEN 'killed' THEN spooled ELSE in_flight + spooled END) AS waiting,
       any_value(carried) AS carried,
       any_value(carried_lost) AS carried_lost,
       CASE WHEN bool_or(complete = 'no') THEN 'no'
            WHEN bool_or(complete = 'unknown') THEN 'unknown'
            WHEN bool_or(complete IN ('not yet', 'open')) THEN 'not yet'
            ELSE 'yes' END AS complete,
       any_value(summaries_missing) AS summaries_missing,
       any_value(started_at) AS started_at,
       any_value(last_summary_at) AS last_summary_at
FROM windows JOIN last_words ON last_words.run_id = windows.run_id
GROUP BY windows.node, windows.run_id, state
UNION ALL
SELECT NULL, run_id, 'no summary', NULL, count(*), NULL, sum(copies - 1)::BIGINT, NULL, NULL, NULL,
       NULL, 'unknown', NULL, NULL, NULL
FROM arrivals ANTI JOIN summaries USING (run_id)
GROUP BY run_id;

-- Each node over all of its runs. The next run carries what a run leaves in the spool, so the last run has
-- all waiting records. If no run was killed, unexplained counts missing records without a reason that an
-- agent knows: they were lost after the topic. A negative number counts records that arrived although they
-- were counted as lost.
CREATE OR REPLACE VIEW nodes AS
SELECT node,
       sum(expected)::BIGINT AS expected,
       (sum(expected) - sum(missing))::BIGINT AS arrived,
       sum(missing)::BIGINT AS missing,
       sum(reported_lost + carried_lost)::BIGINT AS reported_lost,
       arg_max(waiting, started_at) AS waiting,
       (sum(missing) - sum(reported_lost + carried_lost) - arg_max(waiting, started_at))::BIGINT
           AS unexplained,
       count(*) FILTER (state = 'killed') AS killed_runs
FROM runs
WHERE node IS NOT NULL
GROUP BY node;

-- Losses of each run by stage and reason, from the hooks on.
CREATE OR REPLACE VIEW losses AS
SELECT node, run_id, entry.stage AS stage, entry.reason AS reason, entry.unit AS unit,
       entry.total AS total
FROM (SELECT node, run_id, unnest(counts) AS entry
      FROM summaries
      QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY window_number DESC) = 1)
WHERE entry.fate = 'lost' AND entry.total > 0;

-- The same by the window in which the loss was counted.
CREATE OR REPLACE VIEW losses_by_window AS
SELECT node, run_id, window_number, entry.stage AS stage, entry.reason AS reason,
       entry.unit AS unit, entry.change AS lost
FROM (SELECT node, run_id, window_number, unnest(counts) AS entry FROM summaries)
WHERE entry.fate = 'lost' AND entry.change > 0;

-- The ledger of each run by stage, from the hooks to the topic. For each stage, the input equals what it
-- passed on plus what waits, was ignored or was lost, to the unit.
CREATE OR REPLACE VIEW stages AS
SELECT node, run_id, entry.stage AS stage, entry.unit AS unit,
       (sum(entry.total) FILTER (entry.fate = 'taken'))::BIGINT AS taken,
       coalesce(sum(entry.total) FILTER (entry.fate = 'passed'), 0)::BIGINT AS passed,
       coalesce(sum(entry.total) FILTER (entry.fate = 'waiting'), 0)::BIGINT AS waiting,
       coalesce(sum(entry.total) FILTER (entry.fate = 'ignored'), 0)::BIGINT AS ignored,
       coalesce(sum(entry.total) FILTER (entry.fate = 'filtered'), 0)::BIGINT AS filtered,
       coalesce(sum(entry.total) FILTER (entry.fate = 'lost'), 0)::BIGINT AS lost,
       sum(CASE entry.fate WHEN 'taken' THEN entry.total ELSE -entry.total END) = 0 AS adds_up
FROM (SELECT node, run_id, unnest(counts) AS entry
      FROM summaries
      QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY window_number DESC) = 1)
GROUP BY node, run_id, entry.stage, entry.unit;
