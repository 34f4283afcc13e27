-- Twenty questions of operators and analysts, a view for each.
--
-- Written for DuckDB and Spark. Run questions.sql first, and in DuckDB duckdb.sql. Needs records of the full
-- profile. docs/insights.md says what to do with each answer.
--
-- Views count questions, not records: a question that two nodes recorded counts once. Names of clients need
-- attribution; without it, a client is its address. Days and hours are those of the session's time zone.
-- Every view covers the whole table: for a part of it, define dns_transactions as a view of these hours.

-- Domains whose names are not public. Add your own.
CREATE OR REPLACE VIEW internal_domains AS
SELECT * FROM (VALUES ('local'), ('internal'), ('localhost'), ('lan'), ('home'), ('corp'), ('arpa')) AS t(suffix);

-- Addresses that answer questions. A client with one of them is a resolver that asks on behalf of others. Pods
-- on the network of a node that also runs a resolver count as that resolver.
CREATE OR REPLACE VIEW resolver_addresses AS
SELECT DISTINCT address
FROM (SELECT server_address AS address FROM sightings WHERE response_time IS NOT NULL AND query_time IS NOT NULL
      UNION ALL
      SELECT backend FROM sightings WHERE backend IS NOT NULL) AS servers;

-- Each question once, as its client's node saw it, with all fields of that record.
--   client        namespace/workload; namespace/pod where it has no workload; the address where neither is known
--   resolver      the address that answered: that of the backend, where the server is a service
--   domain        the registrable domain, or the name where there is none
--   by_resolver   a resolver asked, for others
--   internal      the name is below one of internal_domains, or has no dot
CREATE OR REPLACE VIEW asked AS
SELECT s.*,
       seen_at AS asked_at,
       coalesce(client_pod_namespace || '/' || coalesce(client_workload_name, client_pod_name), client_address)
           AS client,
       coalesce(backend, server_address) AS resolver,
       coalesce(qname_registrable_domain, qname) AS domain,
       r.address IS NOT NULL AS by_resolver,
       i.suffix IS NOT NULL OR coalesce(qname, '.') NOT LIKE '%_.%' AS internal,
       outcome = 'UNANSWERED' AND server_outcome = 'MATCHED' AS lost_on_the_way
FROM sightings AS s
LEFT JOIN resolver_addresses AS r ON r.address = s.client_address
LEFT JOIN internal_domains AS i ON i.suffix = split_part(s.qname, '.', -1)
WHERE place = 1;

-- Each resource record of an answer section.
CREATE OR REPLACE VIEW answer_rows AS
SELECT question_id, asked_at, response_time, node, client, client_address, by_resolver, internal, resolver,
       qname, qtype, domain, answer.name AS owner, answer.type AS type, answer.ttl AS ttl, answer.rdata AS rdata
FROM (SELECT *, explode(answers) AS answer FROM asked WHERE answer_count > 0) AS exploded;

-- 1. Which workloads ask most?
--   share     of the questions of all clients
--   queries   packets or messages that these questions took, with repetitions
CREATE OR REPLACE VIEW busy_clients AS
SELECT client, count(*) AS questions, count(*) / sum(count(*)) OVER () AS share,
       CAST(sum(query_count) AS bigint) AS queries, count(DISTINCT qname) AS names,
       count(CASE WHEN rcode = 'NXDOMAIN' THEN 1 END) AS nxdomain,
       count(CASE WHEN rcode = 'SERVFAIL' THEN 1 END) AS servfail,
       count(CASE WHEN outcome = 'UNANSWERED' THEN 1 END) AS unanswered
FROM asked
WHERE NOT by_resolver
GROUP BY client;

-- 2. Who asks for names that do not exist, and for which?
--   share   of this client's questions that are NXDOMAIN for this name
CREATE OR REPLACE VIEW absent_names AS
SELECT a.client, qname, a.nxdomain, a.nxdomain / questions AS share, first_at, last_at
FROM (SELECT client, qname, count(*) AS nxdomain, min(asked_at) AS first_at, max(asked_at) AS last_at
      FROM asked
      WHERE NOT by_resolver AND rcode = 'NXDOMAIN'
      GROUP BY client, qname) AS a
JOIN busy_clients AS b ON b.client = a.client;

