//! What the fuzz targets do with their bytes, and what must hold whatever those are.
//!
//! ```text
//!  message      bytes ─────────────▶ Message ─▶ record ─▶ encoders, within their limits
//!  stream       segments ─────────────────────────▶ Streams
//!  fragments    fragments ────────────────────────▶ Fragments
//!  frame        frames ─▶ hook ─▶ stages ─▶ encoders ─▶ apache-avro, serde_json
//!  replay_file  a capture file ─▶ the same
//! ```
//!
//! `targets/` gives each function to libFuzzer; `cargo xtask fuzz` builds and runs them. The tests
//! here run them on their seeds, and on what fuzzing found.

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
