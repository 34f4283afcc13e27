//! Encodes transactions as records in Avro, JSON and text, and defines tables for them.

#![forbid(unsafe_code)]

pub mod ddl;
pub mod encode;
