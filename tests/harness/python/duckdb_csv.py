"""DuckDB's command line as far as the manual's walks use it: duckdb [-csv] [-cmd COMMAND]... STATEMENT

A COMMAND is a statement, or ".read FILE". The rows of the last statement come out as CSV with a line of names.
"""

import csv
import sys

import duckdb

connection = duckdb.connect()
arguments = [argument for argument in sys.argv[1:] if argument not in ("-csv", "-cmd")]
for command in arguments:
    if command.startswith(".read "):
        with open(command.removeprefix(".read ")) as file:
            command = file.read()
    result = connection.execute(command)
writer = csv.writer(sys.stdout, lineterminator="\n")
writer.writerow(column[0] for column in result.description)
writer.writerows(result.fetchall())
