//! The place of this node on the path of a transaction.

/// Where this node is on the path of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeRole {
    /// The evidence does not say.
    #[default]
    Unknown,
    /// The client is on this node.
    ClientNode,
    /// The server is on this node.
    ServerNode,
    /// Client and server are on this node.
    SameNode,
    /// Neither is on this node.
    Transit,
}

impl NodeRole {
    /// Returns the place of a node that has the client and the server, as far as that is known.
    #[must_use]
    pub const fn of(has_client: Option<bool>, has_server: Option<bool>) -> Self {
        match (has_client, has_server) {
            (Some(true), Some(true)) => Self::SameNode,
            (Some(true), _) => Self::ClientNode,
            (_, Some(true)) => Self::ServerNode,
            (Some(false), Some(false)) => Self::Transit,
            _ => Self::Unknown,
        }
    }

    /// Returns the symbol of the Avro enum.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::ClientNode => "CLIENT_NODE",
            Self::ServerNode => "SERVER_NODE",
            Self::SameNode => "SAME_NODE",
            Self::Transit => "TRANSIT",
        }
    }
}
