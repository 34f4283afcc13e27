//! Clients that query brokers or administer the cluster, with the producer's addresses and
//! credentials.

mod topic;

use rdkafka::{
    ClientConfig, ClientContext,
    admin::AdminClient as RdAdminClient,
    client::{Client, DefaultClientContext},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};

use super::{
    auth,
    producer::settings::{connection, for_reader},
};
use crate::{OpenError, config::KafkaConfig, oauth::Token};

pub(super) use topic::TopicCreator;

/// Creates such clients.
pub struct AdminClient {
    config: ClientConfig,
    token: Option<Token>,
}

/// Reasons why no such client can be created.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A file with a secret cannot be read.
    #[error("{0}")]
    Secret(OpenError),
    /// There is no token.
    #[error("{0}")]
    Token(String),
}

impl AdminClient {
    /// Reads secrets, and fetches a token if one is needed, which may take seconds.
    pub fn prepare(config: &KafkaConfig) -> Result<Self, AdminError> {
        let client = connection(config).map_err(AdminError::Secret)?;
        let token = auth::fetch(config.sasl.as_ref()).transpose().map_err(AdminError::Token)?;
        Ok(Self { config: client, token })
    }

    /// The token, if tokens authenticate this client.
    pub const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Creates a client that queries metadata. (A producer's query could create the topic.)
    pub fn consumer<C>(&self, context: C) -> Result<BaseConsumer<C>, KafkaError>
    where
        C: ConsumerContext + ClientContext + 'static,
    {
        let consumer: BaseConsumer<C> = for_reader(&self.config).create_with_context(context)?;
        self.authenticate(consumer.client())?;
        Ok(consumer)
    }

    /// Creates a client that reads topics. Partitions are assigned to it, so it joins no group.
    pub fn reader(&self) -> Result<BaseConsumer, KafkaError> {
        let mut config = for_reader(&self.config);
        config
            .set("group.id", "tap53-verify")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create()?;
        self.authenticate(consumer.client())?;
        Ok(consumer)
    }

    fn admin(&self) -> Result<RdAdminClient<DefaultClientContext>, KafkaError> {
        let admin: RdAdminClient<DefaultClientContext> = self.config.create()?;
        self.authenticate(admin.inner())?;
        Ok(admin)
    }

    fn authenticate<C: ClientContext>(&self, client: &Client<C>) -> Result<(), KafkaError> {
        match &self.token {
            Some(token) => auth::set_token(client, token).map_err(KafkaError::ClientCreation),
            None => Ok(()),
        }
    }
}
