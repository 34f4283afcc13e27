//! Answers questions about records: filters them, makes reports of them, and writes them in other formats.
//!
//! ```text
//!  Avro file ─▶ container ─┐ block of data        ┌─▶ output: text, CSV, JSON, Parquet
//!                          ├─▶ projection ─▶ filter ┼─▶ report: top names, clients, latency …
//!  capture ─▶ replay ──────┘   row of values      └─▶ page: the same as HTML
//! ```
//!
//! Both sources give Avro data with the schema that they were written with, so records of every version and
//! of both profiles are read. A [`Row`](row::Row) borrows the fields that the question needs from the block;
//! the others are skipped.

#![forbid(unsafe_code)]

pub mod avro;
pub mod catalogue;
pub mod expression;
pub mod format;
pub mod output;
pub mod page;
pub mod query;
pub mod report;
pub mod row;
pub mod signals;
