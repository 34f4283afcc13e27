"""DNS messages of every kind that we know of, and of kinds that nobody should send.

Each is a Message: what it is called in a failure, and its bytes. dnspython writes the well-formed
ones; what is to be wrong is made wrong by hand.
"""

import random
import struct
from typing import Iterator, NamedTuple

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.renderer

import mnemonics

HEADER = struct.Struct("!HHHHHH")
QR = 0x8000


class Message(NamedTuple):
    """A message: `name` for failures, `wire` its bytes."""

    name: str
    wire: bytes

    @property
    def is_response(self) -> bool:
        return len(self.wire) > 2 and self.wire[2] & 0x80 != 0


# RDATA of every type that dnspython has a text form for, in zone-file format. One line a form: the
# empty, the usual and the extreme, where there are such.
RDATA = {
    "A": ["192.0.2.1", "255.255.255.255", "0.0.0.0"],
    "AAAA": ["2001:db8::1", "::", "::ffff:192.0.2.1", "fe80::1:0:0:1", "1:2:3:4:5:6:7:8"],
    "NS": ["NS1.Example.test.", "."],
    "CNAME": ["Target.Example.test.", "."],
    "PTR": ["Host.Example.test."],
    "DNAME": ["Other.Example.test."],
    "SOA": ["NS1.Example.test. Host\\.Master.Example.test. 2026010101 7200 3600 1209600 300",
            ". . 4294967295 4294967295 4294967295 4294967295 4294967295"],
    "MX": ["10 Mail.Example.test.", "0 .", "65535 mx.test."],
    "TXT": ['"v=spf1 -all"', '""', '"a" "b" "c"', '"quote \\" backslash \\\\ \\000\\255"',
            '"' + "x" * 255 + '"'],
    "SPF": ['"v=spf1 include:example.test -all"'],
    "AVC": ['"app-name:x|app-class:y"'],
    "NINFO": ['"zone status"'],
    "RESINFO": ['"qnamemin" "exterr=15-17" "infourl=https://resolver.test/guide"'],
    "WALLET": ['"ETH" "0x0000000000000000000000000000000000000053"'],
    "HINFO": ['"PC-Intel" "Linux 6"', '"" ""'],
    "RP": ["Mbox.Example.test. Txt.Example.test."],
    "AFSDB": ["1 Afs.Example.test."],
    "X25": ['"311061700956"'],
    "ISDN": ['"150862028003217" "004"', '"150862028003217"'],
    "RT": ["10 Relay.Example.test."],
    "NSAP": ["0x47000580005a0000000001e133ffffff000161"],
    "NSAP-PTR": ["Host.Example.test."],
    "PX": ["10 Map822.test. MapX400.test."],
    "GPOS": ["-32.6882 116.8652 10.0"],
    "LOC": ["42 21 54.123 N 71 6 18.456 W -24.00m 30.00m 10000.00m 10.00m", "0 0 0.000 N 0 0 0.000 E 0.00m",
            "90 0 0.000 S 180 0 0.000 W 42849672.95m"],
    "SRV": ["10 60 5060 Sip.Example.test.", "0 0 0 ."],
    "NAPTR": ['100 10 "S" "SIP+D2U" "!^.*$!sip:info@example.test!" .', '0 0 "" "" "" Replace.test.'],
    "KX": ["10 Kx.Example.test."],
    "CERT": ["PGP 0 0 AQIDBA==", "65534 65535 255 " + "AAAA" * 60],
    "APL": ["1:192.168.32.0/21 !1:192.168.38.0/28", "2:ff00::/8", ""],
    "DS": ["20326 8 2 e06d44b80b8f1d39a95c0b0d7c65d08458e880409bbc683457104237c7f8ec8d"],
    "CDS": ["0 0 0 00", "20326 8 2 e06d44b80b8f1d39a95c0b0d7c65d08458e880409bbc683457104237c7f8ec8d"],
    "DLV": ["20326 8 2 e06d44b80b8f1d39a95c0b0d7c65d08458e880409bbc683457104237c7f8ec8d"],
    "SSHFP": ["4 2 " + "ab" * 32, "1 1 " + "cd" * 20],
    "IPSECKEY": ["10 1 2 192.0.2.38 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==", "10 0 2 . AQNRU3mG",
                 "10 2 2 2001:db8::1 AQNRU3mG", "10 3 2 Gateway.Example.test. AQNRU3mG"],
    "RRSIG": ["A 8 3 300 20300101000000 20251231000000 12345 Example.test. " + "c2ln" * 43,
              "TYPE65281 253 0 4294967295 19700101000000 20380119031407 0 . c2ln"],
    "SIG": ["SOA 8 3 300 20300101000000 20251231000000 12345 Example.test. c2ln"],
    "NSEC": ["Next.Example.test. A NS SOA MX TXT AAAA RRSIG NSEC DNSKEY TYPE1234 TYPE65281", ". A"],
    "NSEC3": ["1 1 12 aabbccdd 2t7b4g4vsa5smi47k61mv5bv1a22bojr MX DNSKEY NS SOA NSEC3PARAM RRSIG",
              "1 0 0 - 2t7b4g4vsa5smi47k61mv5bv1a22bojr"],
    "NSEC3PARAM": ["1 0 12 aabbccdd", "1 0 0 -"],
    "DNSKEY": ["257 3 8 " + "AwEAAQ==", "256 3 13 " + "q6q6" * 21],
    "CDNSKEY": ["0 3 0 AA==", "257 3 13 " + "q6q6" * 21],
    "KEY": ["512 3 8 AwEAAQ=="],
    "DHCID": ["AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA="],
    "TLSA": ["3 1 1 " + "0f" * 32, "255 255 255 00"],
    "SMIMEA": ["3 1 1 " + "0f" * 32],
    "HIP": ["2 200100107b1a74df365639cc39f1d578 AwEAAbdxyhNuSutc5EMzxTs9LBPCIkOFH8cIvM4p9+LrV4e19WzK00+CI6zBCQTdtWsuxKbWIy87UOoJTwkUs7lBu+Upr1gsNrut79ryra+bSRGQb1slImA8YVJyuIDsj7kwzG7jnERNqnWxZ48AWkskmdHaVDP4BcelrTI3rMXdXF5D",
            "2 200100107b1a74df365639cc39f1d578 AwEAAbdx Rvs1.Example.test. Rvs2.Example.test."],
    "OPENPGPKEY": ["AwEAAQ=="],
    "CSYNC": ["66 3 A NS AAAA", "0 0"],
    "ZONEMD": ["2018031500 1 1 " + "62e6cf51b02e54b9b5f967d547ce43136792901f9f88e637493daaf401c92c27"
               "9dd10f0edb1c56f8080211f8480ee306"],
    "SVCB": ["1 .", "0 Alias.Example.test."],
    "HTTPS": [
        '1 . alpn="h2,h3"',
        '1 . mandatory="alpn,ipv4hint" alpn="h2" ipv4hint="192.0.2.1"',
        '1 . alpn="h2" no-default-alpn port="8443"',
        '16 Svc.Example.test. ipv4hint="192.0.2.1,192.0.2.2" ipv6hint="2001:db8::1,2001:db8::2"',
        '1 . ech="AAT+DQAA"',
        '1 . key65280="value\\000\\255"',
        '1 . key667="hello\\210qoo"',
        '1 . alpn="f\\\\\\\\oo\\\\,bar,h2"',
        '1 . dohpath="/dns-query{?dns}"',
        "1 . ohttp",
        "0 Alias.Example.test.",
    ],
    "EUI48": ["00-00-5e-00-53-2a"],
    "EUI64": ["00-00-5e-ef-10-00-00-2a"],
    "NID": ["10 0014:4fff:ff20:ee64"],
    "L32": ["10 10.1.2.0"],
    "L64": ["10 2001:0db8:1140:1000"],
    "LP": ["10 L64-subnet1.Example.test."],
    "URI": ['10 1 "https://www.example.test/path?q=1;x"', '0 0 "a"'],
    "CAA": ['0 issue "ca.example.test"', '128 tbs "Unknown"', '0 issue ";"', '0 iodef "mailto:a@b.test"'],
    "AMTRELAY": ["10 0 1 203.0.113.15", "10 1 2 2001:db8::15", "128 1 3 Relay.Example.test.", "10 0 0 ."],
    "DSYNC": ["CDS NOTIFY 5359 Notify.Example.test."],
    "HHIT": ["AwEAAQ=="],
    "BRID": ["AwEAAQ=="],
    "WKS": ["192.0.2.1 6 25 53 80", "192.0.2.1 17 53"],
    "TKEY": ["gss-tsig. 1600000000 1700000000 3 0 AQIDBA==", "gss-tsig. 0 0 5 16 AQIDBA== b3RoZXI="],
}

