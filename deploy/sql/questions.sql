-- One row for each question, whichever nodes recorded it.
--
-- Written for DuckDB and Spark (deploy/warehouse/query.py). Needs the table dns_transactions, with the fields
-- of `tap53 schema`. chains.sql, cache_hits.sql and search_waste.sql need these views.
--
-- Each agent on a question's path creates a record: that of the client's node, that of the server's node.
-- Their exchange_id is equal. Ports and identifiers are reused, so equality alone is not enough: records
-- belong to one question if each follows the one before within two seconds. Keep the clocks of the nodes
-- closer together than that. Of questions that reuse everything within two seconds, the first ones of all
-- nodes belong together, then the second ones, and so on.
--
-- exchange_id is null in records of versions 1 to 4 and in some of replayed captures. Addresses, ports, identifier and
-- name take its place: then NAT on the way divides a question into rows for each pair of addresses.

-- Each record once, without those of responses whose question has a record of its own.
CREATE OR REPLACE VIEW question_records AS
SELECT *,
       coalesce(query_time, response_time) AS seen_at,
       coalesce(hex(exchange_id),
                concat_ws('|', transport, client_address, client_port, server_address, server_port,
                          dns_id, qname, qtype)) AS exchange,
       -- The client's node first.
       CASE observation WHEN 'CLIENT_NODE' THEN 0 WHEN 'SERVER_NODE' THEN 2 ELSE 1 END AS distance
FROM (SELECT *, row_number() OVER (PARTITION BY record_id ORDER BY record_number) AS copy
      FROM dns_transactions) AS numbered
WHERE copy = 1
  AND (relation IS NULL OR relation IN ('TCP_AFTER_TRUNCATION', 'RETRIED_OVER_TCP'));

-- The records of one question share exchange, session and turn.
CREATE OR REPLACE VIEW question_turns AS
SELECT *, row_number() OVER (PARTITION BY exchange, session, run_id ORDER BY seen_at, record_id) AS turn
FROM (SELECT *, sum(begins) OVER (PARTITION BY exchange ORDER BY seen_at, record_id
                                  ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS session
      FROM (SELECT *, CASE WHEN seen_at <= lag(seen_at) OVER (PARTITION BY exchange
                                                              ORDER BY seen_at, record_id)
                                           + INTERVAL '2 seconds'
                           THEN 0 ELSE 1 END AS begins
            FROM question_records) AS marked) AS divided;

-- Each record with its question. The client waits longest: without observation, the record with the longest
-- latency is the nearest to the client, and a question that the server answered and the client's node saw
-- unanswered is UNANSWERED.
CREATE OR REPLACE VIEW sightings AS
SELECT *,
       first_value(record_id) OVER nearest AS question_id,
       row_number() OVER nearest AS place,
       count(*) OVER whole AS records,
       first_value(node) OVER farthest AS server_node,
       first_value(outcome) OVER farthest AS server_outcome,
       first_value(latency_ns) OVER farthest AS server_latency_ns,
       max(backend_address) OVER whole AS backend,
       max(answered_from) OVER whole AS said_to_be_from
FROM question_turns
WINDOW whole AS (PARTITION BY exchange, session, turn),
       nearest AS (PARTITION BY exchange, session, turn
                   ORDER BY distance, CASE WHEN query_time IS NULL THEN 1 ELSE 0 END,
                            CASE WHEN latency_ns IS NULL THEN 0 ELSE 1 END, latency_ns DESC, record_id),
       farthest AS (PARTITION BY exchange, session, turn
                    ORDER BY distance DESC, CASE WHEN latency_ns IS NULL THEN 1 ELSE 0 END, latency_ns,
                             record_id DESC);

-- The question as its client's node saw it.
--   resolver           the address that answered: that of the backend, where the server is a service
--   records            the number of records that it has, one for each node that saw it
--   server_node        the node nearest to the server, and what its agent saw there
--   network_ns         time between the two nodes
--   lost_on_the_way    the server answered, and no answer reached the client's node
CREATE OR REPLACE VIEW questions AS
SELECT question_id, coalesce(query_time, response_time) AS asked_at, query_time, response_time,
       node, server_node, records,
       transport, client_address, client_port, server_address, server_port, dns_id,
       coalesce(backend, server_address) AS resolver,
       qname, qtype, qclass, outcome, rcode, answer_count, truncated, query_count, capture_gap,
       latency_ns, server_latency_ns, latency_ns - server_latency_ns AS network_ns,
       outcome = 'UNANSWERED' AND server_outcome = 'MATCHED' AS lost_on_the_way,
       said_to_be_from AS answered_from,
       client_attribution, client_pod_uid, client_pod_namespace, client_pod_name, client_workload_kind,
       client_workload_name, server_pod_uid, server_pod_namespace, server_pod_name, server_service_name
FROM sightings
WHERE place = 1;
