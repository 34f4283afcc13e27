//! librdkafka's statistics, every ten seconds; mean and 99th percentile cover that interval.
//! None before the first time.

use tap53_sinks::{Broker, Spread, Statistics};

use super::{Counter, Family, Gauge, Reading, each_state};
use crate::telemetry::text::Series;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_kafka_queue_messages",
        kind: Gauge,
        help: "Messages in the producer's queues and in flight.",
        labels: &["sink"],
        collect: |r, s| each_producer(r, |of, told| s.count(&[of], told.queued_messages)),
    },
    Family {
        name: "tap53_kafka_queue_bytes",
        kind: Gauge,
        help: "Bytes of those messages.",
        labels: &["sink"],
        collect: |r, s| each_producer(r, |of, told| s.count(&[of], told.queued_bytes)),
    },
    Family {
        name: "tap53_kafka_callbacks_waiting",
        kind: Gauge,
        help: "Delivery reports and other callbacks that wait to be processed.",
        labels: &["sink"],
        collect: |r, s| each_producer(r, |of, told| s.count(&[of], told.callbacks_waiting)),
    },
    Family {
        name: "tap53_kafka_batch_bytes",
        kind: Gauge,
        help: "Bytes of the batches that were sent: mean, and 99th percentile.",
        labels: &["sink", "statistic"],
        collect: |r, s| each_producer(r, |of, told| spread(s, &[of], told.batch_bytes, 1.0)),
    },
    Family {
        name: "tap53_kafka_batch_messages",
        kind: Gauge,
        help: "Messages of the batches that were sent: mean, and 99th percentile.",
        labels: &["sink", "statistic"],
        collect: |r, s| each_producer(r, |of, told| spread(s, &[of], told.batch_messages, 1.0)),
    },
    Family {
        name: "tap53_kafka_broker_connected",
        kind: Gauge,
        help: "1 while the broker is connected; for the configured addresses, how many are. librdkafka connects only to brokers that it needs.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.flag(&of, broker.is_connected)),
    },
    Family {
        name: "tap53_kafka_broker_connects_total",
        kind: Counter,
        help: "Attempts to connect, including failed ones.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.connects)),
    },
    Family {
        name: "tap53_kafka_broker_disconnects_total",
        kind: Counter,
        help: "Connections that ended, whichever side closed them.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.disconnects)),
    },
    Family {
        name: "tap53_kafka_broker_requests_total",
        kind: Counter,
        help: "Requests sent.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.requests)),
    },
    Family {
        name: "tap53_kafka_broker_sent_bytes_total",
        kind: Counter,
        help: "Bytes sent.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.bytes_sent)),
    },
    Family {
        name: "tap53_kafka_broker_retries_total",
        kind: Counter,
        help: "Requests that were retried.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.retries)),
    },
    Family {
        name: "tap53_kafka_broker_request_timeouts_total",
        kind: Counter,
        help: "Requests that timed out.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.timeouts)),
    },
    Family {
        name: "tap53_kafka_broker_send_errors_total",
        kind: Counter,
        help: "Failed sends.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.send_errors)),
    },
    Family {
        name: "tap53_kafka_broker_receive_errors_total",
        kind: Counter,
        help: "Failed receives.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.receive_errors)),
    },
    Family {
        name: "tap53_kafka_broker_requests_waiting",
        kind: Gauge,
        help: "Requests that wait to be sent.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.requests_waiting)),
    },
    Family {
        name: "tap53_kafka_broker_requests_in_flight",
        kind: Gauge,
        help: "Requests that wait for a response.",
        labels: &["sink", "broker"],
        collect: |r, s| each_broker(r, |of, broker| s.count(&of, broker.requests_in_flight)),
    },
    Family {
        name: "tap53_kafka_broker_queue_latency_seconds",
        kind: Gauge,
        help: "How long messages wait in the queue of the producer: mean, and 99th percentile.",
        labels: &["sink", "broker", "statistic"],
        collect: |r, s| each_broker(r, |of, broker| spread(s, &of, broker.queue_us, 1e6)),
    },
    Family {
        name: "tap53_kafka_broker_outbuf_latency_seconds",
        kind: Gauge,
        help: "How long requests wait to be sent: mean, and 99th percentile.",
        labels: &["sink", "broker", "statistic"],
        collect: |r, s| each_broker(r, |of, broker| spread(s, &of, broker.outbuf_us, 1e6)),
    },
    Family {
        name: "tap53_kafka_broker_rtt_seconds",
        kind: Gauge,
        help: "Time from sending a request to its response: mean, and 99th percentile.",
        labels: &["sink", "broker", "statistic"],
        collect: |r, s| each_broker(r, |of, broker| spread(s, &of, broker.rtt_us, 1e6)),
    },
    Family {
        name: "tap53_kafka_broker_throttle_seconds",
        kind: Gauge,
        help: "Throttle time that the broker requests: mean, and 99th percentile.",
        labels: &["sink", "broker", "statistic"],
        collect: |r, s| each_broker(r, |of, broker| spread(s, &of, broker.throttle_ms, 1e3)),
    },
];

fn each_producer<'a>(reading: &'a Reading<'_>, mut report: impl FnMut(&'a str, &'a Statistics)) {
    each_state(reading, |of, state| {
        if let Some(told) = &state.kafka {
            report(of, told);
        }
    });
}

/// Sink and broker.
fn each_broker<'a>(reading: &'a Reading<'_>, mut report: impl FnMut([&'a str; 2], &'a Broker)) {
    each_producer(reading, |of, told| {
        told.brokers.iter().for_each(|broker| report([of, &broker.name], broker));
    });
}

/// Both figures, with the number of units that make one.
fn spread(series: &mut Series, labels: &[&str], of: Spread, per_unit: f64) {
    for (statistic, value) in [("mean", of.mean), ("p99", of.p99)] {
        series.measure(&[labels, &[statistic]].concat(), value as f64 / per_unit);
    }
}
