"""Reads DNS messages from a capture by tshark, and prints a line of JSON for each.

    read_tshark.py CAPTURE

Two passes, with IP fragments and TCP streams joined and tunnels opened. The lines have the fields
and conventions of `tap53 replay --messages` as far as tshark shows what is in them:

- a name with an octet outside letters, digits, `-`, `_` and `*` is null: tshark shows it unescaped,
  so that a dot within a label looks like one between labels
- so is the owner of SRV, which it shows in parts of its own
- RDATA is null where it shows a type in parts; the types below have one form in either
"""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import mnemonics

OPTIONS = [
    "tcp.desegment_tcp_streams:TRUE",
    "tcp.reassemble_out_of_order:TRUE",
    "tcp.check_checksum:FALSE",
    "udp.check_checksum:FALSE",
    "ip.check_checksum:FALSE",
    "ip.defragment:TRUE",
    "ipv6.defragment:TRUE",
    "dns.desegment_dns_messages:TRUE",
]
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_*-]+(\.[A-Za-z0-9_*-]+)*")
# Headings of the first two sections; those of an UPDATE have names of their own (RFC 2136 §2).
QUESTIONS, ANSWERS = ("Queries", "Zone"), ("Answers", "Prerequisites")
# Fields of RDATA in presentation order, of the types whose parts tshark shows unambiguously.
RDATA = {
    1: ["dns.a"],
    28: ["dns.aaaa"],
    2: ["dns.ns"],
    5: ["dns.cname"],
    12: ["dns.ptr.domain_name"],
    39: ["dns.dname"],
    15: ["dns.mx.preference", "dns.mx.mail_exchange"],
    6: [
        "dns.soa.mname", "dns.soa.rname", "dns.soa.serial_number", "dns.soa.refresh_interval",
        "dns.soa.retry_interval", "dns.soa.expire_limit", "dns.soa.minimum_ttl",
    ],
    33: ["dns.srv.priority", "dns.srv.weight", "dns.srv.port", "dns.srv.target"],
    17: ["dns.rp.mailbox", "dns.rp.txt_rr"],
    18: ["dns.afsdb.subtype", "dns.afsdb.hostname"],
    21: ["dns.rt.subtype", "dns.rt.intermediate_host"],
    38: ["dns.a6.prefix_len", "dns.a6.address_suffix", "dns.a6.prefix_name"],
    36: ["dns.kx.preference", "dns.kx.key_exchange"],
}
NAMES = re.compile(r"dns\.(ns|cname|dname|ptr\.domain_name|mx\.mail_exchange|soa\.[mr]name|srv\.target"
                   r"|rp\..*|a6\.prefix_name|afsdb\.hostname|rt\.intermediate_host|kx\.key_exchange)")


def plain_name(text):
    if text == "<Root>":
        return "."
    return text.lower() if text and PLAIN_NAME.fullmatch(text) else None


def shown(element, name):
    field = next((field for field in element.iter("field") if field.get("name") == name), None)
    return None if field is None else field.get("show")


def number(element, name):
    text = shown(element, name)
    return None if text is None else int(text, 0)


def rdata(element, rtype):
    parts = []
    for name in RDATA.get(rtype, []):
        text = shown(element, name)
        if text is not None and NAMES.fullmatch(name):
            text = plain_name(text)
        if text is None:
            return None
        parts.append(text)
    return " ".join(parts) if parts else None


def questions(section):
    for entry in section.findall("field"):
        rtype, rclass = number(entry, "dns.qry.type"), number(entry, "dns.qry.class")
        if rtype is not None and rclass is not None:
            yield plain_name(shown(entry, "dns.qry.name")), rtype, rclass


def answers(section):
    for entry in section.findall("field"):
        rtype = number(entry, "dns.resp.type")
        if rtype is None or shown(entry, "dns.resp.len") is None:
            return  # malformed from here on
        rclass = number(entry, "dns.resp.class")
        yield {
            "name": plain_name(shown(entry, "dns.resp.name")),
            "type": mnemonics.rtype(rtype),
            # An OPT record has other things in place of class and TTL.
            "class": None if rclass is None else mnemonics.rclass(rclass),
            "ttl": number(entry, "dns.resp.ttl"),
            # It shows the RDATA of any class as that of class IN.
            "rdata": rdata(entry, rtype) if rclass == 1 else None,
        }


def message(dns):
    def count(*names):
        fields = (number(dns, f"dns.count.{name}") for name in names)
        return next((value for value in fields if value is not None), None)

    counts = [
        count("queries", "zones"), count("answers", "prerequisites"), count("auth_rr", "updates"), count("add_rr"),
    ]
    asked, answered = [], []
    for section in dns.findall("field"):
        if section.get("name"):
            continue
        if section.get("show") in QUESTIONS:
            asked += questions(section)
        elif section.get("show") in ANSWERS:
            answered += answers(section)
    flags = number(dns, "dns.flags")
    extended = number(dns, "dns.resp.ext_rcode") or 0
    return {
        **mnemonics.header(number(dns, "dns.id"), flags, counts),
        "rcode": mnemonics.rcode(extended << 4 | flags & 15),
        **mnemonics.questions(asked),
        "answers": answered,
    }


def packet_messages(packet):
    frame, network, transport, found = 0, None, None, []
    for proto in packet.findall("proto"):
        name = proto.get("name")
        if name == "geninfo":
            frame = number(proto, "num")
        elif name in ("ip", "ipv6"):
            network = (shown(proto, f"{name}.src"), shown(proto, f"{name}.dst"))
        elif name in ("udp", "tcp"):
            transport = (name.upper(), number(proto, f"{name}.srcport"), number(proto, f"{name}.dstport"))
        elif name == "dns" and shown(proto, "dns.flags") is not None:
            content = message(proto)
            source, destination = zip(network, transport[1:])
            found.append({
                "response_frame" if content["response"] else "query_frame": frame,
                "transport": transport[0],
                **mnemonics.endpoints(content["response"], source, destination),
                **content,
                "malformed": False,
            })
        elif name == "_ws.malformed" and found:
            found[-1]["malformed"] = True
    return found


def main():
    command = ["tshark", "-r", sys.argv[1], "-n", "-2", "-T", "pdml"]
    for option in OPTIONS:
        command += ["-o", option]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tshark:
        parser = ElementTree.XMLPullParser()
        for line in tshark.stdout:
            # tshark writes some octets of packets as they are, where XML has no place for them.
            parser.feed(NOT_XML.sub("\ufffd", line.decode("utf-8", "replace")))
            for _, element in parser.read_events():
                if element.tag == "packet":
                    for found in packet_messages(element):
                        print(json.dumps(found))
                    element.clear()
    if tshark.returncode != 0:
        sys.exit(f"tshark exited with status {tshark.returncode}")


main()
