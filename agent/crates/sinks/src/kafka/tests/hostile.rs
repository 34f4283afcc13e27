//! Hostile brokers.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use super::*;

/// Accepts a connection, and answers its first request with this many bytes; true if the client read
/// all of them.
fn answer_with(bytes: usize, options: &[(&str, &str)]) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let brokers = listener.local_addr().unwrap().to_string();
    let mut config = KafkaConfig::to(&brokers, "dns");
    let option = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    config.options = options.iter().map(option).collect();
    let _kafka = open(&config, false).unwrap();
    let (mut connection, _) = listener.accept().unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    connection.set_write_timeout(Some(DEADLINE)).unwrap();
    let mut request = [0; 12];
    connection.read_exact(&mut request).unwrap();
    let correlation_id = &request[8..12];
    let size = u32::try_from(bytes).unwrap().to_be_bytes();
    // Nothing in it can be read.
    let mut answer = vec![0xff; bytes - correlation_id.len()];
    answer.splice(..0, size.iter().chain(correlation_id).copied());
    connection.write_all(&answer).is_ok()
}

#[test]
fn an_answer_that_no_producer_needs_is_not_taken() {
    let long = 48 << 20;
    assert!(!answer_with(long, &[]));
    assert!(answer_with(4 << 20, &[]), "one that it may need");
    assert!(answer_with(long, &[("receive.message.max.bytes", "100000000")]), "as configured");
}
