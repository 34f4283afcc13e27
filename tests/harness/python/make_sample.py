"""Makes the sample of the manual: 10,000 records of two nodes of a small cluster, over two days.

    make_sample.py TAP53 OUTPUT

Writes dns_transactions.avro into the directory OUTPUT. A seed decides about the traffic, dnspython makes its
messages, and `TAP53 replay` reads them from a capture of each node, so that each field is what the agent
writes. A replay knows no pods: their names are added, as is the name of the interface, and identifiers that
differ in each run are replaced. No part of it is real traffic; names and addresses are those that are
reserved for documentation, and private ones.
"""

import base64
import datetime
import json
import random
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import fastavro

SEED = 53
RECORDS = 10_000
BEGIN = datetime.datetime(2026, 11, 27, tzinfo=datetime.timezone.utc).timestamp()
DAY = 86_400
DAYS = 2
NODES = {"node-1": bytes.fromhex("53000000000000a1"), "node-2": bytes.fromhex("53000000000000a2")}
SNAP_LENGTH = 262_144
LINKTYPE_RAW = 101
TCP_SYN, TCP_PUSH_ACK, TCP_FIN_ACK, TCP_SYN_ACK, TCP_ACK = 2, 0x18, 0x11, 0x12, 0x10


@dataclass(frozen=True)
class Pod:
    address: str
    node: str
    namespace: str
    name: str
    kind: str | None = None
    workload: str | None = None

    def fields(self, side):
        uid = random.Random(self.address).getrandbits(128)
        return {
            f"{side}_attribution": "POD",
            f"{side}_attribution_source": "ADDRESS",
            f"{side}_pod_uid": f"{uid:032x}",
            f"{side}_pod_name": self.name,
            f"{side}_pod_namespace": self.namespace,
            f"{side}_workload_kind": self.kind,
            f"{side}_workload_name": self.workload,
            f"{side}_node_name": self.node,
        }


RESOLVER = Pod("10.244.2.2", "node-2", "kube-system", "coredns-6f9c-2", "Deployment", "coredns")
WEB = [
    Pod("10.244.1.10", "node-1", "shop", "web-5d8f-a", "Deployment", "web"),
    Pod("10.244.2.10", "node-2", "shop", "web-5d8f-b", "Deployment", "web"),
]
CART = Pod("10.244.1.11", "node-1", "shop", "cart-0", "StatefulSet", "cart")
CHECKOUT = Pod("10.244.2.11", "node-2", "shop", "checkout-77b-a", "Deployment", "checkout")
LEGACY = Pod("10.244.1.20", "node-1", "media", "thumbnails-9c4-a", "Deployment", "thumbnails")
REPORT = Pod("10.244.2.21", "node-2", "batch", "report-2950-x", "CronJob", "report")
SCRATCH = Pod("10.244.1.30", "node-1", "lab", "scratch")
MINER = Pod("10.244.2.31", "node-2", "lab", "notebook-0", "StatefulSet", "notebook")
PODS = [RESOLVER, *WEB, CART, CHECKOUT, LEGACY, REPORT, SCRATCH, MINER]
OWNERS = {pod.address: pod for pod in PODS}
UPSTREAM, FOREIGN = "192.0.2.53", "198.51.100.53"

SERVICES = {
    "cart.shop.svc.cluster.local": "10.96.11.1",
    "checkout.shop.svc.cluster.local": "10.96.11.2",
    "postgres.data.svc.cluster.local": "10.96.12.1",
}


@dataclass
class Name:
    """What upstream knows of a name."""

    ttl: int = 300
    ipv4: list = field(default_factory=list)
    ipv6: list = field(default_factory=list)
    aliases: list = field(default_factory=list)
    latency: float = 0.008
    rcode: str = "NOERROR"
    answer_share: float = 1.0


PUBLIC = {
    "api.payments.example.com": Name(30, ["203.0.113.10", "203.0.113.11"], latency=0.012),
    "www.example.com": Name(300, ["203.0.113.20"], ["2001:db8::20"]),
    "static.example.net": Name(20, ["203.0.113.30"], aliases=["static.cdn-edge.test"], latency=0.006),
    "images.example.org": Name(20, ["203.0.113.30"], aliases=["img.example.org", "static.cdn-edge.test"]),
    "packages.mirror.test": Name(3600, ["203.0.113.40"], ["2001:db8::40"], latency=0.030),
    "auth.partner.test": Name(5, ["203.0.113.50"], latency=0.095),
    "rates.bank.test": Name(60, ["203.0.113.60"], latency=0.040),
    "telemetry.vendor.test": Name(60, ["203.0.113.70"], latency=0.020, answer_share=0.5),
    "broken.partner.test": Name(rcode="SERVFAIL", latency=0.400),
    "login.rebind.test": Name(1, ["203.0.113.80"], latency=0.010),
}


