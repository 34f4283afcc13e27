"""Writes capture files of DNS messages, and what they hold.

    make_captures.py SEED DIRECTORY

The directory gets the files and manifest.jsonl: a line a file, with the messages in it, the frame
with which each is complete, and its bytes. The same seed gives the same files.
"""

import gzip
import json
import sys
from pathlib import Path

from scapy.config import conf

conf.ipv6_enabled = False  # no look at this machine's routes

from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import GRE, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from capture_files import LINUX_SLL, LINUX_SLL2, RAW_IP, Capture, Endpoints
from dns_messages import Message, Messages
from tcp_streams import ACK, PSH, RST, Conversation

CLIENT_MAC, SERVER_MAC = "02:00:00:00:53:01", "02:00:00:00:53:02"


def ethernet():
    return Ether(src=CLIENT_MAC, dst=SERVER_MAC)


def network(endpoints: Endpoints, **fields):
    if ":" in endpoints.src:
        return IPv6(src=endpoints.src, dst=endpoints.dst, **fields)
    return IP(src=endpoints.src, dst=endpoints.dst, **fields)


def datagram(endpoints: Endpoints, payload: bytes):
    return UDP(sport=endpoints.src_port, dport=endpoints.dst_port) / Raw(payload)


def udp(endpoints: Endpoints, payload: bytes):
    return network(endpoints) / datagram(endpoints, payload)


def tcp(link=ethernet):
    """A function that makes a frame of a segment."""

    def packet(endpoints: Endpoints, payload: bytes, sequence: int, acknowledged: int, flags: int):
        header = TCP(
            sport=endpoints.src_port, dport=endpoints.dst_port, seq=sequence, ack=acknowledged, flags=flags
        )
        return bytes(link() / network(endpoints) / header / Raw(payload))

    return packet