# RFC 1035 types whose RDATA is a name or two and that dnspython has no class for (RFC 1035 §3.3).
OBSOLETE_NAME_TYPES = {"MD": 1, "MF": 1, "MB": 1, "MG": 1, "MR": 1, "MINFO": 2}

# RDATA of types that dnspython has no class for, on the wire.
OF_YESTERDAY = [
    (30, "0441626364047465737400" "62010008"), (30, "00"), (30, "00" "00000000000000000000000000000001"),
    (30, "00" "4000"), (30, "00" "80000001"), (30, "00" "0000000000000000000000000000000001"),
    (31, "e32c6f78163a9348"), (32, "32251a030067"),
    (34, "00398f1000000000000000000000000000000000f0"), (34, "0131323334353637383930"), (34, "0131323a"),
    (34, "02aabb"),
    (38, "0020010db8000000000000000000000001"), (38, "4000000000000000010553756e6574047465737400"),
    (38, "800161047465737400"), (38, "3dffffffffffffffffff0161047465737400"), (38, "8100"),
    (40, "010203010203"), (40, "404142"), (40, "404100" + "ab" * 30),
    (57, "00000308" + "414243" * 9), (57, "00000001"),
    (58, "01610474657374000142047465737400"), (58, "0000"),
    (259, "000004d200000001020a746578742f706c61696e" + "414243" * 9), (259, "00000000ffffffff0100"),
    (259, "0000000000000001010461226220ff"),
    (32768, "4d2b0802" + "ab" * 32), (32768, "00010803aaaaaa"),
]


