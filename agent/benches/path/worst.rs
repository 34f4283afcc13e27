//! The worst messages that can be made, beside a benign one of the same size: reading alone, and the
//! whole path from ring record to Avro.

use std::hint::black_box;

use tap53_dns::{Kept, Message};
use tap53_records::encode::Format;

use super::{cpu_time, hostile, paths::stages, sample};

/// Payloads: the limits of DNS without EDNS and with it, and of what UDP carries.
const SIZES: [usize; 4] = [512, 1_232, 4_096, 65_507];
/// Rounds in which all messages take turns, the first of which only warms up.
const ROUNDS: usize = 31;
/// Bytes that are read between two looks at the clock, at least.
const BYTES: usize = 64 << 10;

/// A measured message: nanoseconds for each byte, in each round.
struct Row {
    name: &'static str,
    wire: Vec<u8>,
    item: Vec<u8>,
    read: Vec<f64>,
    path: Vec<f64>,
}

impl Row {
    fn new((name, make): hostile::Named, size: usize) -> Self {
        let wire = make(size);
        let (server, client) = (([192, 0, 2, 53], 53), ([192, 0, 2, 1], 4_096));
        let item = sample::ring_record(&wire, server, client, 1);
        Self { name, wire, item, read: Vec::new(), path: Vec::new() }
    }

    /// Nanoseconds for each byte of what `run` does with the message.
    fn measure(&self, mut run: impl FnMut(usize)) -> f64 {
        let times = BYTES.div_ceil(self.wire.len());
        let started = cpu_time();
        (0..times).for_each(&mut run);
        (cpu_time() - started).as_nanos() as f64 / (times * self.wire.len()) as f64
    }
}

/// Measures and prints the ratios.
pub(crate) fn measure() {
    println!("\nworst messages, CPU time per byte as a multiple of a benign message's");
    println!("  {:<24} {:>12} {:>12}", "", "read", "whole path");
    for size in SIZES {
        let benign = ("benign", hostile::benign as fn(usize) -> Vec<u8>);
        let all = [benign].into_iter().chain(hostile::ALL);
        let rows = all.map(|named| Row::new(named, size));
        // Some consist of parts that do not fit into a small one.
        let mut rows: Vec<Row> = rows.filter(|row| row.wire.len() * 2 > size).collect();
        let mut message = Message::default();
        let mut stages = stages(Format::AvroSingleObject, None);
        let mut number = 0_u16;
        for round in 0..ROUNDS {
            for row in &mut rows {
                let read = row.measure(|_| _ = black_box(message.read(&row.wire, Kept::Answers)));
                // A new identifier for each, so that each is a transaction.
                let at = row.item.len() - row.wire.len();
                let mut item = std::mem::take(&mut row.item);
                let path = row.measure(|_| {
                    number = number.wrapping_add(1);
                    item[at..at + 2].copy_from_slice(&number.to_be_bytes());
                    stages.take(&item).expect("a whole record");
                    stages.deliver();
                });
                row.item = item;
                if round > 0 {
                    row.read.push(read);
                    row.path.push(path);
                }
            }
        }
        print_table(size, rows);
    }
}

fn print_table(size: usize, rows: Vec<Row>) {
    let mut medians = rows.into_iter().map(|row| (row.name, median(row.read), median(row.path)));
    let Some((name, read, path)) = medians.next() else { return };
    println!("  {size} bytes: {name}, ns per byte {read:>13.2} {path:>12.2}");
    let mut worst = (0.0_f64, 0.0_f64);
    for (name, by_read, by_path) in medians {
        let ratios = (by_read / read, by_path / path);
        println!("    {name:<22} {:>12.1} {:>12.1}", ratios.0, ratios.1);
        worst = (worst.0.max(ratios.0), worst.1.max(ratios.1));
    }
    println!("    {:<22} {:>12.1} {:>12.1}", "the worst", worst.0, worst.1);
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
}
