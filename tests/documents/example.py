"""Writes the capture of the manual, docs/example.pcap: python3 example.py FILE, with scapy and dnspython."""

import sys

from dns import edns, message, rrset
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

BEGIN = 1_795_000_000
CLIENT, SERVER = "10.1.2.3", "10.96.0.10"
frames = []


def add(at, dns, port, response=False):
    source, destination = (SERVER, CLIENT) if response else (CLIENT, SERVER)
    ports = (53, port) if response else (port, 53)
    frame = (
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src=source, dst=destination, id=len(frames) + 1)
        / UDP(sport=ports[0], dport=ports[1])
        / Raw(dns.to_wire())
    )
    frame.time = BEGIN + at
    frames.append(frame)


def query(name, qtype, identifier, **edns_arguments):
    made = message.make_query(name, qtype, **edns_arguments)
    made.id = identifier
    return made


def response(to, *answers, rcode=0):
    made = message.make_response(to, recursion_available=True)
    made.set_rcode(rcode)
    made.answer.extend(rrset.from_text(*answer) for answer in answers)
    return made


# EDNS, a CNAME and an address.
options = [
    edns.ECSOption("203.0.113.0", 24),
    edns.CookieOption(bytes.fromhex("24a5ac1102030405"), b""),
]
asked = query("www.example.com", "A", 0x1A2B, use_edns=0, payload=1232, want_dnssec=True, options=options)
add(0, asked, 40001)
www = ("www.example.com.", 300, "IN", "CNAME", "web.example.com.")
web = ("web.example.com.", 60, "IN", "A", "192.0.2.10")
add(0.004213, response(asked, www, web), 40001, response=True)

# Sent again, then SERVFAIL.
asked = query("slow.example.com", "AAAA", 7)
add(1, asked, 40002)
add(3, asked, 40002)
add(3.5, response(asked, rcode=2), 40002, response=True)

# A forged response, with a wrong identifier, before the genuine one.
asked = query("bank.example.com", "A", 0x1000)
forged = response(asked, ("bank.example.com.", 300, "IN", "A", "198.51.100.66"))
forged.id = 0x1001
add(10, asked, 40003)
add(10.001, forged, 40003, response=True)
add(10.02, response(asked, ("bank.example.com.", 300, "IN", "A", "192.0.2.20")), 40003, response=True)

# Never answered; and asked when the capture ends.
add(20, query("gone.example.com", "MX", 9), 40004)
add(40, query("end.example.com", "A", 10), 40005)

wrpcap(sys.argv[1], frames)
