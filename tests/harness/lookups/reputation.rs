//! Services that are asked about files, addresses, senders and nodes by names: what looks most like a tunnel
//! and is none.

use std::{net::Ipv6Addr, time::Duration};

use super::{
    Answer,
    benign::Activity,
    network::reversed,
    rtype,
    universe::{public_v4, server, workstation},
    web::company,
};

const BASE32: &str = "abcdefghijklmnopqrstuvwxyz234567";

/// A scanner of files asks for their hashes; it has some files to look at when it begins.
pub(super) fn antivirus(activity: &mut Activity<'_>) {
    let scanner = activity.random.below(40);
    activity.client = workstation(scanner * 11);
    let vendor = activity.random.below(10);
    let files = if activity.random.chance(5) { 40 } else { 1 + activity.random.below(5) };
    for _ in 0..files {
        reputation(activity, vendor);
        activity.wait(Duration::from_millis(50));
    }
}

fn reputation(activity: &mut Activity<'_>, vendor: usize) {
    let random = &mut *activity.random;
    let domain = company("reputation", vendor);
    let name = match vendor % 5 {
        0 => format!("{}.{}.avts.{domain}", random.text(26, BASE32), random.text(8, BASE32)),
        1 => format!("{}.hash.{domain}", random.hex(32)),
        2 => format!("{}.{}.f.{domain}", random.hex(40), random.below(10)),
        3 => format!("{}.{}.{}.url.{domain}", random.hex(32), random.hex(32), random.below(9)),
        _ => format!("a-{}.{}.c.{domain}", random.text(50, BASE32), random.hex(4)),
    };
    let malicious = random.chance(1);
    match vendor % 3 {
        0 => {
            let number = 4 + u8::from(malicious);
            activity.found(&name, rtype::A, vec![Answer::address([127, 0, 0, number].into())]);
        }
        1 => {
            let verdict = if malicious { "v=2 r=bad" } else { "v=2 r=clean ttl=300" };
            activity.found(&name, rtype::TXT, vec![Answer::text(verdict)]);
        }
        // Only what is known to be bad exists.
        _ if malicious => activity.found(&name, rtype::TXT, vec![Answer::text("known")]),
        _ => activity.absent(&name, rtype::TXT),
    }
}

/// A scanner asks for the newest version of its signatures.
pub(super) fn software_versions(activity: &mut Activity<'_>) {
    activity.client = workstation(activity.random.below(40) * 11);
    let text = format!(
        "1.4.{}:62:27{}:1700000000:1:90:49192:335",
        activity.random.below(9),
        activity.random.below(900)
    );
    activity.found("current.signatures.antivirus-t53.com", rtype::TXT, vec![Answer::text(&text)]);
}

/// A mail server asks a dozen lists about the sender of a message, and about the domains in it.
pub(super) fn dnsbl(activity: &mut Activity<'_>) {
    activity.client = server(activity.random.below(4));
    let sender = activity.random.below(1 << 24);
    let reversed_sender =
        if activity.random.chance(10) { nibbles(sender) } else { reversed(public_v4(sender)) };
    let is_listed = activity.random.chance(12);
    for list in 0..6 {
        let name = format!(
            "{reversed_sender}.{}.{}",
            ["zen", "bl", "all", "dyn"][list % 4],
            company("blocklist", list)
        );
        listed(activity, &name, is_listed);
    }
    for list in 0..2 {
        let domain = activity.site();
        let is_listed = activity.random.chance(4);
        listed(activity, &format!("{domain}.multi.{}", company("uribl", list)), is_listed);
    }
    if activity.random.chance(30) {
        // The hash of an address in the text of the message.
        let hash = activity.random.text(52, BASE32);
        listed(activity, &format!("{hash}._email.{}", company("hashlist", 0)), false);
    }
}

fn listed(activity: &mut Activity<'_>, name: &str, is_listed: bool) {
    if !is_listed {
        return activity.absent(name, rtype::A);
    }
    let code = 2 + activity.random.octet_below(10);
    activity.found(name, rtype::A, vec![Answer::address([127, 0, 0, code].into())]);
    let text =
        format!("Listed: see the page of this list, reference {}", activity.random.below(1 << 20));
    activity.found(name, rtype::TXT, vec![Answer::text(&text)]);
}

/// The nibbles of an IPv6 address by a number, in reverse, as lists and `ip6.arpa` have them.
pub(super) fn nibbles(number: usize) -> String {
    let address: Ipv6Addr = match super::universe::public_v6(number) {
        std::net::IpAddr::V6(address) => address,
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
    };
    let digits = format!("{:032x}", address.to_bits());
    digits.chars().rev().map(String::from).collect::<Vec<_>>().join(".")
}

/// A node of a peer-to-peer network walks a tree of TXT records to find others (EIP-1459).
pub(super) fn node_list(activity: &mut Activity<'_>) {
    activity.client = server(20 + activity.random.below(4));
    let tree = format!("all.nodes.{}", company("chain", activity.random.below(2)));
    for _ in 0..40 + activity.random.below(60) {
        let name = format!("{}.{tree}", activity.random.text(26, &BASE32.to_ascii_uppercase()));
        let text = if activity.random.chance(12) {
            let children: Vec<String> = (0..8).map(|_| activity.random.text(26, BASE32)).collect();
            format!("enrtree-branch:{}", children.join(","))
        } else {
            format!(
                "enr:-{}",
                activity
                    .random
                    .text(180, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
            )
        };
        activity.found(&name, rtype::TXT, vec![Answer::text(&text)]);
        activity.wait(Duration::from_millis(300));
    }
}
