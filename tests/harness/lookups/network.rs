//! Clusters, addresses, service discovery, resolvers, monitors and directories.

use std::{net::IpAddr, time::Duration};

use super::{
    Answer,
    benign::Activity,
    reputation::nibbles,
    rtype,
    universe::{domain, pod, public_v4, server, workstation},
    web::company,
};
use crate::lookups::Random;

const PODS: usize = 300;
const NAMESPACES: [&str; 6] = ["shop", "payments", "search", "monitoring", "kube-system", "data"];

/// The bytes of an IPv4 address in reverse.
pub(super) fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(_) => nibbles(0),
    }
}

/// A pod looks up a service or a name outside, with the search list of the cluster (`ndots:5`).
pub(super) fn cluster(activity: &mut Activity<'_>) {
    let number = activity.random.below(PODS);
    activity.client = pod(number);
    let namespace = NAMESPACES[number % NAMESPACES.len()];
    let search = [
        format!("{namespace}.svc.cluster.local"),
        "svc.cluster.local".to_owned(),
        "cluster.local".to_owned(),
    ];
    let service = ["api", "db", "cache", "queue", "auth", "web"][activity.random.below(6)];
    match activity.random.below(10) {
        0..5 => {
            let name = format!("{service}.{}", search[0]);
            let address = [10, 96, 0, Random::new(number as u64).octet_below(200)].into();
            activity.found(&name, rtype::A, vec![Answer::address(address)]);
            activity.found(&name, rtype::AAAA, Vec::new());
        }
        5..8 => {
            // A name outside, tried with every suffix, in both families.
            let site =
                if activity.random.chance(50) { activity.site() } else { company("cloud", 0) };
            for suffix in &search {
                activity.absent(&format!("{site}.{suffix}"), rtype::A);
                activity.absent(&format!("{site}.{suffix}"), rtype::AAAA);
            }
            activity.addresses(&site);
        }
        8 => {
            let name = format!("_grpc._tcp.{service}.{}", search[0]);
            let targets = (0..3).map(|replica| {
                let target = format!("{service}-{replica}.{service}.{}", search[0]);
                Answer::numbers_and_name(rtype::SRV, &[0, 33, 50_051], &target)
            });
            let targets: Vec<_> = targets.collect();
            activity.found(&name, rtype::SRV, targets);
        }
        _ => {
            let dashed = reversed(pod(activity.random.below(PODS))).replace('.', "-");
            let name = format!("{dashed}.{namespace}.pod.cluster.local");
            activity.found(&name, rtype::A, vec![Answer::address(pod(number))]);
        }
    }
}

/// Names of addresses, as logs and analyses want them.
pub(super) fn reverse(activity: &mut Activity<'_>) {
    activity.client = server(activity.random.below(12));
    for _ in 0..1 + activity.random.below(4) {
        let number = activity.random.below(1 << 22);
        let name = match activity.random.below(10) {
            0..2 => format!("{}.ip6.arpa", nibbles(number)),
            2..4 => format!("{}.in-addr.arpa", reversed(workstation(number % 500))),
            _ => format!("{}.in-addr.arpa", reversed(public_v4(number))),
        };
        if activity.random.chance(40) {
            activity.absent(&name, rtype::PTR);
        } else {
            let host = reversed(public_v4(number)).replace('.', "-");
            let host = format!("{host}.dyn.{}", company("provider", number % 40));
            activity.found(&name, rtype::PTR, vec![Answer::name(rtype::PTR, &host)]);
        }
    }
}

/// A workstation looks for the services of its network (RFC 6763).
pub(super) fn service_discovery(activity: &mut Activity<'_>) {
    let number = activity.random.below(500);
    activity.client = workstation(number);
    let network = format!("0.{}.20.10.in-addr.arpa", number % 3);
    for service in ["lb", "b", "db", "r"] {
        activity.absent(&format!("{service}._dns-sd._udp.{network}"), rtype::PTR);
    }
    let office = domain(7);
    for service in ["_ipp._tcp", "_airplay._tcp", "_services._dns-sd._udp"] {
        let instance = format!("Printer {} (2nd floor).{service}.{office}", number % 5);
        activity.found(
            &format!("{service}.{office}"),
            rtype::PTR,
            vec![Answer::name(rtype::PTR, &instance)],
        );
    }
}

/// A resolver that asks for one label more at a time (RFC 9156), and validates.
pub(super) fn minimized(activity: &mut Activity<'_>) {
    activity.client = server(30 + activity.random.below(2));
    let site = activity.site();
    let (_, suffix) = site.split_once('.').expect("a domain has two labels");
    let delegation = |domain: &str| {
        ["ns1", "ns2"].map(|host| Answer::name(rtype::NS, &format!("{host}.{domain}"))).to_vec()
    };
    activity.found(suffix, rtype::NS, delegation(suffix));
    activity.found(&site, rtype::NS, delegation(&site));
    activity.found(&format!("_.{site}"), rtype::A, Vec::new());
    let digest = activity.random.bytes(36);
    activity.found(&site, rtype::DS, vec![Answer { rtype: rtype::DS, rdata: digest }]);
    let keys = (0..2).map(|_| Answer { rtype: rtype::DNSKEY, rdata: activity.random.bytes(260) });
    let keys: Vec<_> = keys.collect();
    activity.found(&site, rtype::DNSKEY, keys);
    activity.addresses(&format!("www.{site}"));
}

/// A monitor that looks up a new name each time, so that no cache answers.
pub(super) fn monitor(activity: &mut Activity<'_>) {
    activity.client = server(40);
    let name = format!(
        "{}.check.{}",
        activity.random.text(8, "abcdefghijklmnopqrstuvwxyz"),
        company("monitor", 0)
    );
    activity.found(&name, rtype::A, vec![Answer::address(public_v4(40))]);
}

/// A workstation finds its domain controllers, and they find one another.
pub(super) fn directory(activity: &mut Activity<'_>) {
    const DOMAIN: &str = "corp.internal";
    activity.client = workstation(activity.random.below(500));
    let target = format!("dc{}.{DOMAIN}", 1 + activity.random.below(3));
    let server_record = Answer::numbers_and_name(rtype::SRV, &[0, 100, 389], &target);
    let site = "_ldap._tcp.Default-First-Site-Name._sites";
    for name in [format!("{site}.dc._msdcs.{DOMAIN}"), format!("_kerberos._tcp.dc._msdcs.{DOMAIN}")]
    {
        activity.found(&name, rtype::SRV, vec![server_record.clone()]);
    }
    activity.found(&target, rtype::A, vec![Answer::address(server(60))]);
    if activity.random.chance(20) {
        // One of three controllers, by its GUID.
        let guid = Random::new(activity.random.below(3) as u64).uuid();
        let alias = Answer::name(rtype::CNAME, &target);
        activity.found(&format!("{guid}._msdcs.{DOMAIN}"), rtype::CNAME, vec![alias]);
    }
    if activity.random.chance(30) {
        for _ in 0..2 {
            activity.absent(&format!("wpad.{DOMAIN}"), rtype::A);
            activity.wait(Duration::from_secs(2));
        }
    }
}
