//! Where the transport payload of a packet begins. (Being written.)
