//! Selects transactions by the pod of the client: its namespace, workload and labels.

pub mod config;
mod filter;
mod pattern;
mod selector;

pub use filter::PodFilter;
pub use pattern::{NamespacePattern, WorkloadPattern};
pub use selector::PodSelector;
