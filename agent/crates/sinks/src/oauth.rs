//! OAuth access tokens: from a file, or from an authorization server by client credentials.

mod endpoint;
mod token;

use std::path::Path;

use jiff::Timestamp;
use tap53_base::files::read_secret_text;

use crate::config::TokenEndpoint;
pub(crate) use token::Token;

/// Reads a token (a JWT) from a file.
///
/// # Errors
/// The file's name and the reason.
pub(crate) fn read_file(path: &Path) -> Result<Token, String> {
    let token = match read_secret_text(path) {
        Ok(text) => Token::of_jwt(text.trim(), Timestamp::now()).map_err(|why| why.to_string()),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    token.map_err(|why| format!("{}: {why}", path.display()))
}

/// Requests a token from a server, and waits for the answer.
///
/// # Errors
/// The server's URL and the reason.
pub(crate) fn request(endpoint: &TokenEndpoint) -> Result<Token, String> {
    let answer = tap53_http::block_on(endpoint::request(endpoint));
    answer
        .map_err(endpoint::Error::from)
        .flatten()
        .map_err(|error| format!("{}: {error}", endpoint.url))
}
