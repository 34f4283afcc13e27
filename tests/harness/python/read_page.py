"""Reads an HTML page with the parsers of Python, and prints what is in it as one JSON object.

    read_page.py FILE

It must be well-formed XML, and the HTML parser must find the same elements: `elements` counts them by
name, `attributes` lists the names of all attributes, `loaded` what the page would load, and `cells` has
the texts of the cells of its tables.
"""

import collections
import html.parser
import json
import sys
import xml.etree.ElementTree


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.elements = collections.Counter()
        self.attributes = set()
        self.loaded = []
        self.cells = []
        self.in_cell = False

    def handle_starttag(self, tag, attributes):
        self.elements[tag] += 1
        for name, value in attributes:
            self.attributes.add(name)
            if name in ("src", "href", "srcset", "action", "data"):
                self.loaded.append(value)
        if tag == "td":
            self.in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag == "td":
            self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.cells[-1] += data


def main(arguments):
    if len(arguments) != 1:
        sys.exit(__doc__)
    with open(arguments[0], encoding="utf-8") as file:
        text = file.read()
    page = Page()
    page.feed(text)
    page.close()
    root = xml.etree.ElementTree.fromstring(text)
    names = collections.Counter(element.tag.rsplit("}", 1)[-1] for element in root.iter())
    if names != page.elements:
        sys.exit(f"XML has {names}, HTML has {page.elements}")
    print(
        json.dumps(
            {
                "elements": page.elements,
                "attributes": sorted(page.attributes),
                "loaded": page.loaded,
                "cells": page.cells,
            }
        )
    )


main(sys.argv[1:])
