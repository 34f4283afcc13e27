//! The ledger for people: totals, and every reason that is not zero.

use std::fmt;

use super::statement::{ByReason, Deliveries, Hook, Ledger};

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ledger of {} at {}", self.node, self.written_at)?;
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
        write!(f, "  {label:<34} received {:>9} = decoded {}", packets.received, packets.decoded)?;
        write_reasons(f, "ignored", &packets.ignored)?;
        write_reasons(f, "lost", &packets.lost)?;
        if packets.in_rings > 0 {
            write!(f, ", and {} more in the rings", packets.in_rings)?;
        }
        let label = "messages";
        write!(
            f,
            "\n  {label:<34} decoded  {:>9} = in records {}",
            messages.decoded, messages.in_records
        )?;
        write!(f, " + pending {}", messages.pending)?;
        write_reasons(f, "filtered", &messages.filtered)?;
        write_reasons(f, "ignored", &messages.ignored)?;
        write_reasons(f, "lost", &messages.lost)?;
        writeln!(f)?;
        for sink in &self.agent.sinks {
            write_deliveries(f, &format!("records to {}", sink.name), &sink.records)?;
        }
        if self.balanced {
            return writeln!(f, "  balanced: yes");
        }
        writeln!(f, "  balanced: NO")?;
        self.imbalances.iter().try_for_each(|imbalance| writeln!(f, "    {imbalance}"))
    }
}

fn write_hook(f: &mut fmt::Formatter<'_>, name: &str, hook: &Hook) -> fmt::Result {
    write!(f, "  {name:<34} seen     {:>9} = captured {}", hook.seen, hook.captured)?;
    write_reasons(f, "ignored", &hook.ignored)?;
    write_reasons(f, "lost", &hook.lost)?;
    writeln!(f)
}

fn write_deliveries(f: &mut fmt::Formatter<'_>, name: &str, counts: &Deliveries) -> fmt::Result {
    write!(f, "  {name:<34} offered  {:>9} = delivered {}", counts.offered, counts.delivered)?;
    if counts.in_flight > 0 {
        write!(f, " + in flight {}", counts.in_flight)?;
    }
    write_reasons(f, "lost", &counts.lost)?;
    writeln!(f)
}

fn write_reasons(f: &mut fmt::Formatter<'_>, fate: &str, reasons: &ByReason) -> fmt::Result {
    let counted = reasons.iter().filter(|(_, count)| **count > 0);
    counted.into_iter().try_for_each(|(reason, count)| write!(f, " + {fate} {reason} {count}"))
}
