//! Measures the cost of attribution: a lookup, and a whole transaction with and without it.
//!
//! - The clients are the 110 pods of a node, in turn; the directory has only these, or a cluster's 100,000.
//! - The clients are 2,048 of 100,000 pods, each once in a round, after which other work has evicted the
//!   cache: as at the resolver of a whole cluster, where no client was seen recently.
//!
//! - The clients are the 110 pods of a node, known by the sockets that sent their queries.
//!
//! Attribution makes the record longer, too. Only ratios within one run are meaningful.

#![allow(clippy::cast_precision_loss, reason = "statistics")]

#[path = "path/sample.rs"]
#[allow(dead_code, reason = "the other benchmark measures more kinds")]
mod sample;

use std::{
    collections::BTreeMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tap53::worker::{CrossWorkerQueue, Shared, Stages};

use sample::{Kind, Sample};
use tap53_attribution::{ContainerDirectory, Directory};
use tap53_capture::interfaces::Names;
use tap53_ledger::{Published, SinkCounts};
use tap53_records::encode::{Attribution, Batch, Clock, Format, Identity};
use tap53_sinks::{Named, Sink};
use tap53_transactions::pair::{self, RecordIds, SharedNotes};

/// Transactions in a round.
const TRANSACTIONS: usize = 2_048;
/// Look-ups in a round.
const LOOK_UPS: usize = 65_536;
/// Queries that wait for their responses: those of a millisecond, at 32,000 a second.
const WAITING: usize = 32;
/// Pods of a node, a kubelet's default maximum.
const NODE: usize = 110;
/// Pods of a large cluster.
const CLUSTER: usize = 100_000;
/// Rounds, the first of which only warms up.
const ROUNDS: usize = 41;

const CLOCK: Clock = Clock { utc_offset_ns: 1_700_000_000_000_000_000 };

/// Takes batches and throws them away.
struct Discard(Published<SinkCounts>);

impl Sink for Discard {
    fn format(&self) -> Format {
        Format::AvroSingleObject
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.0
    }

    fn write(&self, batch: &Batch) {
        black_box(batch.bytes());
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

/// One of `pods`, in an order that no cache foresees: a step that has no factor in common with them.
const fn scattered(number: usize, pods: usize) -> usize {
    number * 7_919 % pods
}

/// The address of a pod.
fn address(number: usize) -> IpAddr {
    let number = u32::try_from(number).unwrap_or_default();
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + number).into()
}

/// The node that all pods run on.
const NODE_NAME: &str = "worker-0001.example.internal";

/// UID of a pod.
fn uid(number: usize) -> String {
    format!("0f5a7c2e-1b7d-4a52-9c1e-{number:012}")
}

/// Containers of these pods, one each, in cgroups with the numbers of the pods.
fn containers(pods: impl Iterator<Item = usize>) -> ContainerDirectory {
    let path = |number| format!("kubepods/burstable/pod{}/{number:064x}", uid(number));
    let cgroups: Vec<(u64, String)> = pods.map(|number| (number as u64, path(number))).collect();
    let cgroups = cgroups.iter().map(|(id, path)| (*id, path.as_str()));
    ContainerDirectory::of_cgroups(NODE_NAME, cgroups)
}

fn directory(pods: impl Iterator<Item = usize>) -> Directory {
    let identities = pods.map(|number| {
        let text = |text: &str| Some(text.to_owned());
        let labels = BTreeMap::from([("app".to_owned(), "checkout-service".to_owned())]);
        let identity = Identity {
            attribution: Attribution::Pod,
            pod_uid: Some(uid(number)),
            pod_name: Some(format!("checkout-service-7d4b9c6f5-{number:05}")),
            pod_namespace: text("production-eu"),
            workload_kind: text("Deployment"),
            workload_name: text("checkout-service"),
            labels: Some(labels),
            node_name: text(NODE_NAME),
            ..Default::default()
        };
        (identity, vec![address(number)])
    });
    Directory::of_pods(NODE_NAME, identities)
}

fn stages(owners: Directory) -> Stages {
    let table = pair::Config::default().build(0, RecordIds::new([7; 8], 0), SharedNotes::default());
    let sink = Named { name: "discard".into(), sink: Arc::new(Discard(Published::default())) };
    let shared =
        Shared { owners, ..Shared::new("node-1", Arc::new(Names::of([(3, "eth0".to_owned())]))) };
    Stages::new(table, &[sink], &shared, CrossWorkerQueue::single_worker(), CLOCK)
        .expect("the embedded schema parses")
}

/// A measured stage: nanoseconds for each unit of each round.
struct Stage<'a> {
    name: String,
    units: usize,
    run: Box<dyn FnMut() + 'a>,
    rounds: Vec<f64>,
}

impl Stage<'_> {
    fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn look_ups<'a>(name: &str, pods: usize) -> Stage<'a> {
    let reader = directory(0..pods).reader();
    let addresses: Vec<IpAddr> =
        (0..LOOK_UPS).map(|number| address(scattered(number, pods))).collect();
    let run = move || {
        for address in &addresses {
            black_box(reader.owner(*address, 1_900_000_000_000_000));
        }
    };
    Stage { name: name.to_owned(), units: LOOK_UPS, run: Box::new(run), rounds: Vec::new() }
}

fn path<'a>(name: &str, samples: &'a [Sample], owners: Directory) -> Stage<'a> {
    let mut stages = stages(owners);
    let run = move || {
        stages.begin_batch(CLOCK);
        for number in 0..samples.len() + WAITING {
            if let Some(sample) = samples.get(number) {
                stages.take(&sample.query);
            }
            if let Some(sample) = number.checked_sub(WAITING).and_then(|it| samples.get(it)) {
                stages.take(&sample.response);
            }
        }
        stages.deliver();
    };
    Stage { name: name.to_owned(), units: TRANSACTIONS, run: Box::new(run), rounds: Vec::new() }
}

