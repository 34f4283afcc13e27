-- Compaction and expiry of the tables, by Iceberg's procedures for Spark
-- (iceberg.apache.org/docs/1.12.0/spark-procedures): once an hour or a day, with the catalog named `lake`.
--
--   spark-sql --packages org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.12.0 -f maintenance.sql
--
-- Order: compact, then expire, then remove what no snapshot names.

-- The sink writes a file of each task, hour and commit. Only hours that have ended are rewritten, so that
-- no commit of the sink conflicts.
CALL lake.system.rewrite_data_files(
  table => 'dns.transactions',
  strategy => 'sort',
  sort_order => 'node, event_time',
  where => 'event_time < date_trunc(''HOUR'', current_timestamp()) - INTERVAL 1 HOUR',
  options => map('target-file-size-bytes', '268435456', 'min-input-files', '5')
);
CALL lake.system.rewrite_data_files(
  table => 'dns.ledger',
  where => 'event_time < date_trunc(''HOUR'', current_timestamp()) - INTERVAL 1 HOUR'
);
CALL lake.system.rewrite_manifests('dns.transactions');
CALL lake.system.rewrite_manifests('dns.ledger');

-- A week to go back to. The sink keeps in the newest snapshot which offsets it has written: never expire
-- all of them.
CALL lake.system.expire_snapshots(
  table => 'dns.transactions',
  older_than => current_timestamp() - INTERVAL 7 DAYS,
  retain_last => 100
);
CALL lake.system.expire_snapshots(
  table => 'dns.ledger',
  older_than => current_timestamp() - INTERVAL 7 DAYS,
  retain_last => 100
);

-- Files of tasks that were killed before their commit. Three days: longer than any commit takes.
CALL lake.system.remove_orphan_files(
  table => 'dns.transactions',
  older_than => current_timestamp() - INTERVAL 3 DAYS
);
CALL lake.system.remove_orphan_files(
  table => 'dns.ledger',
  older_than => current_timestamp() - INTERVAL 3 DAYS
);
