//! Lists interfaces, loads and attaches the kernel programs that capture from them, and drains the
//! rings with their packets.

pub mod capture;
pub mod interfaces;
pub mod ring;
