-- The chain behind an answer: pod, cache, resolver, authority; a row for each hop, with its times.
--
-- Written for DuckDB and Spark. Run questions.sql first.
--
-- An agent with chains.enabled names the exchange that a resolver's query serves (served_record_id). Where it
-- does not, a query may serve a question if both are for the same name and type, the resolver sent it after
-- the question arrived and had its response before it answered, and it came from the address or pod that
-- answered. Both are compared as the same node recorded them, so no clocks are compared. A cache with a
-- link-local address in the host's network, such as NodeLocal DNSCache, sends from its node's address: its
-- queries are those that leave the node and entered it at no interface.
--
-- Forwarding resolvers ask for the name that they are asked for. Queries of iterating resolvers for other
-- names, such as name servers, targets of CNAME and minimised names, have a link only by served_record_id.

-- Pairs of a question and a resolver's query that serves it or may serve it.
--   certain      an agent says so
--   candidates   questions that the query may serve: more than 1 means that it serves one of them or several
--   queries      queries that may serve the question
CREATE OR REPLACE VIEW upstream_links AS
SELECT question_id, upstream_id, max(certain) = 1 AS certain,
       count(*) OVER (PARTITION BY upstream_id) AS candidates,
       count(*) OVER (PARTITION BY question_id) AS queries
FROM (SELECT down.question_id, up.question_id AS upstream_id, 1 AS certain
      FROM sightings AS up JOIN sightings AS down ON down.record_id = up.served_record_id
      UNION ALL
      SELECT down.question_id, up.question_id AS upstream_id, 0 AS certain
      FROM sightings AS up JOIN sightings AS down
        ON up.node = down.node AND up.qname = down.qname AND up.qtype = down.qtype
       AND up.query_time BETWEEN down.query_time AND down.response_time
       AND (up.response_time IS NULL OR up.response_time <= down.response_time)
       AND up.question_id <> down.question_id
       AND (up.client_address = coalesce(down.backend, down.server_address)
            OR up.client_pod_uid = down.server_pod_uid
            OR (down.server_address LIKE '169.254.%' AND up.direction = 'EGRESS'
                AND down.direction = 'INGRESS'))
      -- The agent says which one it serves, unless it serves several.
      WHERE up.served_count IS NULL OR up.served_count > 1
         OR (up.served_count = 1 AND up.served_record_id IS NULL)) AS pairs
GROUP BY question_id, upstream_id;

-- Chains: hop 0 is the question of a client that is no resolver itself, hop 1 the resolver's query for it,
-- and so on.
--   chain_id     the question_id of hop 0
--   latency_ns   time that the hop's client waited
--   own_ns       time of the hop's server itself: without the network before it, and without the slowest query that it sent
--   ambiguous    several questions may have caused this hop or one before it
CREATE OR REPLACE VIEW chains AS
WITH RECURSIVE hops AS (
    SELECT question_id AS chain_id, 0 AS hop, question_id, CAST(NULL AS binary) AS asked_for, FALSE AS ambiguous
    FROM questions
    WHERE NOT EXISTS (SELECT 1 FROM upstream_links AS links
                      WHERE links.upstream_id = questions.question_id)
    UNION ALL
    SELECT chain_id, hop + 1, links.upstream_id, hops.question_id, hops.ambiguous OR (links.candidates > 1 AND NOT links.certain)
    FROM hops JOIN upstream_links AS links ON links.question_id = hops.question_id
    WHERE hop < 8
)
SELECT chain_id, hop, hops.question_id, asked_for, ambiguous,
       node, client_address, client_pod_namespace, client_pod_name, server_address, resolver,
       server_pod_name, transport, qname, qtype, outcome, rcode, query_time, response_time, latency_ns,
       server_latency_ns - coalesce(slowest_ns, 0) AS own_ns
FROM hops
JOIN questions ON questions.question_id = hops.question_id
LEFT JOIN (SELECT links.question_id, max(latency_ns) AS slowest_ns
           FROM upstream_links AS links JOIN questions ON questions.question_id = links.upstream_id
           GROUP BY links.question_id) AS waits ON waits.question_id = hops.question_id;