class Capture:
    """What the interfaces of a node see."""

    def __init__(self):
        self.frames = []

    def add(self, at, frame, cut=None):
        self.frames.append((round(at * 1e6), frame, cut))

    def write(self, path):
        out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP_LENGTH, LINKTYPE_RAW)]
        for at, frame, cut in sorted(self.frames, key=lambda frame: frame[0]):
            seen = frame[:cut]
            out.append(struct.pack("<IIII", at // 10**6, at % 10**6, len(seen), len(frame)) + seen)
        path.write_bytes(b"".join(out))


def octets(address):
    return bytes(map(int, address.split(".")))


def internet_checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source, destination, protocol, payload, hop_limit):
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, hop_limit, protocol, 0)
    header += octets(source) + octets(destination)
    return header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:] + payload


def udp(source, source_port, destination, destination_port, message, hop_limit=64):
    header = struct.pack("!HHHH", source_port, destination_port, 8 + len(message), 0)
    return packet(source, destination, 17, header + message, hop_limit)


def tcp(source, source_port, destination, destination_port, sequence, acknowledged, flags, payload=b""):
    header = struct.pack("!HHIIBBHHH", source_port, destination_port, sequence, acknowledged, 0x50, flags, 64_000, 0, 0)
    return packet(source, destination, 6, header + payload, 64)


