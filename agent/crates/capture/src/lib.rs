//! Which interfaces there are, the kernel programs that capture from them, and the rings that their
//! packets come by.

pub mod capture;
pub mod interfaces;
pub mod ring;