/// Returns the CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// The pods of the node.
fn pods_of_node() -> impl Iterator<Item = usize> {
    (0..NODE).map(|number| scattered(number, CLUSTER))
}

fn main() {
    // In the order in which the kernel delivers them: no client sends two queries in a row.
    let clients = |clients: usize| -> Vec<Sample> {
        let client = |number| u32::try_from(scattered(number % clients, CLUSTER));
        (0..TRANSACTIONS)
            .map(|number| {
                Sample::of_client(number, client(number).unwrap_or_default(), Kind::Plain)
            })
            .collect()
    };
    let (few, many) = (clients(NODE), clients(TRANSACTIONS));
    let with_sockets: Vec<Sample> = clients(NODE)
        .into_iter()
        .enumerate()
        .map(|(number, sample)| sample.sent_by(scattered(number % NODE, CLUSTER) as u64))
        .collect();
    let sockets = containers(pods_of_node());
    let mut all = vec![
        look_ups("look-up, 100 pods", 100),
        look_ups("look-up, 100,000 pods", CLUSTER),
        path("transaction to Avro, nobody named", &many, Directory::default()),
        path("110 clients, 110 pods known", &few, directory(pods_of_node())),
        path(
            "110 clients, known by their sockets",
            &with_sockets,
            directory(pods_of_node()).with_containers(sockets),
        ),
        path("110 clients, 100,000 pods known", &few, directory(0..CLUSTER)),
        path("2,048 clients, 100,000 pods known", &many, directory(0..CLUSTER)),
    ];
    for round in 0..ROUNDS {
        for stage in &mut all {
            let started = cpu_time();
            (stage.run)();
            let ns = (cpu_time() - started).as_nanos() as f64 / stage.units as f64;
            if round > 0 {
                stage.rounds.push(ns);
            }
        }
    }
    println!("owners of addresses, ns (median of {} rounds)", ROUNDS - 1);
    let unnamed = all.get(2).map_or(f64::NAN, Stage::median);
    for stage in &all {
        let ns = stage.median();
        if stage.units == TRANSACTIONS {
            let ratio = ns / unnamed;
            println!("  {:<42} {ns:>8.0} {ratio:>6.2}   target: at most 1.2", stage.name);
        } else {
            println!("  {:<42} {ns:>8.1}", stage.name);
        }
    }
}
