//! The foundation of every other crate. It depends on none of them.
//!
//! ```text
//!  settings   the YAML file as nodes; every part reads its own section, in its `config` module
//!  privileges given up once the agent has started
//!  files      opened so that nobody can put another in their place
//!  admission  who is let in where connections are bounded
//!  vitals     heartbeats, histograms, health
//!  amount     records, and the messages that they stand for
//!  backoff    pauses after failures
//!  threads    started, stopped and joined
//!  clock      the kernel's clocks
//!  visible    text from outside, where people see it
//!  prefetch   memory that is read soon
//! ```

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
