-- Compaction and expiry of the tables, by Iceberg's procedures for Spark
-- (iceberg.apache.org/docs/1.12.0/spark-procedures): once an hour or a day, with the catalog named `lake`.
--
--   spark-sql --packages org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0 -f maintenance.sql
--
-- Order: compact, then expire, then remove files that no snapshot references.

-- The sink writes a file for each task, hour and commit. Only past hours are rewritten, so no commit of the
-- sink conflicts.
CALL lake.system.rewrite_data_files(
  table => 'lake.dns.transactions',
  strategy => 'sort',
  sort_order => 'node, event_time',
  where => 'event_time < date_trunc(''HOUR'', current_timestamp()) - INTERVAL 1 HOUR',
  options => map('target-file-size-bytes', '268435456', 'min-input-files', '5')
);
CALL lake.system.rewrite_data_files(
  table => 'lake.dns.ledger',
  where => 'event_time < date_trunc(''HOUR'', current_timestamp()) - INTERVAL 1 HOUR'
);
CALL lake.system.rewrite_manifests('lake.dns.transactions');
CALL lake.system.rewrite_manifests('lake.dns.ledger');

-- Keeps snapshots for a week. The newest snapshot has the sink's offsets, so never expire all of them. The age
-- is a property of the table, since
-- Spark 4.1.1 fails on `older_than => current_timestamp() - INTERVAL 7 DAYS`.
ALTER TABLE lake.dns.transactions SET TBLPROPERTIES (
  'history.expire.max-snapshot-age-ms' = '604800000',
  'history.expire.min-snapshots-to-keep' = '100'
);
ALTER TABLE lake.dns.ledger SET TBLPROPERTIES (
  'history.expire.max-snapshot-age-ms' = '604800000',
  'history.expire.min-snapshots-to-keep' = '100'
);
CALL lake.system.expire_snapshots(table => 'lake.dns.transactions');
CALL lake.system.expire_snapshots(table => 'lake.dns.ledger');

-- Removes files of tasks that were killed before their commit, if they are older than three days (the
-- default), which is longer than any commit takes. S3 lists them by their prefix.
CALL lake.system.remove_orphan_files(table => 'lake.dns.transactions', prefix_listing => true);
CALL lake.system.remove_orphan_files(table => 'lake.dns.ledger', prefix_listing => true);
