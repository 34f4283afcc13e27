//! The part of librdkafka's statistics that is of use to operators.
//! <https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md>

use rdkafka::statistics::{self, Window};

/// The most brokers that are reported, those with the lowest numbers, since each is a series of each
/// metric. Larger clusters are rare, and the topic has its leaders on a part of them.
const BROKERS: usize = 64;

/// The name of an address of the configuration, of which the producer does not know the broker.
const BOOTSTRAP: &str = "bootstrap";

/// The state of a producer.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Messages in its queues and in flight.
    pub queued_messages: u64,
    /// Bytes of those messages.
    pub queued_bytes: u64,
    /// Callbacks that are still to run.
    pub callbacks_waiting: u64,
    /// Bytes of a batch that was sent.
    pub batch_bytes: Spread,
    /// Messages of a batch.
    pub batch_messages: Spread,
    /// Every broker that the producer knows.
    pub brokers: Vec<Broker>,
}

/// Mean and 99th percentile since the statistics before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Mean.
    pub mean: u64,
    /// 99th percentile.
    pub p99: u64,
}

/// A broker, as the producer sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broker {
    /// Its number, or `bootstrap` for an address of the configuration.
    pub name: String,
    /// True while there is a connection.
    pub is_connected: bool,
    /// Attempts, those that failed included.
    pub connects: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Requests sent.
    pub requests: u64,
    /// Bytes of those requests.
    pub bytes_sent: u64,
    /// Requests sent again.
    pub retries: u64,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// Requests that could not be sent.
    pub send_errors: u64,
    /// Answers that could not be read.
    pub receive_errors: u64,
    /// Requests not yet sent.
    pub requests_waiting: u64,
    /// Requests without an answer yet.
    pub requests_in_flight: u64,
    /// Microseconds that messages wait in the producer's queue.
    pub queue_us: Spread,
    /// Microseconds that requests wait to be sent.
    pub outbuf_us: Spread,
    /// Microseconds from sending a request to its answer.
    pub rtt_us: Spread,
    /// Milliseconds that the broker throttled requests.
    pub throttle_ms: Spread,
}

impl Statistics {
    pub(super) fn of(raw: &rdkafka::Statistics, topic: &str) -> Self {
        let topic = raw.topics.get(topic);
        let mut brokers: Vec<_> = raw
            .brokers
            .values()
            // Others stand for a role, such as the coordinator of a group.
            .filter(|broker| broker.source != "logical" && broker.source != "internal")
            .collect();
        brokers.sort_by_key(|broker| broker.nodeid);
        Self {
            queued_messages: raw.msg_cnt,
            queued_bytes: raw.msg_size,
            callbacks_waiting: count(raw.replyq),
            batch_bytes: topic.map(|topic| Spread::of(&topic.batchsize)).unwrap_or_default(),
            batch_messages: topic.map(|topic| Spread::of(&topic.batchcnt)).unwrap_or_default(),
            brokers: brokers.into_iter().take(BROKERS).map(Broker::of).collect(),
        }
    }
}

impl Broker {
    /// Returns true for a broker of the cluster, and false for an address of the configuration.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.name != BOOTSTRAP
    }

    fn of(raw: &statistics::Broker) -> Self {
        let spread = |window: &Option<Window>| window.as_ref().map(Spread::of).unwrap_or_default();
        Self {
            name: match raw.nodeid {
                ..0 => BOOTSTRAP.to_owned(),
                number => number.to_string(),
            },
            is_connected: raw.state == "UP",
            connects: count(raw.connects.unwrap_or(0)),
            disconnects: count(raw.disconnects.unwrap_or(0)),
            requests: raw.tx,
            bytes_sent: raw.txbytes,
            retries: raw.txretries,
            timeouts: raw.req_timeouts,
            send_errors: raw.txerrs,
            receive_errors: raw.rxerrs,
            requests_waiting: count(raw.outbuf_cnt),
            requests_in_flight: count(raw.waitresp_cnt),
            queue_us: spread(&raw.int_latency),
            outbuf_us: spread(&raw.outbuf_latency),
            rtt_us: spread(&raw.rtt),
            throttle_ms: spread(&raw.throttle),
        }
    }
}

impl Spread {
    fn of(window: &Window) -> Self {
        Self { mean: count(window.avg), p99: count(window.p99) }
    }
}

/// Negative is unknown.
fn count(raw: i64) -> u64 {
    u64::try_from(raw).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_bounded_and_the_addresses_of_the_configuration_are_one() {
        let mut raw = rdkafka::Statistics::default();
        for nodeid in -2..100 {
            let source = if nodeid < 0 { "configured" } else { "learned" };
            let broker = statistics::Broker {
                nodeid,
                source: source.to_owned(),
                state: "UP".to_owned(),
                outbuf_cnt: -1,
                rtt: Some(Window { avg: 300, p99: 900, ..Window::default() }),
                ..statistics::Broker::default()
            };
            raw.brokers.insert(format!("b{nodeid}"), broker);
        }
        let logical =
            statistics::Broker { source: "logical".to_owned(), ..statistics::Broker::default() };
        raw.brokers.insert("GroupCoordinator".to_owned(), logical);
        let of = Statistics::of(&raw, "absent");
        assert_eq!(of.brokers.len(), BROKERS);
        let names: Vec<_> = of.brokers.iter().map(|broker| broker.name.as_str()).collect();
        assert_eq!(names[..4], ["bootstrap", "bootstrap", "0", "1"]);
        let broker = &of.brokers[2];
        assert_eq!((broker.requests_waiting, broker.is_connected), (0, true));
        assert_eq!(broker.rtt_us, Spread { mean: 300, p99: 900 });
        assert_eq!(of.batch_bytes, Spread::default());
    }
}
