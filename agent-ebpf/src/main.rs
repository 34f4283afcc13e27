//! BPF entry points. (Being written.)
fn main() {}
