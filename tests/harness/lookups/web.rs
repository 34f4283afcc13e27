//! Browsers, applications, phones and things.

use std::time::Duration;

use super::{
    Answer,
    benign::Activity,
    rtype,
    universe::{domain, public_v4, server, workstation},
};
use crate::lookups::Random;

/// Number of workstations and phones.
const WORKSTATIONS: usize = 500;

/// The domain of a company that pages, devices or servers call, by its number.
pub(super) fn company(area: &str, number: usize) -> String {
    const WORDS: [&str; 8] = ["north", "prime", "blue", "swift", "open", "deep", "clear", "one"];
    format!("{area}-{}{}-t53.com", WORDS[number % WORDS.len()], number / WORDS.len())
}

impl Activity<'_> {
    /// A fifth of the office is behind a forwarder, which is one client.
    fn at_workstation(&mut self) {
        let number = self.random.below(WORKSTATIONS);
        self.client = if number.is_multiple_of(5) { server(50) } else { workstation(number) };
    }
}

/// A page with its static hosts, and advertising, fonts and measurements of others.
pub(super) fn page(activity: &mut Activity<'_>) {
    activity.at_workstation();
    let site = activity.site();
    let host = activity.random.pick(&["www", "", "m", "en", "shop"]);
    activity.addresses(&if host.is_empty() { site.clone() } else { format!("{host}.{site}") });
    for _ in 0..activity.random.below(3) {
        activity.wait(Duration::from_millis(40));
        let number = activity.random.below(4);
        let host =
            activity.random.pick(&["static", "img", "api", "cdn", "assets", "login", "video"]);
        activity.addresses(&format!("{host}{number}.{site}"));
    }
    for _ in 0..activity.random.below(4) {
        activity.wait(Duration::from_millis(60));
        let other = company(
            activity.random.pick(&["ads", "tags", "fonts", "stats"]),
            activity.random.below(24),
        );
        let host = activity.random.pick(&["a", "cdn", "pixel", "sync", "eu-west-1", "collector"]);
        let name = format!("{host}.{other}");
        if other.starts_with("ads") && activity.random.chance(10) {
            // A filter of advertising answers for it.
            activity.found(&name, rtype::A, vec![Answer::address([0, 0, 0, 0].into())]);
        } else {
            activity.addresses(&name);
        }
    }
}

/// Objects in a content delivery network: few domains, many thousand hosts with hashes in their names.
pub(super) fn cdn(activity: &mut Activity<'_>) {
    activity.at_workstation();
    let network = activity.random.below(14);
    let domain = company("cdn", network);
    for _ in 0..1 + activity.random.below(3) {
        // Some objects are popular, the rest is seen once.
        let object = if activity.random.chance(70) {
            activity.random.below(60) * activity.random.below(60)
        } else {
            activity.random.below(200_000)
        };
        let mut hash = Random::new((network * 1_000_000 + object) as u64);
        let host = cdn_host(network, object, &mut hash);
        let name = format!("{host}.{domain}");
        if activity.random.chance(50) {
            let alias = format!("static.{}", activity.site());
            activity.addresses_through(&alias, &[&name]);
        }
        activity.addresses(&name);
        activity.wait(Duration::from_millis(30));
    }
}

/// A label or some, in the form that each network has for its hosts.
fn cdn_host(network: usize, object: usize, hash: &mut Random) -> String {
    const BASE36: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
    match network % 7 {
        0 => format!("d{}", hash.text(13, BASE36)),
        1 => format!("e{object}.{}.edgekey", hash.pick(&["a", "b", "dsca", "dscb", "g"])),
        2 => format!("rr{}---sn-{}", object % 12, hash.text(14, BASE36)),
        3 => format!("{}.dualstack.{}.elb", hash.hex(32), hash.pick(&["eu-1", "us-2", "ap-3"])),
        4 => format!("scontent-{}{}-{}.xx", hash.text(3, "abcdefgh"), object % 9, object % 4),
        5 => format!("{}-{}.cloud-edge", hash.hex(40), object % 100),
        _ => format!("{}.{}.v", hash.text(26, BASE36), hash.hex(8)),
    }
}