-- 3. Which servers fail for which domains, and when?
--   extended_error   a code that a response gave as the reason (RFC 8914)
CREATE OR REPLACE VIEW servfail_hours AS
SELECT date_trunc('hour', asked_at) AS hour, resolver, domain, count(*) AS questions,
       count(CASE WHEN rcode = 'SERVFAIL' THEN 1 END) AS servfail,
       count(CASE WHEN rcode = 'SERVFAIL' THEN 1 END) / count(*) AS share,
       max(CASE WHEN rcode = 'SERVFAIL' THEN response_extended_error END) AS extended_error
FROM asked
GROUP BY date_trunc('hour', asked_at), resolver, domain
HAVING count(CASE WHEN rcode = 'SERVFAIL' THEN 1 END) > 0;

-- 4. Which servers are slow? From the latest query on, so without the client's wait before it repeated a query.
CREATE OR REPLACE VIEW slow_servers AS
SELECT resolver, count(*) AS answered,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY ms) AS p95_ms,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) AS p99_ms,
       max(ms) AS longest_ms
FROM (SELECT resolver, latency_from_latest_query_ns / 1e6 AS ms
      FROM asked
      WHERE outcome = 'MATCHED' AND latency_from_latest_query_ns IS NOT NULL) AS answered
GROUP BY resolver;

-- 5. For which names do clients wait? From the first query on.
--   waited_s   the sum of all these waits
CREATE OR REPLACE VIEW slow_names AS
SELECT qname, qtype, count(*) AS answered,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY ms) AS p95_ms,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) AS p99_ms,
       sum(ms) / 1e3 AS waited_s
FROM (SELECT qname, qtype, latency_ns / 1e6 AS ms
      FROM asked
      WHERE outcome = 'MATCHED' AND latency_ns IS NOT NULL AND NOT by_resolver) AS answered
GROUP BY qname, qtype;

-- 6. Which clients get no answer, and from which server?
--   uncertain         of the unanswered ones, those whose answer may have been missed: see weak_hours
--   lost_on_the_way   of the unanswered ones, those that the server answered on its own node
CREATE OR REPLACE VIEW unanswered_paths AS
SELECT client, server_address, count(*) AS questions,
       count(CASE WHEN outcome = 'UNANSWERED' THEN 1 END) AS unanswered,
       count(CASE WHEN outcome = 'UNANSWERED' AND capture_gap THEN 1 END) AS uncertain,
       count(CASE WHEN lost_on_the_way THEN 1 END) AS lost_on_the_way,
       max(CASE WHEN outcome = 'UNANSWERED' THEN asked_at END) AS last_at
FROM asked
GROUP BY client, server_address
HAVING count(CASE WHEN outcome = 'UNANSWERED' THEN 1 END) > 0;

-- 7. Who repeats queries, gets truncated answers or uses TCP?
--   extra_queries   repetitions, beyond one query for each question
--   waited_s        time that answered questions lost before the query that was answered
--   truncated       answers over UDP that did not fit
--   tcp_share       questions over TCP, of all
CREATE OR REPLACE VIEW repeated_queries AS
SELECT client, server_address, count(*) AS questions,
       count(CASE WHEN query_count > 1 THEN 1 END) AS repeated,
       CAST(sum(CASE WHEN query_count > 1 THEN query_count - 1 ELSE 0 END) AS bigint) AS extra_queries,
       coalesce(sum(latency_ns - latency_from_latest_query_ns), 0) / 1e9 AS waited_s,
       count(CASE WHEN truncated AND transport = 'UDP' THEN 1 END) AS truncated,
       count(CASE WHEN transport = 'TCP' THEN 1 END) AS over_tcp,
       count(CASE WHEN transport = 'TCP' THEN 1 END) / count(*) AS tcp_share
FROM asked
GROUP BY client, server_address
HAVING count(CASE WHEN query_count > 1 OR truncated OR transport = 'TCP' THEN 1 END) > 0;

-- 8. Which domains are new on the last day of the table? Empty where the table begins on that day.
--   history_days   how far back the table goes before that day: few days make many domains new
CREATE OR REPLACE VIEW new_domains AS
SELECT domain, first_at, first_client, clients, questions, answered,
       extract(day FROM last_day - date_trunc('day', began_at)) AS history_days
FROM (SELECT domain, min(asked_at) AS first_at, min_by(client, asked_at) AS first_client,
             count(DISTINCT client) AS clients, count(*) AS questions,
             count(CASE WHEN rcode = 'NOERROR' THEN 1 END) AS answered
      FROM asked
      WHERE qname_registrable_domain IS NOT NULL AND NOT internal AND NOT by_resolver
      GROUP BY domain) AS domains
