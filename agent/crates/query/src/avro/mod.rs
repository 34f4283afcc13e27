//! Reads Avro data without building a tree of values: the schema becomes a [`Shape`], by which a [`Cursor`]
//! skips or borrows.
//!
//! Contract: nothing panics on damaged data, and memory stays bounded by [`MAX_BLOCK_BYTES`].

mod container;
mod cursor;
mod shape;
#[cfg(test)]
mod tests;

pub use container::{Container, Error, MAGIC, MAX_BLOCK_BYTES};
pub use cursor::{Cursor, Damaged};
pub use shape::{Scale, Shape, ShapeError};
pub(crate) use shape::{
    chosen, each_item, push_display, push_json_bytes, push_json_key, push_json_text,
    push_json_time, symbol,
};
