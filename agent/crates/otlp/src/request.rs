//! Metrics as messages of OTLP.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as ProtoMetric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message;

use crate::metric::{Attributes, Distribution, Metric, Metrics, Number, Points};

/// Maximum number of points in a request. Collectors accept 20 MiB by default, and a histogram's point has
/// less than 1 KiB.
const MAX_POINTS: usize = 10_000;

/// One request, encoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Encoded {
    pub(crate) body: Vec<u8>,
    pub(crate) points: usize,
}

/// Encodes metrics of the agent that `resource` describes, in as many requests as they need.
pub(crate) fn encode(resource: &[(String, String)], metrics: Metrics) -> Vec<Encoded> {
    let times = Times { started_at_ns: metrics.started_at_ns, taken_at_ns: metrics.taken_at_ns };
    let chunks = chunks(metrics.metrics, MAX_POINTS);
    chunks.into_iter().map(|chunk| encode_chunk(resource, times, chunk)).collect()
}

/// Divides metrics into parts of at most `max` points. Metrics without points are left out.
fn chunks(metrics: Vec<Metric>, max: usize) -> Vec<Vec<Metric>> {
    let (mut chunks, mut room) = (Vec::<Vec<Metric>>::new(), 0);
    for mut metric in metrics {
        while metric.points.len() > 0 {
            if room == 0 {
                chunks.push(Vec::new());
                room = max;
            }
            let points = metric.points.take(metric.points.len().min(room));
            room -= points.len();
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(Metric { points, ..metric });
            }
        }
    }
    chunks
}

fn encode_chunk(resource: &[(String, String)], times: Times, metrics: Vec<Metric>) -> Encoded {
    let points = metrics.iter().map(|metric| metric.points.len()).sum();
    let attributes = resource.iter().map(|(key, value)| attribute(key, value.clone())).collect();
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "tap53".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                metrics: metrics.into_iter().map(|metric| times.metric(metric)).collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    Encoded { body: request.encode_to_vec(), points }
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value)) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// Returns attributes without those that are empty, which stand for absent ones.
fn attributes(attributes: Attributes) -> Vec<KeyValue> {
    let present = attributes.into_iter().filter(|(_, value)| !value.is_empty());
    present.map(|(key, value)| attribute(key, value)).collect()
}

/// The times of all points of a reading.
#[derive(Clone, Copy)]
struct Times {
    started_at_ns: u64,
    taken_at_ns: u64,
}

impl Times {
    fn metric(self, metric: Metric) -> ProtoMetric {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let numbers = |numbers: Vec<Number>, started_at_ns| -> Vec<NumberDataPoint> {
            numbers.into_iter().map(|number| self.number(number, started_at_ns)).collect()
        };
        let data = match metric.points {
            Points::Counter(of) => Data::Sum(Sum {
                data_points: numbers(of, self.started_at_ns),
                aggregation_temporality,
                is_monotonic: true,
            }),
            // The value of a gauge is of one moment.
            Points::Gauge(of) => Data::Gauge(Gauge { data_points: numbers(of, 0) }),
            Points::Histogram(of) => Data::Histogram(Histogram {
                data_points: of.into_iter().map(|of| self.distribution(of)).collect(),
                aggregation_temporality,
            }),
        };
        ProtoMetric {
            name: metric.name.to_owned(),
            description: metric.description.to_owned(),
            unit: metric.unit.to_owned(),
            data: Some(data),
            ..ProtoMetric::default()
        }
    }

    fn number(self, number: Number, started_at_ns: u64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(number.attributes),
            start_time_unix_nano: started_at_ns,
            time_unix_nano: self.taken_at_ns,
            value: Some(number_data_point::Value::AsDouble(number.value)),
            ..NumberDataPoint::default()
        }
    }

    fn distribution(self, of: Distribution) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: attributes(of.attributes),
            start_time_unix_nano: self.started_at_ns,
            time_unix_nano: self.taken_at_ns,
            count: of.counts.iter().sum(),
            sum: Some(of.sum),
            bucket_counts: of.counts,
            explicit_bounds: of.bounds,
            ..HistogramDataPoint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(name: &'static str, points: u32) -> Metric {
        let number = |value: u32| Number { attributes: vec![], value: value.into() };
        let points = Points::Counter((0..points).map(number).collect());
        Metric { name, description: "", unit: "", points }
    }

    #[test]
    fn requests_hold_at_most_so_many_points_and_all_of_them() {
        let metrics = vec![counter("a", 3), counter("empty", 0), counter("b", 4), counter("c", 1)];
        let chunks = chunks(metrics, 3);
        let shape = |chunk: &Vec<Metric>| -> Vec<_> {
            chunk.iter().map(|metric| (metric.name, metric.points.len())).collect()
        };
        let shapes: Vec<_> = chunks.iter().map(shape).collect();
        assert_eq!(shapes, [vec![("a", 3)], vec![("b", 3)], vec![("b", 1), ("c", 1)]]);
        assert_eq!(chunks[1][0].points, counter("b", 3).points);
    }

    #[test]
    fn points_have_the_times_of_their_reading_and_absent_attributes_are_left_out() {
        let histogram = Points::Histogram(vec![Distribution {
            attributes: vec![("server.address", "192.0.2.53".to_owned()), ("a", String::new())],
            bounds: vec![0.1, 1.0],
            counts: vec![1, 0, 2],
            sum: 4.5,
        }]);
        let metric = Metric { name: "h", description: "H.", unit: "s", points: histogram };
        let gauge = Points::Gauge(vec![Number { attributes: vec![], value: 0.5 }]);
        let gauge = Metric { name: "g", description: "G.", unit: "", points: gauge };
        let metrics = Metrics {
            started_at_ns: 5,
            taken_at_ns: 7,
            metrics: vec![metric, gauge, counter("c", 1)],
        };
        let resource = [("service.name".to_owned(), "tap53".to_owned())];
        let encoded = encode(&resource, metrics);
        assert_eq!((encoded.len(), encoded[0].points), (1, 3));
        let request = ExportMetricsServiceRequest::decode(&*encoded[0].body).unwrap();
        let of = &request.resource_metrics[0];
        let resource = &of.resource.as_ref().unwrap().attributes;
        assert_eq!(*resource, [attribute("service.name", "tap53".to_owned())]);
        let metrics = &of.scope_metrics[0].metrics;
        let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!("{request:?}") };
        let expected = HistogramDataPoint {
            attributes: vec![attribute("server.address", "192.0.2.53".to_owned())],
            start_time_unix_nano: 5,
            time_unix_nano: 7,
            count: 3,
            sum: Some(4.5),
            bucket_counts: vec![1, 0, 2],
            explicit_bounds: vec![0.1, 1.0],
            ..HistogramDataPoint::default()
        };
        assert_eq!(histogram.data_points, [expected]);
        assert_eq!(histogram.aggregation_temporality(), AggregationTemporality::Cumulative);
        let Some(Data::Gauge(gauge)) = &metrics[1].data else { panic!("{request:?}") };
        assert_eq!((gauge.data_points[0].start_time_unix_nano, metrics[0].unit.as_str()), (0, "s"));
        let Some(Data::Sum(sum)) = &metrics[2].data else { panic!("{request:?}") };
        assert!(sum.is_monotonic && sum.data_points[0].start_time_unix_nano == 5);
    }
}