CROSS JOIN (SELECT min(asked_at) AS began_at, date_trunc('day', max(asked_at)) AS last_day FROM asked) AS t
WHERE first_at >= last_day AND began_at < last_day;

-- 9. Which domains does only one client ask for?
CREATE OR REPLACE VIEW lone_domains AS
SELECT domain, max(client) AS client, count(DISTINCT qname) AS names, count(*) AS questions,
       min(asked_at) AS first_at, max(asked_at) AS last_at
FROM asked
WHERE qname_registrable_domain IS NOT NULL AND NOT internal AND NOT by_resolver
GROUP BY domain
HAVING count(DISTINCT client) = 1;

-- The part of each name below its registrable domain, without dots, and the entropy of its characters.
CREATE OR REPLACE VIEW name_entropies AS
SELECT domain, qname, sum(occurrences) AS characters,
       sum(occurrences / length * log2(length / occurrences)) AS entropy
FROM (SELECT domain, qname, length, letter, count(*) AS occurrences
      FROM (SELECT domain, qname, length(labels) AS length, explode(split(labels, '')) AS letter
            FROM (SELECT DISTINCT domain, qname,
                         replace(left(qname, length(qname) - length(domain) - 1), '.', '') AS labels
                  FROM asked
                  WHERE length(qname) > length(domain) + 1 AND NOT internal) AS names) AS characters
      WHERE letter <> ''
      GROUP BY domain, qname, length, letter) AS counted
GROUP BY domain, qname;

-- 10. Which clients may tunnel data through names? At least 20 different names below one domain that are long
-- and look random, or whose type has room for data.
--   length     mean number of characters of these names, without the domain
--   entropy    mean bits of each of these characters: 4 and more is what encoded data has
--   data_share questions for TXT and NULL, which carry data back
--   bytes_out  octets of all queries
CREATE OR REPLACE VIEW tunnel_candidates AS
SELECT client, a.domain, count(DISTINCT a.qname) AS names, count(*) AS questions,
       avg(characters) AS length, avg(entropy) AS entropy,
       count(CASE WHEN qtype IN ('TXT', 'NULL') THEN 1 END) / count(*) AS data_share,
       CAST(sum(query_size) AS bigint) AS bytes_out, CAST(sum(response_size) AS bigint) AS bytes_in,
       min(asked_at) AS first_at, max(asked_at) AS last_at
FROM asked AS a JOIN name_entropies AS e ON e.qname = a.qname AND e.domain = a.domain
WHERE NOT by_resolver
GROUP BY client, a.domain
HAVING count(DISTINCT a.qname) >= 20
   AND ((avg(characters) >= 24 AND avg(entropy) >= 3.3)
        OR count(CASE WHEN qtype IN ('TXT', 'NULL') THEN 1 END) >= 0.5 * count(*));

-- 11. Which clients ask for many domains that do not exist, as programs with generated domains do? An hour of a
-- client with at least 10 of them.
--   found     domains that exist, in the same hour: one of them may be what the program looks for
CREATE OR REPLACE VIEW absent_domain_bursts AS
SELECT client, date_trunc('hour', asked_at) AS hour,
       count(DISTINCT CASE WHEN rcode = 'NXDOMAIN' THEN domain END) AS absent,
       count(DISTINCT CASE WHEN rcode = 'NOERROR' THEN domain END) AS found,
       min(CASE WHEN rcode = 'NXDOMAIN' THEN domain END) AS example
FROM asked
WHERE qname_registrable_domain IS NOT NULL AND NOT internal AND NOT by_resolver
GROUP BY client, date_trunc('hour', asked_at)
HAVING count(DISTINCT CASE WHEN rcode = 'NXDOMAIN' THEN domain END) >= 10;

-- 12. Which public names have answers with private addresses?
--   also_public   the name had public addresses too, as with DNS rebinding
CREATE OR REPLACE VIEW private_answers AS
SELECT qname, min(CASE WHEN private THEN rdata END) AS address,
       count(DISTINCT CASE WHEN private THEN question_id END) AS questions,
       count(DISTINCT CASE WHEN private THEN client END) AS clients,
       count(CASE WHEN NOT private THEN 1 END) > 0 AS also_public,
       min(CASE WHEN private THEN asked_at END) AS first_at