class Traffic:
    """Questions of the cluster, in the captures of its nodes."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.captures = {node: Capture() for node in NODES}
        self.cached = {}

    def nodes(self, *addresses):
        """The nodes that see a packet between these addresses, nearest to the first one first."""
        owners = (OWNERS[address].node for address in addresses if address in OWNERS)
        return list(dict.fromkeys(owners))

    def send(self, at, source, destination, frame, cut=None):
        """Returns when the last node saw the frame."""
        for hop, node in enumerate(self.nodes(source, destination)):
            if hop:
                at += 0.000_2
            self.captures[node].add(at, frame, cut)
        return at

    def query(self, qname, qtype):
        return dns.message.make_query(qname, qtype, use_edns=0, payload=1232, id=self.random.getrandbits(16))

    def exchange(self, at, client, server, query, answer, *, took=0.000_5, lost=False, tries=1, cut=None, port=None):
        """Sends a query and the response `answer`; returns when the client has it, unless it is `lost`."""
        port = port or self.random.randrange(32_768, 60_999)
        wire = query.to_wire()
        frame = udp(client, port, server, 53, wire)
        for _ in range(tries - 1):
            self.send(at, client, server, frame)
            at += 2.5
        arrived = self.send(at, client, server, frame)
        if answer is None:
            return at
        reply = udp(server, 53, client, port, answer.to_wire())
        if lost:
            return self.lose(arrived + took, server, client, reply)
        return self.send(arrived + took, server, client, reply, cut)

    def lose(self, at, source, destination, frame):
        """Only the first node sees the frame."""
        self.captures[self.nodes(source, destination)[0]].add(at, frame)
        return at

    def response(self, query, rcode="NOERROR", authoritative=False, extended_error=None):
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.from_text(rcode))
        if authoritative:
            response.flags |= dns.flags.AA
        if extended_error is not None:
            response.use_edns(0, options=[dns.edns.EDEOption(extended_error)], payload=1232)
        if rcode == "NXDOMAIN":
            soa = "ns.test. admin.test. 1 7200 900 1209600 30"
            zone = "cluster.local." if authoritative else "test."
            response.authority.append(dns.rrset.from_text(zone, 30, "IN", "SOA", soa))
        return response

    def answer(self, query, ttl):
        """What is known of the name, with what remains of its TTL."""
        question = query.question[0]
        qname, qtype = question.name.to_text().rstrip("."), dns.rdatatype.to_text(question.rdtype)
        known = PUBLIC[qname]
        response = self.response(query, known.rcode, extended_error=22 if known.rcode == "SERVFAIL" else None)
        owner = qname
        for alias in known.aliases:
            response.answer.append(dns.rrset.from_text(owner + ".", ttl, "IN", "CNAME", alias + "."))
            owner = alias
        addresses = {"A": known.ipv4, "AAAA": known.ipv6}.get(qtype, [])
        if addresses:
            response.answer.append(dns.rrset.from_text(owner + ".", ttl, "IN", qtype, *addresses))
        return response

    def public(self, at, client, qname, qtype):
        """A question for a public name, from the cache or through upstream; returns when it ended."""
        known = PUBLIC[qname]
        query = self.query(qname, qtype)
        expires = self.cached.get((qname, qtype), 0)
        if at < expires:
            answer = self.answer(query, max(1, int(expires - at)))
            return self.exchange(at, client, RESOLVER.address, query, answer, took=self.jitter(0.000_3))
        if self.random.random() > known.answer_share:
            self.exchange(at + 0.000_4, RESOLVER.address, UPSTREAM, self.query(qname, qtype), None)
            return self.exchange(at, client, RESOLVER.address, query, None, tries=2)
        upstream_query = self.query(qname, qtype)
        took = self.jitter(known.latency)
        arrived = at + 0.000_2
        self.exchange(
            arrived + 0.000_2, RESOLVER.address, UPSTREAM, upstream_query, self.answer(upstream_query, known.ttl), took=took
        )
        if known.rcode == "NOERROR":
            self.cached[qname, qtype] = at + took + known.ttl
        return self.exchange(at, client, RESOLVER.address, query, self.answer(query, known.ttl), took=took + 0.000_5)

    def jitter(self, seconds):
        return seconds * self.random.lognormvariate(0, 0.4)

    def absent(self, at, client, qname, qtype="A", *, authoritative=True, **how):
        query = self.query(qname, qtype)
        response = self.response(query, "NXDOMAIN", authoritative)
        return self.exchange(at, client, RESOLVER.address, query, response, took=self.jitter(0.000_2), **how)

    def service(self, at, client, qname, qtype):
        query = self.query(qname, qtype)
        response = self.response(query, authoritative=True)
        if qtype == "A":
            response.answer.append(dns.rrset.from_text(qname + ".", 5, "IN", "A", SERVICES[qname]))
        return self.exchange(at, client, RESOLVER.address, query, response, took=self.jitter(0.000_2))

    def look_up(self, at, pod, name):
        """A lookup of the C library with ndots:5: A and AAAA of each name of the search list."""
        suffixes = [f"{pod.namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        for suffix in suffixes:
            full = f"{name}.{suffix}"
            ended = []
            for offset, qtype in ((0, "A"), (0.000_03, "AAAA")):
                find = self.service if full in SERVICES else self.absent
                ended.append(find(at + offset, pod.address, full, qtype))
            if full in SERVICES:
                return
            at = max(ended) + 0.000_1
        self.direct(at, pod, name)

    def direct(self, at, pod, name, types=("A", "AAAA")):
        for offset, qtype in enumerate(types):
            self.public(at + offset * 0.000_03, pod.address, name, qtype)


def plan(traffic):
    """Yields (time, function) of everything that happens."""
    draw = traffic.random

    def times(per_day, first=0, days=DAYS, begin=0, end=DAY):
        for day in range(first, days):
            for _ in range(per_day):
                yield BEGIN + day * DAY + draw.uniform(begin, end)

    def each(moments, function, *arguments):
        for at in moments:
            yield at, function, arguments

    # The shop, by day more than by night, with the search list's waste.
    office = {"begin": 7 * 3600, "end": 20 * 3600}
    for pod in WEB:
        yield from each(times(26, **office), traffic.look_up, pod, "www.example.com")
        yield from each(times(28, **office), traffic.look_up, pod, "api.payments.example.com")
        yield from each(times(60, **office), traffic.look_up, pod, "cart")
    yield from each(times(60), traffic.direct, CHECKOUT, "rates.bank.test")
    yield from each(times(100), traffic.direct, CHECKOUT, "auth.partner.test")
    yield from each(times(40), traffic.look_up, CART, "postgres.data")
    # Names that share the target of their aliases.
    for name in ("static.example.net", "images.example.org"):
        yield from each(times(85), traffic.direct, CART, name)
    # A service that was removed, and whose name is still configured.
    yield from each(
        times(204), lambda at, name: traffic.absent(at, LEGACY.address, name), "thumbs.media.svc.cluster.local"
    )
    # A report each night: packages, and a server that fails for an hour.
    yield from each(times(80, begin=3600, end=2 * 3600), traffic.direct, REPORT, "packages.mirror.test")
    yield from each(times(90, begin=3 * 3600, end=4 * 3600), traffic.direct, REPORT, "broken.partner.test", ("A",))
    # Half of these get no answer, after a repetition.
    yield from each(times(60), traffic.direct, CHECKOUT, "telemetry.vendor.test", ("A",))
    for at in times(14):
        yield at, lose_response, (traffic,)
    for at in times(25):
        yield at, truncated, (traffic,)
    for at in times(8):
        yield at, cut, (traffic,)
    for at in times(3, first=1):
        yield at, conflict, (traffic,)
    for at in times(60, first=1, begin=9 * 3600, end=17 * 3600):
        yield at, foreign, (traffic,)
    yield BEGIN + DAY + 10 * 3600, rebinding, (traffic,)
    yield BEGIN + DAY + 13.2 * 3600, tunnel, (traffic,)
    yield BEGIN + DAY + 15.1 * 3600, generated, (traffic,)


def lose_response(at, traffic):
    """The resolver answers, and no answer reaches the client's node."""
    query = traffic.query("checkout.shop.svc.cluster.local", "A")
    response = traffic.response(query, authoritative=True)
    response.answer.append(dns.rrset.from_text("checkout.shop.svc.cluster.local.", 5, "IN", "A", "10.96.11.2"))
    traffic.exchange(at, CART.address, RESOLVER.address, query, response, lost=True)


