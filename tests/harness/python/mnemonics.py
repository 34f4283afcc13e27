"""Numbers by their names, as `tap53 replay --messages` shows them."""

import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

# In IANA's registry of RR types, and unknown to dnspython.
for number, text in {
    31: "EID", 32: "NIMLOC", 34: "ATMA", 40: "SINK", 57: "RKEY", 58: "TALINK", 100: "UINFO", 101: "UID",
    102: "GID", 259: "DOA", 263: "CLA", 264: "IPN",
}.items():
    dns.rdatatype.register_type(number, text)


def opcode(number):
    if number == 6:
        return "DSO"  # RFC 8490; unknown to dnspython
    text = dns.opcode.to_text(number)
    return f"OPCODE{number}" if text.isdigit() else text


def rcode(number):
    text = dns.rcode.to_text(number)
    return f"RCODE{number}" if text.isdigit() else text


def rtype(number):
    return dns.rdatatype.to_text(number)


def rclass(number):
    # dnspython has a name of its own for a class that is reserved and has none.
    return "CLASS0" if number == 0 else dns.rdataclass.to_text(number)


def header(identifier, bits, counts):
    """What is in the first twelve bytes."""
    return {
        "dns_id": identifier,
        "response": bits & 0x8000 != 0,
        "opcode": opcode(bits >> 11 & 15),
        "authoritative": bits & 0x0400 != 0,
        "truncated": bits & 0x0200 != 0,
        "recursion_desired": bits & 0x0100 != 0,
        "recursion_available": bits & 0x0080 != 0,
        "authentic_data": bits & 0x0020 != 0,
        "checking_disabled": bits & 0x0010 != 0,
        "rcode": rcode(bits & 15),
        "question_count": counts[0],
        "answer_count": counts[1],
        "authority_count": counts[2],
        "additional_count": counts[3],
    }


def questions(entries):
    """`entries` are (name, type, class); the first has fields of its own."""
    shown = [{"name": name, "type": rtype(kind), "class": rclass(of)} for name, kind, of in entries]
    first = shown[0] if shown else {}
    return {**{f"q{field}": first.get(field) for field in ("name", "type", "class")}, "more_questions": shown[1:]}


def endpoints(is_response, source, destination):
    """The fields of (address, port) of the sender and of the receiver."""
    client, server = (destination, source) if is_response else (source, destination)
    return {
        "client_address": client[0],
        "client_port": client[1],
        "server_address": server[0],
        "server_port": server[1],
    }
