//! Packets from the rings to messages, with the fragments and streams between.

use tap53_ledger::{Fragments, Packets, Rings, TcpBytes};

use super::{Metric, agent, stage};

pub(super) fn stages() -> impl Iterator<Item = Metric> {
    stage::<Rings>(&[], |r, report| report(&[], &agent(r).packets.rings))
        .chain(stage::<Packets>(&[], |r, report| report(&[], &agent(r).packets.workers)))
        .chain(stage::<Fragments>(&[], |r, report| report(&[], &agent(r).fragments)))
        .chain(stage::<TcpBytes>(&[], |r, report| report(&[], &agent(r).tcp_bytes)))
}
