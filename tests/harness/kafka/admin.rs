//! Creates and deletes topics by Kafka's protocol: one request of some sixty bytes, where Kafka's own tool would
//! start a JVM.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, bail};

const DEADLINE: Duration = Duration::from_secs(30);
const CREATE_TOPICS: i16 = 19;
/// The last version before tagged fields; brokers 4.x take 2 to 7.
const CREATE_TOPICS_VERSION: i16 = 4;
const DELETE_TOPICS: i16 = 20;
/// Version of the request; brokers 4.x support 1 to 6.
const DELETE_TOPICS_VERSION: i16 = 3;
const CORRELATION_ID: i32 = 53;

/// Properties of a new topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'a> {
    pub(super) partitions: i32,
    pub(super) replicas: i16,
    /// Settings of the topic.
    pub(super) settings: &'a [(&'a str, &'a str)],
}

pub(super) fn create_topic(stream: TcpStream, topic: &str, shape: Shape<'_>) -> Result<()> {
    let mut out = begin(CREATE_TOPICS, CREATE_TOPICS_VERSION)?;
    out.extend(1i32.to_be_bytes()); // topics
    push_string(&mut out, topic)?;
    out.extend(shape.partitions.to_be_bytes());
    out.extend(shape.replicas.to_be_bytes());
    out.extend(0i32.to_be_bytes()); // no manual assignments
    out.extend(i32::try_from(shape.settings.len())?.to_be_bytes());
    for (name, value) in shape.settings {
        push_string(&mut out, name)?;
        push_string(&mut out, value)?;
    }
    out.extend(i32::try_from(DEADLINE.as_millis())?.to_be_bytes());
    out.push(0); // create, do not only validate
    match ask(stream, &out, topic)? {
        0 => Ok(()),
        code => bail!("the broker refused to create topic {topic}: error code {code}"),
    }
}

pub(super) fn delete_topic(stream: TcpStream, topic: &str) -> Result<()> {
    let mut out = begin(DELETE_TOPICS, DELETE_TOPICS_VERSION)?;
    out.extend(1i32.to_be_bytes()); // topics
    push_string(&mut out, topic)?;
    out.extend(i32::try_from(DEADLINE.as_millis())?.to_be_bytes());
    match ask(stream, &out, topic)? {
        0 => Ok(()),
        code => bail!("the broker refused to delete topic {topic}: error code {code}"),
    }
}

/// A request's header.
fn begin(api: i16, version: i16) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(api.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(CORRELATION_ID.to_be_bytes());
    push_string(&mut out, "tap53-harness")?;
    Ok(out)
}

/// Sends a request about one topic; the error code of the answer.
fn ask(mut stream: TcpStream, request: &[u8], topic: &str) -> Result<i16> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let length = i32::try_from(request.len())?.to_be_bytes();
    stream.write_all(&[&length, request].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut response)?;
    error_code(&response, topic).context("response too short")
}

fn push_string(out: &mut Vec<u8>, text: &str) -> Result<()> {
    out.extend(i16::try_from(text.len())?.to_be_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

/// Correlation id, throttle time, count of topics, the topic's name, then its error code.
fn error_code(response: &[u8], topic: &str) -> Option<i16> {
    let at = 4 + 4 + 4 + 2 + topic.len();
    Some(i16::from_be_bytes(response.get(at..at + 2)?.try_into().ok()?))
}
