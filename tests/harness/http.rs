//! One request over HTTP/1.1, as a kubelet's probe makes it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::namespace::Namespace;

/// Longer than any answer takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// What is before the body.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A connection from within `namespace`.
///
/// # Errors
/// When nobody listens.
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
