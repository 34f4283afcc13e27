//! Development tasks. (Being written.)
fn main() {}
