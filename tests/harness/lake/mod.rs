//! The lake: an S3 server with an Iceberg REST catalog, workers of Kafka Connect that write records
//! and summaries from Kafka to tables there, and SQL over the tables by DuckDB.
//!
//! ```text
//!  Kafka ──▶ Connect worker(s) ──▶ Parquet on SeaweedFS ──▶ DuckDB
//!              │      ▲                    ▲                  ▲
//!              │      └ schemas: Apicurio  │ REST catalog ────┘
//!              └──▶ dead letters           └ SeaweedFS
//! ```
//!
//! The connectors are those of `deploy/downstream`, with shorter intervals.

mod connect;
pub mod connectors;
mod parts;
mod store;
mod tables;
mod whole;

pub use connect::{Connect, Start};
pub use connectors::{Connector, DEAD_LETTERS, FLAT, LEDGER, TRANSACTIONS};
pub use parts::{
    CONNECT_VERSION, CONVERTER_VERSION, ICEBERG_VERSION, SEAWEEDFS_VERSION, are_ready, environment,
    jars,
};
pub use store::Store;
pub use tables::Tables;
pub use whole::{Lake, QUICK, create_namespace};
