//! Target `fragments`: parts of datagrams, in whatever order and however often.

use std::time::Duration;

use tap53_dns::{
    Origin, Part, build,
    fragments::{Config, FragmentEvent, Fragments},
};

use crate::input::Input;

/// Small, so that an input can reach every limit.
const CONFIG: Config =
    Config { datagrams: 3, bytes: 16 << 10, fragments: 32, timeout: Duration::from_secs(15) };

/// What fragments may take with these limits, bytes: the bytes kept, one fragment before room is
/// made, and the datagrams themselves.
const MEMORY_LIMIT: usize = CONFIG.bytes + (64 << 10) + CONFIG.datagrams * (4 << 10);

/// Fragments of one input at most.
const FRAGMENTS: usize = 400;

/// Reassembles what `bytes` says.
///
/// # Panics
/// When a datagram comes out that nobody sent, one that was captured does not, or a fragment is not
/// accounted for.
pub fn fragments(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.u8() % 3;
    let datagrams: Vec<Vec<u8>> = (0..4u8)
        .map(|number| {
            let length = 8 + input.up_to(3_000);
            (0..length).map(|at| at.to_le_bytes()[0] ^ number).collect()
        })
        .collect();
    let mut joint = Joint { fragments: CONFIG.build(), at_ns: 1, forged: kind == 2, datagrams };
    if kind == 1 {
        joint.whole(&mut input);
    } else {
        for _ in 0..FRAGMENTS {
            if input.is_empty() {
                break;
            }
            joint.step(&mut input);
        }
    }
    joint.call(|fragments, events| fragments.finish(events));
    assert_eq!(joint.fragments.counts().waiting, 0, "nothing waits behind the end");
}

/// What joins, and what was sent.
struct Joint {
    fragments: Fragments,
    at_ns: u64,
    forged: bool,
    datagrams: Vec<Vec<u8>>,
}

impl Joint {
    /// One fragment, or some time.
    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        let number = usize::from(choice) % self.datagrams.len();
        match choice >> 2 & 7 {
            0 => {
                self.at_ns += u64::from(input.u8()) * 100_000_000;
                let at_ns = self.at_ns;
                self.call(|fragments, events| fragments.expire(at_ns, events));
            }
            1 | 2 if self.forged => {
                let (offset, more) = (input.u32() % 70_000, input.u8() & 1 == 0);
                let length = input.up_to(600);
                let data = input.bytes(length);
                self.fragment(number, offset as usize, more, data);
            }
            _ => {
                let length = self.datagrams[number].len();
                let start = input.up_to(length / 8) * 8;
                let end = length.min(start + 8 * (1 + input.up_to(100)));
                let data = self.datagrams[number][start..end].to_vec();
                self.fragment(number, start, end < length, &data);
            }
        }
    }

    /// Every fragment of one datagram, in any order.
    fn whole(&mut self, input: &mut Input<'_>) {
        let datagram = self.datagrams[0].clone();
        let pieces = input.pieces(datagram.len(), 104);
        for (start, end) in &pieces {
            self.fragment(0, *start, *end < datagram.len(), &datagram[*start..*end]);
        }
        assert_eq!(self.fragments.counts().datagrams, 1, "of {} fragments", pieces.len());
    }

    fn fragment(&mut self, number: usize, offset: usize, more: bool, data: &[u8]) {
        let part = Part {
            protocol: 17,
            identification: u32::try_from(number).expect("few datagrams"),
            offset: u32::try_from(offset).expect("below 2^32"),
            more,
            data,
        };
        let origin = origin(self.at_ns);
        self.call(|fragments, events| fragments.fragment(&origin, &part, events));
    }

    fn call(&mut self, call: impl FnOnce(&mut Fragments, &mut dyn FnMut(FragmentEvent<'_>))) {
        let (forged, datagrams) = (self.forged, &self.datagrams);
        call(&mut self.fragments, &mut |event| {
            if let FragmentEvent::Datagram { bytes, .. } = event {
                let sent = datagrams.iter().any(|datagram| datagram == bytes);
                assert!(sent || forged, "nobody sent {bytes:02x?}");
            }
        });
        let counts = self.fragments.counts();
        assert_eq!(counts.received, counts.accounted(), "{counts:?}");
        assert!(counts.steps <= counts.most_steps(CONFIG.fragments), "{counts:?}");
        assert!(self.fragments.memory() <= MEMORY_LIMIT, "{} bytes", self.fragments.memory());
    }
}

fn origin(at_ns: u64) -> Origin {
    build::origin(at_ns, 1, [192, 0, 2, 1], [192, 0, 2, 53])
}
