//! The ledger for people: totals, and every reason that is not zero.

use std::fmt;

use super::{
    RegistryCounts,
    statement::{ByReason, Deliveries, Fates, Hook, Ledger, Summaries},
};

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ledger of {} at {}, run {}", self.node, self.written_at, self.run_id)?;
        self.write_gap(f)?;
        for interface in &self.interfaces {
            for (direction, hook) in
                [("ingress", &interface.ingress), ("egress", &interface.egress)]
            {
                let name =
                    format!("{} {direction} ({})", interface.name, interface.hooks[direction]);
                write_hook(f, &name, hook)?;
            }
        }
        let (packets, messages) = (&self.agent.packets, &self.agent.messages);
        let label = "packets";
        write!(f, "  {label:<34} received {:>9}", packets.received)?;
        if packets.joined > 0 {
            write!(f, " + joined {}", packets.joined)?;
        }
        write!(f, " = decoded {}", packets.decoded)?;
        if packets.fragments > 0 {
            write!(f, " + fragments {}", packets.fragments)?;
        }
        write_reasons(f, "ignored", &packets.ignored)?;
        write_reasons(f, "lost", &packets.lost)?;
        if packets.in_rings > 0 {
            write!(f, ", and {} more in the rings", packets.in_rings)?;
        }
        if packets.abandoned > 0 {
            write!(f, ", and {} more abandoned", packets.abandoned)?;
        }
        writeln!(f)?;
        self.write_joining(f)?;
        let label = "messages";
        write!(
            f,
            "  {label:<34} decoded  {:>9} = in records {}",
            messages.decoded, messages.in_records
        )?;
        write!(f, " + pending {}", messages.pending)?;
        write_reasons(f, "filtered", &messages.filtered)?;
        write_reasons(f, "ignored", &messages.ignored)?;
        write_reasons(f, "lost", &messages.lost)?;
        write_flawed(f, &messages.flawed)?;
        writeln!(f)?;
        for sink in &self.agent.sinks {
            write_deliveries(f, &format!("records to {}", sink.name), &sink.records)?;
            if let Some(spool) = &sink.spool {
                write_spool(f, &spool.records)?;
            }
            if let Some(registry) = &sink.registry {
                write_registry(f, &sink.name, registry)?;
            }
            if let Some(summaries) = &sink.summaries {
                write_summaries(f, &sink.name, summaries)?;
            }
        }
        if self.balanced {
            return writeln!(f, "  balanced: yes");
        }
        writeln!(f, "  balanced: NO")?;
        self.imbalances.iter().try_for_each(|imbalance| writeln!(f, "    {imbalance}"))
    }
}

impl Ledger {
    /// What nobody captured before this run, where that is known.
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

    /// Fragments and streams, where there were any.
    fn write_joining(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fragments, bytes) = (&self.agent.fragments, &self.agent.tcp_bytes);
        if fragments.received > 0 {
            let (label, received) = ("fragments", fragments.received);
            write!(f, "  {label:<34} received {received:>9} = joined {}", fragments.joined)?;
            write!(f, " (datagrams {})", fragments.datagrams)?;
            write_waiting(f, fragments.waiting)?;
            write_reasons(f, "ignored", &fragments.ignored)?;
            write_reasons(f, "lost", &fragments.lost)?;
            writeln!(f)?;
        }
        if bytes.received > 0 {
            let (label, received) = ("bytes of TCP streams", bytes.received);
            write!(f, "  {label:<34} received {received:>9} = in messages {}", bytes.in_messages)?;
            write_waiting(f, bytes.waiting)?;
            write_reasons(f, "ignored", &bytes.ignored)?;
            write_reasons(f, "lost", &bytes.lost)?;
            writeln!(f)?;
        }
        Ok(())
    }
}

fn write_waiting(f: &mut fmt::Formatter<'_>, waiting: u64) -> fmt::Result {
    if waiting > 0 { write!(f, " + waiting {waiting}") } else { Ok(()) }
}

fn write_hook(f: &mut fmt::Formatter<'_>, name: &str, hook: &Hook) -> fmt::Result {
    write!(f, "  {name:<34} seen     {:>9} = captured {}", hook.seen, hook.captured)?;
    write_reasons(f, "ignored", &hook.ignored)?;
    write_reasons(f, "lost", &hook.lost)?;
    writeln!(f)
}

fn write_deliveries(f: &mut fmt::Formatter<'_>, name: &str, counts: &Deliveries) -> fmt::Result {
    write!(f, "  {name:<34} offered  {:>9}", counts.offered)?;
    if counts.carried > 0 {
        write!(f, " + carried {}", counts.carried)?;
    }
    write!(f, " = delivered {}", counts.delivered)?;
    for (what, count) in [("in flight", counts.in_flight), ("spooled", counts.spooled)] {
        if count > 0 {
            write!(f, " + {what} {count}")?;
        }
    }
    write_reasons(f, "lost", &counts.lost)?;
    if counts.in_batches > 0 {
        write!(f, ", and {} more on their way to it", counts.in_batches)?;
    }
    writeln!(f)
}

fn write_summaries(f: &mut fmt::Formatter<'_>, sink: &str, of: &Summaries) -> fmt::Result {
    let label = format!("summaries to {sink}");
    write!(f, "  {label:<34} written  {:>9}", of.written)?;
    if of.carried > 0 {
        write!(f, " + carried {}", of.carried)?;
    }
    write!(f, " = delivered {}", of.delivered)?;
    for (what, count) in [("waiting", of.waiting), ("lost", of.lost)] {
        if count > 0 {
            write!(f, " + {what} {count}")?;
        }
    }
    writeln!(f)
}

/// Where something was lost, in this run or in one before.
fn write_spool(f: &mut fmt::Formatter<'_>, fates: &Fates) -> fmt::Result {
    if fates.lost.values().all(|count| *count == 0) {
        return Ok(());
    }
    let label = "  in its spool, in all runs";
    write!(f, "  {label:<34} appended {:>9} = arrived {}", fates.appended, fates.arrived)?;
    write!(f, " + waiting {}", fates.waiting)?;
    write_reasons(f, "lost", &fates.lost)?;
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

/// Messages of the line that could not be read whole.
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
