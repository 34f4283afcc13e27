//! The fuzz targets, with the properties that must hold for any input.
//!
//! ```text
//!  message      bytes ─────────────▶ Message ─▶ record ─▶ encoders, within their limits
//!  stream       segments ─────────────────────────▶ Streams
//!  fragments    fragments ────────────────────────▶ Fragments
//!  frame        frames ─▶ hook ─▶ stages ─▶ encoders ─▶ apache-avro, serde_json
//!  replay_file  a capture file ─▶ the same
//! ```
//!
//! `targets/` has a libFuzzer target for each function; `cargo xtask fuzz` builds and runs them. The tests
//! here run them on their seeds, and on inputs that fuzzing has found.

mod fragments;
mod input;
mod message;
mod path;
mod record;
mod replay_file;
pub mod seeds;
mod stream;
#[cfg(test)]
mod tests;

pub use fragments::fragments;
pub use message::message;
pub use path::frame;
pub use replay_file::replay_file;
pub use stream::stream;