def name_wire(*labels: bytes) -> bytes:
    """An uncompressed name."""
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def header(identifier: int, bits: int, counts=(0, 0, 0, 0)) -> bytes:
    return HEADER.pack(identifier, bits, *counts)


def record(owner: bytes, rtype: int, rclass: int, ttl: int, rdata: bytes) -> bytes:
    return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(rdata)) + rdata


class Messages:
    """All messages of one seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.rdatas = [
            dns.rdata.from_text(
                "IN", rtype, text, relativize=False
            )
            for rtype, texts in RDATA.items()
            for text in texts
        ]

    def identifier(self) -> int:
        return self.random.randrange(0x10000)

    def octets(self, length: int) -> bytes:
        return self.random.randbytes(length)

    def name(self) -> dns.name.Name:
        """A name in mixed case."""
        alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
        labels = [
            "".join(self.random.choices(alphabet, k=self.random.randint(1, 12)))
            for _ in range(self.random.randint(1, 4))
        ]
        return dns.name.from_text(".".join(labels) + ".Example.test.")

    def ttl(self) -> int:
        return self.random.choice([0, 1, 300, 86400, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])

    def render(self, questions, sections, bits, opt: bytes = b"", compress=True) -> bytes:
        """A message of `questions` (name, type, class) and three sections of (name, TTL, RDATA)."""
        writer = dns.renderer.Renderer(self.identifier(), bits, 65535)
        if not compress:
            writer.compress = None
        for owner, rtype, rclass in questions:
            writer.add_question(owner, rtype, rclass)
        counts = [0, 0, 0]
        for position, section in enumerate(sections):
            for owner, ttl, rdata in section:
                writer._set_section(position + 1)
                self.add(writer, owner, ttl, rdata)
                counts[position] += 1
        body = writer.output.getvalue()[12:]
        if opt:
            counts[2] += 1
        return header(writer.id, bits, (len(questions), *counts)) + body + opt

    @staticmethod
    def add(writer, owner, ttl, rdata) -> None:
        out, compress = writer.output, writer.compress
        owner.to_wire(out, compress, None)
        out.write(struct.pack("!HHI", rdata.rdtype, rdata.rdclass, ttl))
        at = out.tell()
        out.write(b"\0\0")
        rdata.to_wire(out, compress, None)
        end = out.tell()
        out.seek(at)
        out.write(struct.pack("!H", end - at - 2))
        out.seek(end)

    def response_with(self, *rdatas, opt: bytes = b"") -> bytes:
        owner = self.name()
        rtype = rdatas[0].rdtype if rdatas else 1
        return self.render(
            [(owner, rtype, 1)],
            [[(owner, self.ttl(), rdata) for rdata in rdatas], [], []],
            QR | 0x0180,
            opt,
        )

    def query(self, owner=None, rtype=1, rclass=1) -> bytes:
        return self.render([(owner or self.name(), rtype, rclass)], [[], [], []], 0x0100)

    # What follows yields the messages.

    def all(self) -> Iterator[Message]:
        yield from self.types()
        yield from self.classes()
        yield from self.headers()
        yield from self.questions()
        yield from self.names()
        yield from self.compression()
        yield from self.edns()
        yield from self.updates()
        yield from self.stateful_operations()
        yield from self.mixtures(200)
        yield from self.cut()
        yield from self.broken()
        yield from self.mutated(300)
        yield from self.of_yesterday()

    def types(self) -> Iterator[Message]:
        """Every RR type, one a message."""
        for rdata in self.rdatas:
            rtype = dns.rdatatype.to_text(rdata.rdtype)
            yield Message(f"type {rtype}: {rdata.to_text()[:60]}", self.response_with(rdata))
        for rtype in [*range(300), 32768, 32769, 65280, 65535]:
            yield Message(f"query for type {rtype}", self.query(rtype=rtype))
        for rtype in [0, 3000, 32770, 65279, 65280, 65534, 65535]:
            for length in [0, 1, 17, 300]:
                rdata = dns.rdata.GenericRdata(1, rtype, self.octets(length))
                yield Message(f"type {rtype} of {length} bytes", self.response_with(rdata))
        for rtype, names in OBSOLETE_NAME_TYPES.items():
            rdata = name_wire(b"Mail", b"Example", b"test") * names
            rtype = dns.rdatatype.from_text(rtype)
            wire = self.response_with(dns.rdata.GenericRdata(1, rtype, rdata))
            yield Message(f"obsolete type {rtype}", wire)
        yield Message(
            "type NULL", self.response_with(dns.rdata.GenericRdata(1, 10, self.octets(9)))
        )

    def classes(self) -> Iterator[Message]:
        for rclass in [3, 4, 254, 255, 0, 2, 65280, 65535]:
            yield Message(f"question of class {rclass}", self.query(rclass=rclass))
        version = dns.rdata.from_text("CH", "TXT", '"tap53"')
        yield Message("version.bind", self.response_with(version))
        chaos = dns.rdata.from_text("CH", "A", "Chaos.Example.test. 0401", relativize=False)
        yield Message("address of class CH", self.response_with(chaos))
        generic = dns.rdata.GenericRdata(65280, 1, self.octets(4))
        yield Message("A of a private class", self.response_with(generic))

    def headers(self) -> Iterator[Message]:
        """Flags in all combinations, opcodes, and response codes with the extended ones."""
        for flags in range(256):
            bits = (flags & 0x80) << 8 | (flags & 0x70) << 4 | (flags & 0x0F) << 4
            owner = self.name()
            wire = self.render([(owner, 1, 1)], [[], [], []], bits)
            yield Message(f"flags {bits:#06x}", wire)
        for opcode in range(16):
            for direction in (0, QR):
                bits = direction | opcode << 11
                yield Message(f"opcode {opcode}", self.render([(self.name(), 6, 1)], [[], [], []], bits))
        soa = dns.rdata.from_text("IN", "SOA", "a.test. b.test. 7 1 1 1 1", relativize=False)
        owner = self.name()
        notify = self.render([(owner, 6, 1)], [[(owner, 0, soa)], [], []], 4 << 11 | 0x0400)
        yield Message("NOTIFY with the zone's SOA", notify)
        for rcode in range(16):
            yield Message(f"rcode {rcode}", self.render([(self.name(), 1, 1)], [[], [], []], QR | rcode))
        for rcode in [16, 23, 24, 4095, *(self.random.randrange(16, 4096) for _ in range(16))]:
            opt = self.opt(rcode_high=rcode >> 4)
            wire = self.render([(self.name(), 1, 1)], [[], [], []], QR | rcode & 15, opt)
            yield Message(f"extended rcode {rcode}", wire)
        for rcode in [1, 5]:
            yield Message("an error without a question", header(self.identifier(), QR | rcode))

    def questions(self) -> Iterator[Message]:
        yield Message("no question", header(self.identifier(), 0x0100))
        for count in [2, 3, 20]:
            questions = [(self.name(), self.random.choice([1, 28, 65]), 1) for _ in range(count)]
            yield Message(f"{count} questions", self.render(questions, [[], [], []], 0x0100))

    def names(self) -> Iterator[Message]:
        for octet in range(256):
            owner = dns.name.Name([bytes([octet]), b"x" + bytes([octet]) + b"Y", b"test", b""])
            yield Message(f"a name with octet {octet}", self.query(owner))
        longest = dns.name.Name([b"L" * 63, b"l" * 63, b"M" * 63, b"m" * 61, b""])
        assert len(longest.to_wire()) == 255
        yield Message("the longest name", self.query(longest))
        yield Message("the most labels", self.query(dns.name.Name([b"a"] * 127 + [b""])))
        escapes = dns.name.Name([bytes([0xFF]) * 63] * 3 + [bytes(61), b""])
        yield Message("the longest text of a name", self.query(escapes))
        yield Message("the root", self.query(dns.name.root))
        too_long = name_wire(b"L" * 63, b"l" * 63, b"M" * 63, b"m" * 62)
        question = too_long + struct.pack("!HH", 1, 1)
        wire = header(self.identifier(), 0x0100, (1, 0, 0, 0)) + question
        yield Message("a name of 256 bytes", wire)

    def compression(self) -> Iterator[Message]:
        question = name_wire(b"Www", b"Example", b"test") + struct.pack("!HH", 5, 1)
        start = header(self.identifier(), QR, (1, 2, 0, 0)) + question
        # To the question's name, to a part of it, to a pointer, and to the root at its end.
        for target, what in [(12, "whole"), (16, "part"), (24, "last label"), (29, "root")]:
            pointer = struct.pack("!H", 0xC000 | target)
            rdata = b"\x05Other" + pointer
            first = record(pointer, 5, 1, 60, rdata)
            at = len(start) + 2 + 10
            second = record(struct.pack("!H", 0xC000 | at), 2, 1, 60, struct.pack("!H", 0xC000 | at))
            yield Message(f"pointers to the {what} of a name", start + first + second)
        # A pointer to a pointer to a pointer.
        chain = header(self.identifier(), QR, (1, 3, 0, 0)) + question
        target = 12
        for _ in range(3):
            owner_at = len(chain)
            chain += record(struct.pack("!H", 0xC000 | target), 1, 1, 1, b"\xc0\0\2\1")
            target = owner_at
        yield Message("a chain of pointers", chain)
        # In the RDATA of types where senders must not compress, but receivers read it (RFC 3597 §4).
        for rtype, before, after in [
            (33, b"\0\1\0\2\0\3", b""),
            (17, b"\1m\xc0\x10", b""),
            (18, b"\0\1", b""),
            (21, b"\0\1", b""),
            (36, b"\0\1", b""),
            (39, b"", b""),
            (6, b"\1m\xc0\x10", bytes(20)),
        ]:
            rdata = before + b"\xc0\x0c" + after
            wire = header(self.identifier(), QR, (1, 1, 0, 0)) + question
            yield Message(f"a pointer in RDATA of type {rtype}", wire + record(b"\xc0\x0c", rtype, 1, 9, rdata))
        for compress in (True, False):
            owner = self.name()
            rdatas = [(owner, 5, rdata) for rdata in self.random.sample(self.rdatas, 12)]
            wire = self.render([(owner, 255, 1)], [rdatas[:6], rdatas[6:9], rdatas[9:]], QR, b"", compress)
            yield Message(f"many records, compressed: {compress}", wire)

    def opt(self, *options: tuple[int, bytes], rcode_high=0, version=0, flags=0, size=1232) -> bytes:
        rdata = b"".join(struct.pack("!HH", code, len(value)) + value for code, value in options)
        return record(b"\0", 41, size, rcode_high << 24 | version << 16 | flags, rdata)

    def edns(self) -> Iterator[Message]:
        subnet = lambda family, source, scope, address: (8, struct.pack("!HBB", family, source, scope) + address)
        options = {
            "none": [],
            "subnet, IPv4": [subnet(1, 24, 0, b"\xc0\0\2")],
            "subnet, IPv4, odd prefix": [subnet(1, 21, 16, b"\xc0\0\x08")],
            "subnet, IPv4, whole": [subnet(1, 32, 32, b"\xc0\0\2\1")],
            "subnet, IPv4, nothing": [subnet(1, 0, 0, b"")],
            "subnet, IPv6": [subnet(2, 56, 48, b"\x20\1\x0d\xb8\0\0\x53")],
            "subnet, IPv6, whole": [subnet(2, 128, 128, bytes(range(16)))],
            "subnet, unknown family": [subnet(9, 8, 0, b"\1")],
            "subnet, prefix too long": [subnet(1, 33, 0, b"\xc0\0\2\1\0")],
            "subnet, address too short": [subnet(1, 24, 0, b"\xc0\0")],
            "subnet, address too long": [subnet(1, 24, 0, b"\xc0\0\2\1")],
            "subnet, bits behind the prefix": [subnet(1, 20, 0, b"\xc0\0\xff")],
            "subnet, cut": [(8, b"\0\1\x18")],
            "NSID, asked for": [(3, b"")],
            "NSID": [(3, b"ns1.tap53.test\0\xff")],
            "cookie of the client": [(10, self.octets(8))],
            "cookie of both": [(10, self.octets(24))],
            "cookie, too short": [(10, self.octets(7))],
            "cookie, too long": [(10, self.octets(41))],
            "extended error": [(15, struct.pack("!H", 18))],
            "extended error with text": [(15, struct.pack("!H", 22) + "zone größe".encode())],
            "extended error with a final zero": [(15, struct.pack("!H", 22) + b"text\0")],
            "extended error, not UTF-8": [(15, struct.pack("!H", 65535) + b"a\xff\x80b")],
            "extended error, cut": [(15, b"\0")],
            "two extended errors": [(15, b"\0\1one"), (15, b"\0\2two")],
            "padding": [(12, bytes(100))],
            "padding of nothing": [(12, b"")],
            "keepalive asked for": [(11, b"")],
            "keepalive": [(11, struct.pack("!H", 300))],
            "keepalive, malformed": [(11, b"\1")],
            "unknown": [(65001, self.octets(20)), (26946, b"")],
            "understood algorithms": [(5, b"\x08\x0d"), (6, b"\1\2"), (7, b"\1")],
            "chain": [(13, name_wire(b"example", b"test"))],
            "report channel": [(18, name_wire(b"agent", b"test"))],
            "zone version": [(19, b"\2\0\0\0\0\7")],
            "all at once": [subnet(1, 24, 0, b"\xc0\0\2"), (3, b"id"), (10, self.octets(8)), (12, bytes(9))],
        }
        for what, values in options.items():
            for bits in (0x0100, QR | 0x0180):
                opt = self.opt(*values, flags=self.random.choice([0, 0x8000]), size=self.random.randrange(65536))
                yield Message(f"EDNS {what}", self.render([(self.name(), 1, 1)], [[], [], []], bits, opt))
        yield Message("EDNS version 1", self.render([(self.name(), 1, 1)], [[], [], []], 0, self.opt(version=1)))
        yield Message("EDNS flags", self.render([(self.name(), 1, 1)], [[], [], []], 0, self.opt(flags=0xFFFF)))
        wire = self.render([(self.name(), 1, 1)], [[], [], []], 0, self.opt(size=512))
        two = bytearray(wire + self.opt(size=4096))
        two[11] = 2
        yield Message("two OPT records", bytes(two))
        # An option that reaches past the record.
        bad = record(b"\0", 41, 1232, 0, struct.pack("!HH", 3, 9) + b"short")
        yield Message("an option past its record", self.render([(self.name(), 1, 1)], [[], [], []], 0, bad))
        bad = record(b"\0", 41, 1232, 0, b"\0\3\0")
        yield Message("half an option", self.render([(self.name(), 1, 1)], [[], [], []], 0, bad))

    def updates(self) -> Iterator[Message]:
        zone = name_wire(b"Example", b"test") + struct.pack("!HH", 6, 1)
        www = b"\3www\xc0\x0c"
        prerequisites = [
            ("name is in use", record(www, 255, 255, 0, b"")),
            ("type is there", record(www, 1, 255, 0, b"")),
            ("value is there", record(www, 1, 1, 0, b"\xc0\0\2\1")),
            ("name is not in use", record(www, 255, 254, 0, b"")),
            ("type is not there", record(www, 16, 254, 0, b"")),
        ]
        changes = [
            ("add", record(www, 1, 1, 300, b"\xc0\0\2\2")),
            ("add a name", record(www, 5, 1, 300, b"\5other\xc0\x0c")),
            ("delete a type", record(www, 1, 255, 0, b"")),
            ("delete all", record(www, 255, 255, 0, b"")),
            ("delete one", record(www, 15, 254, 0, b"\0\x0a\4mail\xc0\x0c")),
        ]
        for what, prerequisite in prerequisites:
            for change, update in changes:
                wire = header(self.identifier(), 5 << 11, (1, 1, 1, 0)) + zone + prerequisite + update
                yield Message(f"UPDATE: {what}, {change}", wire)
        everything = b"".join(wire for _, wire in prerequisites + changes)
        wire = header(self.identifier(), 5 << 11, (1, 5, 5, 0)) + zone + everything
        yield Message("UPDATE: all at once", wire)
        yield Message("UPDATE: response", header(self.identifier(), QR | 5 << 11, (1, 0, 0, 0)) + zone)
        tsig = name_wire(b"key") + struct.pack("!HHIH", 250, 255, 0, 0)
        algorithm = name_wire(b"hmac-sha256")
        rdata = algorithm + bytes(6) + struct.pack("!HH", 300, 32) + self.octets(32) + struct.pack("!HHH", 7, 0, 0)
        tsig = tsig[:-2] + struct.pack("!H", len(rdata)) + rdata
        wire = header(self.identifier(), 5 << 11, (1, 0, 1, 1)) + zone + changes[0][1] + tsig
        yield Message("UPDATE: signed", wire)

    def stateful_operations(self) -> Iterator[Message]:
        """DSO: TLVs in place of sections (RFC 8490 §5.4)."""
        for what, tlv in [
            ("keepalive", struct.pack("!HHII", 1, 8, 15000, 60000)),
            ("padding", struct.pack("!HH", 3, 12) + bytes(12)),
            ("nothing", b""),
        ]:
            for bits in (6 << 11, QR | 6 << 11):
                yield Message(f"DSO {what}", header(self.identifier(), bits) + tlv)

    def mixtures(self, count: int) -> Iterator[Message]:
        """Records of all types by chance, in all sections."""
        for number in range(count):
            owners = [self.name() for _ in range(3)]
            draw = lambda most: [
                (self.random.choice(owners), self.ttl(), self.random.choice(self.rdatas))
                for _ in range(self.random.randint(0, most))
            ]
            opt = self.opt((10, self.octets(8))) if self.random.random() < 0.5 else b""
            questions = [(owners[0], self.random.choice([1, 28, 255]), 1)]
            bits = QR | self.random.randrange(0x800) & ~0x0F
            wire = self.render(questions, [draw(6), draw(3), draw(3)], bits, opt)
            yield Message(f"mixture {number}", wire)

    def rich(self) -> bytes:
        """A message with something in each section."""
        pick = lambda rtype: dns.rdata.from_text("IN", rtype, RDATA[rtype][0], relativize=False)
        owner = dns.name.from_text("Www.Example.test.")
        answers = [(owner, 60, pick(rtype)) for rtype in ("CNAME", "A", "MX", "TXT", "SRV", "HTTPS")]
        opt = self.opt((3, b"id"), (8, b"\0\1\x18\0\xc0\0\2"))
        return self.render([(owner, 1, 1)], [answers, [(owner, 60, pick("SOA"))], [(owner, 9, pick("A"))]], QR, opt)

    def cut(self) -> Iterator[Message]:
        """A message cut behind every byte of it; nothing shorter than a header."""
        wire = self.rich()
        for length in range(12, len(wire) + 1):
            yield Message(f"cut to {length} bytes", wire[:length])

    def broken(self) -> Iterator[Message]:
        question = name_wire(b"www", b"example", b"test") + struct.pack("!HH", 1, 1)
        whole = header(self.identifier(), 0x0100, (1, 0, 0, 0)) + question

        def with_question(name: bytes) -> bytes:
            return header(self.identifier(), 0x0100, (1, 0, 0, 0)) + name + struct.pack("!HH", 1, 1)

        yield Message("trailing bytes", whole + self.octets(1))
        yield Message("many trailing bytes", whole + self.octets(200))
        yield Message("a message behind a message", whole + whole)
        for position in range(4):
            counts = [1, 0, 0, 0]
            for count in (counts[position] + 1, 65535):
                counts[position] = count
                wire = header(self.identifier(), QR, counts) + question
                yield Message(f"count {position} is {count}", wire)
        yield Message("a count too small", header(self.identifier(), QR, (0, 0, 0, 0)) + question)
        yield Message("a pointer to itself", with_question(b"\xc0\x0c"))
        yield Message("two pointers in a ring", with_question(b"\xc0\x0e\xc0\x0c"))
        yield Message("a label and a pointer back to it", with_question(b"\1a\xc0\x0c"))
        yield Message("a pointer forward", with_question(b"\xc0\x12") + name_wire(b"late"))
        yield Message("a pointer past the end", with_question(b"\xff\xff"))
        yield Message("half a pointer", header(self.identifier(), 0, (1, 0, 0, 0)) + b"\xc0")
        yield Message("a pointer into the header", with_question(b"\xc0\x04"))
        for kind in (0x40, 0x80):
            yield Message(f"a label of type {kind:#x}", with_question(bytes([kind | 1, 0, 0])))
        yield Message("a label past the end", header(self.identifier(), 0, (1, 0, 0, 0)) + b"\x3fx")
        yield Message("all bits set", b"\xff" * 300)
        yield Message("all bits clear", bytes(300))
        yield Message("a header alone, all bits set", b"\xff" * 12)
        answer = header(self.identifier(), QR, (1, 1, 0, 0)) + question
        for rtype, rdata in [
            (1, b"\xc0\0\2"), (1, b"\xc0\0\2\1\0"), (28, bytes(15)), (28, bytes(17)), (5, b""), (5, b"\1a"),
            (15, b"\0"), (15, b"\0\1"), (16, b"\5abc"), (6, b"\0\0" + bytes(19)), (33, bytes(5)),
            (5, b"\0\0"), (43, b"\0\1\2"), (46, bytes(10)), (47, b"\0\0"), (65, b"\0\1"),
            (65, b"\0\1\0\0\1\0\3\2h2"), (65, b"\0\1\0\0\3\0\1\1"), (257, b"\0\5is"), (1, b""),
        ]:
            wire = answer + record(b"\xc0\x0c", rtype, 1, 60, rdata)
            yield Message(f"RDATA of type {rtype} that is {rdata.hex() or 'empty'}", wire)
        yield Message("RDATA past the end", answer + record(b"\xc0\x0c", 1, 1, 60, b"\xc0\0\2\1")[:-2])
        yield Message("a name across the end of its RDATA",
                      answer + b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 3) + b"\5other\0")

    def of_yesterday(self) -> Iterator[Message]:
        """Types that dnspython has no class for, whole and cut behind every byte."""
        for rtype, octets in OF_YESTERDAY:
            whole = bytes.fromhex(octets)
            for length in range(len(whole) + 1):
                rdata = dns.rdata.GenericRdata(1, rtype, whole[:length])
                name = f"type {mnemonics.rtype(rtype)}: {rdata.data.hex() or 'empty'}"
                yield Message(name, self.response_with(rdata))

    def mutated(self, count: int) -> Iterator[Message]:
        """Well-formed messages with bytes changed by chance; the header's first bytes stay."""
        for number in range(count):
            wire = bytearray(self.response_with(*self.random.sample(self.rdatas, 3)))
            for _ in range(self.random.randint(1, 4)):
                wire[self.random.randrange(4, len(wire))] = self.random.randrange(256)
            yield Message(f"mutation {number}", bytes(wire))
