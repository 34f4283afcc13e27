-- Views over all nodes, in SQL that PostgreSQL, Spark and DuckDB all accept.

-- Each transaction once. During a rollout with maxSurge, two runs of one node see the same packets, and each
-- creates a record (docs/upgrades.md, "Overlapping agents"). Of two runs' records with the same flow, DNS id
-- and name, and with queries or responses within 10 ms, the view keeps the one with a response, else the
-- one with the smaller record_id.
CREATE OR REPLACE VIEW transactions AS
SELECT *
FROM dns_transactions AS this
WHERE NOT EXISTS (
    SELECT 1
    FROM dns_transactions AS other
    WHERE other.run_id <> this.run_id
      AND other.node = this.node
      AND other.transport = this.transport
      AND other.client_address = this.client_address
      AND other.client_port = this.client_port
      AND other.server_address = this.server_address
      AND other.server_port = this.server_port
      AND other.dns_id = this.dns_id
      AND other.qname IS NOT DISTINCT FROM this.qname
      AND (other.query_time BETWEEN this.query_time - INTERVAL '0.010 seconds'
                                AND this.query_time + INTERVAL '0.010 seconds'
           OR other.response_time BETWEEN this.response_time - INTERVAL '0.010 seconds'
                                      AND this.response_time + INTERVAL '0.010 seconds')
      AND (CASE other.outcome WHEN 'MATCHED' THEN 0 ELSE 1 END
           < CASE this.outcome WHEN 'MATCHED' THEN 0 ELSE 1 END
           OR (CASE other.outcome WHEN 'MATCHED' THEN 0 ELSE 1 END
               = CASE this.outcome WHEN 'MATCHED' THEN 0 ELSE 1 END
               AND other.record_id < this.record_id)));

-- By minute, client's workload, name, type and outcome. Sums and counts only, so that a roll-up of these
-- rows, by hour or over names, is exact; a quantile of latencies is read from the counts of its buckets.
CREATE OR REPLACE VIEW transactions_by_minute AS
SELECT date_trunc('minute', coalesce(query_time, response_time)) AS minute,
       client_pod_namespace, client_workload_kind, client_workload_name,
       coalesce(qname_registrable_domain, qname) AS domain, qtype, outcome, rcode,
       count(*) AS transactions,
       CAST(sum(query_count) AS bigint) AS queries,
       count(latency_ns) AS answered,
       CAST(sum(latency_ns) AS bigint) AS latency_ns,
       max(latency_ns) AS latency_ns_max,
       count(CASE WHEN latency_ns < 1000000 THEN 1 END) AS below_1_ms,
       count(CASE WHEN latency_ns < 10000000 THEN 1 END) AS below_10_ms,
       count(CASE WHEN latency_ns < 100000000 THEN 1 END) AS below_100_ms,
       count(CASE WHEN latency_ns < 1000000000 THEN 1 END) AS below_1_s,
       CAST(sum(query_size) AS bigint) AS query_bytes,
       CAST(sum(response_size) AS bigint) AS response_bytes
FROM transactions
GROUP BY date_trunc('minute', coalesce(query_time, response_time)),
         client_pod_namespace, client_workload_kind, client_workload_name,
         coalesce(qname_registrable_domain, qname), qtype, outcome, rcode;

-- Nodes on which a name fails, for names that fail on some nodes and not on others. No single node can see
-- this.
CREATE OR REPLACE VIEW failures_by_node AS
SELECT coalesce(qname_registrable_domain, qname) AS domain, node,
       count(*) AS transactions,
       count(CASE WHEN outcome = 'UNANSWERED' THEN 1 END) AS unanswered,
       count(CASE WHEN rcode = 'SERVFAIL' THEN 1 END) AS servfail,
       count(CASE WHEN rcode = 'NXDOMAIN' THEN 1 END) AS nxdomain
FROM transactions
GROUP BY coalesce(qname_registrable_domain, qname), node;
