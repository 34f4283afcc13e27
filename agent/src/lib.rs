//! tap53. (Being written.)
