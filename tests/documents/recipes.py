"""Runs the SQL blocks of a page (standard input) on records (FILE, lines of JSON), and prints how many ran."""

import re
import sys

import duckdb

database = duckdb.connect()
database.execute("CREATE TABLE dns_transactions AS FROM read_json($file)", {"file": sys.argv[1]})
blocks = re.findall(r"```sql\n(.*?)```", sys.stdin.read(), re.DOTALL)
for block in blocks:
    try:
        database.execute(block).fetchall()
    except duckdb.Error as error:
        sys.exit(f"{error}\nin\n{block}")
print(len(blocks))
