-- Reads the lake's table in Vertica and inserts the missing rows. NOT TESTED. For Vertica 12.0 and newer, which read
-- Iceberg tables of Parquet files, with metadata of version 1 or 2 (docs/vertica.md [11]).
--
-- :metadata is the path of the metadata file that the catalog names as the table's current one: on S3 a
-- base location is not enough. A new snapshot has a new file, so create the table again for each restore.
--   vsql -v metadata="'s3://lake/dns/transactions/metadata/00042-….metadata.json'" -f restore-from-iceberg.sql
-- For an endpoint other than Amazon's: ALTER SESSION SET AWSEndpoint and AWSAuth [12].

DROP TABLE IF EXISTS public.dns_lake;
-- The types come from Iceberg's metadata; widths of texts do not, so name each column that
-- dns_transactions.sql makes wider than the default, with the same width. (Which default that is, and
-- whether a wider value is truncated or fails, the document does not state: [11], unknown.)
CREATE EXTERNAL TABLE public.dns_lake STORED BY ICEBERG LOCATION :metadata
    COLUMN TYPES (node VARCHAR(253), interface VARCHAR(253), qname VARCHAR(1024));

-- Names the columns, because the lake's table has another order. List all of both tables.
INSERT INTO public.dns_transactions (record_id, run_id, worker, record_number, node, qname /* , ... */)
SELECT record_id, run_id, worker, record_number, node, qname /* , ... */
FROM public.dns_lake AS lake
WHERE NOT EXISTS (SELECT 1 FROM public.dns_transactions AS table_
                  WHERE table_.record_id = lake.record_id);
COMMIT;

-- Records that had not reached the lake are still in the topic: set the offsets back to before the lake's last
-- commit, with the scheduler stopped (vkconfig microbatch --update ... --offset; the history shows it as
-- RESET_OFFSET [9]). Later messages that the table already has are then in it twice, since Vertica does
-- not enforce keys by default. Queries use a view that deduplicates.
CREATE OR REPLACE VIEW public.dns_transactions_once AS
SELECT * FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY record_id ORDER BY run_id) AS copy
    FROM public.dns_transactions) AS numbered
WHERE copy = 1;
