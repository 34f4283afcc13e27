"""Capture files, written by hand: pcap in either byte order and resolution, and pcapng."""

import struct
from pathlib import Path
from typing import NamedTuple

ETHERNET, RAW_IP, LINUX_SLL, LINUX_SLL2 = 1, 101, 113, 276
# 2026-01-01 in nanoseconds; frames follow each other by a millisecond.
START_NS = 1_767_225_600 * 10**9
INTERVAL_NS = 10**6


class Endpoints(NamedTuple):
    """Who sends what to whom."""

    transport: str
    src: str
    src_port: int
    dst: str
    dst_port: int

    def back(self):
        return Endpoints(self.transport, self.dst, self.dst_port, self.src, self.src_port)


class Capture:
    """A capture file, and the messages that it holds."""

    def __init__(self, name: str, link_type: int = ETHERNET, by_tshark: bool = True):
        self.name = name
        self.link_type = link_type
        self.by_tshark = by_tshark
        self.frames: list[bytes] = []
        self.messages: list[dict] = []

    def frame(self, octets: bytes) -> int:
        """Adds a frame; returns its number, from 1."""
        self.frames.append(bytes(octets))
        return len(self.frames)

    def message(self, frame: int, message, endpoints: Endpoints, certain: bool = True) -> None:
        """Notes that `message` is complete with `frame`. One that is not `certain` may be found or
        not, such as one behind a gap."""
        self.messages.append({
            "frame": frame,
            "name": message.name,
            "wire": message.wire.hex(),
            "certain": certain,
            **endpoints._asdict(),
        })

    def octets(self) -> bytes:
        if self.name.endswith(".pcapng"):
            return self.pcapng()
        return self.pcap(*{"be": (">", 0xA1B2C3D4, 1000), "ns": ("<", 0xA1B23C4D, 1)}.get(
            self.name.split(".")[-2], ("<", 0xA1B2C3D4, 1000)
        ))

    def pcap(self, order: str, magic: int, unit_ns: int) -> bytes:
        out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, self.link_type)]
        for number, frame in enumerate(self.frames):
            seconds, rest = divmod(START_NS + number * INTERVAL_NS, 10**9)
            length = len(frame)
            out.append(struct.pack(order + "IIII", seconds, rest // unit_ns, length, length) + frame)
        return b"".join(out)

    def pcapng(self) -> bytes:
        def block(kind: int, body: bytes) -> bytes:
            body += bytes(-len(body) % 4)
            length = struct.pack("<I", len(body) + 12)
            return struct.pack("<I", kind) + length + body + length

        section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        # if_tsresol 9: nanoseconds.
        resolution = struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)
        interface = struct.pack("<HHI", self.link_type, 0, 0) + resolution
        out = [block(0x0A0D0D0A, section), block(1, interface)]
        for number, frame in enumerate(self.frames):
            at = START_NS + number * INTERVAL_NS
            head = struct.pack("<IIIII", 0, at >> 32, at & 0xFFFFFFFF, len(frame), len(frame))
            out.append(block(6, head + frame))
        return b"".join(out)

    def write(self, directory: Path) -> dict:
        """Writes the file; returns its line of the manifest."""
        (directory / self.name).write_bytes(self.octets())
        return {
            "file": self.name,
            "frames": len(self.frames),
            "by_tshark": self.by_tshark,
            "messages": self.messages,
        }
