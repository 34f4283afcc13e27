//! The pods of this node, by which containers are named.

use std::sync::Arc;

use hashbrown::HashMap;
use tap53_records::encode::Owner;

use crate::{address_history::Micros, containers::PodUid};

/// A pod of this node.
#[derive(Clone, Debug)]
pub(crate) struct LocalPod {
    pub(crate) owner: Owner,
    /// Identifiers and names of its containers.
    pub(crate) containers: Arc<[(String, String)]>,
    pub(crate) ended: Option<Micros>,
}

impl LocalPod {
    /// Name of one of its containers.
    pub(crate) fn container_name(&self, id: &str) -> Option<&str> {
        let (_, name) = self.containers.iter().find(|(known, _)| known == id)?;
        Some(name)
    }
}

/// Pods by UID.
pub(crate) type PodsByUid = HashMap<PodUid, LocalPod>;
