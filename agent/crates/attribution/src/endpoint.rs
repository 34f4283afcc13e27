//! Identifies one end of a transaction by the socket that sent its packet, else by its address.

use tap53_ebpf::record::Sender;
use tap53_records::encode::{Attribution, Owner, OwnerSource, Provenance};

use super::{
    containers::{Container, ContainerReader, Placement},
    pods::PodsByUid,
};

/// One end of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Its owner.
    pub owner: &'a Owner,
    /// The evidence for the owner, and the container and user of the socket.
    pub provenance: Provenance<'a>,
    /// True if its socket is of a cgroup that is not known.
    pub has_unknown_cgroup: bool,
}

impl<'a> Endpoint<'a> {
    /// The owner of the address, of whom something may be known; no socket was seen.
    #[inline]
    pub(crate) fn by_address(owner: &'a Owner, is_attributed: bool) -> Self {
        let source = is_attributed.then_some(OwnerSource::Address);
        Self {
            owner,
            provenance: Provenance { source, ..Provenance::default() },
            has_unknown_cgroup: false,
        }
    }

    /// The same with what the sending socket says.
    pub(crate) fn refined(
        mut self,
        sender: Sender,
        containers: &'a ContainerReader,
        pods: Option<&'a PodsByUid>,
    ) -> Self {
        self.provenance.user_id = Some(sender.uid);
        match containers.placement(sender.cgroup) {
            Some(Placement::Container(container)) => self.of_container(container, pods),
            Some(Placement::Host) => self.of_host(containers),
            None => Self { has_unknown_cgroup: containers.is_followed(), ..self },
        }
    }

    fn of_container(mut self, container: &'a Container, pods: Option<&'a PodsByUid>) -> Self {
        self.provenance.container_id = Some(container.id());
        let Some((uid, of_path)) = container.pod() else { return self };
        let pod = pods.and_then(|pods| pods.get(&uid));
        self.provenance.container_name = pod.and_then(|pod| pod.container_name(container.id()));
        let by_socket = pod.map_or(of_path, |pod| &pod.owner);
        let by_address = self.owner.identity();
        self.provenance.conflict = by_address.attribution == Attribution::Pod
            && by_address.pod_uid != by_socket.identity().pod_uid;
        self.provenance.source = Some(OwnerSource::Socket);
        Self { owner: by_socket, ..self }
    }

    /// A process that is in no container, of a node whose address pods share with it, is the node's.
    fn of_host(mut self, containers: &'a ContainerReader) -> Self {
        let identity = self.owner.identity();
        if identity.attribution != Attribution::AmbiguousHostNetwork || !containers.is_unified() {
            return self;
        }
        self.provenance.source = Some(OwnerSource::Socket);
        Self { owner: containers.host(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use tap53_records::encode::Identity;

    use super::*;
    use crate::{containers::PodUid, pods::LocalPod};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8d3f1d4e-5c2b-4a57-9b0e-2f6a7c9d1e3b";

    fn owner(attribution: Attribution, pod_uid: Option<&str>) -> Owner {
        let pod_uid = pod_uid.map(str::to_owned);
        Owner::new(Identity { attribution, pod_uid, ..Default::default() })
    }

    fn sender(cgroup: u64) -> Sender {
        Sender { socket: 1, cgroup, uid: 1_000 }
    }

    fn reader(is_unified: bool) -> ContainerReader {
        let pod = format!("kubepods/pod{UID}/{ID}");
        let docker = format!("docker/{ID}");
        let cgroups = [(1, ""), (2, pod.as_str()), (3, docker.as_str())];
        ContainerReader::scripted(&cgroups, is_unified)
    }

    #[test]
    fn a_socket_names_the_pod_whoever_has_the_address() {
        let containers = reader(false);
        for (attribution, other, conflict) in [
            (Attribution::AmbiguousHostNetwork, None, false),
            (Attribution::Unknown, None, false),
            (Attribution::Unattributed, None, false),
            (Attribution::Pod, Some(UID), false),
            (Attribution::Pod, Some("another"), true),
        ] {
            let by_address = owner(attribution, other);
            let endpoint = Endpoint::by_address(&by_address, true);
            let endpoint = endpoint.refined(sender(2), &containers, None);
            assert_eq!(endpoint.owner.identity().pod_uid.as_deref(), Some(UID));
            assert_eq!(endpoint.owner.identity().node_name.as_deref(), Some("node-1"));
            assert_eq!(endpoint.provenance.source, Some(OwnerSource::Socket));
            assert_eq!(endpoint.provenance.conflict, conflict, "{attribution:?}");
            assert_eq!(endpoint.provenance.container_id, Some(ID));
            assert_eq!(endpoint.provenance.user_id, Some(1_000));
        }
    }

    #[test]
    fn a_pod_that_the_api_server_knows_has_its_names() {
        let containers = reader(false);
        let pod = LocalPod {
            owner: owner(Attribution::Pod, Some(UID)),
            containers: [(ID.to_owned(), "main".to_owned())].into(),
            ended: None,
        };
        let pods = PodsByUid::from([(PodUid::parse(UID).unwrap(), pod)]);
        let nobody = owner(Attribution::Unknown, None);
        let endpoint = Endpoint::by_address(&nobody, true);
        let endpoint = endpoint.refined(sender(2), &containers, Some(&pods));
        assert_eq!(endpoint.provenance.container_name, Some("main"));
        assert!(std::ptr::eq(endpoint.owner, &raw const pods[&PodUid::parse(UID).unwrap()].owner));
    }

    #[test]
    fn a_container_without_a_pod_leaves_the_owner_of_the_address() {
        let containers = reader(true);
        let node = owner(Attribution::Node, None);
        let endpoint = Endpoint::by_address(&node, true).refined(sender(3), &containers, None);
        assert_eq!(endpoint.owner, &node);
        assert_eq!(endpoint.provenance.source, Some(OwnerSource::Address));
        assert_eq!(endpoint.provenance.container_id, Some(ID));
    }

    #[test]
    fn a_process_of_the_host_is_the_nodes_where_its_cgroup_says_so() {
        let ambiguous = owner(Attribution::AmbiguousHostNetwork, None);
        let by_address = Endpoint::by_address(&ambiguous, true);
        let unified = reader(true);
        let endpoint = by_address.refined(sender(1), &unified, None);
        assert_eq!(endpoint.owner.identity().attribution, Attribution::Node);
        assert_eq!(endpoint.provenance.source, Some(OwnerSource::Socket));
        // In the root of version 2 may be a container of version 1.
        let hybrid = reader(false);
        let endpoint = by_address.refined(sender(1), &hybrid, None);
        assert_eq!(endpoint.owner.identity().attribution, Attribution::AmbiguousHostNetwork);
        assert_eq!(endpoint.provenance.source, Some(OwnerSource::Address));
    }

    #[test]
    fn a_cgroup_that_is_not_known_is_counted_and_changes_nothing() {
        let containers = reader(true);
        let nobody = owner(Attribution::Unknown, None);
        let endpoint = Endpoint::by_address(&nobody, true).refined(sender(9), &containers, None);
        assert!(endpoint.has_unknown_cgroup);
        assert_eq!(endpoint.owner, &nobody);
        assert_eq!(endpoint.provenance.user_id, Some(1_000));
    }
}
