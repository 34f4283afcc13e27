-- The cache hit ratio of each resolver.
--
-- Written for DuckDB and Spark. Run questions.sql and chains.sql first.
--
-- answered_from decides, which agents with chains.enabled write. Where it is null, a question is from the cache
-- if the resolver sent no query for it (upstream_links): that is so for resolvers that forward, and not for
-- those that iterate or have zones of their own. A resolver of which no query was seen at all is left out: its
-- other side is not captured, or it is an authority.

-- Each answered question with the source of its answer: answered_from, or UPSTREAM or CACHE by the links.
CREATE OR REPLACE VIEW answer_sources AS
SELECT questions.*,
       CASE WHEN answered_from IS NOT NULL THEN answered_from
            WHEN links.question_id IS NULL THEN 'CACHE'
            -- Several questions at a time may share one of the resolver's queries, or it is unknown which query is
            -- for which question. Each of them waited while the resolver queried upstream for its name.
            ELSE 'UPSTREAM' END AS source
FROM questions
LEFT JOIN (SELECT DISTINCT question_id FROM upstream_links) AS links
  ON links.question_id = questions.question_id
WHERE outcome = 'MATCHED'
  AND (answered_from IS NOT NULL
       OR resolver IN (SELECT asking.resolver
                       FROM upstream_links JOIN questions AS asking
                         ON asking.question_id = upstream_links.question_id));

--   from_own_zones   answers that the resolver had without a cache
--   hit_ratio        of the questions that are from the cache or from upstream
CREATE OR REPLACE VIEW cache_hits AS
SELECT *, CAST(from_cache AS double) / nullif(from_cache + from_upstream, 0) AS hit_ratio
FROM (SELECT resolver, max(server_pod_namespace) AS server_pod_namespace,
             max(server_pod_name) AS server_pod_name,
             count(*) AS questions,
             count(CASE WHEN source = 'CACHE' THEN 1 END) AS from_cache,
             count(CASE WHEN source = 'UPSTREAM' THEN 1 END) AS from_upstream,
             count(CASE WHEN source = 'LOCAL' THEN 1 END) AS from_own_zones,
             count(CASE WHEN source NOT IN ('CACHE', 'UPSTREAM', 'LOCAL') THEN 1 END) AS unknown
      FROM answer_sources
      GROUP BY resolver) AS counted;
