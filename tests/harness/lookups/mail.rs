//! Lookups for mail and certificates: long TXT records of ordinary domains.

use super::{
    Answer,
    benign::Activity,
    network::reversed,
    rtype,
    universe::{public_v4, server},
};

const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A mail server checks the domain of a sender, and finds the servers of a recipient.
pub(super) fn delivery(activity: &mut Activity<'_>) {
    activity.client = server(activity.random.below(4));
    let sender = activity.site();
    let networks: String =
        (0..1 + activity.random.below(9)).map(|n| format!(" ip4:{}", public_v4(n * 7))).collect();
    let spf = format!("v=spf1 include:_spf.{sender}{networks} ~all");
    let verification = format!("site-verification={}", activity.random.text(43, BASE64));
    activity.found(&sender, rtype::TXT, vec![Answer::text(&spf), Answer::text(&verification)]);
    let selector = match activity.random.below(4) {
        0 => "selector1".to_owned(),
        1 => format!("s{}", 20_240_101 + activity.random.below(300)),
        2 => activity.random.text(32, "abcdefghijklmnopqrstuvwxyz234567"),
        _ => "default".to_owned(),
    };
    let key = format!("v=DKIM1; k=rsa; p={}", activity.random.text(392, BASE64));
    activity.found(
        &format!("{selector}._domainkey.{sender}"),
        rtype::TXT,
        vec![Answer::text(&key)],
    );
    let policy = format!("v=DMARC1; p=reject; rua=mailto:dmarc@{sender}");
    activity.found(&format!("_dmarc.{sender}"), rtype::TXT, vec![Answer::text(&policy)]);
    let recipient = activity.site();
    let host = format!("mx1.{recipient}");
    let exchange = Answer::numbers_and_name(rtype::MX, &[10], &host);
    activity.found(&recipient, rtype::MX, vec![exchange]);
    activity.addresses(&host);
    activity.absent(&format!("_25._tcp.{host}"), rtype::TLSA);
    activity.absent(&format!("_mta-sts.{recipient}"), rtype::TXT);
    let name = format!("{}.in-addr.arpa", reversed(public_v4(activity.random.below(1 << 20))));
    activity.found(&name, rtype::PTR, vec![Answer::name(rtype::PTR, &format!("mail.{sender}"))]);
}

/// An authority checks that a challenge is in place, or a client that it has arrived.
pub(super) fn challenge(activity: &mut Activity<'_>) {
    activity.client = server(10 + activity.random.below(3));
    let site = activity.site();
    let token = activity
        .random
        .text(43, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
    let name = format!("_acme-challenge.{site}");
    if activity.random.chance(30) {
        // Delegated to a service that answers challenges.
        let target = format!("{}.auth.challenges-t53.com", activity.random.uuid());
        let answers = vec![Answer::name(rtype::CNAME, &target), Answer::text(&token)];
        activity.found(&name, rtype::TXT, answers);
        return activity.found(&target, rtype::TXT, vec![Answer::text(&token)]);
    }
    for _ in 0..activity.random.below(4) {
        activity.absent(&name, rtype::TXT);
    }
    activity.found(&name, rtype::TXT, vec![Answer::text(&token)]);
}
