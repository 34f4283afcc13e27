//! Metrics of latencies and brokers.

use anyhow::{Context, Result};
use tap53_harness::{
    agent::Agent,
    client::Transport,
    kafka::Kafka,
    lab::{ANSWERED, Lab},
    wait,
};

use super::{DEADLINE, PORT, get, is_as_documented, promtool_agrees, series, wait_for};

const TOPIC: &str = "t";

#[test]
fn latencies_and_brokers_are_in_the_metrics() -> Result<()> {
    let lab = Lab::new()?;
    let mut kafka = Kafka::start(&lab.server)?;
    kafka.create_topic(TOPIC)?;
    let agent = Agent::start(
        &lab.server,
        &format!(
            "interfaces: {{include: [s0]}}\ncapture: {{workers: 2, ring_bytes: 1048576}}\n\
             pair: {{timeout_ms: 300}}\n\
             sinks: [{{type: stdout, format: json}}, {{type: kafka, brokers: ['{}'],\n\
             topic: {TOPIC}, linger_ms: 5, options: {{statistics.interval.ms: 100}}}}]\n\
             shutdown: {{flush_timeout_ms: 500}}\ntelemetry: {{listen: '{PORT}'}}\n",
            kafka.address()
        ),
        &[],
    )?;
    let exchanges = lab.ask_everything()?;
    let (asked, answered) = (exchanges.len() as f64, answers(&exchanges));
    assert!(answered > 0.0 && answered < asked);
    let delivered = format!("tap53_sink_records_delivered_total{{sink=\"kafka\"}} {asked}\n");
    wait_for(&lab, "/metrics", 200, &delivered)?;
    // After the last message, so that nothing waits any more.
    let broker = wait::until("a broker that is connected, and an empty queue", DEADLINE, || {
        let text = get(&lab, "/metrics")?.body;
        let is_empty = text.contains("tap53_kafka_queue_messages{sink=\"kafka\"} 0\n");
        Ok(is_empty.then(|| connected(&text)).flatten())
    })?;
    let text = get(&lab, "/metrics")?.body;
    let of = series(&text);
    let count = |name: &str, labels: &str| {
        let of = |suffix: &str, labels: &str| of.get(format!("{name}{suffix}{labels}").as_str());
        let count = of("_count", labels).copied().with_context(|| format!("{name}{labels}"))?;
        let inner = labels.trim_matches(['{', '}']);
        let separator = if inner.is_empty() { "" } else { "," };
        let last = of("_bucket", &format!("{{{inner}{separator}le=\"+Inf\"}}")).copied();
        assert_eq!(last, Some(count), "{name}{labels} in {text}");
        // Nothing takes ten seconds here, nor no time at all.
        let ten = of("_bucket", &format!("{{{inner}{separator}le=\"10\"}}")).copied();
        assert_eq!(ten, Some(count), "{name}{labels} in {text}");
        let sum = of("_sum", labels).copied().unwrap_or_default();
        assert!(sum < 10.0 * count.max(1.0) && (sum > 0.0) == (count > 0.0), "{name}: {sum}");
        anyhow::Ok(count)
    };
    let received = of["tap53_packets_received_total"];
    assert_eq!(count("tap53_ring_wait_seconds", "")?, received, "each packet");
    let batches = count("tap53_batch_seconds", "")?;
    assert!((1.0..=received).contains(&batches), "{batches}");
    for sink in ["stdout", "kafka"] {
        let writes = count("tap53_sink_write_seconds", &format!("{{sink=\"{sink}\"}}"))?;
        assert!((1.0..=asked).contains(&writes), "{sink}: {writes}");
    }
    assert_eq!(count("tap53_sink_acknowledgement_seconds", "{sink=\"kafka\"}")?, asked);
    for (sink, reached, expected) in [
        ("stdout", "written", answered),
        ("stdout", "acknowledged", 0.0),
        ("kafka", "acknowledged", answered),
        ("kafka", "spooled", 0.0),
    ] {
        let labels = format!("{{sink=\"{sink}\",reached=\"{reached}\"}}");
        assert_eq!(count("tap53_sink_record_age_seconds", &labels)?, expected, "{labels}");
    }
    for worker in ["0", "1"] {
        assert_eq!(of[format!("tap53_ring_size_bytes{{worker=\"{worker}\"}}").as_str()], 1048576.0);
        assert_eq!(of[format!("tap53_ring_used_bytes{{worker=\"{worker}\"}}").as_str()], 0.0);
    }
    let of_broker = |name: &str, more: &str| {
        let name = format!("tap53_kafka_broker_{name}{{sink=\"kafka\",broker=\"{broker}\"{more}}}");
        of.get(name.as_str()).copied().with_context(|| name.clone())
    };
    assert!(of_broker("requests_total", "")? >= 1.0);
    assert!(of_broker("connects_total", "")? >= 1.0);
    assert!(of_broker("sent_bytes_total", "")? > 1_000.0);
    assert!(of_broker("rtt_seconds", ",statistic=\"p99\"")? < 10.0);
    is_as_documented(&text)?;
    promtool_agrees(&text)?;

    kafka.kill();
    let down = format!("tap53_kafka_broker_connected{{sink=\"kafka\",broker=\"{broker}\"}} 0\n");
    wait_for(&lab, "/metrics", 200, &down)?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    wait_for(&lab, "/metrics", 200, "tap53_kafka_queue_messages{sink=\"kafka\"} 1\n")?;
    let connects = of_broker("connects_total", "")?;
    wait::until("attempts to connect", DEADLINE, || {
        let text = get(&lab, "/metrics")?.body;
        let name =
            format!("tap53_kafka_broker_connects_total{{sink=\"kafka\",broker=\"{broker}\"}}");
        Ok((series(&text)[name.as_str()] > connects).then_some(()))
    })?;
    drop(agent);
    Ok(())
}

fn answers(exchanges: &[tap53_harness::client::Exchange]) -> f64 {
    exchanges.iter().filter(|exchange| exchange.response.is_some()).count() as f64
}

/// The number of the broker that is connected.
fn connected(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix("tap53_kafka_broker_connected{sink=\"kafka\",broker=\"")?;
        let (broker, value) = rest.split_once("\"} ")?;
        (broker != "bootstrap" && value == "1").then(|| broker.to_owned())
    })
}
