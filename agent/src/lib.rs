//! tap53. (Being written.)

pub mod config;
