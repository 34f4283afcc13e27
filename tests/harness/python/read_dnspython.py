"""Reads DNS messages by dnspython: a line of hex from stdin each, a line of JSON each to stdout.

The lines have the fields and the conventions of `tap53 replay --messages`: names in lower case
without the final dot, RDATA as a zone file writes it. Sections are read entry by entry, so that
what precedes a broken entry is kept, and the section that it is in shows.

Where dnspython refuses an answer's RDATA, the answer has the generic form (RFC 3597 §5), and
`refused` says why. The authority and additional sections are walked through, but for OPT.
"""

import ipaddress
import json
import sys

import dns.edns
import dns.exception
import dns.ipv6
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

import mnemonics

STYLE = dns.rdata.RdataStyle(omit_final_dot=True)
OPT = 41
UPDATE = 5
# Types that dnspython has no class for, by one with the same RDATA: a name, or two (RFC 1035 §3.3);
# RKEY as KEY, TALINK as two names, TA as DS.
ALIKE = {3: 2, 4: 2, 7: 2, 8: 2, 9: 2, 14: 17, 57: 25, 58: 17, 32768: 43}

# Classes whose RDATA is that of class IN: those of an UPDATE (RFC 2136 §2.5), and Multicast DNS'
# with the cache-flush bit (RFC 6762 §10.2).
LIKE_IN = {254, 255, 0x8001}


class Parser(dns.wire.Parser):
    """Follows compression pointers in all names. dnspython does so only where RFC 3597 §4 lets a
    sender compress; who reads what others sent sees them elsewhere too, in SRV above all."""

    def get_name(self, origin=None, decompress=True):
        return super().get_name(origin, True)


def lowered(value):
    """A name, or the names of a tuple, in lower case; None for anything else."""
    if isinstance(value, dns.name.Name):
        return value.canonicalize()
    if isinstance(value, tuple) and value and all(isinstance(part, dns.name.Name) for part in value):
        return tuple(part.canonicalize() for part in value)
    return None


def name_text(name):
    return name.canonicalize().to_styled_text(STYLE)


def generic(octets):
    """RFC 3597 §5."""
    return dns.rdata.GenericRdata(1, 65280, octets).to_text().rstrip()


def rdata_text(rdata):
    if isinstance(rdata, dns.rdata.GenericRdata):
        return generic(rdata.data)
    # With its names in lower case.
    fields = {field: lowered(getattr(rdata, field, None)) for field in rdata._get_all_slots()}
    names = {field: value for field, value in fields.items() if value is not None}
    text = (rdata.replace(**names) if names else rdata).to_styled_text(STYLE)
    return text.rstrip() if not text.endswith('"') else text