def truncated(at, traffic):
    """A key set that does not fit over UDP, and again over TCP."""
    client, port = CHECKOUT.address, traffic.random.randrange(32_768, 60_999)
    query = traffic.query("signed.bank.test", "TXT")
    short = traffic.response(query)
    short.flags |= dns.flags.TC
    at = traffic.exchange(at, client, RESOLVER.address, query, short) + 0.000_3
    query = traffic.query("signed.bank.test", "TXT")
    whole = traffic.response(query)
    parts = [f'"key {number} {"k" * 200}"' for number in range(8)]
    whole.answer.append(dns.rrset.from_text("signed.bank.test.", 600, "IN", "TXT", *parts))
    framed = [struct.pack("!H", len(wire)) + wire for wire in (query.to_wire(), whole.to_wire(max_size=65_535))]
    query_end, response_end = 1001 + len(framed[0]), 2001 + len(framed[1])
    there, back = (client, port, RESOLVER.address, 53), (RESOLVER.address, 53, client, port)
    segments = [
        (there, 1000, 0, TCP_SYN, b""),
        (back, 2000, 1001, TCP_SYN_ACK, b""),
        (there, 1001, 2001, TCP_ACK, b""),
        (there, 1001, 2001, TCP_PUSH_ACK, framed[0]),
        (back, 2001, query_end, TCP_PUSH_ACK, framed[1]),
        (there, query_end, response_end, TCP_FIN_ACK, b""),
        (back, response_end, query_end + 1, TCP_FIN_ACK, b""),
    ]
    for number, (ends, sequence, acknowledged, flags, payload) in enumerate(segments):
        frame = tcp(*ends, sequence, acknowledged, flags, payload)
        traffic.send(at + number * 0.000_2, ends[0], ends[2], frame)


def cut(at, traffic):
    """A response that the capture cut, so that its end is unknown."""
    query = traffic.query("checkout.shop.svc.cluster.local", "A")
    response = traffic.response(query, authoritative=True)
    response.answer.append(dns.rrset.from_text("checkout.shop.svc.cluster.local.", 5, "IN", "A", "10.96.11.2"))
    traffic.exchange(at, WEB[0].address, RESOLVER.address, query, response, cut=60)


def conflict(at, traffic):
    """Two answers to one query that differ, before the name's own answer is known."""
    query = traffic.query("www.example.com", "A")
    port = traffic.random.randrange(32_768, 60_999)
    for number, address in enumerate(("198.51.100.66", "203.0.113.20")):
        response = traffic.response(query)
        response.answer.append(dns.rrset.from_text("www.example.com.", 300, "IN", "A", address))
        frame = udp(FOREIGN, 53, MINER.address, port, response.to_wire())
        if number == 0:
            traffic.send(at, MINER.address, FOREIGN, udp(MINER.address, port, FOREIGN, 53, query.to_wire()))
        traffic.send(at + 0.004 + 0.003 * number, FOREIGN, MINER.address, frame)


def foreign(at, traffic):
    """A pod that asks a server outside of the cluster."""
    query = traffic.query("pool.mine.test", "A")
    response = traffic.response(query)
    response.answer.append(dns.rrset.from_text("pool.mine.test.", 60, "IN", "A", "198.51.100.77"))
    traffic.exchange(at, MINER.address, FOREIGN, query, response, took=traffic.jitter(0.015))


def rebinding(at, traffic):
    """A public name whose second answer is an address of the cluster."""
    for number in range(6):
        query = traffic.query("login.rebind.test", "A")
        response = traffic.response(query)
        address = "203.0.113.80" if number % 2 == 0 else "10.96.12.1"
        response.answer.append(dns.rrset.from_text("login.rebind.test.", 1, "IN", "A", address))
        traffic.exchange(at + 2 * number, WEB[0].address, RESOLVER.address, query, response, took=0.011)


