//! The ledger for people: totals, and every reason that is not zero.

use std::fmt;

use tap53_reasons::Fate;

use super::{
    RegistryCounts,
    stage::{ByReason, Stage, Term, Total},
    stages::{Fragments, Hook, SpoolHistory},
    statement::{Interface, Ledger, Sink},
};

/// Minimum number of interfaces without a packet that are written as one line.
const MIN_FOLDED: usize = 3;

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ledger of {} at {}, run {}", self.node, self.written_at, self.run_id)?;
        self.write_gap(f)?;
        self.write_interfaces(f)?;
        self.write_packets(f)?;
        self.write_reassembly(f)?;
        let messages = &self.agent.messages;
        write_stage(f, "messages", messages)?;
        write_flawed(f, &messages.flawed.0)?;
        writeln!(f)?;
        self.agent.sinks.iter().try_for_each(|sink| write_sink(f, sink))?;
        if self.balanced {
            return writeln!(f, "  balanced: yes");
        }
        writeln!(f, "  balanced: NO")?;
        self.imbalances.iter().try_for_each(|imbalance| writeln!(f, "    {imbalance}"))
    }
}

impl Ledger {
    /// Writes how long no agent captured before this run, and how many packets passed, if that is known.
    fn write_gap(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let previous = self.before.as_ref().and_then(|before| before.previous_run.as_ref());
        let Some(gap) = previous.and_then(|previous| previous.gap.as_ref()) else { return Ok(()) };
        let (label, packets) = ("before this run, nobody captured", gap.packets);
        write!(f, "  {label:<34} for {:.3} s: ", gap.seconds)?;
        if packets.at_least == packets.at_most {
            return writeln!(f, "{} packets passed", packets.at_most);
        }
        writeln!(f, "from {} to {} packets passed", packets.at_least, packets.at_most)
    }

    /// Writes the interfaces; several without a packet are one line.
    fn write_interfaces(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_idle = |it: &&Interface| it.ingress.seen == 0 && it.egress.seen == 0;
        let (shown, detached) = self.shown_and_detached();
        let (idle, busy): (Vec<&Interface>, Vec<_>) = shown.iter().copied().partition(is_idle);
        if idle.len() < MIN_FOLDED {
            shown.into_iter().try_for_each(|interface| write_interface(f, interface))?;
        } else {
            busy.into_iter().try_for_each(|interface| write_interface(f, interface))?;
            writeln!(f, "  {} interfaces without a packet", idle.len())?;
        }
        if detached.is_empty() {
            return Ok(());
        }
        let hooks = detached.iter().flat_map(|of| [&of.ingress, &of.egress]);
        write_stage(f, "detached interfaces", &Hook::sum(hooks))?;
        writeln!(f)
    }

    /// Returns the interfaces with lines of their own, and those that share one: several that are
    /// detached, while there are others.
    fn shown_and_detached(&self) -> (Vec<&Interface>, Vec<&Interface>) {
        let (attached, detached): (Vec<_>, Vec<_>) =
            self.interfaces.iter().partition(|interface| interface.is_attached);
        if attached.is_empty() || detached.len() < MIN_FOLDED {
            return (self.interfaces.iter().collect(), Vec::new());
        }
        (attached, detached)
    }

    fn write_packets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = &self.agent.packets;
        write_stage(f, "packets", &packets.workers)?;
        let rings = &packets.rings;
        for (count, place) in [(rings.in_rings, "in the rings"), (rings.abandoned, "abandoned")] {
            if count > 0 {
                write!(f, ", and {count} more {place}")?;
            }
        }
        writeln!(f)
    }

    /// Writes the lines of fragments and streams, where there were any.
    fn write_reassembly(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fragments, bytes) = (&self.agent.fragments, &self.agent.tcp_bytes);
        if fragments.received > 0 {
            write_fragments(f, fragments)?;
        }
        if bytes.received > 0 {
            write_stage(f, "bytes of TCP streams", bytes)?;
            writeln!(f)?;
        }
        Ok(())
    }
}

fn write_interface(f: &mut fmt::Formatter<'_>, interface: &Interface) -> fmt::Result {
    for (direction, hook) in [("ingress", &interface.ingress), ("egress", &interface.egress)] {
        let label = format!("{} {direction} ({})", interface.name, interface.hooks[direction]);
        write_stage(f, &label, hook)?;
        writeln!(f)?;
    }
    Ok(())
}

