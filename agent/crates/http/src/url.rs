//! URLs of servers in the configuration.

use http::{Uri, uri::Authority};

/// Refuses an impossible port: the client would use the scheme's default instead.
///
/// # Errors
/// The reason, for the configuration.
pub fn has_usable_port(authority: &Authority) -> Result<(), String> {
    let rest = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    match authority.port_u16() {
        Some(1..) => Ok(()),
        None if rest.is_empty() => Ok(()),
        _ => Err("the port must be a whole number from 1 to 65535".to_owned()),
    }
}

/// Checks a URL, which paths such as `/subjects` are appended to. One that may hold a password passes:
/// the caller refuses it, without showing it.
///
/// # Errors
/// The reason, for the configuration.
pub fn base_url(text: &str) -> Result<String, String> {
    const FORM: &str = "must be http://host:port or https://host:port, with or without a path";
    if text.contains(['@', '?']) {
        return Ok(text.to_owned());
    }
    let uri: Uri = text.parse().map_err(|_| FORM.to_owned())?;
    let authority = uri.authority().ok_or(FORM)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
        return Err(FORM.to_owned());
    }
    has_usable_port(authority)?;
    if text.contains('#') {
        return Err("must not have anything after the path".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}
