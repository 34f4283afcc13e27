//! Transactions become records, in Avro, JSON and text; and the definitions of tables that take them.

#![forbid(unsafe_code)]

pub mod ddl;
pub mod encode;