/// Writes the sum of a stage: its first term, and every other one that is not zero or always shown.
fn write_stage<S: Stage>(f: &mut fmt::Formatter<'_>, label: &str, stage: &S) -> fmt::Result {
    write_taken(f, label, stage)?;
    write_accounted(f, stage, |_| None)
}

fn write_fragments(f: &mut fmt::Formatter<'_>, fragments: &Fragments) -> fmt::Result {
    write_taken(f, "fragments", fragments)?;
    write_accounted(f, fragments, |term| {
        (term == "joined").then(|| format!(" (datagrams {})", fragments.datagrams))
    })?;
    writeln!(f)
}

fn write_taken<S: Stage>(f: &mut fmt::Formatter<'_>, label: &str, stage: &S) -> fmt::Result {
    for (position, Term { name, read, .. }) in S::terms(Fate::Taken).enumerate() {
        match (position, read(stage).sum()) {
            (0, count) => write!(f, "  {label:<34} {name:<8} {count:>9}")?,
            (_, 0) => {}
            (_, count) => write!(f, " + {name} {count}")?,
        }
    }
    Ok(())
}

/// Writes the terms that account for what was taken, each with the remark on it.
fn write_accounted<S: Stage>(
    f: &mut fmt::Formatter<'_>,
    stage: &S,
    remark: impl Fn(&str) -> Option<String>,
) -> fmt::Result {
    let [_, accounted @ ..] = Fate::SUMMED;
    let mut sign = " =";
    for Term { name, fate, always, read, .. } in accounted.into_iter().flat_map(S::terms) {
        match read(stage) {
            Total::Each(reasons) => write_reasons(f, fate.name(), reasons)?,
            Total::One(0) if !always => continue,
            Total::One(count) => write!(f, "{sign} {} {count}", name.replace('_', " "))?,
        }
        if let Some(remark) = remark(name) {
            f.write_str(&remark)?;
        }
        sign = " +";
    }
    Ok(())
}

fn write_sink(f: &mut fmt::Formatter<'_>, sink: &Sink) -> fmt::Result {
    write_stage(f, &format!("records to {}", sink.name), &sink.records)?;
    if sink.records.in_batches > 0 {
        write!(f, ", and {} more on their way to it", sink.records.in_batches)?;
    }
    writeln!(f)?;
    if let Some(spool) = &sink.spool {
        write_spool(f, &spool.records)?;
    }
    if let Some(registry) = &sink.registry {
        write_registry(f, &sink.name, registry)?;
    }
    if let Some(summaries) = &sink.summaries {
        write_stage(f, &format!("summaries to {}", sink.name), summaries)?;
        writeln!(f)?;
    }
    Ok(())
}

/// Writes the line of a spool where something was lost in it, in this run or in one before.
fn write_spool(f: &mut fmt::Formatter<'_>, history: &SpoolHistory) -> fmt::Result {
    if history.lost.values().all(|count| *count == 0) {
        return Ok(());
    }
    write_stage(f, "  in its spool, in all runs", history)?;
    writeln!(f)
}

fn write_registry(f: &mut fmt::Formatter<'_>, sink: &str, counts: &RegistryCounts) -> fmt::Result {
    let label = format!("schema registry of {sink}");
    write!(f, "  {label:<34} requests {:>9}", counts.requests)?;
    write!(
        f,
        ", failed {}; ids known {} of {}",
        counts.failures, counts.ids_known, counts.ids_wanted
    )?;
    if counts.id_changes > 0 {
        write!(f, ", changed {}", counts.id_changes)?;
    }
    writeln!(f)
}

/// Writes how many messages of the line could not be read whole.
fn write_flawed(f: &mut fmt::Formatter<'_>, by_status: &ByReason) -> fmt::Result {
    let mut lead = "; not read whole: ";
    for (status, count) in by_status.iter().filter(|(_, count)| **count > 0) {
        write!(f, "{lead}{status} {count}")?;
        lead = ", ";
    }
    Ok(())
}

fn write_reasons(f: &mut fmt::Formatter<'_>, fate: &str, reasons: &ByReason) -> fmt::Result {
    let counted = reasons.iter().filter(|(_, count)| **count > 0);
    counted.into_iter().try_for_each(|(reason, count)| write!(f, " + {fate} {reason} {count}"))
}
