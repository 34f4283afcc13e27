-- Queries that search lists waste, by workload, and the dnsConfig that avoids them.
--
-- Written for DuckDB and Spark. Run questions.sql and chains.sql first: queries that a resolver sends for its
-- clients are left out.
--
-- With ndots:5, the C library looks up www.example.com as www.example.com.NAMESPACE.svc.cluster.local, then
-- with each further domain of the search list, and then as it is. These views find such lookups by names,
-- clients and order alone: a question that failed, followed by one of the same client and type for the same
-- name with another domain of the search list or with none.

-- Questions of clients with what the views below need. Search lists are those of namespaces; without
-- attribution, each address is a scope of its own.
CREATE OR REPLACE VIEW search_questions AS
SELECT question_id, client_address, qtype, qname, query_time, response_time,
       client_pod_namespace, client_workload_kind, client_workload_name,
       coalesce(client_pod_namespace, client_address) AS scope,
       split_part(qname, '.', 1) AS first_label,
       rcode = 'NXDOMAIN' OR (rcode = 'NOERROR' AND answer_count = 0) AS failed
FROM questions
WHERE outcome = 'MATCHED' AND rcode IN ('NOERROR', 'NXDOMAIN') AND qname <> '.'
  AND query_time IS NOT NULL AND response_time IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM upstream_links AS links WHERE links.upstream_id = questions.question_id);

-- Domains of the search list of each scope: those of every pod of a cluster, and each that followed at least
-- two names whose lookups failed and were repeated without it.
CREATE OR REPLACE VIEW search_domains AS
SELECT DISTINCT scope, domain
FROM (SELECT scope, domain
      FROM search_questions CROSS JOIN (VALUES ('svc.cluster.local'), ('cluster.local')) AS fixed(domain)
      UNION ALL
      SELECT scope, client_pod_namespace || '.svc.cluster.local'
      FROM search_questions WHERE client_pod_namespace IS NOT NULL
      UNION ALL
      SELECT longer.scope, substr(longer.qname, length(shorter.qname) + 2)
      FROM search_questions AS longer JOIN search_questions AS shorter
        ON shorter.client_address = longer.client_address AND shorter.qtype = longer.qtype
       AND shorter.first_label = longer.first_label
       AND shorter.query_time BETWEEN longer.response_time AND longer.response_time + INTERVAL '5 seconds'
       AND left(longer.qname, length(shorter.qname) + 1) = shorter.qname || '.'
      WHERE longer.failed
      GROUP BY longer.scope, substr(longer.qname, length(shorter.qname) + 2)
      HAVING count(DISTINCT shorter.qname) > 1) AS domains;

-- What the application may have looked up: each question with each domain that its name ends in, and without.
CREATE OR REPLACE VIEW search_candidates AS
SELECT q.*, domain, left(qname, length(qname) - length(domain) - 1) AS name
FROM search_questions AS q JOIN search_domains AS d
  ON d.scope = q.scope AND right(qname, length(domain) + 1) = '.' || domain
UNION ALL
SELECT q.*, '' AS domain, qname AS name
FROM search_questions AS q;