class Captures:
    """All files of one seed."""

    def __init__(self, seed: int):
        self.messages = Messages(seed)
        self.random = self.messages.random
        self.all = list(self.messages.all())
        # Whole by their own account, so that a stream of them is cut nowhere else than we cut it.
        self.queries = [message for message in self.all if not message.is_response]
        self.responses = [message for message in self.all if message.is_response]
        self.port = self.random.randrange(1024, 32768)

    def endpoints(self, transport: str, v6: bool = False) -> Endpoints:
        """A client with a port of its own and a server, from the documentation ranges."""
        self.port = 1024 + (self.port - 1023) % 64000
        host = self.random.randrange(1, 200)
        if v6:
            return Endpoints(transport, f"2001:db8::{host:x}", self.port, "2001:db8:53::53", 53)
        return Endpoints(transport, f"192.0.2.{host}", self.port, "198.51.100.53", 53)

    def udp_endpoints(self, message: Message, v6: bool = False) -> Endpoints:
        endpoints = self.endpoints("UDP", v6)
        return endpoints.back() if message.is_response else endpoints

    def some(self, count: int) -> list[Message]:
        return self.random.sample(self.all, count)

    def dialogue(self, count: int):
        """As many queries and responses."""
        return self.random.sample(self.queries, count), self.random.sample(self.responses, count)

    def initial(self):
        """Initial sequence numbers."""
        return self.random.randrange(2**32), self.random.randrange(2**32)

    def files(self):
        for make in (
            self.udp_v4, self.udp_v6, self.vlans, self.cooked, self.cooked_v2, self.raw_ip, self.tunnels,
            self.fragments_v4, self.fragments_v6, self.overlapping_fragments,
            self.tcp_one_a_segment, self.tcp_split_at_every_byte, self.tcp_byte_by_byte, self.tcp_pipelined,
            self.tcp_out_of_order, self.tcp_retransmitted, self.tcp_overlapping, self.tcp_interleaved,
            self.tcp_wrapping, self.tcp_ports_again, self.tcp_cut_off, self.tcp_gaps, self.tcp_mid_stream,
        ):
            yield make()

    def udp_v4(self) -> Capture:
        """Every message there is."""
        capture = Capture("udp_v4.pcap")
        for message in self.all:
            endpoints = self.udp_endpoints(message)
            frame = capture.frame(ethernet() / udp(endpoints, message.wire))
            capture.message(frame, message, endpoints)
        return capture

    def udp_v6(self) -> Capture:
        capture = Capture("udp_v6.pcapng")
        for number, message in enumerate(self.some(200)):
            endpoints = self.udp_endpoints(message, v6=True)
            extension = [None, IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()][number % 3]
            packet = network(endpoints)
            if extension is not None:
                packet = packet / extension
            frame = capture.frame(ethernet() / packet / datagram(endpoints, message.wire))
            capture.message(frame, message, endpoints)
        return capture

    def vlans(self) -> Capture:
        capture = Capture("vlans.be.pcap")
        for number, message in enumerate(self.some(100)):
            endpoints = self.udp_endpoints(message, v6=number % 4 == 3)
            tags = [Dot1Q(vlan=7), Dot1AD(vlan=100) / Dot1Q(vlan=8)][number % 2]
            frame = capture.frame(ethernet() / tags / udp(endpoints, message.wire))
            capture.message(frame, message, endpoints)
        return capture

    def linked(self, name: str, link_type: int, link) -> Capture:
        capture = Capture(name, link_type)
        for number, message in enumerate(self.some(60)):
            endpoints = self.udp_endpoints(message, v6=number % 2 == 1)
            packet = udp(endpoints, message.wire)
            frame = capture.frame(packet if link is None else link(number % 2 == 1) / packet)
            capture.message(frame, message, endpoints)
        return capture

    def cooked(self) -> Capture:
        link = lambda v6: CookedLinux(pkttype=0, src=b"\2\0\0\0\x53\1", proto=0x86DD if v6 else 0x0800)
        return self.linked("cooked.ns.pcap", LINUX_SLL, link)

    def cooked_v2(self) -> Capture:
        link = lambda v6: CookedLinuxV2(proto=0x86DD if v6 else 0x0800, ifindex=3, lladdrtype=1)
        return self.linked("cooked_v2.pcapng", LINUX_SLL2, link)

    def raw_ip(self) -> Capture:
        return self.linked("raw_ip.pcap", RAW_IP, None)

    def tunnels(self) -> Capture:
        capture = Capture("tunnels.pcap")
        outer = Endpoints("UDP", "203.0.113.1", 40000, "203.0.113.2", 4789)
        outer_v6 = Endpoints("UDP", "2001:db8:1::1", 40000, "2001:db8:1::2", 4789)
        for number, message in enumerate(self.some(160)):
            v6 = number % 2 == 1
            endpoints = self.udp_endpoints(message, v6)
            inner = udp(endpoints, message.wire)
            carrier = outer_v6 if number % 4 > 1 else outer
            gre = network(carrier)
            kind = number // 4 % 4
            if kind == 0:
                header = UDP(sport=carrier.src_port, dport=4789) / VXLAN(vni=number, flags="Instance")
                frame = network(carrier) / header / ethernet() / inner
            elif kind == 1:
                header = UDP(sport=carrier.src_port, dport=6081) / GENEVE(vni=number, proto=0x6558)
                frame = network(carrier) / header / ethernet() / inner
            elif kind == 2:
                frame = gre / GRE(proto=0x86DD if v6 else 0x0800) / inner
            else:
                frame = gre / GRE(proto=0x86DD if v6 else 0x0800, key_present=1, key=number) / inner
            capture.message(capture.frame(ethernet() / frame), message, endpoints)
        return capture

    def long_messages(self, count: int) -> list[Message]:
        """Some that no Ethernet frame holds."""
        rdatas = [rdata for rdata in self.messages.rdatas if len(rdata.to_wire()) > 100]
        for number in range(count):
            chosen = self.random.choices(rdatas, k=self.random.randint(12, 25))
            yield Message(f"long message {number}", self.messages.response_with(*chosen))

    def pieces(self, octets: bytes):
        """Fragments of a payload: offset, bytes, whether more follow."""
        size = self.random.choice([8, 512, 1232, 1480])
        if len(octets) // size > 60:
            size = 512
        for start in range(0, len(octets), size):
            yield start, octets[start:start + size], start + size < len(octets)

    def fragments(self, name: str, v6: bool) -> Capture:
        """In order, reversed, shuffled, and two datagrams interleaved; queries too."""
        capture = Capture(name)
        waiting = []
        queries = [message for message in self.queries if 60 < len(message.wire) < 400]
        for number, message in enumerate([*self.long_messages(40), *self.random.sample(queries, 8)]):
            endpoints = self.udp_endpoints(message, v6)
            # The checksum needs the addresses, so it is taken from the whole packet.
            whole = bytes(udp(endpoints, message.wire))[40 if v6 else 20:]
            identification = self.random.randrange(1, 0x10000)
            frames = []
            for start, octets, more in self.pieces(whole):
                if v6:
                    extension = IPv6ExtHdrFragment(nh=17, offset=start // 8, m=more, id=identification)
                    packet = network(endpoints) / extension / Raw(octets)
                else:
                    packet = network(endpoints, proto=17, id=identification, flags="MF" if more else 0, frag=start // 8)
                    packet = packet / Raw(octets)
                frames.append(bytes(ethernet() / packet))
            order = number % 4
            if order == 1:
                frames.reverse()
            elif order == 2:
                self.random.shuffle(frames)
            waiting.append((message, endpoints, frames))
            # The third and the fourth of each four take turns.
            if order == 2:
                continue
            turns = max(len(frames) for _, _, frames in waiting)
            for turn in range(turns):
                for message, endpoints, frames in waiting:
                    if turn < len(frames):
                        last = capture.frame(frames[turn])
                        if turn == len(frames) - 1:
                            capture.message(last, message, endpoints)
            waiting.clear()
        return capture

    def fragments_v4(self) -> Capture:
        return self.fragments("fragments_v4.pcap", v6=False)

    def fragments_v6(self) -> Capture:
        return self.fragments("fragments_v6.pcapng", v6=True)

    def overlapping_fragments(self) -> Capture:
        """Refused (RFC 5722 §4); tshark joins them."""
        capture = Capture("overlapping_fragments.pcap", by_tshark=False)
        for number, message in enumerate(self.long_messages(6)):
            v6 = number % 2 == 1
            endpoints = self.udp_endpoints(message, v6)
            whole = bytes(udp(endpoints, message.wire))[40 if v6 else 20:]
            for start, end, more in [(0, 1024, True), (1016, 1480, True), (1480, len(whole), False)]:
                if v6:
                    packet = network(endpoints) / IPv6ExtHdrFragment(nh=17, offset=start // 8, m=more, id=number)
                else:
                    packet = network(endpoints, proto=17, id=number, flags="MF" if more else 0, frag=start // 8)
                capture.frame(ethernet() / packet / Raw(whole[start:end]))
        return capture

    def conversation(self, capture: Capture, queries, responses, initial=None, link=ethernet) -> Conversation:
        endpoints = self.endpoints("TCP", v6=self.random.random() < 0.3)
        return Conversation(capture, tcp(link), endpoints, queries, responses, initial or self.initial())

    def tcp_one_a_segment(self) -> Capture:
        capture = Capture("tcp_one_a_segment.pcap")
        for _ in range(10):
            link = self.random.choice([ethernet, lambda: ethernet() / Dot1Q(vlan=9)])
            conversation = self.conversation(capture, *self.dialogue(8), link=link)
            conversation.open()
            queries, responses = conversation.streams
            for query, response in zip([0, *queries.ends], [0, *responses.ends]):
                for back, start in ((False, query), (True, response)):
                    later = [end for end in conversation.streams[back].ends if end > start]
                    if later:
                        conversation.send(back, start, later[0])
            conversation.close()
        return capture

    def tcp_split_at_every_byte(self) -> Capture:
        capture = Capture("tcp_split_at_every_byte.pcapng")
        message = self.random.choice([message for message in self.queries if 40 < len(message.wire) < 90])
        for cut in range(1, len(message.wire) + 2):
            conversation = self.conversation(capture, [message], [])
            conversation.open()
            conversation.send_cut(False, [cut])
            conversation.acknowledge(True)
        return capture

    def tcp_byte_by_byte(self) -> Capture:
        capture = Capture("tcp_byte_by_byte.pcap")
        for _ in range(3):
            conversation = self.conversation(capture, *self.dialogue(2))
            conversation.open()
            for back in (False, True):
                conversation.send_cut(back, range(1, len(conversation.streams[back].octets)))
        return capture

    def cuts(self, stream, count: int) -> list[int]:
        return sorted(self.random.sample(range(1, len(stream.octets)), count))

    def tcp_pipelined(self) -> Capture:
        """Many messages a segment, and segments that end anywhere."""
        capture = Capture("tcp_pipelined.pcap")
        for count in (1, 2, 5, 9):
            conversation = self.conversation(capture, *self.dialogue(30))
            conversation.open()
            for back in (False, True):
                conversation.send_cut(back, self.cuts(conversation.streams[back], count + 8))
                conversation.acknowledge(not back)
            conversation.close()
        return capture

    def segments(self, stream, count: int) -> list[tuple[int, int]]:
        bounds = [0, *self.cuts(stream, count), len(stream.octets)]
        return list(zip(bounds, bounds[1:]))

    def tcp_out_of_order(self) -> Capture:
        capture = Capture("tcp_out_of_order.pcap")
        for distance in (1, 2, 4, 8) * 3:
            conversation = self.conversation(capture, *self.dialogue(12))
            conversation.open()
            for back in (False, True):
                segments = self.segments(conversation.streams[back], 12)
                # Each goes astray by some places at most.
                key = lambda item: item[0] + self.random.uniform(0, distance)
                for _, (start, end) in sorted(enumerate(segments), key=key):
                    conversation.send(back, start, end)
            conversation.close()
        return capture

    def tcp_retransmitted(self) -> Capture:
        capture = Capture("tcp_retransmitted.pcap")
        for _ in range(8):
            conversation = self.conversation(capture, *self.dialogue(8))
            conversation.open()
            for back in (False, True):
                sent = []
                for start, end in self.segments(conversation.streams[back], 10):
                    conversation.send(back, start, end)
                    sent.append((start, end))
                    if self.random.random() < 0.5:
                        conversation.send(back, *self.random.choice(sent))
            conversation.close()
        return capture

    def tcp_overlapping(self) -> Capture:
        """Segments that begin in what was already sent, as after a retransmission of another size."""
        capture = Capture("tcp_overlapping.pcap")
        for _ in range(8):
            conversation = self.conversation(capture, *self.dialogue(8))
            conversation.open()
            for back in (False, True):
                for start, end in self.segments(conversation.streams[back], 10):
                    conversation.send(back, max(0, start - self.random.randrange(0, 60)), end)
            conversation.close()
        return capture

    def tcp_interleaved(self) -> Capture:
        """Several connections at once."""
        capture = Capture("tcp_interleaved.pcapng")
        conversations = [self.conversation(capture, *self.dialogue(6)) for _ in range(12)]
        work = []
        for conversation in conversations:
            conversation.open()
            for back in (False, True):
                segments = self.segments(conversation.streams[back], 9)
                work.append([(conversation, back, *segment) for segment in reversed(segments)])
        while work:
            queue = self.random.choice(work)
            conversation, back, start, end = queue.pop()
            conversation.send(back, start, end)
            if not queue:
                work.remove(queue)
        return capture

    def tcp_wrapping(self) -> Capture:
        """Sequence numbers that pass 2^32 in the middle."""
        capture = Capture("tcp_wrapping.pcap")
        for _ in range(5):
            initial = tuple(2**32 - self.random.randrange(1, 300) for _ in range(2))
            conversation = self.conversation(capture, *self.dialogue(8), initial=initial)
            conversation.open()
            for back in (False, True):
                segments = self.segments(conversation.streams[back], 9)
                if back:
                    segments[3], segments[4] = segments[4], segments[3]
                for start, end in segments:
                    conversation.send(back, start, end)
        return capture

    def tcp_ports_again(self) -> Capture:
        """A connection after a connection between the same ports."""
        capture = Capture("tcp_ports_again.pcap")
        endpoints = self.endpoints("TCP")
        for number in range(4):
            queries, responses = self.dialogue(3)
            conversation = Conversation(capture, tcp(), endpoints, queries, responses, self.initial())
            conversation.open()
            for back in (False, True):
                conversation.send_cut(back, self.cuts(conversation.streams[back], 3))
            if number % 2:
                conversation.segment(False, len(conversation.streams[0].octets), b"", RST | ACK)
            else:
                conversation.close()
        return capture

    def tcp_cut_off(self) -> Capture:
        """Connections that end within a message, by FIN and by RST."""
        capture = Capture("tcp_cut_off.pcap")
        for flags in (RST | ACK, PSH | ACK | 1):
            for _ in range(4):
                conversation = self.conversation(capture, *self.dialogue(5))
                conversation.open()
                stream = conversation.streams[0]
                end = stream.ends[3] + self.random.randrange(1, 10)
                conversation.send(False, 0, stream.ends[1])
                conversation.send(False, stream.ends[1], end)
                conversation.segment(False, end, b"", flags)
        return capture

    def tcp_gaps(self) -> Capture:
        """Segments that were not captured, with an acknowledgement that proves it."""
        capture = Capture("tcp_gaps.pcap", by_tshark=False)
        for _ in range(10):
            conversation = self.conversation(capture, *self.dialogue(8))
            conversation.open()
            stream = conversation.streams[0]
            segments = self.segments(stream, 8)
            missing = self.random.randrange(1, 7)
            for number, (start, end) in enumerate(segments):
                if number == missing:
                    stream_end = stream.whole
                    continue
                conversation.send(False, start, end)
            assert stream.whole == stream_end
            stream.whole = len(stream.octets)
            conversation.acknowledge(True)
            conversation.lose(False)
            for back in (True,):
                conversation.send_cut(back, [])
        return capture

    def tcp_mid_stream(self) -> Capture:
        """Connections that were there before the capture, begun within a message."""
        capture = Capture("tcp_mid_stream.pcap", by_tshark=False)
        for _ in range(10):
            conversation = self.conversation(capture, *self.dialogue(8))
            for back in (False, True):
                stream = conversation.streams[back]
                first = self.random.randrange(1, stream.ends[1])
                bounds = sorted({first, *stream.ends, *self.cuts(stream, 4)})
                bounds = [bound for bound in bounds if bound >= first]
                for start, end in zip(bounds, bounds[1:]):
                    conversation.segment(back, start, stream.octets[start:end], PSH | ACK)
                conversation.lose(back)
        return capture


def main() -> None:
    seed, directory = int(sys.argv[1]), Path(sys.argv[2])
    with open(directory / "manifest.jsonl", "w") as manifest:
        for capture in Captures(seed).files():
            print(json.dumps(capture.write(directory)), file=manifest)
    for name in ("udp_v6.pcapng", "tcp_pipelined.pcap"):
        packed = gzip.compress((directory / name).read_bytes(), mtime=0)
        (directory / f"{name}.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
