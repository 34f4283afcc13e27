//! A broker whose list of API versions is null.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

use rdkafka::{ClientConfig, producer::BaseProducer};

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_null_list_of_versions_does_not_end_the_process() {
    assert!(tap53_librdkafka::is_mended());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", listener.local_addr().unwrap().to_string())
        .set("reconnect.backoff.ms", "1")
        .create()
        .unwrap();
    // It has survived the first answer once it connects again.
    for _ in 0..2 {
        let (mut connection, _) = listener.accept().unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut request = [0; 12];
        connection.read_exact(&mut request).unwrap();
        // Length, correlation id, no error, a null array, no throttling, no tags.
        let mut answer = vec![0, 0, 0, 12];
        answer.extend(&request[8..12]);
        answer.extend([0, 0, 0, 0, 0, 0, 0, 0]);
        connection.write_all(&answer).unwrap();
    }
    drop(producer);
}