-- Series of questions for one name: each follows a failed one within six seconds, since a lost query is sent
-- again after five.
CREATE OR REPLACE VIEW search_series AS
SELECT *, sum(begins) OVER (PARTITION BY client_address, qtype, name ORDER BY query_time, question_id
                            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS series
FROM (SELECT *, CASE WHEN lag(failed) OVER earlier
                      AND query_time <= lag(response_time) OVER earlier + INTERVAL '6 seconds'
                     THEN 0 ELSE 1 END AS begins
      FROM search_candidates
      WINDOW earlier AS (PARTITION BY client_address, qtype, name ORDER BY query_time, question_id)) AS marked;

-- Steps of lookups. Each lookup of a series takes the domains in the same order, so it begins where the first
-- domain of the series comes again. Two lookups of one name at the same time may count as one.
CREATE OR REPLACE VIEW search_steps AS
SELECT *,
       count(*) OVER (PARTITION BY client_address, qtype, name, series, lookup) AS steps
FROM (SELECT *, sum(CASE WHEN domain = first_domain THEN 1 ELSE 0 END)
                    OVER (PARTITION BY client_address, qtype, name, series ORDER BY query_time, question_id
                          ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS lookup
      FROM (SELECT *, first_value(domain) OVER (PARTITION BY client_address, qtype, name, series
                                                ORDER BY query_time, question_id)
                             AS first_domain
            FROM search_series) AS begun) AS divided;

-- Lookups of several steps: a row for each.
--   wasted   its queries that failed although another one succeeded; all of them, where all failed
CREATE OR REPLACE VIEW search_lookups AS
SELECT client_pod_namespace, client_workload_kind, client_workload_name, client_address, qtype, name,
       length(name) - length(replace(name, '.', '')) AS dots,
       min(query_time) AS began_at, max(response_time) AS ended_at,
       count(*) AS queries,
       count(CASE WHEN failed THEN 1 END) AS wasted,
       max(CASE WHEN NOT failed THEN domain END) AS winner
FROM search_steps
WHERE steps > 1
GROUP BY client_pod_namespace, client_workload_kind, client_workload_name, client_address, qtype, name, series,
         lookup;

-- Each question whose name was found in a domain of the search list, with the dots of the name that was
-- looked up. Without a failed step before it, the longest domain counts.
CREATE OR REPLACE VIEW search_winners AS
SELECT client_pod_namespace, client_workload_kind, client_workload_name, client_address, question_id,
       coalesce(max(CASE WHEN in_lookup THEN dots END), min(dots)) AS dots
FROM (SELECT *, steps > 1 AS in_lookup, length(name) - length(replace(name, '.', '')) AS dots
      FROM search_steps WHERE domain <> '' AND NOT failed) AS found
GROUP BY client_pod_namespace, client_workload_kind, client_workload_name, client_address, question_id;

-- The questions of each workload, and the lowest ndots with which it finds what it finds in its search list.
CREATE OR REPLACE VIEW search_totals AS
SELECT client_pod_namespace, client_workload_kind, client_workload_name,
       CASE WHEN client_workload_name IS NULL THEN client_address END AS client,
       count(*) AS questions, coalesce(max(dots), 0) + 1 AS ndots
FROM (SELECT q.*, w.dots
      FROM search_questions AS q LEFT JOIN search_winners AS w ON w.question_id = q.question_id) AS marked
GROUP BY client_pod_namespace, client_workload_kind, client_workload_name,
         CASE WHEN client_workload_name IS NULL THEN client_address END;

-- The waste of each workload; of each client, where its workload is unknown.
--   lookups      lookups that took several queries
--   wasted       their queries that failed
--   ndots        the lowest value with which the names that it found in its search list are looked up there
--                first, as today
--   avoided      of the wasted queries, those that this value avoids. The others are of names with fewer dots
--                and of names that do not exist: a trailing dot in the application's configuration avoids them
--   dns_config   the field of the pod's spec, if it avoids any
CREATE OR REPLACE VIEW search_waste AS
SELECT client_pod_namespace, client_workload_kind, client_workload_name, client,
       max(questions) AS questions, count(name) AS lookups, CAST(coalesce(sum(wasted), 0) AS bigint) AS wasted,
       max(ndots) AS ndots,
       CAST(coalesce(sum(CASE WHEN avoidable THEN wasted END), 0) AS bigint) AS avoided,
       CASE WHEN count(CASE WHEN avoidable THEN 1 END) > 0
            THEN 'dnsConfig: {options: [{name: ndots, value: "' || max(ndots) || '"}]}' END AS dns_config
FROM (SELECT totals.*, name, wasted, winner = '' AND dots >= ndots AS avoidable
      FROM search_totals AS totals LEFT JOIN search_lookups AS lookups
        ON lookups.client_pod_namespace IS NOT DISTINCT FROM totals.client_pod_namespace
       AND lookups.client_workload_kind IS NOT DISTINCT FROM totals.client_workload_kind
       AND lookups.client_workload_name IS NOT DISTINCT FROM totals.client_workload_name
       AND (totals.client IS NULL OR lookups.client_address = totals.client)) AS joined
GROUP BY client_pod_namespace, client_workload_kind, client_workload_name, client;