class OfYesterday:
    """RDATA of types that dnspython has no class for and none like it, by its parser. Their text is
    what BIND's named-rrchecker writes, with long values in words as dnspython has them."""

    def __init__(self, parser):
        self.parser = parser

    def name(self):
        return name_text(self.parser.get_name())

    def some(self):
        octets = self.parser.get_remaining()
        if not octets:
            raise dns.exception.FormError("nothing")
        return octets

    def base64(self):
        octets = self.parser.get_remaining()
        return dns.rdata._base64ify(octets) if octets else None

    def next(self):
        """NXT (RFC 2535 §5.2)."""
        start = self.parser.current
        owner, bitmap = self.name(), self.parser.get_remaining()
        if bitmap and bitmap[0] & 0x80:
            return generic(self.parser.wire[start:self.parser.end])
        if len(bitmap) > 16 or bitmap.endswith(b"\0"):
            raise dns.exception.FormError("bad bitmap")
        bits = "".join(f"{octet:08b}" for octet in bitmap)
        return " ".join([owner, *(mnemonics.rtype(rtype) for rtype, bit in enumerate(bits) if bit == "1")])

    def locator(self):
        """EID and NIMLOC."""
        return dns.rdata._hexify(self.some())

    def atm(self):
        """ATMA."""
        address = self.parser.get_uint8(), self.some()
        match address:
            case 0, octets:
                return octets.hex()
            case 1, octets if octets.isdigit():
                return f"+{octets.decode()}"
            case 1, _:
                raise dns.exception.FormError("not digits")
            case form, octets:
                return generic(bytes([form]) + octets)

    def chained_address(self):
        """A6 (RFC 2874 §3.1)."""
        prefix = self.parser.get_uint8()
        if prefix > 128:
            raise dns.exception.FormError("a prefix too long")
        suffix = int.from_bytes(self.parser.get_bytes(16 - prefix // 8), "big") & (1 << 128 - prefix) - 1
        parts = [str(prefix)]
        if prefix < 128:
            parts.append(dns.ipv6.inet_ntoa(suffix.to_bytes(16, "big")))
        if prefix > 0:
            parts.append(self.name())
        return " ".join(parts)

    def sink(self):
        parts = [*self.parser.get_struct("!BBB"), self.base64()]
        return " ".join(str(part) for part in parts if part is not None)

    def object_architecture(self):
        """DOA."""
        numbers = self.parser.get_struct("!IIB")
        media = dns.rdata._escapify(self.parser.get_counted_bytes())
        return " ".join([*map(str, numbers), f'"{media}"', self.base64() or "-"])

    READERS = {30: next, 31: locator, 32: locator, 34: atm, 38: chained_address, 40: sink, 259: object_architecture}
    # Defined for class IN alone; elsewhere their RDATA is anything.
    IN_ONLY = {31, 32, 34, 38}


class Reader:
    """One message, as far as it was read."""

    def __init__(self, wire):
        self.wire = wire
        self.parser = Parser(wire)
        self.identifier, self.bits, *self.counts = self.parser.get_struct("!HHHHHH")
        self.questions, self.answers, self.edns = [], [], None
        self.rcode = self.bits & 15
        self.flaws = []
        self.is_update = self.bits >> 11 & 15 == UPDATE and not self.bits & 0x8000

    def body(self):
        """What follows the owner of a record, and where its RDATA is."""
        rtype, rclass, ttl, length = self.parser.get_struct("!HHIH")
        start = self.parser.current
        if length > self.parser.remaining():
            raise dns.exception.FormError("RDATA past the end")
        return rtype, rclass, ttl, start, start + length

    def answer(self):
        name = self.parser.get_name()
        rtype, rclass, ttl, start, end = self.body()
        shown = {
            "name": name_text(name), "type": mnemonics.rtype(rtype), "class": mnemonics.rclass(rclass), "ttl": ttl,
        }
        without_rdata = self.bits >> 11 & 15 == UPDATE and rclass in (254, 255) and start == end
        try:
            # RFC 2136 §2.4 and §2.5: there may be no RDATA.
            shown["rdata"] = "" if without_rdata else self.rdata(rtype, rclass, start, end)
        except (dns.exception.DNSException, ValueError) as error:
            shown["rdata"] = generic(self.wire[start:end])
            shown["refused"] = f"{type(error).__name__}: {error}"
            self.flaws.append("MALFORMED_ANSWER")
        self.parser.seek(end)
        self.answers.append(shown)

    def rdata(self, rtype, rclass, start, end):
        with self.parser.restrict_to(end - start):
            of_class_in = rclass == 1 or rclass in LIKE_IN
            if rtype in OfYesterday.READERS and (of_class_in or rtype not in OfYesterday.IN_ONLY):
                text = OfYesterday.READERS[rtype](OfYesterday(self.parser))
                if self.parser.remaining() > 0:
                    raise dns.exception.FormError("bytes behind the RDATA")
                return text
            rdata = dns.rdata.from_wire_parser(
                1 if rclass in LIKE_IN else rclass, ALIKE.get(rtype, rtype), self.parser
            )
            if self.parser.remaining() > 0:
                raise dns.exception.FormError("bytes behind the RDATA")
        return rdata_text(rdata)

    def additional(self):
        name = self.parser.get_name()
        rtype, rclass, ttl, start, end = self.body()
        self.parser.seek(end)
        if rtype != OPT:
            return
        # One OPT a message, owned by the root (RFC 6891 §6.1.1, §6.1.2).
        if self.edns is not None or name != dns.name.root:
            self.flaws.append("MALFORMED_REST")
        if self.edns is None:
            self.rcode |= ttl >> 24 << 4
            self.edns = Edns(rclass, ttl)
            if not self.edns.read(self.wire[start:end]):
                self.flaws.append("MALFORMED_REST")

    def read(self):
        section = "MALFORMED_QUESTION"
        try:
            for _ in range(self.counts[0]):
                name = self.parser.get_name()
                self.questions.append((name_text(name), *self.parser.get_struct("!HH")))
            section = "MALFORMED_ANSWER"
            for _ in range(self.counts[1]):
                self.answer()
            section = "MALFORMED_REST"
            for _ in range(self.counts[2]):
                self.parser.get_name()
                self.parser.seek(self.body()[-1])
            for _ in range(self.counts[3]):
                self.additional()
            section = "TRAILING_BYTES" if self.parser.remaining() else "OK"
        except (dns.exception.DNSException, ValueError):
            pass
        self.flaws.append(section)
        return {
            **mnemonics.header(self.identifier, self.bits, self.counts),
            "rcode": mnemonics.rcode(self.rcode),
            **mnemonics.questions(self.questions),
            "answers": self.answers,
            **self.edns_fields(),
            "parse_status": "NOT_DNS" if self.is_other_protocol() else self.flaws[0],
        }

    def edns_fields(self):
        """Those of the query or of the response; the other's are null."""
        nothing = {field: [] if field == "edns_options" else None for field in Edns(0, 0).shown}
        sides = {"query": nothing, "response": nothing}
        if self.edns:
            sides["response" if self.bits & 0x8000 else "query"] = self.edns.shown
        return {f"{side}_{field}": value for side, fields in sides.items() for field, value in fields.items()}

    def is_other_protocol(self):
        """True for a header that no DNS message has: see docs/decisions/messages.md."""
        opcode, response = self.bits >> 11 & 15, self.bits & 0x8000
        if opcode == 0 and not response and not any(self.counts):
            return True
        if self.flaws[0] == "OK" or self.questions or self.answers or self.edns:
            return False
        too_much = 5 * self.counts[0] + 11 * sum(self.counts[1:]) > 65_535 - 12
        return too_much or (opcode in (3, *range(7, 16)) and len(self.wire) > 12)


class Edns:
    """An OPT record (RFC 6891 §6.1.3)."""

    def __init__(self, rclass, ttl):
        self.shown = {
            "edns_version": ttl >> 16 & 0xFF,
            "edns_udp_size": rclass,
            "edns_dnssec_ok": ttl & 0x8000 != 0,
            "client_subnet": None,
            "nsid": None,
            "cookie": None,
            "extended_error": None,
            "extended_error_text": None,
            "edns_padding": None,
            "edns_options": [],
        }

    def read(self, octets):
        """Takes the options; false if one is malformed."""
        parser, well_formed = dns.wire.Parser(octets), True
        while parser.remaining() > 0:
            if parser.remaining() < 2:
                return False
            code = parser.get_uint16()
            if parser.remaining() < 2 or parser.remaining() - 2 < int.from_bytes(octets[parser.current:][:2], "big"):
                self.other(code, octets[parser.current + 2:])
                return False
            value = parser.get_counted_bytes(2)
            try:
                taken = self.take(code, value)
            except (dns.exception.DNSException, ValueError):
                taken = well_formed = False
            if not taken:
                self.other(code, value)
        return well_formed

    def other(self, code, value):
        self.shown["edns_options"].append({"code": code, "data": value.hex()})

    def take(self, code, value):
        """Puts an option where it belongs; false if there is no place for it, or it is taken."""
        if code == dns.edns.EDE:
            return self.extended_error(value)
        if code == dns.edns.PADDING:
            return self.put(edns_padding=len(value))
        if code == dns.edns.ECS and len(value) >= 4 and value[:2] == b"\0\0" and not self.shown["client_subnet"]:
            # No family, hence no address; dnspython refuses it, RFC 7871 does not.
            if any(value):
                raise ValueError("a prefix or an address of no family")
            return len(value) == 4 and self.put(client_subnet="0.0.0.0/0")
        if code == dns.edns.ECS and len(value) >= 4 and value[:2] not in (b"\0\1", b"\0\2"):
            return False  # a family that RFC 7871 §6 does not know
        if code == dns.edns.ECS and self.shown["client_subnet"] is None:
            subnet = dns.edns.option_from_wire(code, value, 0, len(value))
            if len(value) - 4 != (subnet.srclen + 7) // 8:
                raise ValueError("an address of another length than the prefix takes")
            return self.put(client_subnet=f"{ipaddress.ip_address(subnet.address)}/{subnet.srclen}")
        if code == dns.edns.COOKIE and self.shown["cookie"] is None:
            option = dns.edns.option_from_wire(code, value, 0, len(value))
            return self.put(cookie=(option.client + option.server).hex())
        if code == dns.edns.NSID:
            return self.put(nsid=dns.edns.option_from_wire(code, value, 0, len(value)).nsid.hex())
        return False

    def extended_error(self, value):
        if self.shown["extended_error"] is not None:
            return False
        if len(value) < 2:
            raise ValueError("no INFO-CODE")
        # dnspython refuses what is not UTF-8 and keeps control characters; we replace either.
        text = value[2:].removesuffix(b"\0").decode("utf-8", "replace")
        text = "".join("\ufffd" if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in text)
        return self.put(extended_error=int.from_bytes(value[:2], "big"), extended_error_text=text)

    def put(self, **fields):
        if any(self.shown[field] is not None for field in fields):
            return False
        self.shown.update(fields)
        return True


for line in sys.stdin:
    print(json.dumps(Reader(bytes.fromhex(line)).read()))