FROM (SELECT *, rdata LIKE '10.%' OR rdata LIKE '192.168.%' OR rdata LIKE '127.%' OR rdata LIKE '169.254.%'
             OR rdata LIKE '0.%'
             OR (rdata LIKE '172.%' AND try_cast(split_part(rdata, '.', 2) AS int) BETWEEN 16 AND 31)
             OR (rdata LIKE '100.%' AND try_cast(split_part(rdata, '.', 2) AS int) BETWEEN 64 AND 127)
             OR rdata IN ('::', '::1') OR (type = 'AAAA' AND left(rdata, 2) IN ('fc', 'fd'))
             OR (type = 'AAAA' AND left(rdata, 3) IN ('fe8', 'fe9', 'fea', 'feb')) AS private
      FROM answer_rows
      WHERE type IN ('A', 'AAAA') AND NOT internal) AS addresses
GROUP BY qname
HAVING count(CASE WHEN private THEN 1 END) > 0;

-- 13. Which clients get responses that look forged or contradict each other?
--   kind      an entry of anomalies
--   records   records with it, of every node
CREATE OR REPLACE VIEW suspicious_responses AS
SELECT kind, coalesce(client_pod_namespace || '/' || coalesce(client_workload_name, client_pod_name),
                      client_address) AS client,
       server_address, count(*) AS records, count(DISTINCT qname) AS names, min(qname) AS example,
       min(coalesce(query_time, response_time)) AS first_at, max(coalesce(query_time, response_time)) AS last_at
FROM (SELECT DISTINCT record_id, kind, client_pod_namespace, client_workload_name, client_pod_name,
             client_address, server_address, qname, query_time, response_time
      FROM (SELECT *, explode(anomalies) AS kind FROM dns_transactions) AS signs) AS deduplicated
GROUP BY kind, coalesce(client_pod_namespace || '/' || coalesce(client_workload_name, client_pod_name),
                        client_address), server_address;

-- 14. Which pods ask servers outside of the cluster? Needs attribution.
--   share   of this client's questions
CREATE OR REPLACE VIEW foreign_resolvers AS
SELECT a.client, server_address, server_port, asked_there AS questions, asked_there / b.questions AS share,
       a.names, first_at
FROM (SELECT client, server_address, server_port, count(*) AS asked_there, count(DISTINCT qname) AS names,
             min(asked_at) AS first_at
      FROM asked
      WHERE NOT by_resolver AND client_pod_name IS NOT NULL
        AND server_attribution IN ('EXTERNAL', 'UNKNOWN')
        -- NodeLocal DNSCache, and resolvers in the pod itself.
        AND server_address NOT LIKE '169.254.%' AND server_address NOT LIKE '127.%' AND server_address <> '::1'
      GROUP BY client, server_address, server_port) AS a
JOIN busy_clients AS b ON b.client = a.client;

-- 15. How many AAAA questions are for names that have only IPv4 addresses?
--   wasted   AAAA questions without an address in the answer, for names whose A had one for the same client
--   share    of all questions of this client
CREATE OR REPLACE VIEW aaaa_waste AS
SELECT client, count(*) AS questions, count(CASE WHEN qtype = 'AAAA' THEN 1 END) AS aaaa_questions,
       count(CASE WHEN wasted THEN 1 END) AS wasted, count(CASE WHEN wasted THEN 1 END) / count(*) AS share,
       count(DISTINCT CASE WHEN wasted THEN qname END) AS names
FROM (SELECT client, qname, qtype,
             qtype = 'AAAA' AND rcode = 'NOERROR' AND NOT has_address
             AND max(CASE WHEN qtype = 'A' AND has_address THEN 1 ELSE 0 END)
                     OVER (PARTITION BY client, qname) = 1 AS wasted
      FROM (SELECT client, qname, qtype, rcode,
                   coalesce(CAST(resolved_addresses AS string), '[]') <> '[]' AS has_address
            FROM asked WHERE NOT by_resolver) AS questions) AS marked
GROUP BY client
HAVING count(CASE WHEN wasted THEN 1 END) > 0;

