//! Log lines about the collector: one when exports begin to fail or fail otherwise, one when they succeed
//! again.

use crate::client::{Accepted, Error};

/// Logs a failure or a message of the collector once, until it changes.
#[derive(Debug, Default)]
pub(crate) struct FailureLog {
    failure: Option<String>,
    message: Option<String>,
}

impl FailureLog {
    pub(crate) fn failed(&mut self, url: &str, error: &Error) {
        let text = error.clause();
        if self.failure.as_ref() == Some(&text) {
            return;
        }
        let reason = error.failure().name();
        if error.is_temporary() {
            tracing::warn!(
                event = "otlp_export_failed",
                url,
                reason,
                "metrics are not exported: {text}; retrying"
            );
        } else {
            tracing::error!(
                event = "otlp_export_refused",
                url,
                reason,
                "metrics are not exported: {text}; trying again at each interval"
            );
        }
        self.failure = Some(text);
    }

    pub(crate) fn exported(&mut self, url: &str) {
        if self.failure.take().is_some() {
            tracing::info!(event = "otlp_export_resumed", url, "metrics are exported again");
        }
    }

    /// Logs the collector's message about an accepted request, unless it is the same as before.
    pub(crate) fn accepted(&mut self, url: &str, accepted: &Accepted) {
        let Accepted { rejected, message } = accepted;
        if !accepted.is_notable() || self.message.as_ref() == Some(message) {
            return;
        }
        tracing::warn!(
            event = "otlp_points_rejected",
            url,
            rejected,
            "the collector accepted a request in part: {message}"
        );
        self.message = Some(message.clone());
    }
}
