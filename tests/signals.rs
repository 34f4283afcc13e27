//! Evaluates the signals: real tunnels and made bursts among benign lookups, through the detector.
//!
//! ```text
//!  iodine, dns2tcp ─▶ captured lookups ─▶ trials ─┐
//!  dga, rebinding ────────────────────▶ trials ───┼▶ by time ─▶ detector ─▶ recall, false alarms
//!  benign lookups ────────────────────────────────┘
//! ```
//!
//! Time is that of the lookups, so nothing waits once the tunnels are captured. `cargo xtask signals` runs
//! the long form and makes `docs/signals-evaluation.md` of the rows.

#[path = "signals/captures.rs"]
mod captures;
#[path = "signals/evaluation.rs"]
mod evaluation;
#[path = "signals/judge.rs"]
mod judge;
#[path = "signals/live.rs"]
mod live;
#[path = "signals/trials.rs"]
mod trials;

use std::time::Duration;

use anyhow::{Result, ensure};
use evaluation::Evaluation;
use tap53_harness::{evaluation::is_long, require_root};
use trials::Trials;

const SEED: u64 = 53;
const HOUR: Duration = Duration::from_secs(3_600);

/// Lookups of the short form and of the long one.
const FEW: usize = 150_000;
const MILLION: usize = 1_000_000;

/// Minimum share of tunnels, and of bursts of the rates that are required, that are found.
const MIN_RECALL: f64 = 0.99;
/// Number of benign domains of which one may be taken for a tunnel.
const DOMAINS_PER_ALARM: usize = 10_000;

#[test]
fn tunnels_bursts_and_rebinding_are_found_and_little_else() -> Result<()> {
    require_root()?;
    let captured = captures::take()?;
    let mut trials = Trials::new(SEED);
    let (count, span) = if is_long() { (MILLION, HOUR) } else { (FEW, HOUR / 6) };
    trials.add_tunnels(&captured, span);
    trials.add_bursts(span);
    trials.add_attacks(span);
    let mut evaluation = Evaluation::new("dense, with all trials");
    evaluation.run(SEED, count, span, &mut trials);
    evaluation.write()?;
    trials.write()?;

    let recall = trials.tunnel_recall();
    ensure!(recall >= MIN_RECALL, "{recall} of the tunnels are found\n{}", trials.missed());
    ensure!(trials.all_attacks_are_found(), "{}", trials.missed());
    let recall = trials.burst_recall();
    ensure!(recall >= MIN_RECALL, "{recall} of the bursts are found\n{}", trials.missed());
    evaluation.ensure_few_alarms(DOMAINS_PER_ALARM)
}

#[test]
fn benign_lookups_of_a_day_are_no_signals() -> Result<()> {
    let count = if is_long() { MILLION } else { FEW / 3 };
    let mut evaluation = Evaluation::new("sparse");
    evaluation.run(SEED + 1, count, HOUR * 24, &mut Trials::new(SEED));
    evaluation.write()?;
    evaluation.ensure_few_alarms(DOMAINS_PER_ALARM)
}