-- 16. What do short TTLs cost? Names by the server that is asked, which may be the cluster's own or one upstream.
--   below_minute   questions whose answer was valid for less than a minute
--   minutes        different minutes in which they were asked
--   saved          the questions among them that a cache with a minimum TTL of a minute spares this server
CREATE OR REPLACE VIEW short_ttls AS
SELECT resolver, qname, qtype, count(*) AS questions, min(ttl) AS least_ttl,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY ttl) AS median_ttl, max(ttl) AS largest_ttl,
       count(CASE WHEN ttl < 60 THEN 1 END) AS below_minute,
       count(DISTINCT CASE WHEN ttl < 60 THEN date_trunc('minute', asked_at) END) AS minutes,
       count(CASE WHEN ttl < 60 THEN 1 END)
           - count(DISTINCT CASE WHEN ttl < 60 THEN date_trunc('minute', asked_at) END) AS saved
FROM (SELECT question_id, resolver, qname, qtype, asked_at, min(ttl) AS ttl
      FROM answer_rows
      GROUP BY question_id, resolver, qname, qtype, asked_at) AS answers
GROUP BY resolver, qname, qtype;

-- 17. Which names depend on the same target of CNAME records?
--   names     different names whose answers lead through or to it
--   longest   largest number of CNAME records in one of these answers
CREATE OR REPLACE VIEW cname_targets AS
SELECT target, count(DISTINCT qname) AS names, count(DISTINCT client) AS clients,
       count(DISTINCT question_id) AS questions, max(steps) AS longest
FROM (SELECT question_id, qname, client, rdata AS target, count(*) OVER (PARTITION BY question_id) AS steps
      FROM answer_rows
      WHERE type = 'CNAME' AND NOT by_resolver) AS links
GROUP BY target;

-- 18. Who had resolved an address before connecting to it, and which names lead to it? A row for each answer.
--   valid_until   when the answer expired: a connection before that, or soon after, may have used it
CREATE OR REPLACE VIEW address_lookups AS
SELECT rdata AS address, qname, client, client_address, node, resolver, response_time AS answered_at,
       min(ttl) AS ttl, response_time + min(ttl) * INTERVAL '1' SECOND AS valid_until, question_id
FROM answer_rows
WHERE type IN ('A', 'AAAA') AND NOT by_resolver
GROUP BY rdata, qname, client, client_address, node, resolver, response_time, question_id;

-- 19. Where are these answers weak? Hours of a node in which packets or records are missing.
--   gaps              records with capture_gap: packets near them were not seen
--   uncertain         of the unanswered queries, those among them
--   unmatched         responses whose query was not seen
--   missing_records   records that the agent numbered and the table does not have, before one of this hour:
--                     completeness.sql says why
CREATE OR REPLACE VIEW weak_hours AS
SELECT node, date_trunc('hour', seen_at) AS hour, count(*) AS records,
       count(CASE WHEN capture_gap THEN 1 END) AS gaps,
       count(CASE WHEN outcome = 'UNANSWERED' THEN 1 END) AS unanswered,
       count(CASE WHEN outcome = 'UNANSWERED' AND capture_gap THEN 1 END) AS uncertain,
       count(CASE WHEN outcome = 'UNMATCHED_RESPONSE' AND relation IS NULL THEN 1 END) AS unmatched,
       CAST(sum(missing) AS bigint) AS missing_records
FROM (SELECT *, coalesce(query_time, response_time) AS seen_at,
             CASE WHEN record_number > 0
                  THEN record_number - 1 - coalesce(lag(record_number) OVER (PARTITION BY run_id, worker
                                                                             ORDER BY record_number),
                                                    record_number - 1) ELSE 0 END AS missing
      FROM (SELECT *, row_number() OVER (PARTITION BY record_id ORDER BY record_number) AS copy
            FROM dns_transactions) AS numbered
      WHERE copy = 1) AS records
GROUP BY node, date_trunc('hour', seen_at)
HAVING count(CASE WHEN capture_gap OR (outcome = 'UNMATCHED_RESPONSE' AND relation IS NULL) THEN 1 END) > 0
    OR sum(missing) > 0;

-- 20. Which domains cause the traffic?
--   bytes_out   octets of DNS messages that clients sent, with repetitions
--   factor      octets received for each octet sent: large for amplification and for data in answers
CREATE OR REPLACE VIEW domain_bytes AS
SELECT domain, count(*) AS questions, CAST(sum(query_size * query_count) AS bigint) AS bytes_out,
       CAST(sum(response_size) AS bigint) AS bytes_in,
       sum(response_size) / nullif(sum(query_size * query_count), 0) AS factor,
       max(response_size) AS largest_response
FROM asked
WHERE NOT by_resolver
GROUP BY domain;