/// Telemetry with a UUID, a session or a time in its labels: names that are never seen again.
pub(super) fn telemetry(activity: &mut Activity<'_>) {
    activity.at_workstation();
    let number = activity.random.below(24);
    let company = company("telemetry", number);
    let random = &mut *activity.random;
    let name = match number % 5 {
        0 => format!("{}.events.{company}", random.uuid()),
        1 => format!("{}-{}.d.{company}", random.hex(12), 1_700_000_000 + random.below(90_000)),
        2 => format!(
            "s-{}.beacon.{company}",
            random.text(22, "abcdefghijklmnopqrstuvwxyz0123456789")
        ),
        3 => format!("{}.{}.{company}", random.hex(16), random.pick(&["eu", "us", "ap"])),
        _ => format!("in.{company}"),
    };
    let answer = if random.chance(30) {
        vec![
            Answer::name(rtype::CNAME, &format!("ingest.{company}")),
            Answer::address(public_v4(number)),
        ]
    } else {
        vec![Answer::address(public_v4(number))]
    };
    let qtype = if random.chance(30) { rtype::AAAA } else { rtype::A };
    activity.found(&name, qtype, if qtype == rtype::A { answer } else { Vec::new() });
}

/// A misspelled site: the name does not exist, and the browser tries it with `www` as well.
pub(super) fn typo(activity: &mut Activity<'_>) {
    activity.at_workstation();
    let site = activity.site();
    let (label, suffix) = site.split_once('.').expect("a domain has two labels");
    // The ending stays, since it makes the domain one of nobody.
    let at = activity.random.below(label.len() - 4);
    let mut label: Vec<char> = label.chars().collect();
    match activity.random.below(3) {
        0 if label.len() > 3 => drop(label.remove(at)),
        1 => label.insert(at, activity.random.pick(&['a', 'e', 'r', 't', 'n', 's'])),
        _ => label[at] = activity.random.pick(&['q', 'w', 'i', 'o', 'm', 'b']),
    }
    let label: String = label.into_iter().collect();
    for name in [format!("{label}.{suffix}"), format!("www.{label}.{suffix}")] {
        activity.absent(&name, rtype::A);
        if activity.random.chance(50) {
            activity.absent(&name, rtype::AAAA);
        }
    }
}

/// A phone or a thing that calls its maker, some with the number of the device.
pub(super) fn mobile(activity: &mut Activity<'_>) {
    let device = activity.random.below(WORKSTATIONS);
    activity.client = workstation(device);
    let maker = device % 16;
    let company = company("device", maker);
    let name = match maker % 4 {
        0 => format!("{}-courier.push.{company}", 1 + activity.random.below(50)),
        1 => format!("p{}-keyvalue.{company}", activity.random.below(100)),
        2 => format!("{}.iot.{company}", Random::new(device as u64).hex(16)),
        _ => format!("connectivity-check.{company}"),
    };
    activity.addresses(&name);
}

/// A site whose name has letters beyond ASCII.
pub(super) fn international(activity: &mut Activity<'_>) {
    activity.at_workstation();
    let number = activity.random.below(120);
    let mut spelling = Random::new(number as u64 ^ 0x0f0f);
    let letters = spelling.text(2 + number % 9, "abcdefghiklmnoprstuvwz");
    let code = spelling.text(3 + number % 6, "abcdefghijkmnopqrtuvwyz0123456789");
    activity.addresses(&format!("www.xn--{letters}-{code}.de"));
}

/// A browser that starts: three random names without a dot tell whether somebody answers everything.
pub(super) fn browser_start(activity: &mut Activity<'_>) {
    activity.at_workstation();
    for _ in 0..3 {
        let length = 7 + activity.random.below(9);
        let name = activity.random.text(length, "abcdefghijklmnopqrstuvwxyz");
        activity.absent(&name, rtype::A);
        if activity.random.chance(50) {
            activity.absent(&format!("{name}.{}", domain(7)), rtype::A);
        }
    }
}
