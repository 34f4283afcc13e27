-- Functions of Spark that DuckDB has under another name. DuckDB runs this file before insights.sql; Spark needs
-- nothing of it.

CREATE OR REPLACE MACRO explode(list) AS unnest(list);

-- Days and hours in the views are those of this time zone.
SET TimeZone = 'UTC';
