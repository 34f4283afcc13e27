//! The `tap53` command. (Being written.)
fn main() {}