def tunnel(at, traffic):
    """Data in names, and back in TXT."""
    for number in range(180):
        data = traffic.random.randbytes(25)
        label = base64.b32encode(data).decode().lower().rstrip("=")
        query = traffic.query(f"{label}.{number:x}.t.exfil.test", "TXT")
        response = traffic.response(query)
        text = base64.b64encode(traffic.random.randbytes(90)).decode()
        response.answer.append(dns.rrset.from_text(query.question[0].name, 0, "IN", "TXT", f'"{text}"'))
        traffic.exchange(at + 0.7 * number, SCRATCH.address, RESOLVER.address, query, response, took=0.019)


def generated(at, traffic):
    """Domains that a program draws, of which one exists."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    for number in range(70):
        name = "".join(traffic.random.choices(letters, k=traffic.random.randrange(10, 16))) + ".test"
        if number == 52:
            query = traffic.query(name, "A")
            response = traffic.response(query)
            response.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "A", "198.51.100.99"))
            traffic.exchange(at + number, MINER.address, RESOLVER.address, query, response, took=0.02)
        else:
            traffic.absent(at + number, MINER.address, name, authoritative=False)


def replay(tap53, node, capture, directory):
    """The records of a capture, as the agent writes them."""
    output = directory / node
    output.mkdir()
    configuration = directory / f"{node}.yaml"
    configuration.write_text(
        f"node: {node}\nchains: {{enabled: true}}\nsinks: [{{type: file, directory: {output}}}]\n"
    )
    done = subprocess.run(
        [tap53, "replay", "--config", configuration, capture], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.args}: {done.stderr}")
    (file,) = output.glob("*.avro")
    with file.open("rb") as stream:
        reader = fastavro.reader(stream)
        return reader.writer_schema, list(reader)


def describe(record, node):
    """Adds what a replay cannot know."""
    fields = {"interface": "eth0", "run_id": NODES[node].hex()}
    if record["response_interface"]:
        fields["response_interface"] = "eth0"
    for side in ("query", "response"):
        fields |= {f"{side}_file": None, f"{side}_frame": None}
    for side in ("client", "server"):
        address = record[f"{side}_address"]
        owner = OWNERS.get(address)
        fields |= owner.fields(side) if owner else {f"{side}_attribution": "EXTERNAL"}
    at_client, at_server = (
        OWNERS[record[f"{side}_address"]].node == node if record[f"{side}_address"] in OWNERS else False
        for side in ("client", "server")
    )
    places = {(True, True): "SAME_NODE", (True, False): "CLIENT_NODE", (False, True): "SERVER_NODE"}
    fields["observation"] = places.get((at_client, at_server), "TRANSIT")
    for name in ("record_id", "related_record_id", "served_record_id", "search_group"):
        if record[name]:
            fields[name] = NODES[node] + record[name][8:]
    unknown = fields.keys() - record.keys()
    if unknown:
        sys.exit(f"the schema has no fields {sorted(unknown)}")
    return record | fields


def begun_at(record):
    return record["query_time"] or record["response_time"]


def main(tap53, output):
    # dnspython draws the order of addresses.
    random.seed(SEED)
    traffic = Traffic(SEED)
    for at, function, arguments in sorted(plan(traffic), key=lambda event: event[0]):
        function(at, *arguments)
    records = []
    with tempfile.TemporaryDirectory() as directory:
        for node, capture in traffic.captures.items():
            path = Path(directory) / f"{node}.pcap"
            capture.write(path)
            schema, read = replay(tap53, node, path, Path(directory))
            records += [describe(record, node) for record in read]
    records.sort(key=lambda record: (begun_at(record), record["record_id"]))
    surplus = len(records) - RECORDS
    if surplus < 1:
        sys.exit(f"{len(records)} records are too few")
    # Records that were lost on their way to the table: the surplus, at noon of the second day.
    noon = datetime.datetime.fromtimestamp(BEGIN + 1.5 * DAY, datetime.timezone.utc)
    lost = [record["record_id"] for record in records if begun_at(record) >= noon][:surplus]
    kept = [record for record in records if record["record_id"] not in set(lost)]
    with open(Path(output) / "dns_transactions.avro", "wb") as file:
        fastavro.writer(file, schema, kept, codec="deflate", codec_compression_level=9, sync_interval=256 * 1024,
                        sync_marker=bytes(16))
    print(json.dumps({"records": len(kept), "lost": surplus}))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
