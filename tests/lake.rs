//! From the topic to Parquet on S3: with the connectors of `deploy/downstream`, on a real worker of
//! Kafka Connect, a schema registry, an S3 server and an Iceberg catalog, read by DuckDB.

#[path = "lake/downstream.rs"]
mod downstream;
#[path = "lake/equality.rs"]
mod equality;
#[path = "lake/flat.rs"]
mod flat;
#[path = "delivery/run.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of delivery use the rest")]
mod run;
#[path = "lake/stage.rs"]
mod stage;
#[path = "lake/tamper.rs"]
mod tamper;
