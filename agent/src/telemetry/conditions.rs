//! Since when capture, sinks and brokers are in their condition, and why.

use tap53_base::vitals::{BrokerHealth, Condition, SinkHealth};
use tap53_sinks::{Broker, State};

/// The conditions at the last look.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    pub(super) capture: Condition,
    pub(super) sinks: Vec<SinkHealth>,
}

impl Conditions {
    /// Creates the conditions of an agent that captures since `now`.
    pub(super) fn new(now: &str) -> Self {
        let capture = Condition { ok: true, since: now.to_owned(), reasons: Vec::new() };
        Self { capture, sinks: Vec::new() }
    }

    /// Takes a sink's state, and the reason for which it lost its last records.
    pub(super) fn look_at_sink(
        &mut self,
        name: &str,
        lost: Option<&str>,
        state: &State,
        now: &str,
    ) {
        let lost = lost.map(|reason| format!("loses records: {reason}"));
        let reasons = state.outage.iter().cloned().chain(lost).collect();
        let known = self.sinks.iter().position(|sink| sink.name == name);
        let index = known.unwrap_or_else(|| {
            self.sinks.push(SinkHealth { name: name.to_owned(), ..SinkHealth::default() });
            self.sinks.len() - 1
        });
        let sink = &mut self.sinks[index];
        sink.condition.update(reasons, now);
        let brokers = state.kafka.as_ref().map_or(&[][..], |kafka| &kafka.brokers);
        sink.brokers = brokers
            .iter()
            .filter(|broker| broker.is_numbered())
            .map(|broker| connection(broker, &sink.brokers, now))
            .collect();
    }
}

/// Returns the connection to a broker, with the time of its last change.
fn connection(broker: &Broker, before: &[BrokerHealth], now: &str) -> BrokerHealth {
    let (name, connected) = (broker.name.clone(), broker.is_connected);
    let unchanged = |known: &&BrokerHealth| known.name == name && known.connected == connected;
    let since = before.iter().find(unchanged).map_or(now, |known| &known.since).to_owned();
    BrokerHealth { name, connected, since }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tap53_sinks::Statistics;

    use super::*;

    fn state(outage: Option<&str>, connected: &[(&str, bool)]) -> State {
        let broker = |(name, is_connected): &(&str, bool)| Broker {
            name: (*name).to_owned(),
            is_connected: *is_connected,
            ..Broker::default()
        };
        let brokers = connected.iter().map(broker).collect();
        State {
            outage: outage.map(str::to_owned),
            kafka: Some(Arc::new(Statistics { brokers, ..Statistics::default() })),
            ..State::default()
        }
    }

    #[test]
    fn each_change_has_its_time_and_its_reason() {
        let mut conditions = Conditions::new("0");
        let mut look = |lost: Option<&str>, state: &State, now: &str| {
            conditions.look_at_sink("kafka", lost, state, now);
            let [sink] = &conditions.sinks[..] else { panic!("{conditions:?}") };
            let SinkHealth { condition, brokers, .. } = sink.clone();
            let brokers = brokers.into_iter().map(|it| (it.name, it.connected, it.since));
            (condition.since, condition.reasons.join(", "), brokers.collect::<Vec<_>>())
        };
        let broker = |name: &str, is: bool, since: &str| (name.to_owned(), is, since.to_owned());
        let up = [("bootstrap", true), ("1", true), ("2", true)];
        let both = vec![broker("1", true, "1"), broker("2", true, "1")];
        assert_eq!(look(None, &state(None, &up), "1"), ("1".into(), String::new(), both));
        let down = [("bootstrap", true), ("1", true), ("2", false)];
        let (since, reason, brokers) = look(None, &state(Some("refused"), &down), "2");
        assert_eq!((since.as_str(), reason.as_str()), ("2", "refused"));
        assert_eq!(brokers, [broker("1", true, "1"), broker("2", false, "2")]);
        let (since, reason, _) = look(Some("expired"), &state(Some("refused"), &down), "3");
        assert_eq!((since.as_str(), reason.as_str()), ("2", "refused, loses records: expired"));
        let (since, reason, brokers) = look(None, &state(None, &up), "4");
        assert_eq!((since.as_str(), reason.as_str()), ("4", ""));
        assert_eq!(brokers, [broker("1", true, "1"), broker("2", true, "4")]);
    }
}
