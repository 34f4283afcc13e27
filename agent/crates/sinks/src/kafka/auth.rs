//! Tokens for SASL OAUTHBEARER, from a file or from an authorization server.
//!
//! librdkafka authenticates each connection with the token that was set last. [`TokenSource::renew`]
//! sets a new one as soon as it is known, once a tick, so librdkafka's own request for one is not
//! answered: an authorization server may take seconds, and that thread applies delivery reports. A
//! separate thread queries the server.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use rdkafka::{ClientContext, client::Client, producer::Producer as _};
use tap53_base::{
    backoff::Backoff,
    threads::{Background, Requests, Round},
};

use super::{context::REMINDER_INTERVAL, producer::PolledProducer};
use crate::{
    config::{Credentials, SaslConfig, TokenEndpoint},
    oauth::{self, Token},
};

/// The pauses after a server has given no token.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// The least interval between queries, however short the lifetime of the tokens is.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct TokenSource {
    sink: String,
    source: Source,
    current: Mutex<Current>,
}

enum Source {
    File(PathBuf),
    /// The latest answer of an authorization server, and the thread that queries it.
    Endpoint {
        latest: Arc<Mutex<Option<Result<Token, String>>>>,
        _thread: Option<Background>,
    },
}

#[derive(Default)]
struct Current {
    /// The latest token, and the address of the client that has it.
    token: Option<(Token, usize)>,
    /// When an error was last logged.
    logged_at: Option<Instant>,
}

impl TokenSource {
    /// Starts the thread that queries a server; `None` if no token is needed.
    pub(super) fn open(sink: &str, sasl: Option<&SaslConfig>) -> Option<Self> {
        let source = match &sasl?.credentials {
            Credentials::Password { .. } => return None,
            Credentials::TokenFile { token_file } => Source::File(token_file.clone()),
            Credentials::TokenEndpoint(endpoint) => start_requests(endpoint),
        };
        Some(Self { sink: sink.to_owned(), source, current: Mutex::default() })
    }

    /// Gives the producer the latest token, unless it has it. Errors are logged; the next call tries
    /// again.
    pub(super) fn renew(&self, producer: &PolledProducer) {
        let now = Timestamp::now();
        let client = producer.client();
        let address = client.native_ptr() as usize;
        let mut current = self.current.lock();
        let latest = match &self.source {
            Source::File(path) => Some(oauth::read_file(path)),
            Source::Endpoint { latest, .. } => latest.lock().clone(),
        };
        let token = match (latest, &current.token) {
            (None, _) => return,
            (Some(Ok(token)), _) => token,
            // For a producer that was just created.
            (Some(Err(_)), Some((token, _))) if token.expires_at > now => token.clone(),
            (Some(Err(why)), _) => return self.log_error(&mut current, &why),
        };
        let has_it = |(last, holder): &(Token, usize)| (last, *holder) == (&token, address);
        if current.token.as_ref().is_some_and(has_it) {
            return;
        }
        if let Err(why) = set_token(client, &token) {
            return self.log_error(&mut current, &why);
        }
        if current.token.as_ref().is_none_or(|(last, _)| *last != token) {
            let (sink, principal) = (&self.sink, &token.principal);
            tracing::info!(
                event = "token_renewed",
                sink,
                principal,
                "token renewed, valid until {:.0}",
                token.expires_at
            );
        }
        *current = Current { token: Some((token, address)), logged_at: None };
    }

    /// Logs that there is no token, unless it was logged within [`REMINDER_INTERVAL`].
    fn log_error(&self, current: &mut Current, why: &str) {
        let sink = &self.sink;
        if current.logged_at.is_some_and(|at| at.elapsed() < REMINDER_INTERVAL) {
            return;
        }
        current.logged_at = Some(Instant::now());
        tracing::error!(event = "token_unavailable", sink, "no valid token for the brokers: {why}");
    }
}

/// Fetches a token now, from the file or the server; `None` if none is needed.
pub(crate) fn fetch(sasl: Option<&SaslConfig>) -> Option<Result<Token, String>> {
    match &sasl?.credentials {
        Credentials::Password { .. } => None,
        Credentials::TokenFile { token_file } => Some(oauth::read_file(token_file)),
        Credentials::TokenEndpoint(endpoint) => Some(oauth::request(endpoint)),
    }
}

/// Gives a client its token.
pub(crate) fn set_token<C: ClientContext>(client: &Client<C>, token: &Token) -> Result<(), String> {
    let expires_at_ms = token.expires_at.as_millisecond();
    tap53_librdkafka::set_token(client, token.text(), &token.principal, expires_at_ms)
}

fn start_requests(endpoint: &TokenEndpoint) -> Source {
    let latest = Arc::new(Mutex::new(None));
    let (endpoint, answers) = (endpoint.clone(), latest.clone());
    let started = Background::start("kafka-token", Requests::default(), BACKOFF, move || {
        let answer = oauth::request(&endpoint);
        let round = match &answer {
            Ok(token) => Round::Done(Some(token.until_renewal().max(MIN_INTERVAL))),
            Err(_) => Round::Failed(Duration::ZERO),
        };
        *answers.lock() = Some(answer);
        round
    });
    if let Err(error) = &started {
        *latest.lock() = Some(Err(format!("no thread to query the server: {error}")));
    }
    Source::Endpoint { latest, _thread: started.ok() }
}
