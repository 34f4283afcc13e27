//! Identifies the interface between the kernel programs and the agent.

/// The sources that define what one side writes and the other reads.
const SOURCES: [&[u8]; 5] = [
    include_bytes!("counter.rs"),
    include_bytes!("headers/hash.rs"),
    include_bytes!("process.rs"),
    include_bytes!("record.rs"),
    include_bytes!("settings.rs"),
];

/// A hash of the sources of the interface. The BPF object contains it in its section `interface`, so that
/// an agent refuses programs that were built from other sources: it would misread their ring items.
///
/// Hashing the sources, and not the sizes of types, covers the meaning of a field too. In return, a
/// change of a comment requires that the object is built again.
pub const INTERFACE: u64 = hash(&SOURCES);

/// FNV-1a, 64 bits (draft-eastlake-fnv), evaluated by the compiler.
const fn hash(sources: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut source = 0;
    while source < sources.len() {
        let mut at = 0;
        while at < sources[source].len() {
            hash = (hash ^ sources[source][at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        source += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of the draft's test vectors.
    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(&[b""]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(&[b"foobar"]), 0x8594_4171_f739_67e8);
        assert_eq!(hash(&[b"foo", b"bar"]), hash(&[b"foobar"]));
    }
}
