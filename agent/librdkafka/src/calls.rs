//! Calls of librdkafka that `rdkafka` does not have.

use std::{
    ffi::{CStr, CString},
    ptr,
    time::Duration,
};

use rdkafka::{
    ClientContext,
    bindings::{
        rd_kafka_error_destroy, rd_kafka_error_string, rd_kafka_message_latency,
        rd_kafka_oauthbearer_set_token, rd_kafka_resp_err_t as Code, rd_kafka_sasl_set_credentials,
    },
    client::Client,
    message::BorrowedMessage,
};

/// Sets the token that a client authenticates with (OAUTHBEARER), from its next connection or
/// re-authentication on. `expires_at_ms` is in milliseconds since 1970 UTC.
///
/// # Errors
/// librdkafka's reason why it refuses the token.
pub fn set_token<C: ClientContext>(
    client: &Client<C>,
    token: &str,
    principal: &str,
    expires_at_ms: i64,
) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "a zero byte in a token".to_owned());
    let (token, principal) = (text(token)?, text(principal)?);
    let mut why = [0; 256];
    // SAFETY: the client is alive; librdkafka copies both strings, reads no extensions since there
    // are none, and writes a C string of at most that size.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            expires_at_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            why.as_mut_ptr(),
            why.len(),
        )
    };
    if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: a C string, see above; zeros if nothing was written.
    let why = unsafe { CStr::from_ptr(why.as_ptr()) };
    Err(why.to_string_lossy().into_owned())
}

/// Sets the user and the password that a client authenticates with, from its next connection on.
///
/// # Errors
/// librdkafka's reason why it refuses them.
pub fn set_password<C: ClientContext>(
    client: &Client<C>,
    username: &str,
    password: &str,
) -> Result<(), String> {
    let text = |text| CString::new(text).map_err(|_| "a zero byte in it".to_owned());
    let (username, password) = (text(username)?, text(password)?);
    // SAFETY: the client is alive, and librdkafka copies both strings. The error is null or an
    // object of ours, whose text lives until it is destroyed.
    unsafe {
        let client = client.native_ptr();
        let error = rd_kafka_sasl_set_credentials(client, username.as_ptr(), password.as_ptr());
        if error.is_null() {
            return Ok(());
        }
        let why = CStr::from_ptr(rd_kafka_error_string(error)).to_string_lossy().into_owned();
        rd_kafka_error_destroy(error);
        Err(why)
    }
}

/// Returns the time from a message's arrival in the producer's queue to its delivery report; `None`
/// if it is unknown.
#[must_use]
pub fn latency(message: &BorrowedMessage<'_>) -> Option<Duration> {
    // SAFETY: the message is librdkafka's for as long as it is borrowed.
    let us = unsafe { rd_kafka_message_latency(message.ptr()) };
    // Negative if it is unknown.
    u64::try_from(us).ok().map(Duration::from_micros)
}
