//! The foundation of every other crate. It depends on none of them.
//!
//! ```text
//!  settings   the YAML file as nodes; every part reads its own section, in its `config` module
//!  privileges dropped once the agent has started
//!  files      opened so that they cannot be replaced
//!  admission  limits on open connections, with eviction of idle ones
//!  vitals     heartbeats, histograms, health
//!  amount     counts of records and of the messages that they stand for
//!  backoff    pauses after failures
//!  threads    started, stopped and joined
//!  clock      the kernel's clocks
//!  visible    untrusted text, escaped for people
//!  addresses  of this host's interfaces
//!  prefetch   memory that is read soon, fetched into the cache
//! ```

pub mod addresses;
pub mod admission;
pub mod amount;
pub mod backoff;
pub mod clock;
pub mod files;
pub mod prefetch;
pub mod privileges;
pub mod settings;
pub mod threads;
pub mod visible;
pub mod vitals;
