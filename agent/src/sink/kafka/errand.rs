//! Clients beside the producer, for a question or an order to the brokers: who they are and how they
//! connect is the same.

use rdkafka::{
    ClientConfig, ClientContext,
    admin::AdminClient,
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafka,
};

use super::{
    oauth::{self, Token},
    settings::{connection, for_reader},
};
use crate::{config::KafkaConfig, sink::Error};

/// What such clients are made of.
pub(crate) struct Errand {
    config: ClientConfig,
    token: Option<Token>,
}

/// Why there can be none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unprepared {
    /// A file with a secret cannot be read.
    #[error("{0}")]
    Secret(Error),
    /// There is no token.
    #[error("{0}")]
    Token(String),
}

impl Errand {
    /// Reads secrets, and asks for a token where one is asked for: this may take seconds.
    pub(crate) fn prepare(config: &KafkaConfig) -> Result<Self, Unprepared> {
        let (client, _password) = connection(config).map_err(Unprepared::Secret)?;
        let token = oauth::obtain(config.sasl.as_ref()).transpose().map_err(Unprepared::Token)?;
        Ok(Self { config: client, token })
    }

    /// The token that it has, where tokens say who this is.
    pub(crate) const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// A client that asks. (A producer's question would make the topic.)
    pub(crate) fn consumer<C>(&self, context: C) -> Result<BaseConsumer<C>, KafkaError>
    where
        C: ConsumerContext + ClientContext + 'static,
    {
        let consumer: BaseConsumer<C> = for_reader(&self.config).create_with_context(context)?;
        self.introduce(consumer.client().native_ptr())?;
        Ok(consumer)
    }

    /// A client that reads topics. Partitions are assigned to it, so that it joins no group.
    pub(crate) fn reader(&self) -> Result<BaseConsumer, KafkaError> {
        let mut config = for_reader(&self.config);
        config
            .set("group.id", "tap53-verify")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create()?;
        self.introduce(consumer.client().native_ptr())?;
        Ok(consumer)
    }

    /// A client that gives orders.
    pub(crate) fn admin(&self) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
        let admin: AdminClient<DefaultClientContext> = self.config.create()?;
        self.introduce(admin.inner().native_ptr())?;
        Ok(admin)
    }

    fn introduce(&self, client: *mut RDKafka) -> Result<(), KafkaError> {
        match &self.token {
            Some(token) => oauth::set_token(client, token).map_err(KafkaError::ClientCreation),
            None => Ok(()),
        }
    }
}
