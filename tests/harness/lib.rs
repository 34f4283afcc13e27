//! Real parts for tests. (Being written.)
