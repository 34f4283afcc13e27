"""TCP conversations whose segments go where we put them, and when each message is complete."""

import struct

from capture_files import Capture, Endpoints

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def framed(message) -> bytes:
    """With the length in front (RFC 1035 §4.2.2)."""
    return struct.pack("!H", len(message.wire)) + message.wire


class Stream:
    """One direction: its bytes, the messages in them, and what of them was captured."""

    def __init__(self, messages, initial: int):
        self.messages = list(messages)
        self.octets = b"".join(framed(message) for message in self.messages)
        self.initial = initial
        self.ends = []
        end = 0
        for message in self.messages:
            end += 2 + len(message.wire)
            self.ends.append(end)
        self.captured = bytearray(len(self.octets))
        self.whole = 0
        self.delivered = 0

    def sequence(self, offset: int) -> int:
        """The sequence number of a byte; SYN takes the first."""
        return (self.initial + 1 + offset) & 0xFFFFFFFF

    def capture(self, start: int, end: int):
        """Notes bytes as captured; returns the messages that are whole now."""
        self.captured[start:end] = b"\1" * (end - start)
        while self.whole < len(self.octets) and self.captured[self.whole]:
            self.whole += 1
        whole = []
        while self.delivered < len(self.ends) and self.ends[self.delivered] <= self.whole:
            whole.append(self.messages[self.delivered])
            self.delivered += 1
        return whole


class Conversation:
    """A connection between a client, which has the first port of `endpoints`, and a server."""

    def __init__(self, capture: Capture, packet, endpoints: Endpoints, queries=(), responses=(), initial=(1000, 2000)):
        self.capture = capture
        self.packet = packet
        self.endpoints = endpoints
        self.streams = [Stream(queries, initial[0]), Stream(responses, initial[1])]

    def segment(self, back: bool, offset: int, payload: bytes, flags: int) -> int:
        own, other = self.streams[back], self.streams[not back]
        endpoints = self.endpoints.back() if back else self.endpoints
        sequence = own.initial if flags & SYN else own.sequence(offset)
        # Nobody acknowledges what was not captured: that would prove a loss.
        acknowledged = 0 if flags == SYN else other.sequence(other.whole)
        return self.capture.frame(self.packet(endpoints, payload, sequence, acknowledged, flags))

    def open(self) -> None:
        self.segment(False, 0, b"", SYN)
        self.segment(True, 0, b"", SYN | ACK)
        self.segment(False, 0, b"", ACK)

    def send(self, back: bool, start: int, end: int, certain: bool = True, flags: int = PSH | ACK) -> None:
        """Captures bytes `start..end` of a direction, and notes the messages that this completes."""
        stream = self.streams[back]
        frame = self.segment(back, start, stream.octets[start:end], flags)
        endpoints = self.endpoints.back() if back else self.endpoints
        for message in stream.capture(start, end):
            self.capture.message(frame, message, endpoints, certain)

    def lose(self, back: bool) -> None:
        """What is not captured of a direction may only be found where it is whole by itself."""
        stream = self.streams[back]
        for message in stream.messages[stream.delivered:]:
            endpoints = self.endpoints.back() if back else self.endpoints
            self.capture.message(0, message, endpoints, certain=False)

    def send_cut(self, back: bool, cuts, certain: bool = True) -> None:
        """Sends a whole direction in order, cut at the offsets `cuts`."""
        bounds = [0, *sorted(cuts), len(self.streams[back].octets)]
        for start, end in zip(bounds, bounds[1:]):
            self.send(back, start, end, certain)

    def acknowledge(self, back: bool) -> None:
        self.segment(back, len(self.streams[back].octets), b"", ACK)

    def close(self) -> None:
        for back in (False, True):
            self.segment(back, len(self.streams[back].octets), b"", FIN | ACK)
        # FIN takes a number of its own.
        self.segment(False, len(self.streams[0].octets) + 1, b"", ACK)
