"""Prints the queries that no server answered, from Avro files of a file sink.

    pip install fastavro
    python3 unanswered.py /var/lib/tap53/records/*.avro

A query with `capture_gap` may have been answered: its response may have passed without being captured.
"""

import sys
from collections import Counter

import fastavro


def unanswered(paths):
    """Yields each record of the files whose query is known to have no answer."""
    for path in paths:
        with open(path, "rb") as file:
            for record in fastavro.reader(file):
                if record["outcome"] == "UNANSWERED" and not record["capture_gap"]:
                    yield record


counts = Counter(
    (record["server_address"], record["qname"], record["qtype"]) for record in unanswered(sys.argv[1:])
)
for (server, name, qtype), count in counts.most_common():
    print(f"{count}\t{server}\t{qtype}\t{name}")
