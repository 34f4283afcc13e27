//! Sends one request over HTTP/1.1, as a kubelet's probe does.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::namespace::Namespace;

/// Longer than any answer takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Status line and headers.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A connection from within `namespace`.
///
/// # Errors
/// When the connection is refused.
pub fn connect(namespace: &Namespace, address: SocketAddr) -> Result<TcpStream> {
    let stream = namespace.enter(|| Ok(TcpStream::connect_timeout(&address, DEADLINE)?))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// GET of `path`.
///
/// # Errors
/// When there is no answer.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<Answer> {
    ask(namespace, address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

/// Sends `request` as it is.
///
/// # Errors
/// When there is no answer.
pub fn ask(namespace: &Namespace, address: SocketAddr, request: &str) -> Result<Answer> {
    let mut stream = connect(namespace, address)?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("an answer from {address}"))?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("a head: {text:?}"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        code: code.with_context(|| format!("a status code: {head}"))?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// A request of an API that speaks JSON.
#[derive(Clone, Copy, Debug)]
pub struct JsonRequest<'a> {
    /// GET and so on.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Content type of the API.
    pub content_type: &'a str,
    /// Empty if there is none.
    pub body: &'a str,
}

/// An answer of such an API.
#[derive(Debug)]
pub struct JsonAnswer {
    /// Status code.
    pub code: u16,
    /// Its body; null if that is no JSON.
    pub body: Value,
}

impl JsonRequest<'_> {
    /// Sends the request from within `namespace`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(self, namespace: &Namespace, address: SocketAddr) -> Result<JsonAnswer> {
        let Self { method, path, content_type, body } = self;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: \
             {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = ask(namespace, address, &request)?;
        let body = if answer.head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunked(&answer.body)?
        } else {
            answer.body
        };
        Ok(JsonAnswer { code: answer.code, body: serde_json::from_str(&body).unwrap_or_default() })
    }
}

/// A body without the lengths of its parts (RFC 9112 §7.1).
fn unchunked(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n").context("a chunk's length")?;
        let length = usize::from_str_radix(length, 16)?;
        if length == 0 {
            return Ok(body);
        }
        let (chunk, after) = after.split_at_checked(length).context("a chunk")?;
        body.push_str(chunk);
        rest = after.strip_prefix("\r\n").context("a chunk's end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunked("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n").unwrap(), "abc0123456789");
        assert!(unchunked("3\r\nab").is_err() && unchunked("").is_err());
    }
}
