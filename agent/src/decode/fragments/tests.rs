use super::*;

fn origin(at_ns: u64) -> Origin {
    Origin {
        captured_at_ns: at_ns,
        ifindex: 3,
        direction: Direction::Ingress,
        frame: 0,
        vlan_id: None,
        vlan_inner_id: None,
        vlan_visible: true,
        tunnel: None,
        source: [192, 0, 2, 53].into(),
        destination: [192, 0, 2, 1].into(),
    }
}

fn part(identification: u32, offset: u32, more: bool, data: &[u8]) -> Part<'_> {
    Part { protocol: 17, identification, offset, more, data }
}

/// What came of fragments, in order.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Datagram(Vec<u8>),
    Loss(FragmentLoss, Option<[u16; 2]>),
}

impl From<FragmentEvent<'_>> for Seen {
    fn from(event: FragmentEvent<'_>) -> Self {
        match event {
            FragmentEvent::Datagram { bytes, .. } => Self::Datagram(bytes.to_vec()),
            FragmentEvent::Loss { reason, ports, .. } => Self::Loss(reason, ports),
        }
    }
}

fn take(fragments: &mut Fragments, origin: &Origin, part: &Part<'_>) -> Vec<Seen> {
    let mut seen = Vec::new();
    fragments.fragment(origin, part, |event| seen.push(event.into()));
    let counts = fragments.counts();
    assert_eq!(counts.accounted(), counts.received, "{counts:?}");
    seen
}

#[test]
fn a_datagram_is_whole_with_its_last_missing_fragment() {
    let mut fragments = Config::default().build();
    let datagram: Vec<u8> = (0..40).collect();
    assert_eq!(take(&mut fragments, &origin(1), &part(7, 16, true, &datagram[16..32])), []);
    assert_eq!(take(&mut fragments, &origin(2), &part(7, 32, false, &datagram[32..])), []);
    assert_eq!(take(&mut fragments, &origin(3), &part(7, 32, false, &datagram[32..])), []);
    let whole = take(&mut fragments, &origin(4), &part(7, 0, true, &datagram[..16]));
    assert_eq!(whole, [Seen::Datagram(datagram)]);
    let counts = fragments.counts();
    assert_eq!((counts.joined, counts.duplicates, counts.datagrams), (3, 1, 1));
    assert_eq!((counts.waiting, fragments.memory), (0, 0));
}
