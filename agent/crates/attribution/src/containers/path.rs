//! Container and pod by the path of a cgroup.
//!
//! Container runtimes name a container's cgroup after the container, and the kubelet puts it below
//! one that is named after the pod:
//!
//! | driver | path below the root of the tree |
//! |---|---|
//! | cgroupfs | `kubepods/burstable/pod<uid>/<id>` |
//! | systemd | `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope` |
//! | systemd in kind | `kubelet.slice/kubelet-kubepods.slice/…/kubelet-kubepods-pod<uid>.slice/cri-containerd-<id>.scope` |
//! | Docker alone | `docker/<id>`, `system.slice/docker-<id>.scope` |
//! | Podman | `machine.slice/libpod-<id>.scope` |
//!
//! A UID of a systemd slice has `_` for `-`. A static pod has the hash of its manifest for a UID: 32
//! hexadecimal digits without separators. Below the container's own cgroup there may be others, which
//! its processes create.

/// Hexadecimal digits of a container's identifier, in every runtime of the table.
const CONTAINER_ID_DIGITS: usize = 64;

/// Hexadecimal digits of a UID (RFC 9562 §4) without its hyphens.
const UID_DIGITS: usize = 32;

/// A pod's UID as a number, which is what looking it up compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PodUid(u128);

impl PodUid {
    /// Reads a UID with `-`, `_` or nothing between its groups; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        let is_uid = digits.len() == UID_DIGITS && is_hexadecimal(&digits);
        is_uid.then(|| u128::from_str_radix(&digits, 16).ok().map(Self)).flatten()
    }
}

/// A container and its pod, as the path of a cgroup names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Identifier of the container, 64 hexadecimal digits.
    pub(super) container: String,
    /// UID of its pod, with hyphens; `None` for a container outside of Kubernetes.
    pub(super) pod: Option<String>,
}

/// Part of the tree that systemd delegates to users, who name cgroups there as they like.
const USERS: &str = "user.slice";

/// Reads the path of a cgroup, relative to the root of its tree; returns `None` if no part of it names
/// a container. The first part that does counts: what processes of a container create below its cgroup
/// names nobody else. Nor do cgroups of users name pods.
pub(super) fn parse(path: &str) -> Option<Named> {
    let mut pod = None;
    let mut is_users = false;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        is_users |= part == USERS;
        if let Some(container) = container(part, pod.is_some()) {
            return Some(Named { container: container.to_owned(), pod });
        }
        if !is_users && let Some(uid) = pod_uid(part) {
            pod = Some(uid);
        }
    }
    None
}

/// The container of one part of a path. A bare identifier is one below a pod, or below `docker`,
/// which no other part of a path resembles: 64 hexadecimal digits.
fn container(part: &str, in_pod: bool) -> Option<&str> {
    if is_container_id(part) {
        return Some(part);
    }
    let (runtime, id) = part.strip_suffix(".scope")?.rsplit_once('-')?;
    // The scope of CRI-O's monitor has the container's identifier, and is not the container.
    let is_runtime = in_pod || matches!(runtime, "docker" | "libpod" | "cri-containerd" | "crio");
    (is_container_id(id) && is_runtime && !runtime.ends_with("conmon")).then_some(id)
}

fn is_container_id(text: &str) -> bool {
    text.len() == CONTAINER_ID_DIGITS && is_hexadecimal(text)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

/// The UID of a part `pod<uid>` or `…-pod<uid>.slice`.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.rsplit_once("-pod") {
        Some((_, uid)) => uid,
        None => part.strip_prefix("pod")?,
    };
    PodUid::parse(uid)?;
    Some(uid.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8d3f1d4e-5c2b-4a57-9b0e-2f6a7c9d1e3b";

    fn named(path: &str) -> Option<(String, Option<String>)> {
        parse(path).map(|named| (named.container, named.pod))
    }

    #[test]
    fn every_driver_and_runtime_names_pod_and_container() {
        let underscores = UID.replace('-', "_");
        for path in [
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/{ID}"),
            format!("kubepods/besteffort/pod{UID}/{ID}/init.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscores}.slice/\
                 cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{underscores}.slice/crio-{ID}.scope/container"),
            format!("/kubepods.slice/kubepods-pod{underscores}.slice/docker-{ID}.scope"),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                 kubelet-kubepods-besteffort-pod{underscores}.slice/cri-containerd-{ID}.scope"
            ),
        ] {
            assert_eq!(named(&path), Some((ID.to_owned(), Some(UID.to_owned()))), "{path}");
        }
    }

    #[test]
    fn a_static_pod_has_the_hash_of_its_manifest() {
        let hash = "3f2504e04f8941d39a0c0305e82c3301";
        let path = format!("/kubepods/burstable/pod{hash}/{ID}");
        assert_eq!(named(&path), Some((ID.to_owned(), Some(hash.to_owned()))));
        assert_eq!(PodUid::parse(hash), PodUid::parse("3f2504e0-4f89-41d3-9a0c-0305e82c3301"));
    }

    #[test]
    fn a_container_without_a_pod_is_one() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
        ] {
            assert_eq!(named(&path), Some((ID.to_owned(), None)), "{path}");
        }
    }

    #[test]
    fn nobody_can_name_a_cgroup_after_the_pod_of_somebody_else() {
        let own = "f".repeat(64);
        let nested = format!("/kubepods/pod{UID}/{own}/kubepods/pod{}/{ID}", "0".repeat(32));
        assert_eq!(named(&nested), Some((own, Some(UID.to_owned()))));
        let of_user = format!("/user.slice/user-1000.slice/kubepods/pod{UID}/{ID}");
        assert_eq!(named(&of_user), Some((ID.to_owned(), None)));
    }

    #[test]
    fn services_users_and_look_alikes_are_no_containers() {
        for path in [
            String::new(),
            "/".to_owned(),
            "/system.slice/systemd-resolved.service".to_owned(),
            "/user.slice/user-1000.slice/session-1.scope".to_owned(),
            format!("/kubepods/burstable/pod{UID}"),
            format!("/kubepods.slice/kubepods-pod{UID}.slice/crio-conmon-{ID}.scope"),
            format!("/system.slice/backup-{ID}.scope"),
            format!("/docker/{}", &ID[..63]),
            format!("/docker/{ID}0"),
            format!("/docker/{}", ID.to_uppercase()),
            "/kubepods/podé/é".to_owned(),
        ] {
            assert_eq!(named(&path), None, "{path}");
        }
    }

    #[test]
    fn a_uid_has_32_digits() {
        for text in ["", "-", "8d3f1d4e", &UID[1..], "8d3f1d4e-5c2b-4a57-9b0e-2f6a7c9d1e3g"] {
            assert_eq!(PodUid::parse(text), None, "{text}");
        }
    }
}
