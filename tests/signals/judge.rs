//! The detector, as the evaluation sees it: a lookup comes in, signals come out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tap53_dns::private_address::is_private;
use tap53_harness::lookups::{Answer, Lookup, labels, rtype, text_of};
use tap53_signals::{Detector, Exchange, SharedSignals, Signals, SignalsConfig};

/// When the streams begin, in seconds since 1970 UTC.
const BEGIN: Duration = Duration::from_secs(1_790_000_000);

/// The detector of one worker with the default configuration.
pub(crate) struct Judge {
    detector: Detector,
}

impl Judge {
    pub(crate) fn new() -> Self {
        let config = SignalsConfig { enabled: true, ..SignalsConfig::default() };
        Self { detector: SharedSignals::open(&config, 1, micros(Duration::ZERO)).detector() }
    }

    pub(crate) fn observe(&mut self, lookup: &Lookup) -> Signals {
        // As in records: lower case, with escapes.
        let name = text_of(labels(&lookup.name)).to_ascii_lowercase();
        let exchange = Exchange {
            at_us: micros(lookup.at),
            client: lookup.client,
            workload: None,
            name: &name,
            qtype: lookup.qtype,
            rcode: Some(lookup.rcode.into()),
            query_bytes: u32::try_from(lookup.query_size()).expect("a message"),
            response_bytes: u32::try_from(lookup.response_size()).expect("a message"),
            has_private_address: lookup.answers.iter().filter_map(address).any(is_private),
        };
        self.detector.observe(&exchange)
    }
}

fn micros(at: Duration) -> i64 {
    i64::try_from((BEGIN + at).as_micros()).expect("a date of our time")
}

fn address(answer: &Answer) -> Option<IpAddr> {
    Some(match answer.rtype {
        rtype::A => Ipv4Addr::from(<[u8; 4]>::try_from(&*answer.rdata).ok()?).into(),
        rtype::AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(&*answer.rdata).ok()?).into(),
        _ => return None,
    })
}
