//! Measured stages and their names.

/// A measured stage: nanoseconds for each transaction of each round.
pub(crate) struct Stage<'a> {
    pub(crate) name: Name,
    pub(crate) run: Box<dyn FnMut() + 'a>,
    pub(crate) rounds: Vec<f64>,
}

impl Stage<'_> {
    pub(crate) fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

pub(crate) fn stage<'a>(name: Name, run: impl FnMut() + 'a) -> Stage<'a> {
    Stage { name, run: Box::new(run), rounds: Vec::new() }
}

/// Measurements, in the order of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Read,
    ReadByHickory,
    ReadAndPair,
    EncodeAvro,
    EncodeFlat,
    EncodeJson,
    EncodeBySerde,
    EncodeByValue,
    PathToAvro,
    PathToFlat,
    PathTimed,
    PathCounted,
    PathCountedWithNames,
    PathWithSignals,
    PathChained,
    PathChainedInSmallBatches,
    PathWithChains,
    PathOfResolver,
    PathToJson,
    PathReplaced,
}

impl Name {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Read => "read query and response",
            Self::ReadByHickory => "  the same, by hickory-proto",
            Self::ReadAndPair => "read and pair",
            Self::EncodeAvro => "encode Avro",
            Self::EncodeFlat => "  flat profile",
            Self::EncodeJson => "  JSON, by serde_json",
            Self::EncodeBySerde => "  Avro, by apache-avro's serde",
            Self::EncodeByValue => "  Avro, by apache-avro's Value",
            Self::PathToAvro => "ring record to Avro",
            Self::PathToFlat => "  to the flat profile",
            Self::PathTimed => "  the same, timed for /metrics",
            Self::PathCounted => "  the same, with metrics of the DNS",
            Self::PathCountedWithNames => "  the same, and top names and clients",
            Self::PathWithSignals => "  the same, with signals",
            Self::PathChained => "  the same, with tamper evidence",
            Self::PathChainedInSmallBatches => "  the same, 16 transactions a batch",
            Self::PathWithChains => "  the same, with chains, of no resolver",
            Self::PathOfResolver => "  the same, with chains, of a resolver",
            Self::PathToJson => "  to JSON",
            Self::PathReplaced => "  hickory-proto, hash map, serde_json",
        }
    }
}
